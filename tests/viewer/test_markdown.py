"""The viewer and the view of a cell draw Markdown alike: both have the rules of `rlm_kernel/html/prose.py`."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from rlm_kernel.html.markup import h, render
from rlm_kernel.html.prose import is_markdown, prose
from rlm_kernel.viewer import component

TEXTS = [
    "It costs $5 to $10.",
    "**Costs** $5 to $10, or $$x^2$$ and $x_i$, \\(a<b\\) and\n\\[ \\frac{a}{b} \\]",
    "# A\n### B\ntext\n## C",
    "one\ntwo *three* __four__ _five_ ~~six~~ `se*v*en`\n\neight",
    "- one\n- two\n  - three\n  - four\n- five",
    "3. three\n4. four\n\n   more\n\nafter",
    "- [ ] open\n* other",
    "| a | b |\n|---|--:|\n| 1 | *2* |\n| 3 |\nafter\n\ntext",
    "a | b\n--|:-:\n1 | 2",
    "> quoted\nlazy\n\nafter **b**",
    "```python\n# no heading\nx = '$5'\n```\nafter\n\n~~~\n<b>\n~~~",
    "text\n\n    indented\n      code\n\n**after**",
    "---\n\ntext\n\n***",
    "[a](javascript:x) **b** <script>alert(1)</script> ![x](y) <http://x>",
    "snake_case_name and __init__ and 2 * 3 * 4 and \\*no\\*",
    '{"a": "**b**"}',
    "  x  1\n  yy 2",
    "US$5_000 and $A_B/$C_D and `$HOME`",
    "$$ restaurants, $$",
    "**bold *and* more** and *em **strong** em*",
    "1. a\n   - b\n     ```\n     code\n     ```\n2. c",
    "# heading ##\ntext\n- item\ntext",
    "- a\n\n- b\n\n\n- c",
    "``a`b`` and ` c `",
]

OUTLINE = """\
(texts) => texts.map((text) => {
  const { proseNodes, isMarkdown } = modules.markdown;
  const walk = (node) => node.nodeType === 3 ? node.data
    : node.className === "formula" ? ["formula", node.textContent]
    : [node.tagName.toLowerCase(), [...node.childNodes].map(walk)];
  return [isMarkdown(text), proseNodes(text).map(walk)];
})"""


HARD = [10_000 // len(piece) * piece for piece in (
    "[", "*a ", "> ", "`", "- ", "$", "$$a", "\\[", "**a", "|", "_a", "`a", "# a\n", "$ ", "|-", "- a\n", "> a\n",
    "*a **b** ", "a\n",
)]  # fmt: skip


@pytest.fixture(scope="module")
def drawn(chromium):
    """What the viewer draws for the texts."""
    page = chromium.new_page()
    page.add_script_tag(content=scripts())
    try:
        yield dict(zip(TEXTS, page.evaluate(OUTLINE, TEXTS), strict=True))
    finally:
        page.close()


def scripts():
    names = ["foreign_text", "elements", "markdown"]
    return "\n".join(["const modules = {};", *map(component._as_function, names)])


def outline(node):
    if node.name is None:
        return str(node)
    return [node.name, [outline(child) for child in node.children]]


def flat(node):
    """Formulas as text, without the signs around them, and texts joined."""
    if isinstance(node, str):
        return node
    if node[0] == "formula":
        text = node[1]
        signs = "$$" if text.startswith(("$$", "\\[")) else "$"
        inside = text[2:-2] if text.startswith(("$$", "\\")) else text[1:-1]
        return f"{signs}{inside.replace('<', chr(92) + 'lt ')}{signs}"
    children = []
    for child in map(flat, node[1]):
        if isinstance(child, str) and children and isinstance(children[-1], str):
            children[-1] += child
        else:
            children.append(child)
    return [node[0], children]


@pytest.mark.parametrize("text", TEXTS)
def test_the_viewer_and_the_view_of_a_cell_draw_the_same(drawn, text):
    is_one, nodes = drawn[text]
    assert is_one == is_markdown(text)
    if is_one:
        body = BeautifulSoup(render(h("div", prose(text))), "html.parser").div
        assert flat(["div", nodes]) == flat(outline(body))


def test_no_text_takes_the_viewer_or_the_view_long(chromium):
    page = chromium.new_page()
    page.add_script_tag(content=scripts())
    for text in HARD:
        prose(text)
        page.evaluate("(text) => modules.markdown.proseNodes(text).length", text)
    page.close()

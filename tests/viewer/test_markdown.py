"""Words in the viewer: its elements are those that `rlm_kernel/html/prose.py` makes, and formulas are drawn."""

from __future__ import annotations

import json
import time

import pytest
from bs4 import BeautifulSoup
from viewer import long_logs
from viewer.conftest import shot

import rlm
from rlm_kernel.html.markup import h, render, render_output
from rlm_kernel.html.prose import MAX_MATHEMATICS, in_words, prose, prose_data
from rlm_kernel.viewer import component
from rlm_kernel.viewer.pages import standalone_page
from rlm_kernel.viewer.words import drawn, drawn_words

TEXTS = [
    "It costs **$5 to $10**.",
    "**Costs** $5 to $10, or $$x^2$$ and $x_i$, \\(a<b\\) and\n\\[ \\frac{a}{b} \\]",
    "# A\n### B\ntext\n## C",
    "one\ntwo *three* __four__ _five_ ~~six~~ `se*v*en`\n\neight",
    "3. three\n4. four\n\n   more\n\nafter",
    "| a | b |\n|---|--:|\n| 1 | *2* |\n| 3 |\nafter\n\ntext",
    "> quoted\nlazy\n\nafter **b**",
    "```python\n# no heading\nx = '$5'\n```\nafter\n\n~~~\n<b>\n~~~",
    "[a](javascript:x) **b** <script>alert(1)</script> ![x](y) <http://x>",
]
AS_IT_IS = [
    "It costs $5 to $10.",
    "US$5_000 and $A_B/$C_D",
    "$$ restaurants, $$",
    "snake_case_name and 2 * 3 * 4",
    '{"a": "**b**"}',
]
ACTIVE = [
    r"$\href{javascript:alert(1)}{x_1}$",
    r"$\class{owned}{x_1}$",
    r"$\style{position:fixed}{x_1}$",
    r"$\text{<img src=x onerror=alert(1)>}_1$",
    r"$\hspace{-99em}x_1\hspace{99999em}$",
    r"$\color{url(http://x)}x_1$",
]
HOSTILE = [
    "{",
    "}",
    "\\left(",
    "\\frac{",
    "\\begin{matrix}a&",
    "x_",
    "x^{",
    "\\sqrt[",
    "~",
    "\\phantom{",
    "\\mathbf{",
    "'",
    "_1^2",
]
ANSWER = """# The result

Costs are **$5 to $10** a seat; the mean is $\\bar{x} = \\frac{1}{n}\\sum_{i=1}^{n} x_i$.

$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$

### Details

| contract | notice | cost |
|---|--:|--:|
| Acme | 14 | $14,200 |

- first
- second \\( a_{ij} \\le b^2 \\)

\\[ A = \\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix} \\]"""

REFUSAL = """\
(nodes) => {
  try { modules.words.nodesFrom(nodes); return null; } catch (error) { return error.message; }
}"""
OUTLINE = """\
(all) => all.map((nodes) => {
  const named = (node) => [node.localName, node.namespaceURI.slice(-6), [...node.childNodes].map(walk)];
  const walk = (node) => node.nodeType === 3 ? node.data : named(node);
  return modules.words.nodesFrom(nodes).map((node) => typeof node === "string" ? node : walk(node));
})"""


@pytest.fixture
def story(logs):
    """A run whose question, words and answer are Markdown with formulas."""
    story = long_logs.Story(logs / "words.jsonl", question="What does $x_i$ cost: $5 to $10?")
    code = "print(1)"
    story.ask(1, f"{ANSWER}\n\n- in a list:\n  ```repl\n  {code}\n  ```\n\nAnd *after* it.")
    story.result(1, story.cell(1, code), code, [long_logs.stream("1\n")])
    story.finish_turn(1, ANSWER)
    story.finish(ANSWER)
    return logs / "words.jsonl"


def outline(node):
    if node.name is None:
        return str(node)
    within = "MathML" if node.name == "math" or node.find_parent("math") else "/xhtml"
    return [node.name, within, [outline(child) for child in node.children]]


def flat(nodes):
    """Without empty texts, and with texts joined."""
    joined = []
    for node in nodes:
        one = node if isinstance(node, str) else [*node[:2], flat(node[2])]
        if isinstance(one, str) and joined and isinstance(joined[-1], str):
            joined[-1] += one
        elif one:
            joined.append(one)
    return joined


def test_the_page_builds_what_python_makes(chromium):
    page = chromium.new_page()
    names = ["foreign_text", "elements", "words"]
    page.add_script_tag(
        content="\n".join([component.constants(), "const modules = {};", *map(component._as_function, names)])
    )
    built = page.evaluate(OUTLINE, [prose_data(text) for text in TEXTS])
    page.close()
    for text, nodes in zip(TEXTS, built, strict=True):
        body = BeautifulSoup(render(h("div", prose(text))), "html.parser").div
        assert flat(nodes) == flat(map(outline, body.children))


def test_an_element_that_words_do_not_have_is_an_error(chromium):
    page = chromium.new_page()
    page.add_script_tag(
        content=f"{component.constants()}\nconst modules = {{}};"
        + "\n".join(map(component._as_function, ["foreign_text", "elements", "words"]))
    )
    for nodes in (
        [["script", {}, ["alert(1)"]]],
        [["p", {"onclick": "alert(1)"}, []]],
        [["iframe", {}, []]],
        [["a", {"href": "http://x"}, []]],
    ):
        said = page.evaluate(
            REFUSAL,
            nodes,
        )
        assert said is not None, nodes
    page.close()


@pytest.mark.parametrize("text", AS_IT_IS)
def test_what_is_not_markdown_is_shown_as_it_is(text):
    assert prose_data(text) is None


@pytest.mark.parametrize("text", ACTIVE)
def test_a_formula_does_nothing(text):
    drawn_as = BeautifulSoup(render(prose(text)), "html.parser")
    assert drawn_as.find("math") is not None
    names = {name for element in drawn_as.find("math").find_all(True) for name in element.attrs}
    assert names <= {"mathcolor", "width", "display", "mathvariant"}
    widths = [element["width"] for element in drawn_as.find_all(width=True)]
    assert all(len(width) < 12 and not width.startswith("-") for width in widths)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_formulas_take_linear_time(piece):
    def cost(count):
        text = "\n\n".join([f"$x_1{piece * (1_900 // len(piece))}$"] * count)
        began = time.process_time()
        json.dumps(prose_data(text))
        return time.process_time() - began

    cost(1)
    assert cost(20) < 2.0
    text = " ".join(["$x_1$"] * 10_000)
    assert json.dumps(prose_data(text[:49_999])).count('"math"') <= MAX_MATHEMATICS / 5


def test_a_notebook_gets_tex_which_it_typesets_itself():
    assert "$x_1$" in render_output(prose("The **$x_1$**"))
    assert "<msub>" in render(prose("The **$x_1$**"))


def test_a_list_shows_words_without_marks():
    assert in_words("# The result\n\n**41** of `600`,\n$5 to $10\n\n- *one*") == "The result 41 of 600, $5 to $10 one"
    assert in_words("plain  text") == "plain  text"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_words_and_formulas_are_drawn_in_the_viewer(open_page, served, story, scheme, width):
    page = open_page(f"{served}#words.jsonl", color_scheme=scheme, viewport={"width": width, "height": 900})
    answer = page.locator(".outcome .passage-answer")
    answer.locator("math[display=block]").nth(1).wait_for()
    assert answer.locator("h3, h4").all_inner_texts() == ["The result", "Details"]
    assert answer.locator("strong").inner_text() == "$5 to $10"
    assert page.locator(".question math msub").count() == 1
    assert "$5 to $10?" in page.locator(".question").inner_text()
    box = answer.locator("math[display=block]").first.bounding_box()
    assert 20 < box["height"] < 120
    assert page.locator("li .cell .passage-code").inner_text() == "print(1)"  # a block of a list that ran
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot(page, f"viewer-words-{scheme}-{width}")


def test_a_page_in_a_file_holds_its_words(open_page, story, tmp_path):
    (tmp_path / "run.html").write_text(standalone_page(story))
    page = open_page((tmp_path / "run.html").as_uri())
    page.locator(".outcome math[display=block]").nth(1).wait_for()
    assert page.locator(".turn .passage-prose h3").inner_text() == "The result"
    shot(page, "viewer-words-in-a-file")


def test_the_words_of_children_are_held_and_outputs_are_not():
    child = {"type": "child", "line": {"type": "finished", "response": "**of a child**"}}
    output = {"type": "cell_result", "result": {"outputs": [{"text": "**output**"}]}}
    lines = [child, output, {"type": "answer", "text": "**of a sub-call**"}, {"type": "finished", "response": "plain"}]
    assert list(drawn_words("\n".join(map(json.dumps, lines)))) == ["**of a child**"]
    deep = "[" * 900 + '{"response": "**deep**"}' + "]" * 900
    assert list(drawn_words(f'{{"a": {deep}}}')) == ["**deep**"]


def test_words_that_the_server_does_not_draw_are_shown_as_they_are(open_page, served, story):
    page = open_page("about:blank")
    page.route("**/words", lambda route: route.fulfill(status=200, content_type="application/json", body="[]"))
    page.goto(f"{served}#words.jsonl?turn=1")
    page.get_by_role("heading", name="Turn 1").wait_for()
    assert "# The result" in page.locator(".turn .passage-prose").first.inner_text()
    assert page.locator(".cell .passage-code").inner_text() == "print(1)"


def test_only_texts_are_drawn():
    assert drawn(["**a**", "a"])[1] is None
    for odd in ({}, "text", [1], [None], [["**a**"]], ["a"] * 2_001):
        with pytest.raises(ValueError, match="texts"):
            drawn(odd)


def test_the_widget_draws_words(story, monkeypatch):
    widget = rlm.view(story)
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, _=None: sent.append(content))
    widget._answer(widget, {"words": ["**a**", "a"], "number": 7}, [])
    widget._answer(widget, {"words": [1], "number": 8}, [])
    assert [(one["number"], one["drawn"]) for one in sent] == [(7, drawn(["**a**", "a"]))]

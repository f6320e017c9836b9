"""What a model wrote is shown as text, whatever reads the Markdown: no HTML, image, link or formula of its own."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from rlm_kernel.trajectory.notebook import markdown

PIECES = r"""<script>alert(1)</script>|<img src=x onerror=alert(1)>|<b|>|</pre>|</details>|<!-- |-->|<?php |<![CDATA[|
|<http://evil.example/>|![x](http://evil.example/x.png)|[x](javascript:alert(1))|![x][y]|[y]: http://evil.example|[|]|(|)|
|!|`|``|```|````|~~~|~~~~|```python|   |    |- |* |1. |> |# |===|---|\|\\|$|$$|\begin{align}|\[|&lt;|&#60;script&#62;|_|
|**|a|word|\]|\(|\)|x^2| """
HOSTILE = [*PIECES.replace("\n", "").split("|"), "\n", "\n\n", "|", "\x1b[31m", "\u202e", "\ud800", "\x00"]
WRITTEN = {"p", "em", "strong", "code", "pre", "ul", "ol", "li", "blockquote", "br", "hr", "span", "s", "del",
           "h3", "h4", "h5", "table", "thead", "tbody", "tr", "th", "td", "div", "details", "summary", "a",
           "[document]", "html", "body", "small"}  # fmt: skip


def rendered(text):
    """The text as different clients show it."""
    yield MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(text)
    yield markdown2html_mistune(text)


def check(source):
    for html in rendered(source):
        soup = BeautifulSoup(html, "html.parser")
        assert {tag.name for tag in soup.find_all()} <= WRITTEN, html
        for tag in soup.find_all():
            assert not [name for name in tag.attrs if name.startswith("on")]
            target = unquote(tag.attrs.get("href", "#"))
            # Some make a link of a URL that is written out: it leads where it says.
            assert target.startswith("#") or target == tag.text, html


@given(st.lists(st.sampled_from(HOSTILE), max_size=25).map("".join), st.booleans())
@example("- ```\n  <img src=x>\n````\n\n```\n<script>\n```", False)
@example("    ```\n<b>\n\n```\n<b>\n```", False)
@settings(max_examples=300)
def test_prose_does_nothing(text, breaks):
    check(markdown.prose(text, breaks=breaks))


@given(st.lists(st.sampled_from([*HOSTILE, "](", "[a](b.ipynb)", "<small>", "</details>"]), max_size=25).map("".join))
@settings(max_examples=300)
def test_markdown_whose_writer_is_not_known_does_nothing(text):
    shown = markdown.harmless(text)
    assert markdown.harmless(shown) == shown
    for html in rendered(shown):
        soup = BeautifulSoup(html, "html.parser")
        assert {tag.name for tag in soup.find_all()} <= {*WRITTEN, "h1", "h2", "h6"}, html
        for tag in soup.find_all():
            target = unquote(tag.attrs.get("href", "#"))
            assert target.startswith("#") or ":" not in target or target == tag.text, html


def test_markdown_of_ours_passes_for_that_of_an_unknown_writer():
    folded = markdown.details("<b>", markdown.code_block("```\n<b>", "python"))
    title, price = markdown.one_line("[a](b) <c> $5"), markdown.small(markdown.escape_dollars("$5"))
    ours = f"# {title}\n\n{price} [log](a%3Ab.jsonl)\n\n{folded}"
    assert markdown.harmless(ours) == ours


@given(st.lists(st.sampled_from(HOSTILE), max_size=15).map("".join))
def test_a_line_is_a_line_without_a_meaning(text):
    shown = markdown.one_line(text)
    assert "\n" not in shown
    check(f"# {shown}".replace("# ", "#### ", 1))
    check(f"| {shown} | b |\n|---|---|\n| {shown} | b |")
    check(f"> {shown}")


@given(st.lists(st.sampled_from(HOSTILE), max_size=15).map("".join))
def test_code_and_folded_parts_stay_closed(text):
    check(markdown.details(text, markdown.code_block(text, "python")))
    for html in rendered(f"{markdown.code_block(text)}\n\nafter"):
        assert BeautifulSoup(html, "html.parser").find_all("p")[-1].text == "after"


@pytest.mark.parametrize(
    "words",
    ["It costs $5 and $6.", "$5 to $10", "$HOME_A and $PATH_B", "$$ and $$$", "Between \\$5 and \\$6.", "a$b$c"],
)
def test_dollars_are_money(words):
    for html in rendered(markdown.prose(words)):
        soup = BeautifulSoup(html, "html.parser")
        assert not [node for node in soup.find_all(string=True) if node.count("$") > 1 and "$$" not in words]
        assert soup.text.strip().replace("\\", "") == words.replace("\\", "")


def test_what_is_harmless_stays_what_it_is():
    text = 'Two *lists*:\n\n- one\n- two, `a < b`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```json\n{"<b>": 1}\n```'
    assert markdown.prose(text) == text


def test_headings_stand_below_those_of_the_notebook_and_keep_the_order_of_their_sizes():
    assert markdown.prose("# A\n## B\ntext\n====") == "### A\n#### B\ntext\n\n===="
    assert (
        markdown.prose("## A\n#### B\n```python\n# no heading\n```") == "### A\n#### B\n\n```python\n# no heading\n```"
    )
    assert markdown.prose("# A\n## B\n### C\n#### D\n##### E").split()[::2] == ["###", "####", *["#####"] * 3]
    assert markdown.prose("## B", levels={1, 2}) == "#### B"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("The area is $$x^2$$ and $r_1$.", "The area is $$x^2$$ and $r_1$."),
        (r"So \(a<b\) and \[ \frac{a}{b} \].", r"So $a\lt b$ and $$ \frac{a}{b} $$."),
        (r"$$\href{javascript:alert(1)}{x}$$", r"$$\⁠href{javascript:alert(1)}{x}$$"),
        ("`$x^2$`", "`$x^2$`"),
    ],
)
def test_formulas_stay_formulas(written, shown):
    assert markdown.prose(written) == shown


@pytest.mark.parametrize("written", ["a  b\nc  d", "def f(x):\n    return x", '{"a": ["**b**"]}'])
def test_the_layout_of_what_is_not_markdown_stays(written):
    assert markdown.prose(written, breaks=True) == f"```\n{written}\n```"


def test_the_lines_of_an_answer_stay_lines():
    html = markdown2html_mistune(markdown.prose("2\n4\n8\n\n16", breaks=True))
    assert re.sub(r"\s", "", html).count("<br/>") + html.count("<br>") >= 2


def test_a_terminal_is_told_nothing():
    assert markdown.prose("\x1b]0;title\x07red\x1b[31m \u202eabc\x00") == "red abc"


def test_a_long_text_says_how_much_is_left_out():
    shown = markdown.clip_text("a" * 5_000 + "b" * 5_000, 300)
    assert "9,700 characters left out" in shown
    assert shown.startswith("a" * 180)
    assert shown.endswith("b" * 120)
    assert len(shown) < 400
    assert markdown.clip_text("short", 300) == "short"

"""The builder of HTML, and what stays of the HTML of a kernel."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlm_kernel.html.markup import embed_json, fill, h, render, render_line
from rlm_kernel.html.sanitizer import MAX_DEPTH, MAX_ELEMENTS, sanitize


def test_every_string_is_text():
    element = h("p", "<b>", h("i", "&"), ["'", h("br")], title='"><script>')
    assert render(element) == '<p title="&quot;&gt;&lt;script&gt;">&lt;b&gt;<i>&amp;</i>&#x27;<br></p>'
    assert render(str(render(h("b", "x")))[:]) == "&lt;b&gt;x&lt;/b&gt;"
    assert fill("<title>$title</title>", title="</title>") == "<title>&lt;/title&gt;</title>"


@pytest.mark.parametrize(
    "make",
    [
        lambda: h("iframe"),
        lambda: h("b><script"),
        lambda: h("img", "a child"),
        lambda: h("script", "alert(1)"),
        lambda: h("style", "@import 'x'"),
        lambda: h("div", onclick="x"),
        lambda: h("div", **{'a="><script>': "x"}),
        lambda: h("a", href="javascript:x"),
        lambda: h("a", href=" javascript:x"),
        lambda: h("a", href="JaVa\tScript:x"),
        lambda: h("a", href="data:text/html,x"),
        lambda: h("a", href="//example.com/x"),
        lambda: h("a", href="\\\\example.com"),
        lambda: h("img", src="http://example.com/x"),
        lambda: h("img", src="data:text/html;base64,AAAA"),
    ],
)
def test_what_acts_is_refused(make):
    with pytest.raises(ValueError, match=r"not|no children|Markup"):
        make()


def test_addresses_that_do_nothing_are_taken():
    made = h("p", h("a", "x", href="a%3Ab/../c.ipynb#d"), h("a", "y", href="https://example.com/"))
    assert render(made).count("href=") == 2
    assert 'src="data:image/png;base64,AAAA"' in render(h("img", src="data:image/png;base64,AAAA"))


def test_json_cannot_end_its_element():
    assert embed_json('{"a": "</script><!--"}') == '{"a": "\\u003c/script>\\u003c!--"}'


def test_in_one_line_there_is_no_empty_line():
    assert render_line(h("pre", "a\n\n[x](y)")) == "<pre>a&#10;&#10;[x](y)</pre>"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ('<table class="dataframe x"><td onclick=a>1</table>', "<table><td>1</td></table>"),
        ('<table border="1" class="dataframe"><td>a', '<table border="1" class="dataframe"><td>a</td></table>'),
        ("<script>a</script>b<style>c</style>d<!-- e -->f", "bdf"),
        ('<b style="color: red; position: fixed; width: f(url(x))">a', '<b style="color: red">a</b>'),
        ('<img src="http://x/y"><img src="data:image/png;base64,AA">', '<img><img src="data:image/png;base64,AA">'),
        (
            '<a href="javascript:x">a</a><a href="http://x/">b</a><a href="c">',
            '<a>a</a><a href="http://x/">b</a><a></a>',
        ),
        ("1 < 2 &amp;lt; <b", "1 &lt; 2 &amp;lt; &lt;b"),
        ("<svg><b>x</svg>y<math><i>", "y"),
    ],
)
def test_what_stays_of_html(given, kept):
    assert sanitize(given) == kept


PIECES = [
    "<b>",
    "</b>",
    "<div>",
    "</p>",
    "<table>",
    "<td ",
    "x='",
    '"',
    "=",
    ">",
    "<",
    "/",
    "<!--",
    "-->",
    "<script>",
    "</script>",
    "&lt;",
    "&#60;",
    "on",
    "a ",
    "javascript:",
    "style=",
    "color:",
    "url(",
    ";",
    "\0",
    "\n",
    "<a href=",
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@example("<b a='\"'>")
def test_what_is_sanitized_once_more_is_the_same(text):
    once = sanitize(text)
    assert sanitize(once) == once
    assert "<script" not in once
    assert "javascript:" not in once.partition("<a href")[2]


@pytest.mark.parametrize(
    "unit",
    [
        "<div>",
        "<b><p>",
        "<a x='",
        '<a x="',
        "<!--",
        "<script ",
        "&",
        "&amp",
        "</div>",
        "<b x=",
        '<a x="" y=',
        "<",
        "<br>",
    ],
)
def test_a_megabyte_takes_no_time(unit):
    shown = sanitize(unit * (1_000_000 // len(unit)))
    assert shown.count("</div>") <= MAX_DEPTH
    assert shown.count("<br>") <= MAX_ELEMENTS

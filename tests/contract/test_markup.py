"""Markup is made of elements: no constant of ours holds a tag, and no script of ours hands a text to the parser."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from contract.test_layers import ROOT, files, tree

BUILDERS = {"rlm_kernel.html.markup", "rlm_kernel.html.sanitizer"}
"""The modules that make elements; the second reads tags, to make elements of them."""

TRUSTED = {"rlm_kernel.html.markup", "rlm_kernel.trajectory.notebook.markdown", "rlm_kernel.viewer.pages"}
"""The modules that may say `Markup(…)` of a text: of scripts and style sheets of ours, and of Markdown made by us."""

ELEMENTS = (
    "a abbr address area article aside audio b base bdi bdo blockquote body br button canvas caption center "
    "cite code col colgroup data datalist dd del details dfn dialog div dl dt em embed fieldset figcaption "
    "figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd "
    "label legend li link main map mark marquee math menu meta meter nav noscript object ol optgroup option "
    "output p param picture pre progress q s samp script search section select slot small source span strong "
    "style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track tt u ul var "
    "video wbr"
)
TAG = re.compile(rf"</?(?:{'|'.join(ELEMENTS.split())})(?![\w-])|<!--|<!doctype|&#?\w+;|</?$", re.IGNORECASE)

SINKS = re.compile(
    r"\.(?:innerHTML|outerHTML|srcdoc)\s*\+?=|insertAdjacentHTML|setHTML|document\.write|DOMParser|parseFromString"
    r"|createContextualFragment|\beval\b|new Function|\bset(?:Timeout|Interval)\(\s*[\"'`]|\.on[a-z]+\s*="
    r"|setAttribute\(\s*[\"'`](?:on|href|src)|\.(?:href|src)\s*="
)


def strings(name: str) -> Iterator[ast.Constant]:
    """The string constants of a module, parts of f-strings too; without docstrings and regular expressions."""
    module = tree(name)
    said = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    patterns = {
        id(node)
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("re.")
        for node in ast.walk(call)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said | patterns:
            yield node


def calls(name: str, called: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == called:
            yield node


def test_no_string_is_markup():
    found = [
        f"{name}:{node.lineno} {node.value[:60]!r}"
        for name in files()
        if name not in BUILDERS
        for node in strings(name)
        if len(node.value) > 2 and TAG.search(node.value)
    ]
    assert found == [], "make it with rlm_kernel.html.markup.h"


def test_no_text_is_called_markup_but_where_it_is_made():
    assert [name for name in files() if name not in TRUSTED and list(calls(name, "Markup"))] == []


def test_what_is_shown_as_html_comes_from_the_builder():
    """A value for "text/html" and what `HTML()` is given: empty, or the result of a function that returns `Markup`."""
    makers = {
        function.name
        for name in files()
        for function in ast.walk(tree(name))
        if isinstance(function, ast.FunctionDef) and function.returns and ast.unparse(function.returns) == "Markup"
    }
    shown = [(name, value) for name in files() for value in shown_as_html(name)]
    assert shown
    assert [f"{name}:{value.lineno} {ast.unparse(value)}" for name, value in shown if not is_made(value, makers)] == []


def shown_as_html(name: str) -> Iterator[ast.expr]:
    for call in calls(name, "HTML"):
        yield from call.args[:1]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from (value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "text/html")


def is_made(value: ast.expr, makers: set[str]) -> bool:
    if isinstance(value, ast.Constant):
        return value.value == ""
    function = value.func if isinstance(value, ast.Call) else value
    return ast.unparse(function).rpartition(".")[2] in makers


def test_no_script_of_ours_hands_a_text_to_the_parser():
    page = ROOT / "rlm_kernel" / "viewer" / "page"
    found = [
        f"{file.name}:{number} {line.strip()}"
        for file in sorted(page.glob("*.js"))
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if not line.lstrip().startswith(("//", "*", "/*")) and SINKS.search(line)
    ]
    assert found == [], "use h() of elements.js"


@pytest.mark.parametrize(
    ("line", "is_bad"),
    [
        ("<b>", True),
        ("x</details>", True),
        ("a &amp; b", True),
        ('<img src="', True),
        ("a < b and c > d", False),
        ("<cell>", False),
        ("the list <unknown>", False),
    ],
)
def test_a_tag_is_known(line, is_bad):
    assert (TAG.search(line) is not None) == is_bad

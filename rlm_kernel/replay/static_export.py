"""The notebook of a run as a page (HTML) or a text (Markdown) in which nothing runs and nothing is loaded.

The notebook may be a file of another user, so no part of it is trusted. Its texts become inactive Markdown, each of its
outputs becomes one inactive kind, and everything else in it is left out. By the policy of the page a browser also
refuses all scripts and everything from other servers. So MathJax does not draw formulas, and their source is shown.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rlm_kernel.html.markup import PICTURE, Element, h, render, render_line
from rlm_kernel.html.sanitizer import sanitize
from rlm_kernel.kernel.outputs import cell_number
from rlm_kernel.text import join_text, plain
from rlm_kernel.trajectory.notebook import markdown
from rlm_kernel.trajectory.notebook.saved_outputs import bound_outputs
from rlm_kernel.types import Output

if TYPE_CHECKING:
    from nbformat import NotebookNode

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'"
)
"""The Content-Security-Policy of a page."""

_PICTURES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}
_SVG = "image/svg+xml"

Save = Callable[[str, bytes], str]
"""Keeps a picture that a text shows: the end of its name, its bytes. Returns its path, relative to the text."""


def page(notebook: NotebookNode, title: str, attached: bytes = b"") -> str:
    """The notebook as a page, as nbconvert draws it.

    Args:
        notebook: any.
        title: of the page.
        attached: the file of a notebook that can be saved from the page; empty: none.

    Raises:
        ImportError: nbconvert is not installed.
    """
    import nbformat
    from nbconvert import HTMLExporter

    cells = [_page_cell(cell, number) for number, cell in enumerate(notebook.cells, 1)]
    known = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"language_info": {"name": "python"}}, "cells": cells}
    template = (files("rlm_kernel.replay") / "page.html.j2").read_text("utf-8")
    exporter = HTMLExporter(raw_template=template, sanitize_html=True)
    exporter.register_filter("clean_html", lambda text: sanitize(text, ours=True))
    resources = {"metadata": {"name": title}, "policy": POLICY, "notebook": base64.b64encode(attached).decode()}
    inert = nbformat.from_dict(known)  # type: ignore[no-untyped-call]
    drawn: tuple[str, Any] = exporter.from_notebook_node(inert, resources)
    return drawn[0]


def text(notebook: NotebookNode, save: Save) -> str:
    """The notebook as Markdown.

    Args:
        notebook: any.
        save: keeps a picture.
    """
    parts = (part for cell in notebook.cells for part in _text_cell(cell, save))
    return "\n\n".join(part for part in parts if part) + "\n"


# -- the page


def _page_cell(cell: NotebookNode, number: int) -> dict[str, Any]:
    source = plain(join_text(cell.source))
    common: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}}
    if cell.cell_type != "code":
        return {**common, "cell_type": "markdown", "source": markdown.harmless(source)}
    outputs = [_page_output(output, ours=ours) for output, ours in _outputs(cell)]
    count = cell_number(cell.get("execution_count"))
    return {**common, "cell_type": "code", "source": source, "execution_count": count, "outputs": outputs}


def _page_output(output: Output, *, ours: bool) -> Output:
    """The output as one that has one kind."""
    if output["output_type"] in ("stream", "error"):
        return output
    kind, value = _best(output)
    shown = {"output_type": "display_data", "metadata": {}}
    if (picture := _picture(output, kind, value)) is not None:
        return {**shown, "data": {"text/html": render(picture)}}
    if kind == "text/html":
        value = sanitize(value, ours=ours)
    return {**shown, "data": {kind if kind in ("text/html", "text/markdown") else "text/plain": value}}


# -- the text


def _text_cell(cell: NotebookNode, save: Save) -> Iterator[str]:
    source = join_text(cell.source)
    if cell.cell_type != "code":
        yield markdown.harmless(source)
        return
    yield markdown.code_block(source, "python")
    for output, ours in _outputs(cell):
        yield _text_output(output, save, ours=ours)


def _text_output(output: Output, save: Save, *, ours: bool) -> str:
    if output["output_type"] == "stream":
        return markdown.code_block(output["text"])
    if output["output_type"] == "error":
        return markdown.code_block("\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}")
    kind, value = _best(output)
    if kind in _PICTURES and (content := _bytes(value)) is not None:
        return f"![{_PICTURES[kind]}]({save(_PICTURES[kind], content)})"
    if (picture := _picture(output, kind, value)) is not None:
        return render_line(h("p", picture))
    if kind == "text/html":
        return render_line(h("div", sanitize(value, ours=ours)))
    return value if kind == "text/markdown" else markdown.code_block(value, "latex" if kind == "text/latex" else "")


# -- both


def _outputs(cell: NotebookNode) -> Iterator[tuple[Output, bool]]:
    """The outputs within the limits of our notebooks, each with whether it is marked as made by us.

    The mark may be forged: it allows only a link to a file next to the page.
    """
    for output in cell.get("outputs", []):
        ours = isinstance(output.get("metadata"), dict) and "rlm" in output["metadata"]
        if not ours:
            (one,) = bound_outputs([output])
            yield one, False
        elif isinstance(output.get("data"), dict):
            data = {kind: join_text(value) for kind, value in output["data"].items()}
            yield {"output_type": "display_data", "data": _harmless_words(data), "metadata": {}}, True


def _harmless_words(data: dict[str, str]) -> dict[str, str]:
    known = {kind: value for kind, value in data.items() if kind in ("text/html", "text/markdown", "text/plain")}
    return {kind: markdown.harmless(value) if kind == "text/markdown" else value for kind, value in known.items()}


def _best(output: Output) -> tuple[str, str]:
    """What is shown of an output: its kind and its text."""
    data = output["data"]
    for kind in ("text/html", "text/markdown", *_PICTURES, _SVG, "text/latex"):
        if kind in data:
            return kind, join_text(data[kind])
    return "text/plain", join_text(data.get("text/plain", f"({', '.join(data)})"))


def _picture(output: Output, kind: str, value: str) -> Element | None:
    """A picture as an element: a browser draws it and runs nothing of it. None for what is not one."""
    if kind not in (*_PICTURES, _SVG):
        return None
    content = value.encode("utf-8", "replace") if kind == _SVG else _bytes(value)
    if content is None:
        return None
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    assert PICTURE.fullmatch(source), "made of a kind that is known and of base64"
    sizes = output["metadata"].get(kind, {})
    return h("img", src=source, alt=plain(join_text(output["data"].get("text/plain", "A picture"))), **sizes)


def _bytes(value: str) -> bytes | None:
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        return None

"""What a notebook says about its run: its metadata, or its parameters where a converter has dropped the metadata."""

from __future__ import annotations

import ast
from collections.abc import Mapping, MutableMapping
from typing import Any

from rlm_kernel.text import join_text

_PARAMETERS = {"rlm_log": "log", "rlm_dir": "rlm_dir", "rlm_child": "child"}


def restore_metadata(notebook: MutableMapping[str, Any]) -> None:
    """Set `metadata.rlm` of the notebook of a run that has lost it: jupytext keeps that of cells only.

    Args:
        notebook: as its JSON has it, or a `NotebookNode`; only the metadata are changed.

    Raises:
        AttributeError, KeyError, TypeError: it is not a notebook.
    """
    if "rlm" in notebook["metadata"]:
        return
    for cell in notebook["cells"]:
        about = cell["metadata"].get("rlm")
        if isinstance(about, Mapping) and about.get("role") == "parameters":
            named = assignments(join_text(cell["source"]))
            found = {field: named[name] for name, field in _PARAMETERS.items() if name in named}
            if "log" in found:
                notebook["metadata"]["rlm"] = found
            return


def assignments(source: str) -> dict[str, Any]:
    """The names to which a cell assigns literals. The cell is not run."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return {}
    assigned: dict[str, Any] = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value):
                assigned |= _literal(name, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                assigned |= _literal(name, value)
    return assigned


def _literal(name: str, value: ast.expr) -> dict[str, Any]:
    try:
        return {name: ast.literal_eval(value)}
    except (ValueError, TypeError, MemoryError, RecursionError):
        return {}

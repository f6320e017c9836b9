"""The viewer's JavaScript as one script: its modules in the order in which they need each other.

Browsers load modules one by one, but a widget is one module, and a page that was opened from a file may import none.
So all three uses get the same single script: each module becomes a function that returns its exports. Modules written
for this (`import { names } from "./module.js"`, exports that are declarations) need no bundler.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Literal

from rlm_kernel.html.markup import CONTENT, MATHEMATICS
from rlm_kernel.trajectory.states import STATES, states_of_error_names

Use = Literal["page", "widget"]

_IMPORT = re.compile(r'^import (?P<names>\{[^}]*\}) from "\./(?P<module>\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?P<kind>(?:async )?(?:function\*?|class|const)) (?P<name>\w+)", re.MULTILINE)
_FIRST = "start"
_LAST_LINES: dict[Use, str] = {
    "page": "modules.start.startPage(STYLE);\n",
    "widget": "export default { render: (widget) => modules.start.startWidget(widget, STYLE) };\n",
}


@cache
def script(use: Use) -> str:
    """The whole component as the source of one ES module, with the style sheet."""
    style = f"const STYLE = {json.dumps(source('viewer.css'))};"
    return "\n".join([constants(), "const modules = {};", *map(_as_function, modules()), style, _LAST_LINES[use]])


def constants() -> str:
    """What the modules have from Python: the states of a run, and the elements of words."""
    known = {
        "STATES": STATES,
        "ERROR_STATES": states_of_error_names(),
        "CONTENT": sorted(CONTENT),
        "MATHEMATICS": sorted(MATHEMATICS),
    }
    return "\n".join(f"const {name} = {json.dumps(value)};" for name, value in known.items())


@cache
def modules() -> tuple[str, ...]:
    """The names of the modules, each after those that it imports.

    Raises:
        ValueError: some import each other in a circle.
    """
    order: list[str] = []
    _visit(_FIRST, order, ())
    return tuple(order)


def source(name: str) -> str:
    """A file of the component."""
    return (files("rlm_kernel.viewer") / "page" / name).read_text("utf-8")


def _visit(name: str, order: list[str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"modules in a circle: {' -> '.join([*above, name])}")
    for needed in _IMPORT.finditer(source(f"{name}.js")):
        if needed["module"] not in order:
            _visit(needed["module"], order, (*above, name))
    order.append(name)


def _as_function(name: str) -> str:
    module = source(f"{name}.js")
    exported = ", ".join(match["name"] for match in _EXPORT.finditer(module))
    body = _EXPORT.sub(r"\g<kind> \g<name>", _IMPORT.sub(r"const \g<names> = modules.\g<module>;", module))
    return f"modules.{name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();"

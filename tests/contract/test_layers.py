"""The shape of the house: who may import whom, and how large a function may grow.

The imports are read from the source, those inside of functions too: an import that runs late still makes a module stand
on another.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS = [
    {"text", "installation"},  # foreign text made fit to show; hints
    {"html"},  # HTML as elements
    {"types"},  # records that pass between the parts
    {"errors"},  # every error of the library
    {"terminal", "untrusted", "zmtp", "_async", "parsing", "guest_sources"},  # ground modules and packages
    {"documents"},  # documents as text, in a child process
    {"inputs", "values", "at_exit"},  # where a context comes from; how it travels; what ends with the process
    {"schema", "provisioners"},  # structured output; where a kernel runs
    {"kernel", "clients", "prompts"},  # one live kernel; ask a model; what the model reads
    {"trajectory"},  # the record of a run, and its readers
    {"mcp"},  # servers of tools
    {"engine"},  # the loop of a completion
    {"batch"},  # many completions
    {"api"},  # class RLM
    {"agent", "reference"},  # conversations; what else is imported from the reference
    {"replay"},  # a recorded run once more
    {"papermill", "viewer", "gateway", "chat"},  # notebooks headless; a browser; bounded reading over MCP; a terminal
    {"acp"},  # an agent for editors, which reads folders as the gateway does
    {"cli"},  # the command line
]
"""Modules and packages of `rlm_kernel`, from the ground up. One imports only what stands in a row above its own."""

MAX_BODY_LINES = 40

BANNED = {"core", "util", "utils", "helper", "helpers", "manager", "handler", "common"}
FACE_OF_THE_REFERENCE = {"rlm.core", "rlm.utils"}
"""Packages whose names are the reference's."""
GUEST = "rlm_kernel.kernel.guest"
"""The package whose modules import each other relatively: it has another name in a kernel."""
BROAD = {"Exception", "BaseException"}


@cache
def files() -> dict[str, Path]:
    """The modules of our packages: dotted name to file."""
    found = [file for package in ("rlm", "rlm_kernel", "rlm_magics") for file in (ROOT / package).rglob("*.py")]
    return {dotted(file): file for file in sorted(found)}


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(files()[name].read_text("utf-8"), str(files()[name]))


def imported(name: str) -> set[str]:
    """Our own modules that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= name.startswith(GUEST), f"{name}: line {node.lineno}: a relative import"
            module = f"{GUEST}.{node.module}" if node.level else node.module
            found |= {whole if (whole := f"{module}.{a.name}") in files() else module for a in node.names}
    return found & files().keys()


def place(name: str) -> str:
    """The entry of `LAYERS` that a module belongs to."""
    return name.split(".")[1] if "." in name else name


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_a_module_imports_only_what_stands_lower():
    rank = {entry: row for row, entries in enumerate(LAYERS) for entry in entries}
    upward = [
        f"{name} imports {other}"
        for name in files()
        if name.startswith("rlm_kernel.")
        for other in imported(name) - {"rlm_kernel"}
        if not other.startswith("rlm_kernel.")
        or (place(other) != place(name) and rank[place(other)] >= rank[place(name)])
    ]
    assert upward == []


def test_every_row_names_something_that_exists():
    places = {place(name) for name in files() if name.startswith("rlm_kernel.")}
    assert set().union(*LAYERS) == places


def test_the_package_itself_imports_nothing_of_ours():
    assert imported("rlm_kernel") == set()


@pytest.mark.parametrize("name", sorted(name for name in files() if name.partition(".")[0] == "rlm"))
def test_the_face_only_passes_on_names(name):
    kinds = {type(node) for node in tree(name).body[1:]}
    assert kinds <= {ast.ImportFrom, ast.Assign}


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter({name: imported(name) - {name} for name in files()}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_a_function_fits_on_a_screen():
    long = {
        f"{name}:{function.lineno} {function.name}": size
        for name in files()
        for function in functions(tree(name))
        if (size := body_lines(function)) > MAX_BODY_LINES
    }
    assert long == {}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of the body without the docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_modules_are_named_after_things():
    named = {
        part
        for name in files()
        if ".".join(name.split(".")[:2]) not in FACE_OF_THE_REFERENCE
        for part in name.split(".")
    }
    assert named & BANNED == set()


def test_no_error_is_swallowed_in_silence():
    silent = [
        f"{name}:{handler.lineno}"
        for name in files()
        for handler in ast.walk(tree(name))
        if isinstance(handler, ast.ExceptHandler) and (says_nothing(handler) or is_broad_and_careless(handler))
    ]
    assert silent == []


def test_nothing_suppresses_every_error():
    broad = [
        f"{name}:{call.lineno}"
        for name in files()
        for call in ast.walk(tree(name))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).endswith("suppress")
        and BROAD & {ast.unparse(argument) for argument in call.args}
    ]
    assert broad == []


def says_nothing(handler: ast.ExceptHandler) -> bool:
    """`except ...: pass`; who means it writes `contextlib.suppress`."""
    return all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and statement.value.__class__ is ast.Constant)
        for statement in handler.body
    )


def is_broad_and_careless(handler: ast.ExceptHandler) -> bool:
    """Catches everything, and neither raises nor looks at what it caught."""
    caught = {"BaseException"} if handler.type is None else set(ast.unparse(handler.type).strip("()").split(", "))
    if not caught & BROAD:
        return False
    inside = [node for statement in handler.body for node in ast.walk(statement)]
    return not any(
        isinstance(node, ast.Raise) or (isinstance(node, ast.Name) and node.id == handler.name) for node in inside
    )


def test_only_the_ledger_lets_a_run_ask_a_model():
    asking = [
        f"{name}: line {node.lineno}"
        for name in files()
        if not name.startswith(("rlm_kernel.clients", "rlm_magics")) and name != "rlm_kernel.engine.billing"
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and _called(node) == "complete"
    ]
    assert asking == []


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))

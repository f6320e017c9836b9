"""Tests of other files that need no more than a session, to be run with a real account."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

TESTS = Path(__file__).parent
FIXTURES = {"session", "echo", "open_session", "modal_session"}
ON_A_SHORT_WAY = {"test_a_question_that_is_sent_again_is_asked_once"}
"""It counts what is sent in a time in which little comes from far away."""


def borrowed(file: Path):
    """The tests of another file that need no more than a session, whatever holds it."""
    spec = importlib.util.spec_from_file_location(f"live_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, function in inspect.getmembers(module, inspect.isfunction):
        marks = getattr(function, "pytestmark", [])
        given = {argument for mark in marks if mark.name == "parametrize" for argument in names(mark.args[0])}
        needed = set(inspect.signature(function).parameters) - given
        if name.startswith("test_") and needed and needed <= FIXTURES and name not in ON_A_SHORT_WAY:
            yield name, function


def names(argument):
    return argument.replace(" ", "").split(",") if isinstance(argument, str) else argument


def borrow_kernel_suite():
    """The tests of a kernel that hold at each place."""
    for kind in ("answers", "cells", "context", "queries"):
        yield from borrowed(TESTS / "kernel" / f"test_{kind}.py")

"""What is shown in a terminal: text, and nothing that the terminal obeys."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest
from fuzz import linear
from hypothesis import given
from hypothesis import strategies as st
from recorded_runs import code, record

from rlm_kernel.plain_console import PlainConsole
from rlm_kernel.terminal import PlainStream

NAME = "\x1b]0;owned\x07evil\x1b[2J\x9b31m\u202e"
OBEYED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ANYTHING = st.text(st.characters() | st.sampled_from("\x1b\x9b\x9d\x07\x90\r\b[];m0?h\u202e"))


def seen(folder, *arguments):
    """What a command writes to a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rlm_kernel.cli", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "OPENAI_API_KEY": "x"},
    )
    os.close(follower)
    written = b""
    try:
        while piece := os.read(leader, 65536):
            written += piece
    except OSError:
        pass  # the terminal is closed: the command has ended
    finally:
        os.close(leader)
    process.wait(60)
    text = written.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    assert text
    return COLOUR.sub("", text)


COMMANDS = {
    "show, no such file": ["show", f"{NAME}.jsonl"],
    "show, no log": ["show", "./"],
    "replay": ["replay", f"{NAME}.jsonl"],
    "resume": ["resume", f"{NAME}.jsonl"],
    "view": ["view", NAME],
    "view, export": ["view", "--export", f"{NAME}.pdf", f"{NAME}.jsonl"],
    "diff": ["diff", f"{NAME}.ipynb", f"{NAME}.jsonl"],
    "export": ["export", f"{NAME}.jsonl"],
    "export, no suffix": ["export", "-o", NAME, f"{NAME}.jsonl"],
    "attach": ["attach", NAME],
    "kernel": ["kernel", "remove", "--name", NAME],
    "context": ["run", "q", "--context", NAME],
    "backend": ["run", "q", "--backend", NAME, "--model", NAME],
    "environment": ["run", "q", "--model", "m", "--environment", NAME],
    "pair": ["run", "q", "--model", "m", "--backend-kwarg", NAME],
    "unknown option": ["run", "q", f"--{NAME}"],
    "unknown command": [NAME],
    "wrong choice": ["export", "x.jsonl", "--to", NAME],
    "wrong number": ["run", "q", "--max-tokens", NAME],
    "with a traceback": ["show", "--debug", f"{NAME}.jsonl"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_of_the_command_line_quotes_its_arguments_as_text(tmp_path, command):
    assert OBEYED.search(seen(tmp_path, *COMMANDS[command])) is None


def test_files_of_a_context_are_named_as_text(tmp_path):
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / f".{NAME}".replace("/", "")).write_text("x")
    (folder / "text").write_text("x")
    said = seen(
        tmp_path, "run", "q", "--context", "context", "--model", "m", "--base-url", "http://127.0.0.1:1", "--quiet"
    )
    assert "skipped" in said
    assert OBEYED.search(said) is None


def test_a_recorded_run_is_shown_as_text(tmp_path):
    run = record(tmp_path / "logs", [code(f"print({NAME!r})", f"raise ValueError({NAME!r})"), f"FINAL({NAME})"], NAME)
    log = tmp_path / "logs" / f"{NAME}.jsonl"
    run.log.rename(log)
    for command in (["show", str(log)], ["replay", str(log)], ["export", str(log)], ["diff", str(log), str(log)]):
        said = seen(tmp_path, *command)
        assert OBEYED.search(said) is None, command


def test_what_a_diff_shows_is_text(tmp_path):
    notebooks = []
    for number in (1, 2):
        output = {"output_type": "display_data", "data": {f"text/{NAME}": [NAME, f"{number}"]}, "metadata": {}}
        cell = {"cell_type": "code", "metadata": {}, "source": f"{NAME}{number}", "outputs": [output]}
        content = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{**cell, "execution_count": None}]}
        notebooks.append(tmp_path / f"{NAME}{number}.ipynb")
        notebooks[-1].write_text(json.dumps(content))
    said = seen(tmp_path, "diff", *map(str, notebooks))
    assert "modified" in said
    assert OBEYED.search(said) is None


@given(ANYTHING)
def test_no_text_that_rich_draws_is_obeyed(text):
    from rich.panel import Panel
    from rich.text import Text

    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, width=60)
    console.print(text, Text(text, style="red"), Panel(text, title=text), style="bold")
    assert OBEYED.search(COLOUR.sub("", file.getvalue())) is None


@given(ANYTHING)
def test_a_stream_for_others_lets_only_colours_through(text):
    file = io.StringIO()
    PlainStream(file).write(f"\x1b[31m{text}\x1b[0m")
    assert OBEYED.search(COLOUR.sub("", file.getvalue())) is None


MAY_WRITE = {"terminal.py", "launcher.py"}
"""`terminal` is the place; a launcher runs beside a kernel and writes one word of ours."""

MAY_DRAW = {"plain_console.py"}


def test_everything_is_printed_in_one_place():
    """A `print`, a standard stream or a console elsewhere would show foreign text as it is."""
    assert [
        f"{file.relative_to(linear.ROOT)}:{node.lineno} {ast.unparse(node)[:60]}"
        for file in linear.sources()
        if file.name not in MAY_WRITE
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if writes(node) or (draws(node) and file.name not in MAY_DRAW)
    ] == []


def writes(node):
    """Whether a call writes to a standard stream, or reads with a prompt."""
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    return called in ("print", "input") or re.fullmatch(
        r"sys\.(__)?std(out|err)(__)?(\.buffer)?\.write(lines)?", called
    )


def draws(node):
    """Whether a call makes a console of Rich's own."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("Console", "rich.print", "console.Console")

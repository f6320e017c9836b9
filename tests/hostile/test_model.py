"""What a model writes: replies and cells that would keep the host busy."""

from __future__ import annotations

import ast
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fuzz import linear, texts

from rlm_kernel.plaintext import plain

PATTERNS = {name: pattern for module in linear.modules() for name, pattern in linear.patterns(module)}
PATTERNS |= dict(linear.patterns_of_profiles())


@pytest.mark.parametrize("name", PATTERNS)
def test_no_regular_expression_takes_more_than_linear_time(name):
    pattern = PATTERNS[name]
    linear.search(lambda text: pattern.sub("", text), linear.alphabet(pattern), examples=20)


@pytest.mark.parametrize("name", texts.FUNCTIONS)
def test_no_reader_of_foreign_text_takes_more_than_linear_time(name):
    function, alphabet = texts.FUNCTIONS[name]
    worst = linear.search(function, alphabet, examples=20)
    linear.check(function, worst, [linear.WHOLE])


@pytest.mark.parametrize("introducer", ["\x90", "\x98", "\x9b", "\x9d", "\x9e", "\x9f", "\x1b]", "\x1bP", "\x1b[1;"])
def test_sequences_without_an_end_do_not_freeze_the_host(introducer):
    linear.check(plain, linear.Attack("", introducer, ""), [2_000, 70_000, linear.WHOLE])


def test_every_regular_expression_is_compiled_where_it_can_be_found():
    """So that a new one is covered by the test above: `re.search("…", text)` inside of a function would not be."""
    assert [
        f"{file.relative_to(linear.ROOT)}:{call.lineno}"
        for file in linear.sources()
        for call in calls_of_re(ast.parse(file.read_text("utf-8")))
    ] == []


def calls_of_re(tree):
    within = {id(node) for function in functions(tree) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re."):
            name = node.func.attr
            if name == "escape" or (name == "compile" and (id(node) not in within or is_found(node))):
                continue
            yield node


def is_found(call):
    """Whether a pattern that is made in a function is made of escaped text, or of one that a profile keeps."""
    argument = call.args[0]
    return "re.escape" in ast.unparse(argument) or isinstance(argument, ast.Name)


def functions(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


ENDLESS = "```repl\nwhile True:\n    print({fragment!r} * 500_000)\n```"
ATTACKS = {
    "introducers": "\x9d",
    "paints": "\r\u2028\x9f",
    "lines": "\n",
    "backspaces": "x\b",
}
RUNS = {
    **{f"endless {name}": ([ENDLESS.format(fragment=fragment)], "") for name, fragment in ATTACKS.items()},
    "a traceback": (["```repl\nraise ValueError('\\x9d' * 2_000_000)\n```"], ""),
    "a reply of fences": (["```python\nWHOLE\n```"], "'''\n```\n"),
    "a reply of lines": (["WHOLE"], "```\n"),
    "a reply of answers": (["FINAL('WHOLE')"], "') "),
    "a reply that is a program": (["```python\nWHOLE\n```"], "a\n"),
}
WITHIN = 2.0
"""Seconds of the host's work between a deadline or Ctrl-C and the end of the run."""


class Host:
    """A run in a process of its own, whose work is measured: others may load the machine."""

    def __init__(self, folder, run, max_timeout):
        replies, fragment = RUNS[run]
        job = {"replies": replies, "fragment": fragment, "max_timeout": max_timeout, "folder": str(folder)}
        host = Path(__file__).with_name("text_host.py")
        self.process = subprocess.Popen(
            [sys.executable, str(host)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.process.stdin.write(json.dumps(job).encode())
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"begun\n"

    def work(self):
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def has_a_reply(self, folder):
        """Wait until the model has written, and the host reads."""
        while not any(b'"type":"reply"' in log.read_bytes() for log in folder.glob("*.jsonl")):
            time.sleep(0.05)

    def outcome(self):
        """What became of the run, and how much the host has worked in all."""
        with self.process:
            *_, last = self.process.stdout.read().splitlines()
        return json.loads(last)


@pytest.mark.parametrize("run", RUNS)
def test_a_deadline_ends_a_run_whatever_its_model_writes(tmp_path, run):
    host = Host(tmp_path, run, max_timeout=4.0)
    time.sleep(4)
    before = host.work()
    outcome, work = host.outcome()
    assert outcome == "TimeoutExceededError"
    assert work - before < WITHIN


@pytest.mark.parametrize("run", RUNS)
def test_ctrl_c_ends_a_run_whatever_its_model_writes(tmp_path, run):
    host = Host(tmp_path, run, max_timeout=100.0)
    host.has_a_reply(tmp_path)
    before = host.work()
    host.process.send_signal(signal.SIGINT)
    outcome, work = host.outcome()
    assert outcome == "CancellationError"
    assert work - before < WITHIN

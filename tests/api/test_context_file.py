"""A context that is given as a path: a local kernel reads a large file itself, and the host never holds its text."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from recorded_runs import record_file

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.engine.argument_checks import opened
from rlm_kernel.errors import ConfigError
from rlm_kernel.replay.replayer import replay

CELL = "```repl\nprint(type(context), len(context), context[-7:])\nFINAL(len(context))\n```"
LINE = "eine Zeile über Öl\n"
LINES = 100_000

MEASURED = """
import sys, tracemalloc
from pathlib import Path
from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.scripted import ScriptedLM

tracemalloc.start()
with RLM(ScriptedLM(["```repl\\nFINAL(len(context))\\n```"]), logger=RLMLogger(sys.argv[2])) as rlm:
    answer = rlm.completion(Path(sys.argv[1])).response
print(answer, tracemalloc.get_traced_memory()[1])
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "oil.txt"
    path.write_text(LINE * LINES + "the end", "utf-8")
    return path


def ask(prompt, replies=(CELL,), **arguments):
    lm = ScriptedLM(replies)
    with RLM(lm, **arguments) as rlm:
        return rlm.completion(prompt, "How long is it?"), lm


def test_the_kernel_reads_a_large_file_as_a_str(file):
    completion, lm = ask(file)
    opening = lm.calls[0].prompt
    assert completion.response == str(len(LINE) * LINES + 7)
    assert completion.prompt == str(file)
    assert f"`context` is a str of {len(LINE) * LINES + 7:,} characters in {LINES + 1:,} lines." in opening
    assert "eine Zeile über Öl" in opening
    assert "the end" in opening


@pytest.mark.parametrize(
    "content",
    [b"short", b"\xef\xbb\xbf" + b"x" * 2_000_000, b"\xfcb" + b"y" * 2_000_000],
    ids=["short", "mark", "cp1252"],
)
def test_the_host_reads_a_small_file_and_one_that_is_not_plain_utf_8(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    text = content.decode("cp1252" if content[:1] == b"\xfc" else "utf-8-sig")
    assert ask(tmp_path / "f")[0].prompt == text


def test_memory_of_the_host_does_not_grow_with_the_file(tmp_path):
    with (tmp_path / "f").open("w") as file:
        file.writelines(LINE * 10_000 for _ in range(400))
    size = (tmp_path / "f").stat().st_size
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "f"), str(tmp_path / "logs")]
    answer, peak = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert answer == len(LINE) * 10_000 * 400
    assert peak < size / 2


def test_a_run_over_a_file_is_replayed_and_resumed_from_its_copy(file, tmp_path):
    logger = RLMLogger(tmp_path / "logs")
    completion, _ = ask(file, ["```repl\nprint(len(context))\n```", CELL], logger=logger)
    file.unlink()
    assert replay(logger.log_file_path).equal
    resumed = RLM.resume(logger.log_file_path, at=1, backend=ScriptedLM([CELL]))
    assert resumed.response == completion.response


def test_a_file_with_a_secret_is_not_copied(file, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "the-secret-of-the-house")
    with file.open("a") as more:
        more.write("x" * (1 << 20) + "the-secret-of-the-house" + "x" * 100)
    logger = RLMLogger(tmp_path / "logs")
    ask(file, logger=logger)
    lines = map(json.loads, record_file(logger).read_text().splitlines())
    assert next(line for line in lines if line["type"] == "context")["redacted"]
    assert not (tmp_path / "logs" / "contexts").exists()


def test_a_file_that_changes_after_the_run_began_is_refused(file):
    with RLM(ScriptedLM([CELL])) as rlm:
        given = opened(file, rlm.config)
        os.utime(file, ns=(1, 1))
        with pytest.raises(ConfigError, match="was changed after the run began"):
            rlm._run(given, None).wait()


@pytest.mark.parametrize(("name", "why"), [("", "holds no text file"), ("missing", "cannot be read: No such file")])
def test_what_is_no_file_is_refused(tmp_path, name, why):
    with pytest.raises(ConfigError, match=why):
        ask(tmp_path / name)

"""What lies in a folder: files that are not what they are called."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from rlm_kernel import attachable, untrusted_json
from rlm_kernel.errors import KernelError
from rlm_kernel.onlooker import Onlooker

OBEYED = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")

GOOD = {"rlm": {"pid": os.getpid(), "environment": "local", "started": "12:00:00"}}


def written(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


BAD = {
    "nested": written(b"[" * 100_000 + b"]" * 100_000),
    "nested in ours": written(b'{"rlm":' * 900 + b"1" + b"}" * 900),
    "huge": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 33),
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "no text": written(b"\xff\xfe\x00"),
    "no object": written([1, 2]),
    "a number": written({"rlm": 5}),
    "wrong types": written({"rlm": {"pid": "x", "environment": ["a"], "started": None}}),
    "no process": written({"rlm": {"pid": -1, "environment": "local", "started": "1"}}),
    "a large process": written({"rlm": {"pid": 10**30, "environment": "local", "started": "1"}}),
    "a process that is true": written({"rlm": {"pid": 0, "environment": "local", "started": "1"}}),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(attachable.VARIABLE, str(tmp_path / "repls"))
    path = attachable.folder()
    written(GOOD)(path / "local-good.json")
    return path


def rlm(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "rlm_kernel.cli", *arguments], capture_output=True, check=False, timeout=60
    )


@pytest.mark.parametrize("kind", BAD)
def test_a_file_in_the_attach_folder_that_is_none_of_ours_is_left_out_with_a_note(folder, kind):
    BAD[kind](folder / "bad.json")
    with pytest.warns(UserWarning, match=r"bad\.json is left out"):
        assert [repl.name for repl in attachable.live()] == ["local-good"]


def test_rlm_attach_lists_the_others_and_says_what_it_left_out(folder):
    for number, make in enumerate(BAD.values()):
        make(folder / f"bad-{number}.json")
    done = rlm("attach", "--list")
    assert (done.returncode, done.stdout) == (0, b"local-good\tlocal\t12:00:00\n")
    assert done.stderr.count(b"is left out") == len(BAD)


def test_kernels_of_others_are_left_out_in_silence(folder):
    written({"shell_port": 1, "key": "x"})(folder / "kernel-1.json")
    assert [repl.name for repl in attachable.live()] == ["local-good"]


def test_the_names_of_files_do_not_reach_the_terminal(folder):
    written(GOOD)(folder / "\x1b]0;owned\x07local-\x9b2J.json")
    written(b"[")(folder / "\x1b]0;owned\x07bad.json")
    for arguments in (["--list"], ["\x1b[2J"], ["-e", "1", "local-\x9b"]):
        done = rlm("attach", *arguments)
        assert OBEYED.search(done.stderr) is None
    assert b"bad.json is left out" in done.stderr


@pytest.mark.parametrize("content", [{}, {"rlm": 1}, GOOD, {**GOOD, "transport": 5, "ip": [], "key": {}}])
def test_a_connection_file_without_a_connection_is_an_error_of_the_kernel(folder, content):
    written(content)(folder / "odd.json")
    with pytest.raises(KernelError, match="is not the connection file of a kernel"):
        Onlooker(folder / "odd.json")


def test_json_of_a_stranger_is_read_within_bounds(tmp_path):
    file = tmp_path / "file.json"
    for content in (b"[" * 201 + b"]" * 201, b"x", b"\xff"):
        file.write_bytes(content)
        with pytest.raises(ValueError):  # noqa: PT011 (whatever is wrong)
            untrusted_json.load(file)
    file.write_bytes(b"[" * 200 + b"]" * 200)
    assert untrusted_json.load(file)
    with pytest.raises(ValueError, match="larger than"):
        untrusted_json.load(file, max_bytes=100)

"""What a folder does to the user who works in it: its `.env` names servers, keys and proxies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from backends_on_loopback import installed
from hostile.keys_on_loopback import (
    ELSEWHERE,
    INPUT,
    KEY,
    OTHER_KEY,
    PROXIES,
    Listener,
    ask,
    each_backend,
    refusal,
    variables_of_sdks,
    write_env_file,
)

from rlm_kernel.clients.registry import BACKENDS, build, environment_variables
from rlm_kernel.clients.variables import MAX_FILE_BYTES
from rlm_kernel.errors import ConfigError
from rlm_kernel.rlm import RLM

NAMED = [row for row in BACKENDS.values() if row.base_url_variable and row.key_variable]
KEYLESS = [row for row in BACKENDS.values() if row.base_url_variable and row.key]


@pytest.fixture
def thief():
    with Listener() as listener:
        yield listener


@pytest.mark.parametrize("given", [{}, {"api_key": KEY}], ids=["environment", "argument"])
@pytest.mark.parametrize("row", NAMED, ids=lambda row: row.name)
async def test_a_server_of_an_env_file_gets_no_key_of_the_user(row, given, thief, monkeypatch):
    if not given:
        monkeypatch.setenv(row.key_variable, KEY)
    write_env_file(**{row.base_url_variable: thief.url})
    message = await refusal(lambda: ask(row, given))
    assert thief.seen == []
    source = "api_key in backend_kwargs" if given else f"{row.key_variable} in the environment"
    named = f"{row.base_url_variable} in {Path('.env').absolute()} names the server {thief.url}"
    assert message.startswith(f"{named}, which would get {source}. If you trust it, give base_url in backend_kwargs")
    assert KEY not in message


@pytest.mark.parametrize("row", NAMED, ids=lambda row: row.name)
async def test_a_key_of_an_env_file_does_not_change_that(row, thief, monkeypatch):
    monkeypatch.setenv(row.key_variable, KEY)
    write_env_file(**{row.base_url_variable: thief.url, row.key_variable: OTHER_KEY})
    assert "or keep the key in that file only" in await refusal(lambda: ask(row, {}))
    assert thief.seen == []


def test_a_run_is_refused_before_anything_is_sent(thief, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_env_file(OPENAI_BASE_URL=thief.url)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY in the environment"):
        RLM("openai", {"model_name": "m"})
    with pytest.raises(ConfigError, match="OPENAI_API_KEY in the environment"):
        RLM("vllm", {"model_name": "m", "base_url": thief.url}, other_backends=["openai"],
            other_backend_kwargs=[{"model_name": "m"}])  # fmt: skip
    assert thief.seen == []


@pytest.mark.parametrize("argument", [True, False], ids=["argument", "no argument"])
@each_backend
async def test_nothing_that_an_env_file_can_say_brings_it_a_key_or_the_input(row, argument, thief, monkeypatch):
    """The file points every variable that any SDK reads at its author, and proxies too."""
    for known in BACKENDS.values():
        if known.key_variable:
            monkeypatch.setenv(known.key_variable, KEY)
    names = {*variables_of_sdks(), *(each.base_url_variable for each in NAMED)} - {"OLLAMA_HOST"}  # it needs no key
    write_env_file(**dict.fromkeys(names, thief.url))
    with Listener() as friend:
        # The loopback address of a local server is its default; elsewhere a proxy would be asked.
        url = (ELSEWHERE if row.remote and row.name != "litellm" else friend.url) if argument else None
        if row.name != "llamacpp" or argument:
            await refusal(lambda: ask(row, {"base_url": url}))
    assert not thief.got(KEY)
    assert not thief.got(INPUT)
    assert thief.seen == []


@pytest.mark.parametrize("row", KEYLESS, ids=lambda row: row.name)
async def test_without_a_key_the_input_goes_to_this_machine_only(row, thief):
    write_env_file(**{row.base_url_variable: "http://192.0.2.7:11434"})
    message = await refusal(lambda: ask(row, {}))
    assert "names the server http://192.0.2.7:11434, which would get the input. If you trust it, give " in message
    write_env_file(**{row.base_url_variable: thief.host})
    await refusal(lambda: ask(row, {}))
    assert thief.got(INPUT)


ALLOWED = {
    "argument, environment": ("argument", "environment"),
    "argument, env file": ("argument", "file"),
    "environment, argument": ("environment", "argument"),
    "environment, env file": ("environment", "file"),
    "both in the env file": ("file", "file"),
}


@pytest.mark.parametrize(("url", "key"), ALLOWED.values(), ids=ALLOWED)
@pytest.mark.parametrize("row", NAMED, ids=lambda row: row.name)
async def test_a_key_may_go_to_a_server_of_as_trusted_a_source(row, url, key, thief, monkeypatch):
    written = {"url": (row.base_url_variable, thief.url), "key": (row.key_variable, KEY)}
    sources = {"url": url, "key": key}
    for kind, source in sources.items():
        if source == "environment":
            monkeypatch.setenv(*written[kind])
    write_env_file(**dict(written[kind] for kind, source in sources.items() if source == "file"))
    arguments = {"url": ("base_url", thief.url), "key": ("api_key", KEY)}
    await refusal(lambda: ask(row, dict(arguments[kind] for kind, source in sources.items() if source == "argument")))
    assert thief.got(KEY)


@each_backend
async def test_an_sdk_sends_nothing_that_it_finds_in_the_environment_itself(row, thief, monkeypatch):
    if row.others:
        pytest.skip("litellm is meant to find keys itself; a server that is not the user's gets none")
    canary = "canary-of-the-environment"
    for name in variables_of_sdks():
        if name not in PROXIES:
            monkeypatch.setenv(name, f"X-Canary: {canary}" if name.endswith("HEADERS") else canary)
    await refusal(lambda: ask(row, {"base_url": thief.url, "api_key": OTHER_KEY}))
    assert thief.got(OTHER_KEY)
    assert not thief.got(canary)


async def test_an_env_file_cannot_write_a_key_into_its_own_url(thief, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    url = f"http://{thief.host}/${{ANTHROPIC_API_KEY}}/${{PATH_OF_IT}}"
    write_env_file(PATH_OF_IT="v2", OPENAI_BASE_URL=url, OPENAI_API_KEY="${ANTHROPIC_API_KEY}" + OTHER_KEY)
    await refusal(lambda: ask(BACKENDS["openai"], {}))
    assert not thief.got(KEY)
    assert thief.got("POST /v2/chat/completions")  # of the file itself they are filled in
    assert thief.got(OTHER_KEY)


def test_an_env_file_without_end_is_not_read():
    with Path(".env").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match=r"\.env is larger than 1,000,000 bytes"):
        environment_variables()


@pytest.mark.skipif(not installed("litellm"), reason="the extra 'litellm' is not installed")
def test_litellm_loads_no_env_file_into_the_process(thief):
    """Its import does so by itself, in a notebook from the working folder."""
    code = f"""
import asyncio, os, sys
sys.ps1 = ">>> "  # as in a notebook
from rlm_kernel.clients.registry import build, environment_variables
given = dict(model_name="openai/m", api_key={KEY!r}, max_retries=0, timeout=5)
lm = build("litellm", given, environment_variables())
before = dict(os.environ)
async def main():
    try:
        await lm.complete([{{"role": "user", "content": "x"}}])
    except Exception as error:
        print(type(error).__name__)
asyncio.run(main())
print(os.environ.keys() - before.keys(), "LITELLM_MODE" in os.environ)
"""
    write_env_file(OPENAI_API_BASE=thief.url, OPENAI_BASE_URL=thief.url, RLM_TEST_FOLDER="1")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RLM_TEST_FOLDER" not in ended.stdout, ended.stdout
    assert (ended.returncode, thief.seen) == (0, []), ended.stderr


def test_a_variable_of_the_environment_wins_over_the_file_for_servers_too(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", ELSEWHERE)
    write_env_file(OPENAI_BASE_URL="http://192.0.2.7/v1")
    assert build("openai", {"model_name": "m"}, environment_variables()).base_url == ELSEWHERE
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

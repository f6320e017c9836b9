"""What a folder does to the user who works in it: its `.env`, its files as a context, its live REPLs."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryFile

import httpx
import pytest
from backends_on_loopback import installed
from dotenv.variables import parse_variables
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
from hypothesis import example, given
from hypothesis import strategies as st
from IPython.core.error import UsageError

from rlm_kernel import inputs
from rlm_kernel.api import RLM
from rlm_kernel.clients import variables
from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.clients.registry import build
from rlm_kernel.clients.variables import MAX_FILE_BYTES, environment_variables
from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.kernel import connection_files
from rlm_kernel.kernel.inspector import KernelInspector
from rlm_kernel.untrusted import encodings, json_text
from rlm_kernel.untrusted.text_files import read_text
from rlm_magics import notebook_inputs
from rlm_magics.grammar import cell_grammar

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


MAY_BE_KEYS = {
    "a header": ("openai", {"default_headers": {"X-Api-Key": KEY}}),
    "a header of ollama": ("ollama", {"default_headers": {"Authorization": f"Bearer {KEY}"}}),
    "a header of azure": ("azure_openai", {"default_headers": {"Ocp-Apim-Subscription-Key": KEY}}),
    "a header of anthropic": ("anthropic", {"default_headers": {"X-Api-Key": KEY}}),
    "the query": ("openai", {"default_query": {"code": KEY}}),
    "a field of the body": ("openai", {"sampling_args": {"extra_body": {"provider": [{"key": KEY}]}}}),
    "an unknown sampling argument": ("openai", {"sampling_args": {"provider_key": KEY}}),
    "a config of portkey": ("portkey", {"config": {"api_key": KEY}}),
    "a client for HTTP": ("openai", {"http_client": httpx.AsyncClient(headers={"X-Api-Key": KEY})}),
}


@pytest.mark.parametrize(("backend", "given"), MAY_BE_KEYS.values(), ids=MAY_BE_KEYS)
async def test_a_server_of_an_env_file_gets_nothing_else_that_may_be_a_key(backend, given, thief):
    row = BACKENDS[backend]
    write_env_file(**{str(row.base_url_variable): thief.url, str(row.key_variable): OTHER_KEY})
    message = await refusal(lambda: ask(row, given))
    assert thief.seen == []
    assert f"which would get {next(iter(given))} in backend_kwargs. If you trust it, give base_url" in message
    await refusal(lambda: ask(row, {**given, "base_url": thief.url, "api_key": OTHER_KEY}))
    assert thief.got(KEY)


async def test_numbers_and_plain_sampling_arguments_are_no_keys(thief):
    write_env_file(OLLAMA_HOST=thief.host)
    plain = {"stop": ["END"], "reasoning_effort": "low", "num_ctx": 8192, "extra_body": {"think": False, "top_k": 20}}
    await refusal(lambda: ask(BACKENDS["ollama"], {"sampling_args": plain}))
    assert thief.got(INPUT)


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
    with pytest.raises(ConfigError, match=r"\.env cannot be read \(it is larger than 1,000,000 bytes"):
        environment_variables()


def test_an_env_pipe_to_which_nobody_writes_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(variables, "MAX_PIPE_SECONDS", 0.2)
    os.mkfifo(".env")
    with pytest.raises(ConfigError, match=r"it is a pipe, and its end did not come"):
        environment_variables()


def test_an_env_pipe_whose_writer_comes_later_is_read():
    os.mkfifo(".env")
    writer = threading.Timer(0.2, lambda: Path(".env").write_text("KEY_OF_IT=from a pipe"))
    writer.start()
    assert environment_variables()["KEY_OF_IT"] == "from a pipe"
    writer.join()


def test_references_of_an_env_file_do_not_multiply_its_size():
    lines = [f"A{n + 1}=${{A{n}}}${{A{n}}}\n" for n in range(60)]
    Path(".env").write_text(f"A0=xxxxxxxx\n{''.join(lines)}")
    with pytest.raises(ConfigError, match="its values become larger than 1,000,000 characters"):
        environment_variables()


@pytest.mark.parametrize("unit", ["${B:-", "${", "${B:x", "$"])
def test_references_without_an_end_in_an_env_file_are_read_in_linear_time(unit):
    value = unit * (900_000 // len(unit))
    Path(".env").write_text(f"A={value}\n")
    started = time.process_time()
    assert environment_variables()["A"] == value
    assert time.process_time() - started < 2


@given(st.lists(st.sampled_from(["${", "}", ":", "-", ":-", "A", "B", "$", "{", "x"])).map("".join))
def test_references_of_an_env_file_mean_what_they_mean_to_dotenv(value):
    known = {"A": "1", "B": "", "AB": "${A}"}
    assert "".join(variables.filled_in(value, known, 1_000)) == "".join(
        a.resolve(known) for a in parse_variables(value)
    )


@pytest.mark.full
@pytest.mark.skipif(not installed("litellm"), reason="the extra 'litellm' is not installed")
def test_litellm_loads_no_env_file_into_the_process(thief):
    """Its import does so by itself, in a notebook from the working folder."""
    code = f"""
import asyncio, os, sys
sys.ps1 = ">>> "  # as in a notebook
from rlm_kernel.clients.registry import build; from rlm_kernel.clients.variables import environment_variables
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
    assert build("openai", {"model_name": "m"}, environment_variables()).adapter.base_url == ELSEWHERE


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
def attach_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(connection_files.VARIABLE, str(tmp_path / "repls"))
    path = connection_files.folder()
    written(GOOD)(path / "local-good.json")
    return path


def rlm(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "rlm_kernel.cli", *arguments], capture_output=True, check=False, timeout=60
    )


@pytest.mark.parametrize("kind", BAD)
def test_a_file_in_the_attach_folder_that_is_none_of_ours_is_left_out_with_a_note(attach_folder, kind):
    BAD[kind](attach_folder / "bad.json")
    with pytest.warns(UserWarning, match=r"bad\.json is left out"):
        assert [repl.name for repl in connection_files.list_live()] == ["local-good"]


def test_rlm_attach_lists_the_others_and_says_what_it_left_out(attach_folder):
    for number, make in enumerate(BAD.values()):
        make(attach_folder / f"bad-{number}.json")
    done = rlm("attach", "--list")
    assert (done.returncode, done.stdout) == (0, b"local-good\tlocal\t12:00:00\n")
    assert done.stderr.count(b"is left out") == len(BAD)


def test_kernels_of_others_are_left_out_in_silence(attach_folder):
    written({"shell_port": 1, "key": "x"})(attach_folder / "kernel-1.json")
    assert [repl.name for repl in connection_files.list_live()] == ["local-good"]


def test_the_names_of_files_do_not_reach_the_terminal(attach_folder):
    written(GOOD)(attach_folder / "\x1b]0;owned\x07local-\x9b2J.json")
    written(b"[")(attach_folder / "\x1b]0;owned\x07bad.json")
    for arguments in (["--list"], ["\x1b[2J"], ["-e", "1", "local-\x9b"]):
        done = rlm("attach", *arguments)
        assert OBEYED.search(done.stderr) is None
    assert b"bad.json is left out" in done.stderr


@pytest.mark.parametrize("content", [{}, {"rlm": 1}, GOOD, {**GOOD, "transport": 5, "ip": [], "key": {}}])
def test_a_connection_file_without_a_connection_is_an_error_of_the_kernel(attach_folder, content):
    written(content)(attach_folder / "odd.json")
    with pytest.raises(KernelError, match="is not the connection file of a kernel"):
        KernelInspector(attach_folder / "odd.json")


def test_json_of_a_stranger_is_read_within_bounds(tmp_path):
    file = tmp_path / "file.json"
    for content in (b"[" * 201 + b"]" * 201, b"x", b"\xff"):
        file.write_bytes(content)
        with pytest.raises(ValueError):  # noqa: PT011 (whatever is wrong)
            json_text.load(file)
    file.write_bytes(b"[" * 200 + b"]" * 200)
    assert json_text.load(file)
    with pytest.raises(ValueError, match="larger than"):
        json_text.load(file, max_bytes=100)


SECRET = "sk-secret-of-the-user"


@pytest.fixture
def outside(tmp_path):
    """What lies beside the folder."""
    path = tmp_path / "outside"
    (path / "deeper").mkdir(parents=True)
    (path / "key.txt").write_text(SECRET)
    (path / "deeper" / "key.txt").write_text(SECRET)
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder with one text and a hidden one."""
    path = tmp_path / "given"
    path.mkdir()
    (path / "a.txt").write_text("a text")
    (path / ".env").write_text(SECRET)
    (path / ".git").mkdir()
    (path / ".git" / "config").write_text(SECRET)
    return path


def read(folder, capsys):
    """The texts of a folder, and the line about them."""
    texts = inputs.read(str(folder))
    line, *unread = capsys.readouterr().err.splitlines(keepends=True)
    assert all(more.startswith("rlm: not read: ") for more in unread)
    assert len(unread) <= 201
    return texts, line


LINKS = {
    "to a file outside": "../outside/key.txt",
    "to a file outside, by its absolute path": "{outside}/key.txt",
    "to a folder outside": "../outside/deeper",
    "to the folder above": "..",
    "to a hidden file": ".env",
    "to a file in a hidden folder": ".git/config",
    "to a hidden file through another link": "second",
    "to a file outside through another link": "third",
    "out and in again by another name": "../given/.env",
    "through /proc": "/proc/self/cwd/../outside/key.txt",
    "to a process's own files": "/proc/self/environ",
    "to a device": "/dev/zero",
    "to itself": "link",
    "to the folder itself": ".",
    "to nothing": "missing",
}


@pytest.mark.parametrize("target", LINKS.values(), ids=LINKS)
def test_a_link_out_of_the_folder_or_to_what_is_hidden_is_refused_and_named(folder, outside, capsys, target):
    (folder / "second").symlink_to(".env")
    (folder / "third").symlink_to(outside / "key.txt")
    (folder / "link").symlink_to(target.format(outside=outside))
    texts, line = read(folder, capsys)
    assert texts == {"a.txt": "a text"}
    assert "refused 3 links" in line
    assert "(link, second, third)" in line


def test_a_link_to_a_visible_file_of_the_folder_is_read(folder, capsys):
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text("b text")
    (folder / "latest").symlink_to("sub/b.txt")
    (folder / "sub" / "up").symlink_to("../a.txt")
    texts, line = read(folder, capsys)
    assert texts == {"a.txt": "a text", "latest": "b text", "sub/b.txt": "b text", "sub/up": "a text"}
    assert "refused" not in line


def test_a_folder_that_is_itself_a_link_is_read_because_the_user_named_it(folder, tmp_path, capsys):
    (tmp_path / "named").symlink_to(folder)
    (folder / "inner").symlink_to("a.txt")
    assert read(tmp_path / "named", capsys)[0] == {"a.txt": "a text", "inner": "a text"}


def test_a_long_chain_of_links_is_refused(folder, capsys):
    for number in range(3000):
        (folder / f"l{number}").symlink_to(f"l{number + 1}" if number < 2999 else "a.txt")
    texts, line = read(folder, capsys)
    assert "l0" not in texts
    assert "a.txt" in texts
    assert "refused" in line


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_pipes_and_sockets_in_a_folder_are_refused_and_not_waited_for(folder, capsys, kind, monkeypatch):
    if kind == "pipe":
        os.mkfifo(folder / "odd")
    else:
        monkeypatch.chdir(folder)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as odd:
            odd.bind("odd")
    texts, line = read(folder, capsys)
    assert texts == {"a.txt": "a text"}
    assert "refused 1 devices, pipes or sockets (odd)" in line


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes a device")
def test_a_device_in_a_folder_is_refused(folder, capsys):
    os.mknod(folder / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    texts, line = read(folder, capsys)
    assert texts == {"a.txt": "a text"}
    assert "(zero)" in line


def test_names_that_a_terminal_would_obey_are_told_in_one_plain_line(folder, capsys):
    (folder / "x\x1b]0;owned\x07\x1b[2J\nrlm: 9 files").symlink_to("/etc/passwd")
    (folder / ".h\r\x9b31m\u202e").touch()
    Path(os.fsdecode(bytes(folder) + b"/\xff\xfe")).symlink_to("/etc/passwd")
    texts, line = read(folder, capsys)
    assert texts == {"a.txt": "a text"}
    assert not set(line.rstrip("\n")) & {chr(code) for code in (*range(32), *range(127, 160), 0x202E)}
    assert "refused 2 links" in line


def test_names_that_are_not_utf_8_are_kept(folder, capsys):
    Path(os.fsdecode(bytes(folder) + b"/\xffb\n.txt")).write_text("b text")
    assert read(folder, capsys)[0] == {"a.txt": "a text", "\udcffb\n.txt": "b text"}


def swapping(here, there):
    """Exchange a path for another and back, until the returned event is set."""
    enough = threading.Event()

    def swap():
        kept = here.with_name(f".{here.name}.kept")
        while not enough.is_set():
            here.rename(kept)
            here.symlink_to(there)
            here.unlink()
            kept.rename(here)

    thread = threading.Thread(target=swap)
    thread.start()
    return enough, thread


@pytest.mark.parametrize("name", ["sub", "key.txt"])
def test_a_file_or_folder_that_is_exchanged_for_a_link_is_not_followed(folder, outside, name):
    (folder / "sub").mkdir()
    for number in range(20):
        (folder / "sub" / f"{number}.txt").write_text("fine")
    (folder / "key.txt").write_text("fine")
    (outside / "deeper" / "0.txt").write_text(SECRET)
    enough, thread = swapping(folder / name, outside / ("deeper" if name == "sub" else "key.txt"))
    try:
        seen = [text for _ in range(150) for text in inputs.read(str(folder)).values()]
    finally:
        enough.set()
        thread.join()
    assert SECRET not in seen
    assert "fine" in seen


def test_a_target_that_is_exchanged_after_the_link_was_resolved_is_not_followed(folder, outside):
    (folder / "sub").mkdir()
    (folder / "sub" / "key.txt").write_text("fine")
    (folder / "link").symlink_to("sub/key.txt")
    enough, thread = swapping(folder / "sub", outside)
    try:
        seen = [text for _ in range(300) for text in inputs.read(str(folder)).values()]
    finally:
        enough.set()
        thread.join()
    assert SECRET not in seen


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_counted_and_named(folder, capsys):
    (folder / "locked").mkdir(mode=0)
    (folder / "b.txt").write_text("b")
    (folder / "b.txt").chmod(0)
    _, line = read(folder, capsys)
    assert "skipped 2 unreadable (b.txt, locked/)" in line


def test_a_folder_as_another_user_sees_it_tells_what_could_not_be_read(folder):
    if os.getuid() != 0:
        pytest.skip("becomes another user")
    (folder / "locked").mkdir(mode=0)
    (folder / "b.txt").write_text("b")
    (folder / "b.txt").chmod(0)
    folder.chmod(0o755)
    here = os.open(folder, os.O_RDONLY)
    pid = os.fork()
    if pid == 0:
        os.fchdir(here)
        os.setuid(65534)
        try:
            os._exit(0 if list(inputs.read(".")) == ["a.txt"] else 1)
        finally:
            os._exit(2)
    os.close(here)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_folder_of_very_many_files_is_refused_with_the_number(folder, monkeypatch):
    monkeypatch.setattr("rlm_kernel.untrusted.text_files.MAX_ENTRIES", 50)
    monkeypatch.setattr(inputs, "MAX_ENTRIES", 50)
    for number in range(60):
        (folder / f"{number}.txt").touch()
    with pytest.raises(ConfigError, match="holds more than 50 files: name a folder below it"):
        inputs.read(str(folder))


def test_folders_are_entered_to_a_depth_that_ends(folder, capsys):
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    texts, line = read(folder, capsys)
    subprocess.run(["rm", "-r", str(folder / "d")], check=True)  # too deep for pytest
    assert texts == {"a.txt": "a text"}
    assert "folders below the 100th level" in line


def sparse(path, size, text=b"text\n"):
    path.write_bytes(text)
    os.truncate(path, size)
    return path


def test_the_texts_of_a_folder_have_one_bound_together(folder):
    for name in "bcd":
        (folder / name).write_text("x" * 400)
    with pytest.raises(ConfigError, match="at least 1,206 bytes of text and the limit is 1,000: raise --max-context-"):
        inputs.read(str(folder), max_bytes=1000)
    assert len(inputs.read(str(folder), max_bytes=1206)) == 4


def test_a_large_binary_file_in_a_folder_is_skipped_and_not_read(folder, capsys):
    sparse(folder / "video", 6 << 30)
    assert read(folder, capsys)[0] == {"a.txt": "a text"}


def test_a_sparse_file_larger_than_the_limit_is_refused_with_both_numbers(tmp_path):
    file = sparse(tmp_path / "large.txt", 6 << 30)
    with pytest.raises(ConfigError, match=r"6,442,450,944 bytes .* limit is 1,073,741,824: raise --max-context-bytes"):
        inputs.read(str(file))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_a_device_is_not_a_context(path):
    with pytest.raises(ConfigError, match=f"{path} is a device"):
        inputs.read(path)


def test_a_link_to_a_device_is_not_a_context(tmp_path):
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="is a device"):
        inputs.read(str(tmp_path / "link"))


def test_a_file_that_the_user_names_may_be_a_link(folder, outside):
    (folder / "link").symlink_to(outside / "key.txt")
    assert inputs.read(str(folder / "link")) == SECRET


def test_a_file_that_grows_is_read_as_it_was(tmp_path):
    file = tmp_path / "log.txt"
    file.write_text("x" * 3_000_000)
    enough = threading.Event()

    def grow():
        with file.open("a") as log:
            while not enough.is_set():
                log.write("y" * 100_000)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        text = inputs.read(str(file))
    finally:
        enough.set()
        thread.join()
    assert text.startswith("x" * 3_000_000)


@pytest.mark.parametrize("endless", [b"yes\n", b"\0", b"\xf0\x9f\x98\x80"])
def test_a_pipe_without_an_end_is_read_to_the_limit(endless):
    ours, theirs = os.pipe()

    def write():
        try:
            while True:
                os.write(theirs, endless * 1000)
        except BrokenPipeError:
            os.close(theirs)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(ConfigError, match="limit is 5,000,000: raise --max-context-bytes|is binary"):
            inputs.read(f"/dev/fd/{ours}", max_bytes=5_000_000)
    finally:
        os.close(ours)
        thread.join()


PROGRAM = """
import resource, sys
from rlm_kernel import inputs as contexts; from rlm_kernel.cli import main
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    text = contexts.read(sys.argv[1], max_bytes=int(sys.argv[2]))
    print(type(text).__name__, len(text))
except contexts.ConfigError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def measured(source, max_bytes=1 << 30, **options):
    """What a process of its own says of a source, and by how many bytes it grew."""
    command = [sys.executable, "-c", PROGRAM, str(source), str(max_bytes)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=100, **options)
    said, grown = done.stdout.decode().splitlines()
    return said, int(grown) * (1024 if sys.platform == "linux" else 1)


def test_stdin_without_an_end_is_read_to_the_limit():
    with subprocess.Popen(["yes", "a line of text"], stdout=subprocess.PIPE) as endless:
        said, grown = measured("-", 50_000_000, stdin=endless.stdout)
        endless.kill()
    assert "--context stdin has at least" in said
    assert "the limit is 50,000,000" in said
    assert grown < 150_000_000
    with Path("/dev/zero").open("rb") as zero:
        assert "stdin is binary" in measured("-", stdin=zero)[0]


@pytest.mark.parametrize("text", ["plain text\n", "some wörds\n", "漢字の文\n"])
def test_reading_takes_less_than_three_times_the_room_of_a_file(tmp_path, text):
    size = 150_000_000
    file = tmp_path / "large.txt"
    file.write_bytes(text.encode() * (size // len(text.encode())))
    said, grown = measured(file)
    assert said.startswith("str ")
    assert grown < 3 * size


def test_process_substitution_and_stdin_by_its_path_are_read():
    program = f'exec "{sys.executable}" -c "$0" "$1" 1000000 '
    for source, tail in [('<(printf "one two")', ""), ("/dev/stdin", '<<< "one two"'), ("/dev/fd/5", '5<<< "one two"')]:
        line = program.replace('"$1"', source) + tail
        done = subprocess.run(["bash", "-c", line, PROGRAM], capture_output=True, check=True, timeout=100)
        assert done.stdout.split()[:2] in ([b"str", b"7"], [b"str", b"8"])


def test_a_cell_of_a_notebook_has_the_same_bound(folder, tmp_path, capsys):
    (folder / "link").symlink_to("/etc/passwd")
    assert notebook_inputs.read([], [str(folder)], {}, "local").prompt == {"a.txt": "a text"}
    assert "refused 1 links" in capsys.readouterr().err
    assert notebook_inputs.read(["path"], [], {"path": folder}, "local").prompt == {"a.txt": "a text"}
    large = sparse(tmp_path / "large.txt", 6 << 30)
    limit = cell_grammar().read("").max_context_bytes
    for source in ([[], [str(large)], {}], [["path"], [], {"path": large}]):
        alone = notebook_inputs.read(*source, "local", limit).prompt
        with pytest.raises(ConfigError, match="--max-context-bytes"):
            inputs.open_text(alone, "--file", in_kernel=True, max_bytes=limit)
    with pytest.raises(ConfigError, match="--max-context-bytes"):
        notebook_inputs.read([], [str(large), str(folder)], {}, "local", limit)
    assert cell_grammar().read("--max-context-bytes 2g").max_context_bytes == 2 << 30
    with pytest.raises(UsageError, match="'many' is not a size"):
        cell_grammar().read("--max-context-bytes many")


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "missing/deeper"])
def test_a_name_that_cannot_be_one_is_an_error_in_words(name):
    with pytest.raises(ConfigError, match="cannot be read"):
        inputs.read(name)


@given(
    pieces=st.lists(
        st.sampled_from([b"a", b"\xef", b"\xbb", b"\xbf", b"\xef\xbb\xbf", b"\xff", b"\xf0\x9f", b"\x98\x80"])
    ),
    size=st.integers(1, 4),
)
@example(pieces=[b"\xef\xbb\xbf", b"\xef\xbb\xbf"], size=3)
def test_bytes_in_pieces_become_the_same_text_as_at_once(pieces, size):
    content = b"".join(pieces)
    with TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlm_kernel.untrusted.text_files._PIECE", size)
        file.write(content)
        file.seek(0)
        text, encoding = encodings.decode(content.decode("utf-8-sig", "surrogateescape"))
        read = read_text(file, 1000)
    assert read[:2] == (text, len(content))
    assert (encoding or "utf-8") == read.encoding.removesuffix("-sig")


def test_no_descriptor_is_left_open(folder, outside):
    (folder / "link").symlink_to(outside / "key.txt")
    (folder / "sub").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        inputs.read(str(folder))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_needs_few_descriptors(folder):
    deep = folder.joinpath(*"bcdefghijklmnopqrstuvwxyz")
    deep.mkdir(parents=True)
    (deep / "last.txt").write_text("found")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
    try:
        assert "found" in inputs.read(str(folder)).values()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

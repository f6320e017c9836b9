"""What every test stands on: no way outside, no keys, nothing of the user's files, a provider on loopback."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import settings
from loopback import LoopbackProvider
from outside import guarded, guarded_lookup
from places import parametrize, provided

# An example that takes long on a busy machine is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A run in the background inherits that Ctrl-C is ignored, and so would the processes that get it here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SECRETS = re.compile(
    r"(_KEY|_SECRET|_TOKEN|_TOKEN_ID)$|^(ANTHROPIC|AZURE|GEMINI|LITELLM|OLLAMA|OPENAI|OPENROUTER|PORTKEY|VLLM)_"
)

FAST = {"api", "clients", "contract", "engine", "unit"}
NOT_FAST = {
    "elsewhere",
    "full",
    "slow",
    "docker_engine",
    "modal_emulator",
    "prime_emulator",
    "daytona_emulator",
    "e2b_emulator",
}
"""A test of these folders without these markers and fixtures is `fast`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run also what is slow and rarely breaks (marker `full`)")
    parser.addoption("--record", action="store_true", help="ask the local model again for its recorded replies")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        about = {mark.name for mark in item.iter_markers()} | set(item.fixturenames)
        if item.path.parent.name in FAST and not about & NOT_FAST:
            item.add_marker("fast")
    if not config.getoption("full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc)


@pytest.fixture
def kernel_place(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Environment and options of the place where the test's kernel lives."""
    return provided(request.param, request)


@pytest.fixture(scope="session", autouse=True)
def _no_outside_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", guarded_lookup(socket.getaddrinfo))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_keys() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if SECRETS.search(name):
                patch.delenv(name)
        patch.setenv("MODAL_CONFIG_PATH", os.devnull)  # Modal's client reads its tokens from the user's home
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_user_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder / name.lower()))
        patch.delenv("JUPYTER_PATH", raising=False)
        yield


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's `.env` is found from the working directory upward, and logs are written into it."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as loopback:
        yield loopback


@pytest.fixture(scope="session")
def _modal_service() -> Iterator[Any]:
    modal = pytest.importorskip("modal")
    from emulator import ModalEmulator

    with ModalEmulator() as emulator:
        yield emulator
        with pytest.MonkeyPatch.context() as patch:
            for name, value in emulator.environment.items():
                patch.setenv(name, value)
            modal.Client.from_env().close()


@pytest.fixture
def modal_emulator(_modal_service: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modal, as `tests/modal/emulator.py` plays it: one for all tests, as good as new for each."""
    for name, value in _modal_service.environment.items():
        monkeypatch.setenv(name, value)
    yield _modal_service
    _modal_service.reset()


@pytest.fixture(scope="session")
def _prime_service() -> Iterator[Any]:
    pytest.importorskip("prime_sandboxes")
    from prime import PrimeEmulator

    with PrimeEmulator() as emulator:
        yield emulator


@pytest.fixture
def prime_emulator(_prime_service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Prime, as `tests/clouds/prime.py` plays it. Its client keeps keys of sandboxes in the user's home."""
    yield from _played(_prime_service, monkeypatch, HOME=str(tmp_path))


@pytest.fixture(scope="session")
def _daytona_service() -> Iterator[Any]:
    pytest.importorskip("daytona")
    from daytona_cloud import DaytonaEmulator

    with DaytonaEmulator() as emulator:
        yield emulator


@pytest.fixture
def daytona_emulator(_daytona_service: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Daytona, as `tests/clouds/daytona_cloud.py` plays it."""
    yield from _played(_daytona_service, monkeypatch)


@pytest.fixture(scope="session")
def _e2b_service() -> Iterator[Any]:
    pytest.importorskip("e2b")
    from e2b_cloud import E2BEmulator

    with E2BEmulator() as emulator:
        yield emulator


@pytest.fixture
def e2b_emulator(_e2b_service: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """E2B, as `tests/clouds/e2b_cloud.py` plays it."""
    yield from _played(_e2b_service, monkeypatch)


def _played(emulator: Any, monkeypatch: pytest.MonkeyPatch, **more: str) -> Iterator[Any]:
    for name, value in {**emulator.environment, **more}.items():
        monkeypatch.setenv(name, value)
    yield emulator
    emulator.reset()


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Any]:
    """The client of a Docker engine with the image `python:3.11-slim`. In CI it must be there."""
    docker = pytest.importorskip("docker")
    from rlm_kernel.errors import KernelError
    from rlm_kernel.provisioners.docker import daemon as provisioner

    try:
        client = provisioner.engine()
        client.inspect_image("python:3.11-slim")
    except (KernelError, docker.errors.ImageNotFound) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs a Docker engine with the image python:3.11-slim: {error}")
    yield client
    for used in provisioner._clients.values():
        used.close()


@pytest.fixture(scope="session")
def jupyter_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Jupyter server on loopback, with its default limits."""
    from machines import JupyterServer

    with JupyterServer(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real OpenSSH server on loopback. In CI it must be there."""
    from machines import SSHServer, has_sshd

    if not has_sshd():
        assert not os.environ.get("CI"), "needs openssh-server and openssh-client"
        pytest.skip("needs openssh-server and openssh-client")
    with SSHServer(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def bwrap() -> None:
    """bubblewrap. In CI it must be there."""
    _needs_sandbox("bwrap")


@pytest.fixture(scope="session")
def landlock() -> None:
    """A kernel of Linux with Landlock. In CI it must be there."""
    _needs_sandbox("landlock")


def _needs_sandbox(name: Literal["bwrap", "landlock"]) -> None:
    from rlm_kernel.provisioners.sandbox.walls import trouble

    if why := trouble(name):
        assert not os.environ.get("CI"), why
        pytest.skip(why)

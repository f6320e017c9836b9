"""What every test stands on: no way outside, no keys, nothing of the user's files, a provider on loopback."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import settings
from loopback import LoopbackProvider
from outside import guarded, guarded_lookup

# An example that takes long on a busy machine is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

SECRETS = re.compile(
    r"(_KEY|_SECRET|_TOKEN|_TOKEN_ID)$|^(ANTHROPIC|AZURE|GEMINI|LITELLM|OLLAMA|OPENAI|OPENROUTER|PORTKEY|VLLM)_"
)


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

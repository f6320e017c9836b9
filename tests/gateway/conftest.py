from __future__ import annotations

import json

import pytest
from gateway.session_client import Client

from rlm_kernel.gateway.gateway import Gateway


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    """The key that signs the trail is not the user's."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    files = {
        "README.md": "A repository about kernels.\n",
        "src/session.py": "".join(f"line {n} of the session\n" for n in range(1, 501)),
        "src/deep/er/leaf.py": "class SessionManager:\n    pass\n",
        "environments/spec.txt": "the place where a kernel runs\n",
        ".env": "PASSWORD=hunter2\n",
        ".env.local": "PASSWORD=hunter2\n",
        "env/lib.py": "PASSWORD = 'hunter2'\n",
        "conf/credentials.json": json.dumps({"password": "hunter2"}),
        ".git/config": "hunter2\n",
        ".gitignore": "*.log\n/build/\n!kept.log\n",
        "noise.log": "hunter2\n",
        "kept.log": "kept\n",
        "build/out.txt": "hunter2\n",
        "wide.txt": "ä" * 20_000,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "picture.bin").write_bytes(b"\x89PNG\0\0" * 100)
    return root


@pytest.fixture
async def gateway(repository, tmp_path):
    gateway = Gateway(repository, tmp_path / "data")
    yield gateway
    await gateway.close()


@pytest.fixture
async def client(gateway):
    return await Client(gateway).begin(".")

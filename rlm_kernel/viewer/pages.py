"""The HTML around the component: the page of the server, and the file that holds a log.

Neither holds foreign text as markup: what a page holds besides `page.html` is made of elements. The policy of both lets
run what we wrote and nothing else, and makes the browser refuse any attempt to set markup
(`require-trusted-types-for`), so that a mistake of ours would be an error, not a hole.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from rlm_kernel.errors import ConfigError
from rlm_kernel.html.markup import Element, Markup, Node, embed_json, fill, h
from rlm_kernel.trajectory.log.file_names import stem_of
from rlm_kernel.untrusted.json_text import read_file
from rlm_kernel.viewer import component
from rlm_kernel.viewer.log_source import LogOnDisk
from rlm_kernel.viewer.words import drawn_words

_MAX_LOG_BYTES = 1 << 30
TITLE = "RLM runs"
_STYLE = (
    "html,body{height:100%;margin:0;background:#fcfbf9}#rlm-viewer{height:100dvh}"
    "@media(prefers-color-scheme:dark){html,body{background:#17191d}}"
    "@media print{html,body,#rlm-viewer{height:auto;background:#fff}}"
)


def served_page() -> Markup:
    """The page of `rlm view`, which loads `viewer.js`."""
    return _page(TITLE, h("script", type="module", src="viewer.js"))


def served_policy() -> str:
    """The Content-Security-Policy of that page."""
    return _policy("script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'")


def locked() -> Markup:
    """The page for a browser without the token. It holds nothing that is protected."""
    return fill(component.source("locked.html"), style=h("style", Markup(component.source("locked.css"))))


def locked_policy() -> str:
    """The Content-Security-Policy of that page."""
    return f"default-src 'none'; style-src '{_hash(component.source('locked.css'))}'; img-src data:"


def opening(url: str) -> Markup:
    """A page that redirects to an address. It is opened from a file, because `ps` shows command lines to all users."""
    return fill(component.source("opening.html"), url=url)


def standalone_page(log: Path) -> Markup:
    """A page that holds a log and needs nothing else.

    Raises:
        ConfigError: the log cannot be read.
    """
    script = component.script("page")
    policy = _policy(f"script-src '{_hash(script)}'", "connect-src 'none'")
    fresh = {"data_fresh": "yes"} if LogOnDisk(log).fresh else {}
    text = _text(log)
    words = json.dumps(drawn_words(text))
    return _page(
        f"{stem_of(log)} · {TITLE}",
        h("script", Markup(script), type="module"),
        policy=h("meta", http_equiv="Content-Security-Policy", content=policy),
        log=[
            h("script", embed_json(text), type="application/json", id="rlm-log", data_name=log.name, **fresh),
            h("script", embed_json(words), type="application/json", id="rlm-words"),
        ],
    )


def export(log: Path, output: Path) -> None:
    """Write the page of a log.

    Raises:
        ConfigError: the log cannot be read, or the page not be written.
    """
    page = standalone_page(log)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, "utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error


def _text(log: Path) -> str:
    try:
        return read_file(log, _MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"{log} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{log} cannot be read: {error}.") from error


def _policy(*rules: str) -> str:
    fixed = f"default-src 'none'; style-src '{_hash(_STYLE)}'; img-src data:; base-uri 'none'; form-action 'none'"
    return "; ".join([fixed, "require-trusted-types-for 'script'", "trusted-types 'none'", *rules])


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _page(title: str, script: Element, policy: Node = (), log: Node = ()) -> Markup:
    style = h("style", Markup(_STYLE))
    return fill(component.source("page.html"), title=title, style=style, policy=policy, log=log, script=script)

"""Foreign text made fit to show, and amounts in words.

What a model or a kernel wrote may hold terminal control sequences, text-direction overrides and lone surrogates. A
terminal would obey the first, a reader would be deceived by the second, an encoder would fail on the third. `plain`
removes them, and reduces a progress bar to its last state.
"""

from __future__ import annotations

import re
import sys

GAP = "\n… {:,} characters left out …\n"

# What a sequence holds excludes every introducer. So one that never ends is read up to the next one, and not to the end
# of the text: reading all of it for each introducer would take quadratic time.
_ESCAPES = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x90\x98\x9b-\x9f]*+(?:\x07|\x1b\\|\x9c)"  # OSC: window titles, links, the clipboard
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x90\x98\x9b-\x9f]*+(?:\x1b\\|\x9c)"  # DCS, SOS, PM, APC: to the device
    r"|(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"  # CSI: colours, cursor movement
    r"|\x1b[ -/]*+[0-~]"  # the short ones
)
_OLD_PAINTS = re.compile(r"^[^\n]*\r(?=[^\S\r\n]*+[^\s])", re.MULTILINE)
_REPAINTED = re.compile(r"\r[^\n]*+")
_OVERWRITTEN = re.compile(r"[^\n\x08]\x08")
# Form feeds stand in old source files; like the other controls they have no meaning on a screen.
_UNSHOWABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks, embeddings, overrides and isolates of direction
)
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_SUSPECT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def plain(text: str) -> str:
    """The text without anything that a terminal would obey.

    Escape sequences, control characters (but not newline and tab) and text-direction controls are removed,
    and lone surrogates become U+FFFD. Of a line that was repainted with carriage returns, the last paint that
    shows anything stays. The result can be encoded as UTF-8, and `plain` of it is the same text. Takes linear
    time.
    """
    if _SUSPECT.search(text) is None:
        return text
    text = _ESCAPES.sub("", text).replace("\u2028", "\n").replace("\u2029", "\n")
    text = _UNSHOWABLE.sub("", _OVERWRITTEN.sub("", _repaint(text)))
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def _repaint(text: str) -> str:
    """Each line as its last paint that shows anything; one in which none does is what it began with."""
    return _REPAINTED.sub("", _OLD_PAINTS.sub("", text)) if "\r" in text else text


def one_line(text: str) -> str:
    """The text in one line, as `plain` shows it."""
    return " ".join(plain(text).split())


def clip(text: str, limit: int, *, head: float = 0.6) -> str:
    """The text, or its head and tail around a line that says how much is missing. `head`: the head's share."""
    if len(text) <= limit:
        return text
    first = int(limit * head)
    gap = GAP.format(len(text) - limit)
    return text[:first] + gap + (text[-(limit - first) :] if limit > first else "")


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: `0.4 s`, `42 s`, `3 min 05 s`."""
    if seconds < 9.95:  # noqa: PLR2004 (below ten seconds the tenths matter)
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def format_tokens(sent: int, received: int) -> str:
    """Tokens of prompts and replies: `1,204 tokens in, 96 out`."""
    return f"{sent:,} tokens in, {received:,} out"


def size_in_bytes(size: str | int) -> int:
    """``"2g"``, ``"512m"``, ``"1.5 GiB"`` or a number of bytes, as bytes.

    Raises:
        ValueError: not a size, or one that no machine has.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None:
        raise ValueError(f"{size!r} is not a size: write it like '2g', '512m' or as a number of bytes.")
    wanted = float(match[1]) * _FACTORS[match[2].lower()]
    if wanted >= sys.maxsize:
        raise ValueError(f"{size!r} is more than any machine has: write it like '2g' or '512m'.")
    return int(wanted)

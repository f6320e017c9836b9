"""Make foreign text safe to show, clip it, and format amounts.

What a model or a kernel wrote may hold terminal control sequences, text-direction overrides and lone surrogates. A
terminal would obey the first, a reader would be deceived by the second, an encoder would fail on the third. `plain`
removes them, and reduces a progress bar to its last state.
"""

from __future__ import annotations

import os.path
import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

GAP = "\n… {:,} characters left out …\n"
"""What stands in place of the middle of a clipped text; `{0}` is the number of characters left out."""

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


def not_blank(reply: str) -> str:
    """A reply as it goes back to its model: providers refuse a message of blanks."""
    return reply if reply.strip() else "(empty)"


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


def one_line(text: str, limit: int | None = None) -> str:
    """The text in one line, as `plain` shows it.

    Args:
        text: any text; with a limit, only its first `4 * limit` characters are read.
        limit: characters of the line; a longer one ends with an ellipsis, which is counted. None: no limit.
    """
    if limit is None:
        return " ".join(plain(text).split())
    return clip_end(one_line(text[: 4 * limit]), limit)


def clip(text: str, limit: int, *, head: float = 0.6, gap: str = GAP) -> str:
    """The text, or its head and tail with a note of what is missing between them.

    Args:
        text: any text.
        limit: characters that are kept; the note is not counted.
        head: the head's share of them; 1 keeps the beginning alone.
        gap: the note; `{0}` is the number of characters left out.
    """
    if len(text) <= limit:
        return text
    first = int(limit * head)
    return text[:first] + gap.format(len(text) - limit) + text[len(text) - (limit - first) :]


def clip_end(text: str, limit: int) -> str:
    """The beginning of the text; a text of more than `limit` characters ends with an ellipsis, which is counted."""
    return text if len(text) <= limit else f"{text[: max(0, limit - 1)]}…"


def drop_common_beginning(lines: Sequence[str], minimum: int = 20) -> list[str]:
    """Lines without the words that all begin with, except the last of these; a shorter beginning is kept.

    Args:
        lines: such as the prompts of a batch.
        minimum: characters of a beginning that is worth dropping.
    """
    common = os.path.commonprefix(lines)  # noqa: RUF071 (characters are compared, not paths)
    start = common.rfind(" ", 0, max(0, common.rfind(" "))) + 1
    return list(lines) if start < minimum or common in lines else [f"… {line[start:]}" for line in lines]


def join_text(value: object) -> str:
    """A text as nbformat holds it: a string, or a list of its pieces. Any other value as `str` writes it."""
    return "".join(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else str(value)


def suggestion(name: str, known: Iterable[str], otherwise: str = ".", *, cutoff: float = 0.6) -> str:
    """The end of a sentence about an unknown name: `; did you mean 'model'?`, or `otherwise` if none is like it."""
    close = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else otherwise


def format_duration(seconds: float) -> str:
    """Format seconds: `0.4 s`, `42 s`, `3 min 05 s`."""
    if seconds < 9.95:  # noqa: PLR2004 (below ten seconds the tenths matter)
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def format_tokens(sent: int, received: int) -> str:
    """Format the tokens of prompts and of replies: `1,204 tokens in, 96 out`."""
    return f"{sent:,} tokens in, {received:,} out"


def format_cost(dollars: float | None, unknown: str = "cost unknown", *, unpriced: Sequence[str] = ()) -> str:
    """Format US dollars: `$0.0123`; an unknown cost (None) is never shown as 0.

    `unpriced`: the models whose cost is unknown, besides.
    """
    if dollars is None or not unpriced:
        return unknown if dollars is None else f"${dollars:.4f}"
    return f"${dollars:.4f} without {', '.join(map(one_line, unpriced))} (cost unknown)"


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

"""What a model or a kernel wrote, made safe to show as text.

Foreign text may hold terminal control sequences, text-direction overrides and lone surrogates. A terminal
would obey the first, a reader be deceived by the second, an encoder stumble over the third. `plain` removes
them, and shows of a progress bar what a terminal would have shown in the end.
"""

from __future__ import annotations

import re

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
    text = _UNSHOWABLE.sub("", _OVERWRITTEN.sub("", _repainted(text)))
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def _repainted(text: str) -> str:
    """Each line as its last paint that shows anything; one in which none does is what it began with."""
    return _REPAINTED.sub("", _OLD_PAINTS.sub("", text)) if "\r" in text else text

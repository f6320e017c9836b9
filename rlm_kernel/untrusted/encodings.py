"""The encoding of a text that is not UTF-8."""

from __future__ import annotations

import codecs
import re
from itertools import islice

SHOWN = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32"}
"""How encodings are named that are not named as Python does."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LATIN = "cp1252 cp1250 cp1254 cp1257".split()
_OTHER = "cp1251 cp1253 cp1255 cp1256 koi8_r cp932 euc_jp gb18030 big5 euc_kr".split()
_LONE = re.compile("[\ud800-\udfff]")
_LINE = re.compile(rb"[^\n]{0,200}[\x80-\xff][^\n]{0,200}")
_RUN = re.compile(rb"[\x80-\xff]+")
_SYMBOL_IN_A_WORD = re.compile(r"(?<=[^\W\d_])(?:(?![\w’‘´`·–—\xad])[\x80-\U0010ffff]|[¹²³ªº])(?=[^\W\d_])")  # noqa: RUF001
_SAMPLE = 1_000_000
_SAMPLE_LINES = 200
_MIN_NULS = 0.4


def of_head(head: bytes) -> str:
    """The encoding that the first bytes of a text show: by a byte order mark, or by the zeros of UTF-16."""
    if (marked := next((name for mark, name in _MARKS if head.startswith(mark)), None)) is not None:
        return marked
    pairs = len(head) // 2
    if pairs and head[:1] != b"\0" and head[1::2].count(0) >= pairs * _MIN_NULS > head[::2].count(0):
        return "utf-16-le"
    if pairs and head[:1] == b"\0" and head[::2].count(0) >= pairs * _MIN_NULS > head[1::2].count(0):
        return "utf-16-be"
    return "utf-8"


def decode(text: str) -> tuple[str, str | None]:
    """A text whose lone surrogates stand for bytes that are not UTF-8, in its own encoding.

    Returns:
        The text and the name of the encoding; the text as it is and None, where most of it is UTF-8 or nothing fits.
    """
    if text.isascii() or (first := _LONE.search(text)) is None:
        return text, None
    some = text[max(0, first.start() - 10_000) :][:_SAMPLE]
    wrong = len(_LONE.findall(some))
    if sum(not character.isascii() for character in some) >= 2 * wrong:
        return text, None
    content = text.encode("utf-8", "surrogateescape")
    if (encoding := _guess(content)) is None:
        return text, None
    try:
        return content.decode(encoding), encoding
    except UnicodeDecodeError:
        return text, None


def _guess(content: bytes) -> str | None:
    """The encoding of a text; cp1252 where the detector finds no language and nothing speaks against it."""
    from charset_normalizer import from_bytes

    sample = b"\n".join(match[0] for match in islice(_LINE.finditer(content), _SAMPLE_LINES))
    runs = _RUN.findall(sample)
    # In Latin text the letters that are not ASCII stand alone, in other scripts they make words.
    is_latin = sum(len(run) == 1 for run in runs) * 2 > len(runs)
    best = from_bytes(sample, cp_isolation=_LATIN if is_latin else _LATIN + _OTHER).best()
    if best is None or best.language == "Unknown":
        try:
            if not _SYMBOL_IN_A_WORD.search(sample.decode("cp1252")):
                return "cp1252"
        except UnicodeDecodeError:
            return None if best is None else best.encoding
    return None if best is None else best.encoding

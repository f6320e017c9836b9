"""The encoding of a text that is not UTF-8."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

SHOWN = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32"}
"""How encodings are named that are not named as Python does."""

UNKNOWN = "surrogateescape"
"""In place of the name of an encoding: bytes that are not UTF-8 are kept as lone surrogates."""

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
_WRONG_RUN = re.compile("[\ud800-\udfff]+")
_RIGHT_RUN = re.compile(r"(?<![^\x00-\x7f])[^\x00-\x7f\ud800-\udfff]++(?![\ud800-\udfff])")
"""Letters in UTF-8 beside no other bytes above 127. In a text of another encoding, few are such by chance."""
_DECLARED = re.compile(
    r"""\A(?:\s{0,9}<\?xml[^>]{0,99}?\sencoding\s?=\s?["']([\w.-]{1,40})["']"""
    r"""|.{0,500}?<meta[^>]{0,99}?\bcharset\s?=\s?["']?([\w.-]{1,40})"""
    r"""|(?:[^\n]{0,200}\n)?\#[^\n]{0,40}?coding[:=]\ ?([\w.-]{1,40}))""",
    re.DOTALL | re.IGNORECASE,
)
_REGIONAL = re.compile(r"cp\d|iso8859|koi8|mac|shift_jis|euc_|gb|big5|tis|johab|ptcp")
_CONFUSED = {
    "cp1250": ("cp1254", "çğıöşüÇĞİÖŞÜâîûÂÎÛ", "ğışĞİŞ"),  # no language of cp1250 has two of đ, ý and ţ
    "cp1252": ("cp1250", "ąćęłńóśźżĄĆĘŁŃÓŚŹŻ", "ąłźżĄŁŹŻ"),
}
"""What the detector takes for another encoding in short texts: the right one, the letters of the language, and those
of which two must be there."""
_MARKS_OF_TEXT = frozenset(b"\x80\x84\x85\x91\x92\x93\x94\x95\x96\x97\xa0\xa7\xab\xb0\xbb")
"""Quotation marks, dashes and the like, in all Latin code pages."""
ISO_2022_JP = re.compile(r"\x1b\$[@B]")
"""Where a text in ASCII goes on in Japanese."""
_RUN = re.compile(rb"[\x80-\xff]+")
_SYMBOL_IN_A_WORD = re.compile(r"(?<=[^\W\d_])(?:(?![\w’‘´`·–—\xad])[\x80-\U0010ffff]|[¹²³ªº])(?=[^\W\d_])")  # noqa: RUF001
_SAMPLE = 1_000_000
_SAMPLE_RUNS = 1_000
_MAX_LINE = 300
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


def note(encoding: str) -> str:
    """What is said about a text in this encoding; "" for UTF-8."""
    if encoding == UNKNOWN:
        return "some bytes are not UTF-8, and of no encoding that is known; they are kept as lone surrogates"
    shown = SHOWN.get(encoding, encoding)
    return "" if shown.lower() == "utf-8" else f"read as {shown}"


def decode(text: str) -> tuple[str, str | None]:
    """A text whose lone surrogates stand for bytes that are not UTF-8, in its own encoding.

    Returns:
        The text and the name of the encoding; the text as it is and None where it has none of these, and `UNKNOWN`
        where most of it is UTF-8 or nothing fits.
    """
    if text.isascii():
        return _of_seven_bits(text)
    if (first := _LONE.search(text)) is None:
        return text, None
    content = text.encode("utf-8", "surrogateescape")
    for encoding in _encodings_of(content, text, first.start()):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding), encoding
    return text, UNKNOWN


def _encodings_of(content: bytes, text: str, first: int) -> Iterator[str]:
    """The encodings that a text may have that is not UTF-8, the most likely first; none where most of it is UTF-8.

    Args:
        content: the text in bytes.
        text: it as UTF-8, with lone surrogates.
        first: where the first of these is.
    """
    begin = max(0, first - 10_000)
    some = text[begin : begin + _SAMPLE]
    wrong = len(_LONE.findall(some))
    if sum(not character.isascii() for character in some) >= 2 * wrong:
        return
    yield from _declared(text)
    if len(_RIGHT_RUN.findall(some)) >= len(_WRONG_RUN.findall(some)):
        return
    sample = b"\n".join(_lines(content))
    if (guess := _guess(sample)) is not None:
        yield _corrected(guess, sample)


def _of_seven_bits(text: str) -> tuple[str, str | None]:
    if ISO_2022_JP.search(text):
        with suppress(UnicodeDecodeError):
            return text.encode("ascii").decode("iso2022_jp"), "iso2022_jp"
    return text, None


def _declared(text: str) -> list[str]:
    """The encoding that an XML file, a page or a program says it has, with what ISO 8859-1 stands for."""
    found = _DECLARED.match(text)
    try:
        name = codecs.lookup(next(filter(None, found.groups()))).name if found else ""
    except LookupError:
        return []
    return (["cp1252"] * (name == "iso8859-1") + [name]) if _REGIONAL.match(name) else []


def _corrected(guess: str, sample: bytes) -> str:
    """The encoding, unless all letters are those of a language whose encoding looks like it."""
    right, letters, own = _CONFUSED.get(guess, ("", "", ""))
    high = {byte for byte in sample if byte >= 128} - _MARKS_OF_TEXT  # noqa: PLR2004 (not ASCII)
    if right and high <= set(letters.encode(right)) and len(high & set(own.encode(right))) > 1:
        return right
    return guess


def _guess(sample: bytes) -> str | None:
    """The encoding of a text; cp1252 where the detector finds no language and nothing speaks against it."""
    from charset_normalizer import from_bytes

    runs = _RUN.findall(sample)
    # In Latin text the letters that are not ASCII stand alone, in other scripts they make words.
    is_latin = sum(len(run) == 1 for run in runs) * 2 > len(runs)
    best = from_bytes(sample, cp_isolation=_LATIN if is_latin else _LATIN + _OTHER).best()
    if best is not None and best.language != "Unknown":
        return "cp1252" if "cp1252" in best.could_be_from_charset else best.encoding  # the same text in both
    try:
        if not _SYMBOL_IN_A_WORD.search(sample.decode("cp1252")):
            return "cp1252"
    except UnicodeDecodeError:
        return None if best is None else best.encoding
    return None if best is None else best.encoding


def _lines(content: bytes) -> Iterator[bytes]:
    """The first lines with bytes above 127, each as far as it is not too long."""
    end = 0
    for run in islice(_RUN.finditer(content), _SAMPLE_RUNS):
        if run.end() > end:
            before = content.rfind(b"\n", max(end, run.start() - _MAX_LINE), run.start())
            after = content.find(b"\n", run.end(), run.end() + _MAX_LINE)
            end = run.end() + _MAX_LINE if after < 0 else after
            yield content[max(before + 1, run.start() - _MAX_LINE * (before < 0), 0) : end]

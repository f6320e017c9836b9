"""What a file is, by its first bytes and its name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from rlm_kernel.untrusted import encodings

HEAD_BYTES = 1024
"""Bytes that `kind_of` looks at."""

TEXT = "text"

NAMES = {
    "pdf": "a PDF document",
    "word": "a Word document",
    "slides": "a PowerPoint presentation",
    "sheets": "an Excel workbook",
    "opendocument": "an OpenDocument file",
    "epub": "an EPUB book",
    "html": "an HTML page",
    "notebook": "a notebook",
    "parquet": "a Parquet table",
    "arrow": "an Arrow table",
    "sqlite": "an SQLite database",
    "mail": "a mail",
    "mailbox": "a mailbox",
    "zip": "a ZIP archive",
    "tar": "a TAR archive",
    "compressed": "a compressed file",
    "image": "an image",
    "office97": "a document of Office 97 to 2003",
    "outlook": "a mail of Outlook",
    "rich": "a rich text document",
}
"""The kinds that are not plain text, in words."""

_BEGINNINGS = (
    (b"%PDF-", "pdf"),
    (b"SQLite format 3\0", "sqlite"),
    (b"PAR1", "parquet"),
    (b"ARROW1\0\0", "arrow"),
    (b"\x1f\x8b", "compressed"),
    (b"BZh", "compressed"),
    (b"\xfd7zXZ\0", "compressed"),
    (b"\x28\xb5\x2f\xfd", "compressed"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office97"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF87a", "image"),
    (b"GIF89a", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"{\\rtf", "rich"),
)
ZIPPED = {
    ".docx": "word",
    ".docm": "word",
    ".pptx": "slides",
    ".pptm": "slides",
    ".xlsx": "sheets",
    ".xlsm": "sheets",
    ".epub": "epub",
    ".odt": "opendocument",
    ".ods": "opendocument",
    ".odp": "opendocument",
}
_WRITTEN = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".ipynb": "notebook",
    ".eml": "mail",
    ".mbox": "mailbox",
    ".mht": "mail",
    ".mhtml": "mail",
}
_PAGE = re.compile(rb"\s{0,99}(?:<!doctype html|<html[\s>])", re.IGNORECASE)
_PAGE_NAMES = frozenset({"", ".xls", ".doc"})
"""Suffixes of files that are pages if they begin so: programs of banks and shops give these names to them."""
_MAIL = re.compile(
    rb"(?:[A-Z][\w-]{0,40}: [^\n]{0,999}\n(?:[ \t][^\n]{0,999}\n){0,20}){0,20}(?:Received|Message-ID|MIME-Version): ",
    re.IGNORECASE,
)
_MAILBOX = re.compile(rb"From [^\n]{1,999}\n[A-Z][\w-]{0,40}: ", re.IGNORECASE)
_MAILDIR = ":2,"


def kind_of(name: str, head: bytes) -> str:
    """The kind of a file: a key of `NAMES`, or ``"text"`` for everything else, binary files too.

    Args:
        name: of the file; its suffix tells apart what begins alike.
        head: its first bytes.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZIPPED.get(suffix, "zip")
    if (kind := next((kind for begins, kind in _BEGINNINGS if head.startswith(begins)), None)) is not None:
        return "outlook" if (kind, suffix) == ("office97", ".msg") else kind
    if (head[:4], head[8:12]) == (b"RIFF", b"WEBP") or (head[:2] == b"BM" and suffix == ".bmp"):
        return "image"
    if head[257:262] == b"ustar":
        return "tar"
    if b"\0" in head and encodings.of_head(head) == "utf-8":
        return TEXT
    return _WRITTEN.get(suffix) or _kind_by_begin(suffix, head)


def _kind_by_begin(suffix: str, head: bytes) -> str:
    """The kind of a file in text whose name does not tell it."""
    if suffix in _PAGE_NAMES and _PAGE.match(head):
        return "html"
    if suffix and _MAILDIR not in suffix:
        return TEXT
    if _MAILBOX.match(head):
        return "mailbox"
    return "mail" if _MAIL.match(head) else TEXT


def is_in_wal_mode(head: bytes | bytearray) -> bool:
    """Whether an SQLite database that begins so uses a write-ahead log."""
    return head[18:20] == bytes([2, 2])

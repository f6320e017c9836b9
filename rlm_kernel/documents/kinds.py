"""What a file is, by its first bytes and its name."""

from __future__ import annotations

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
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office97"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF87a", "image"),
    (b"GIF89a", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
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
}


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
        return kind
    if (head[:4], head[8:12]) == (b"RIFF", b"WEBP") or (head[:2] == b"BM" and suffix == ".bmp"):
        return "image"
    if head[257:262] == b"ustar":
        return "tar"
    return _WRITTEN.get(suffix, TEXT) if b"\0" not in head or encodings.of_head(head) != "utf-8" else TEXT


def is_in_wal_mode(head: bytes | bytearray) -> bool:
    """Whether an SQLite database that begins so uses a write-ahead log."""
    return head[18:20] == bytes([2, 2])

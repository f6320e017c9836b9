"""Documents as text.

Each function takes an open file and how many characters there is room for, and returns the text and a note if it is not
whole.
"""

from __future__ import annotations

import email
import email.policy
import io
import re
import time
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any, BinaryIO
from xml.etree import ElementTree as ET
from zipfile import ZipFile

from rlm_kernel.documents.found import Lines, UnreadError
from rlm_kernel.errors import is_installed
from rlm_kernel.untrusted import encodings

PDF_SECONDS = 40
"""Pages that would take longer are left out."""

_AROUND = re.compile(r"word/((?:header|footer|comments)\d*)\.xml")
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADERS = ("From", "To", "Cc", "Date", "Subject")


def pdf(file: BinaryIO, room: int) -> tuple[str, str]:
    """The text of the pages, as many as there are time and room for."""
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        document = PdfDocument(file)
    except PdfiumError as error:
        why = "it needs a password" if "password" in str(error).lower() else f"it is no whole PDF ({error})"
        raise UnreadError(why) from error
    lines, end, pages = Lines(room), time.monotonic() + PDF_SECONDS, len(document)
    for number in range(pages):
        page = document[number]
        text = page.get_textpage().get_text_bounded().replace("\r\n", "\n")
        page.close()
        if not lines.add(f"{text.rstrip()}\n\n" if text.strip() else "") or time.monotonic() > end:
            return str(lines), f"the first {number + 1:,} of {pages:,} pages"
    if not str(lines).strip():
        raise UnreadError(f"its {pages:,} pages hold no text, only pictures: use a program that reads scans (OCR)")
    return str(lines), ""


def marked_down(suffix: str) -> Callable[[BinaryIO, int], tuple[str, str]]:
    """A reader by markitdown, for files of this suffix. Its own search for the kind of a file is not used."""

    def read(file: BinaryIO, room: int) -> tuple[str, str]:
        from markitdown import StreamInfo
        from markitdown.converters import DocxConverter, EpubConverter, HtmlConverter, PptxConverter

        converters = {".docx": DocxConverter, ".pptx": PptxConverter, ".epub": EpubConverter, ".html": HtmlConverter}
        found = converters[suffix]().convert(file, StreamInfo(extension=suffix))
        title = (found.title or "").strip()
        begin = f"{title}\n\n" if suffix == ".html" and not found.markdown.startswith(title) else ""
        return _cut(begin + found.markdown, room)

    return read


def word(file: BinaryIO, room: int) -> tuple[str, str]:
    """A document as Markdown, with its headers, footers and comments at the end."""
    text, note = marked_down(".docx")(file, room)
    with ZipFile(file) as archive:
        around = {
            name[1]: paragraphs
            for part in sorted(archive.namelist())
            if (name := _AROUND.fullmatch(part)) and (paragraphs := _paragraphs(archive.read(part)))
        }
    added = "".join(f"\n\n[{name}]\n{paragraphs}" for name, paragraphs in around.items())
    return (text, note) if note else _cut(text + added, room)


def _paragraphs(content: bytes) -> str:
    """The paragraphs of a part of a document, without empty ones."""
    try:
        root = ET.fromstring(content)  # noqa: S314 (as below)
    except ET.ParseError:
        return ""
    texts = ("".join(run.text or "" for run in paragraph.iter(f"{_WORD}t")) for paragraph in root.iter(f"{_WORD}p"))
    return "\n".join(filter(str.strip, texts))


def html(file: BinaryIO, room: int) -> tuple[str, str]:
    """A page as Markdown, in the encoding that it declares."""
    from bs4 import UnicodeDammit

    content = file.read()
    known = encodings.of_head(content[:1024])
    text = UnicodeDammit(content, [known], is_html=True).unicode_markup or decode(content)
    return marked_down(".html")(io.BytesIO(text.encode("utf-8", "replace")), room)


def opendocument(file: BinaryIO, room: int) -> tuple[str, str]:
    """The paragraphs of a text, a table or slides; the cells of a row are separated by tabs."""
    lines, paragraphs, cells, depth = Lines(room), list[str](), list[str](), 0
    with ZipFile(file) as archive, archive.open("content.xml") as content:
        # In a child with limits; expat loads no external entities, and stops at those that grow.
        for event, element in ET.iterparse(content, ("start", "end")):  # noqa: S314
            name = element.tag.rpartition("}")[2]
            if name == "table-cell":
                depth += 1 if event == "start" else -1
                if event == "start":
                    paragraphs = []
                else:
                    cells.append(" ".join(paragraphs))
            elif event == "end" and name in {"p", "h"}:
                paragraphs.append("".join(element.itertext()))
                if not depth:
                    lines.add(paragraphs.pop() + "\n")
                element.clear()
            elif event == "end" and name == "table-row":
                lines.add("\t".join(cells) + "\n")
                cells = []
    return str(lines), "cut at the limit" if lines.is_full else ""


def notebook(file: BinaryIO, room: int) -> tuple[str, str]:
    """The cells of a notebook with their text outputs."""
    from nbformat import ValidationError, reads

    try:
        book: Any = reads(decode(file.read()), as_version=4)  # type: ignore[no-untyped-call]
    except (ValueError, AttributeError, KeyError, ValidationError) as error:
        raise UnreadError(f"it is no whole notebook ({type(error).__name__})") from error
    lines = Lines(room)
    for cell in book.cells:
        kind = "" if cell.cell_type == "code" else f" [{cell.cell_type}]"
        lines.add(f"# %%{kind}\n{_text(cell.source)}\n")
        for output in cell.get("outputs", ()):
            lines.add(_quoted(_output(output)))
        if not lines.add("\n"):
            return str(lines), "cut at the limit"
    return str(lines), ""


def _output(output: dict[str, object]) -> str:
    data = output.get("data")
    shown = _shown(data) if isinstance(data, dict) else ""
    traceback = output.get("ename") and f"{output['ename']}: {output.get('evalue', '')}"
    return _text(output.get("text") or shown or traceback or "")


def _shown(data: dict[str, object]) -> str:
    """The text of an output; of a page as Markdown; else the kinds that it has."""
    text = _text(data.get("text/plain", ""))
    page = _text(data.get("text/html", ""))
    if text.strip() or not data:
        return text
    if page and is_installed("markitdown"):
        return marked_down(".html")(io.BytesIO(page.encode("utf-8", "replace")), len(page) * 4)[0]
    return page or f"[{', '.join(data)}]"


def _quoted(text: str) -> str:
    return "".join(f"# > {line}\n" for line in text.splitlines())


def _text(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)


def mail(file: BinaryIO, room: int) -> tuple[str, str]:
    """A mail: headers and body. Its attachments are members, see `archives.attachments`."""
    return _cut(text_of(message_in(file.read())), room)


def message_in(content: bytes) -> EmailMessage:
    """The mail in these bytes."""
    return email.message_from_bytes(content, policy=email.policy.default)


def text_of(message: EmailMessage) -> str:
    """The headers that people read, and the body, as plain text where there is one."""
    headers = "".join(f"{name}: {_line(message, name)}\n" for name in _HEADERS if message[name] is not None)
    body = message.get_body(("plain", "html"))
    if body is None:
        return headers
    payload = body.get_payload(decode=True) or b""
    charset = body.get_content_charset("utf-8")
    try:
        text = payload.decode(charset) if isinstance(payload, bytes) else ""
    except (LookupError, UnicodeDecodeError):
        text = decode(payload) if isinstance(payload, bytes) else ""
    if body.get_content_subtype() == "html" and is_installed("markitdown"):
        text = marked_down(".html")(io.BytesIO(text.encode("utf-8", "replace")), len(text) * 4)[0]
    return f"{headers}\n{text}"


def _line(message: EmailMessage, name: str) -> str:
    return " ".join(str(message[name]).split())


def image(file: BinaryIO, _: int) -> tuple[str, str]:
    """One line about an image: format, size in pixels and bytes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return f"[image: {_dimensions(file)}{size:,} bytes; its content is not read as text]", ""


def _dimensions(file: BinaryIO) -> str:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return ""
    try:
        with Image.open(file) as picture:
            return f"{picture.format}, {picture.width:,} x {picture.height:,} pixels, "
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return ""


def decode(content: bytes) -> str:
    """The text of bytes in the encoding that they seem to have."""
    encoding = encodings.of_head(content[:1024])
    return encodings.decode(content.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace"))[
        0
    ]


def _cut(text: str, room: int) -> tuple[str, str]:
    return text[:room], "cut at the limit" if len(text) > room else ""


KINDS: dict[str, tuple[Callable[[BinaryIO, int], tuple[str, str]], tuple[str, ...]]] = {
    "pdf": (pdf, ("pypdfium2",)),
    "word": (word, ("markitdown", "mammoth")),
    "slides": (marked_down(".pptx"), ("markitdown", "pptx")),
    "epub": (marked_down(".epub"), ("markitdown",)),
    "html": (html, ("markitdown",)),
    "opendocument": (opendocument, ()),
    "notebook": (notebook, ()),
    "mail": (mail, ()),
    "image": (image, ()),
}
"""How a kind is read, and the modules that the extra `files` installs for it."""

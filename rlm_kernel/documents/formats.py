"""Documents as text.

Each reader takes an open file and the lines that it adds to as it reads. It returns a note if the text is not whole.
"""

from __future__ import annotations

import email
import email.policy
import io
import json
import re
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.errors import MessageError
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast
from xml.etree import ElementTree as ET
from zipfile import BadZipFile, ZipFile

from rlm_kernel.documents.found import Lines, UnreadError
from rlm_kernel.errors import is_installed
from rlm_kernel.untrusted import encodings

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

PDF_SECONDS = 40
"""Pages that would take longer are left out."""

MAX_HEADER = 10_000
"""Characters of a header of a mail. The parser takes quadratic time."""

_HEADER_ERRORS = (MessageError, LookupError, AttributeError, ValueError, TypeError, RecursionError, AssertionError)
_MAX_COMMENTS = 100  # of a header: they nest, and the parser recurses
_NO_COMMENTS = str.maketrans("()", "  ")
_LISTED_PAGES = 5
_AROUND = re.compile(r"word/((?:header|footer|comments)\d*)\.xml")
_BODY = re.compile(r"word/document\d*\.xml")
_SLIDES = re.compile(r"ppt/slides/slide\d+\.xml")
_NOTES = re.compile(r"ppt/notesSlides/notesSlide\d+\.xml")
_BLOCKS = frozenset({"p", "div", "br", "li", "tr", "table", "pre", "h1", "h2", "h3", "h4", "h5", "h6"})
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADERS = ("From", "To", "Cc", "Date", "Subject")


def pdf(file: BinaryIO, lines: Lines) -> str:
    """The text of the pages with what was filled into forms, as many as there are time and room for."""
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        document = PdfDocument(file)
    except PdfiumError as error:
        why = "it needs a password" if "password" in str(error).lower() else f"it is no whole PDF ({error})"
        raise UnreadError(why) from error
    document.init_forms()  # nothing without a form; else the fields have an appearance
    end, pages, unread = time.monotonic() + PDF_SECONDS, len(document), list[int]()
    for number in range(1, pages + 1):
        try:
            text = _page_text(document, number - 1)
        except PdfiumError:
            unread.append(number)
            text = ""
        if not lines.add(f"{text.rstrip()}\n\n" if text.strip() else "") or time.monotonic() > end:
            return "; ".join(filter(None, (f"the first {number:,} of {pages:,} pages", _unread_pages(unread))))
    if lines.is_empty and unread:
        raise UnreadError(f"it is no whole PDF document ({_unread_pages(unread)})")
    if lines.is_empty:
        raise UnreadError(f"its {pages:,} pages hold no text, only pictures: use a program that reads scans (OCR)")
    return _unread_pages(unread)


def _page_text(document: PdfDocument, index: int) -> str:
    from pypdfium2 import raw

    page = document[index]
    if raw.FPDFPage_GetAnnotCount(page) > 0:  # fields and notes become text of the page when it is loaded once more
        raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
        page.close()
        page = document[index]
    text: str = page.get_textpage().get_text_bounded()
    page.close()
    return text.replace("\r\n", "\n")


def _unread_pages(numbers: list[int]) -> str:
    """A note of pages, the first few by number."""
    if not numbers:
        return ""
    more = f" and {len(numbers) - _LISTED_PAGES:,} more" if len(numbers) > _LISTED_PAGES else ""
    listed = ", ".join(f"{number:,}" for number in numbers[:_LISTED_PAGES])
    return f"page{'s' * (len(numbers) > 1)} {listed}{more} {'were' if len(numbers) > 1 else 'was'} not read"


def slides(file: BinaryIO, lines: Lines) -> str:
    """A presentation as Markdown, slide by slide. The plain paragraphs, notes last, are sent before, as of `word`."""
    _draft(file, lines, _SLIDES, _NOTES)
    return _cut(lines.replace(_as_markdown(file, ".pptx")))


def epub(file: BinaryIO, lines: Lines) -> str:
    """A book as Markdown, chapter by chapter; what is known about the book comes first if it is read to the end."""
    from markitdown import DocumentConverterResult, StreamInfo
    from markitdown.converters import EpubConverter, HtmlConverter

    class Chapters(HtmlConverter):  # type: ignore[misc]
        def convert(self, file_stream: BinaryIO, stream_info: StreamInfo, **options: Any) -> DocumentConverterResult:
            chapter = super().convert(file_stream, stream_info, **options)
            lines.add(f"{chapter.markdown.strip()}\n\n")
            return chapter

    book = EpubConverter()
    book._html_converter = Chapters()  # noqa: SLF001 (it gives nothing out before the end)
    return _cut(lines.replace(book.convert(file, StreamInfo(extension=".epub")).markdown))


def _as_markdown(file: BinaryIO, suffix: str) -> str:
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter, HtmlConverter, PptxConverter

    converters = {".docx": DocxConverter, ".pptx": PptxConverter, ".html": HtmlConverter}
    found = converters[suffix]().convert(file, StreamInfo(extension=suffix))
    title = (found.title or "").strip()
    begin = f"{title}\n\n" if suffix == ".html" and not found.markdown.startswith(title) else ""
    return f"{begin}{found.markdown}"


def word(file: BinaryIO, lines: Lines) -> str:
    """A document as Markdown, with its headers, footers and comments at the end.

    The plain paragraphs are sent before. They stay if the Markdown, which takes longer, is not finished.
    """
    _draft(file, lines, _BODY)
    with ZipFile(file) as archive:
        around = {
            name[1]: paragraphs
            for part in sorted(archive.namelist())
            if (name := _AROUND.fullmatch(part)) and (paragraphs := _paragraphs(archive.read(part)))
        }
    file.seek(0)
    added = "".join(f"\n\n[{name}]\n{paragraphs}" for name, paragraphs in around.items())
    return _cut(lines.replace(_as_markdown(file, ".docx") + added))


def _draft(file: BinaryIO, lines: Lines, *parts: re.Pattern[str]) -> None:
    """Add the plain paragraphs of a document of Word or PowerPoint: of its parts with these names, by their numbers."""
    with (
        suppress(ET.ParseError, BadZipFile, KeyError, RuntimeError, NotImplementedError, OSError, EOFError, zlib.error),
        ZipFile(file) as archive,
    ):
        for part in parts:
            for name in sorted(filter(part.fullmatch, archive.namelist()), key=lambda name: (len(name), name)):
                with archive.open(name) as content:
                    if not _add_paragraphs(content, lines):
                        break
    file.seek(0)


def _add_paragraphs(content: IO[bytes], lines: Lines) -> bool:
    """Add the plain paragraphs of a part; returns whether there is room for more."""
    for _, element in ET.iterparse(content):  # noqa: S314 (as below)
        if element.tag.endswith("}p"):
            text = "".join(each.text or "" for each in element.iter() if each.tag.endswith("}t"))
            element.clear()
            if not lines.add(f"{text}\n" if text else ""):
                return False
    return True


def _paragraphs(content: bytes) -> str:
    """The paragraphs of a part of a document, without empty ones."""
    try:
        root = ET.fromstring(content)  # noqa: S314 (as below)
    except ET.ParseError:
        return ""
    texts = ("".join(run.text or "" for run in paragraph.iter(f"{_WORD}t")) for paragraph in root.iter(f"{_WORD}p"))
    return "\n".join(filter(str.strip, texts))


def html(file: BinaryIO, lines: Lines) -> str:
    """A page as Markdown, in the encoding that it declares."""
    from bs4 import UnicodeDammit

    content = file.read()
    known = encodings.of_head(content[:1024])
    text = UnicodeDammit(content, [known], is_html=True).unicode_markup or decode(content)
    _PlainPage(lines).feed(text)
    return _cut(lines.replace(_of_page(text)))


class _PlainPage(HTMLParser):
    """Adds the plain text of a page to lines, without its scripts and styles."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in _BLOCKS and not self._lines.is_empty:
            self._lines.add("\n")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None and data.strip():
            self._lines.add(data)


def _of_page(text: str) -> str:
    return _as_markdown(io.BytesIO(text.encode("utf-8", "replace")), ".html")


def opendocument(file: BinaryIO, lines: Lines) -> str:
    """The paragraphs of a text, a table or slides; the cells of a row are separated by tabs."""
    paragraphs, cells, depth = list[str](), list[str](), 0
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
    return _cut(not lines.is_full)


def notebook(file: BinaryIO, lines: Lines) -> str:
    """The cells of a notebook with their text outputs. It need not be valid in all."""
    try:
        for cell in _cells(decode(file.read())):
            kind = cell.get("cell_type", "code")
            lines.add(f"# %%{'' if kind == 'code' else f' [{kind}]'}\n{_text(cell.get('source', ''))}\n")
            for output in cell.get("outputs") or ():
                lines.add(_quoted(_output(output)))
            if not lines.add("\n"):
                break
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UnreadError(f"it is no whole notebook ({type(error).__name__})") from error
    return _cut(not lines.is_full)


def _cells(text: str) -> Iterable[Any]:
    """The cells of a notebook as dicts, those before version 4 converted.

    Raises:
        ValueError, AttributeError, KeyError, TypeError: it is no notebook.
    """
    from nbformat import ValidationError, reads

    book = json.loads(text)
    if "cells" not in book:
        try:
            book = reads(text, as_version=4)  # type: ignore[no-untyped-call]
        except ValidationError as error:
            raise ValueError(str(error)) from error
    cells: Iterable[Any] = book["cells"]
    return cells


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
        return _of_page(page)
    return page or f"[{', '.join(data)}]"


def _quoted(text: str) -> str:
    return "".join(f"# > {line}\n" for line in text.splitlines())


def _text(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)


def mail(file: BinaryIO, lines: Lines) -> str:
    """A mail: headers and body. Its attachments are members, see `archives.attachments`."""
    message = message_in(file.read())
    is_clipped = any(len(value) == MAX_HEADER for _, value in message.raw_items())
    note = f"only the first {MAX_HEADER:,} characters of a header" if is_clipped else ""
    return _cut(lines.add(text_of(message))) or note


def message_in(content: bytes) -> EmailMessage:
    """The mail in these bytes. Long headers are clipped."""
    return cast("EmailMessage", email.message_from_bytes(content, policy=_Headers()))


class _Headers(email.policy.EmailPolicy):
    """Headers are clipped before they are parsed. One that the parser fails on is empty."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        value = value[:MAX_HEADER]
        return name, value if value.isascii() else decode(value.encode("utf-8", "surrogateescape"))

    def header_fetch_parse(self, name: str, value: str) -> Any:
        plain = value.translate(_NO_COMMENTS) if value.count("(") > _MAX_COMMENTS else value
        try:
            return super().header_fetch_parse(name, plain)
        except _HEADER_ERRORS:
            return super().header_fetch_parse(name, "")


def text_of(message: EmailMessage) -> str:
    """The headers that people read, and the body, as plain text where there is one."""
    found = ((name, message[name]) for name in _HEADERS)
    headers = "".join(f"{name}: {' '.join(str(value).split())}\n" for name, value in found if value is not None)
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
        text = _of_page(text)
    return f"{headers}\n{text}"


def image(file: BinaryIO, lines: Lines) -> str:
    """One line about an image: format, size in pixels and bytes."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return _cut(lines.add(f"[image: {_dimensions(file)}{size:,} bytes; its content is not read as text]"))


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


def _cut(has_room: bool) -> str:
    return "" if has_room else "cut at the limit"


KINDS: dict[str, tuple[Callable[[BinaryIO, Lines], str], tuple[str, ...]]] = {
    "pdf": (pdf, ("pypdfium2",)),
    "word": (word, ("markitdown", "mammoth")),
    "slides": (slides, ("markitdown", "pptx")),
    "epub": (epub, ("markitdown",)),
    "html": (html, ("markitdown",)),
    "opendocument": (opendocument, ()),
    "notebook": (notebook, ()),
    "mail": (mail, ()),
    "image": (image, ()),
}
"""How a kind is read, and the modules that the extra `files` installs for it."""

"""Thirty files of real kinds, made by the libraries that people use, or by hand where the format is short."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import io
import json
import mailbox
import sqlite3
import tarfile
from email.message import EmailMessage

import docx
import nbformat.v4 as notebooks
import openpyxl
import pptx
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
from by_hand import pdf, zipped
from PIL import Image

NAME = "Müller"
TABLE = pa.table(
    {"name": [NAME, "Smith"], "born": [dt.date(1950, 1, 2), dt.date(1961, 3, 4)], "sum": [1.0, 2.5]},
)
CSV = f"name,city\n{NAME},Köln\n"


def word():
    document = docx.Document()
    document.add_heading("Minutes", 1)
    document.add_paragraph(f"{NAME} agreed.")
    document.add_table(1, 2).rows[0].cells[0].text = "in a table"
    return saved(document.save)


def slides():
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[0])
    slide.shapes.title.text = f"Plan of {NAME}"
    return saved(deck.save)


def workbook():
    book = openpyxl.Workbook()
    book.active.title = "People"
    book.active.append(["name", "sum"])
    book.active.append([NAME, 12])
    book.create_sheet("Empty")
    return saved(book.save)


def saved(save):
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def epub():
    container = '<container><rootfiles><rootfile full-path="book.opf"/></rootfiles></container>'
    book = (
        '<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>A Book</dc:title></metadata>'
        "<manifest>"
        '<item id="c" href="c.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="c"/></spine>'
        "</package>"
    )
    chapter = f"<html><body><h1>One</h1><p>{NAME} wrote it.</p></body></html>"
    files = {"mimetype": "application/epub+zip", "META-INF/container.xml": container, "book.opf": book}
    return zipped({**files, "c.xhtml": chapter})


def opendocument(body):
    names = 'xmlns:text="t" xmlns:table="b" xmlns:office="o"'
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"<office:body {names}>{body}</office:body>",
        }
    )


def database(tmp_path):
    path = tmp_path / "made.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE people (name TEXT, sum REAL)")
    connection.execute("INSERT INTO people VALUES (?, 12.5)", [NAME])
    connection.commit()
    connection.close()
    return path.read_bytes()


def notebook():
    output = notebooks.new_output("stream", text="hello\n")
    cells = [notebooks.new_markdown_cell(f"# {NAME}"), notebooks.new_code_cell("print('hello')", outputs=[output])]
    return json.dumps(notebooks.new_notebook(cells=cells))


def mail():
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", f"From {NAME}"
    message.set_content("See the table.\n")
    message.add_attachment(CSV.encode(), maintype="text", subtype="csv", filename="people.csv")
    return message


def letters(tmp_path):
    path = tmp_path / "made.mbox"
    box = mailbox.mbox(path)
    for number in (1, 2):
        letter = EmailMessage()
        letter["Subject"] = f"Letter {number}"
        letter.set_content(f"{NAME} wrote {number}")
        box.add(letter)
    box.close()
    return path.read_bytes()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("docs/a.txt")
        entry.size = len(NAME.encode())
        archive.addfile(entry, io.BytesIO(NAME.encode()))
        link = tarfile.TarInfo("docs/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


def picture(form):
    return saved(lambda buffer: Image.new("RGB", (64, 48)).save(buffer, form))


def feather():
    return saved(lambda buffer: pyarrow.feather.write_feather(TABLE, buffer, compression="lz4"))


def thirty(tmp_path):
    """The content of each file by its name."""
    page = f"<html><head><title>Page</title><script>x()</script></head><body><p>{NAME}</p></body></html>"
    return {
        "archive.zip": zipped({"sub/a.txt": NAME, "people.csv": CSV.encode("cp1252"), ".env": "KEY=1"}),
        "archive.tar.gz": tar(),
        "bom.txt": f"{NAME} with a mark".encode("utf-8-sig"),
        "book.epub": epub(),
        "brief.docx": word(),
        "brief.odt": opendocument(f"<text:h>Head</text:h><text:p>{NAME} <text:span>agreed</text:span></text:p>"),
        "config.json": json.dumps({"name": NAME}, ensure_ascii=False).encode(),
        "deck.pptx": slides(),
        "feather.arrow": feather(),
        "inbox.mbox": letters(tmp_path),
        "letter.eml": bytes(mail()),
        "log.txt.gz": gzip.compress(NAME.encode()),
        "log2.txt.bz2": bz2.compress(NAME.encode()),
        "money.xlsx": workbook(),
        "notebook.ipynb": notebook().encode(),
        "old.doc": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "page.html": page.encode(),
        "people.csv": CSV.encode("cp1252"),
        "people.tsv": CSV.replace(",", "\t").encode(),
        "people.db": database(tmp_path),
        "photo.jpg": picture("JPEG"),
        "plain.md": f"# {NAME}\n".encode(),
        "program.py": b"print('hello')\n",
        "report.pdf": pdf(),
        "russian.txt": "Данные таблицы за прошлый год и за этот год".encode("cp1251"),
        "shot.png": picture("PNG"),
        "sums.ods": opendocument(
            f"<table:table-row><table:table-cell><text:p>{NAME}</text:p></table:table-cell>"
            "<table:table-cell><text:p>12</text:p></table:table-cell></table:table-row>"
        ),
        "table.parquet": saved(lambda buffer: pa.parquet.write_table(TABLE, buffer)),
        "wide.txt": f"{NAME} in UTF-16".encode("utf-16"),
        "wider.txt": f"{NAME} in UTF-32".encode("utf-32"),
        "video.mp4": b"\0\0\0\x18ftypmp42" + bytes(100),
    }

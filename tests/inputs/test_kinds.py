"""What people have: thirty kinds of files, read and listed."""

from __future__ import annotations

import errno
import io
import re
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile

import pytest
from docx import Document
from nbformat import writes
from nbformat.v4 import new_code_cell, new_notebook, new_output
from openpyxl import Workbook
from pptx import Presentation
from real_files import CSV, NAME, database, thirty

from rlm_kernel import inputs
from rlm_kernel.documents import formats, tables
from rlm_kernel.documents.found import Lines
from rlm_kernel.documents.kinds import HEAD_BYTES, kind_of
from rlm_kernel.documents.reader import DocumentReader
from rlm_kernel.errors import ConfigError
from rlm_kernel.installation import install_command

pytestmark = pytest.mark.usefixtures("shared_child")

PAGE = Path(__file__).parents[2] / "docs" / "inputs.md"

LETTER = f"From: a@example.org\nTo: b@example.org\nSubject: From {NAME}\n\nSee the table.\n"
PARQUET = (
    "# table of 2 rows; columns: name (string), born (date32[day]), sum (double)\n"
    f"name,born,sum\n{NAME},1950-01-02,1.0\nSmith,1961-03-04,2.5\n"
)
EXACT = {
    "archive.tar.gz/docs/a.txt": NAME,
    "archive.zip/people.csv": CSV,
    "archive.zip/sub/a.txt": NAME,
    "bom.txt": f"{NAME} with a mark",
    "brief.odt": f"Head\n{NAME} agreed\n",
    "deck.pptx": f"<!-- Slide number: 1 -->\n# Plan of {NAME}",
    "feather.arrow": PARQUET.replace(" of 2 rows", ""),
    "inbox.mbox/00001.eml": f"Subject: Letter 1\n\n{NAME} wrote 1\n",
    "inbox.mbox/00002.eml": f"Subject: Letter 2\n\n{NAME} wrote 2\n",
    "letter.eml": LETTER,
    "letter.eml/people.csv": CSV,
    "log.txt.gz": NAME,
    "log2.txt.bz2": NAME,
    "money.xlsx": f"# table People; columns: name, sum\nname,sum\n{NAME},12\n",
    "notebook.ipynb": f"# %% [markdown]\n# {NAME}\n\n# %%\nprint('hello')\n# > hello\n\n",
    "page.html": f"Page\n\n{NAME}",
    "people.csv": CSV,
    "people.db": f"# table people of 1 row; columns: name (TEXT), sum (REAL)\nname,sum\n{NAME},12.5\n",
    "people.tsv": CSV.replace(",", "\t"),
    "program.py": "print('hello')\n",
    "report.pdf": "Mueller owes 12 euros\n\n",
    "russian.txt": "Данные таблицы за прошлый год и за этот год",
    "sums.ods": f"{NAME}\t12\n",
    "table.parquet": PARQUET,
    "wide.txt": f"{NAME} in UTF-16",
    "wider.txt": f"{NAME} in UTF-32",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("thirty")
    for name, content in thirty(tmp_path_factory.mktemp("made")).items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture(scope="module")
def loaded(folder, load_and_listen):
    """The texts, and what is said about them."""
    return load_and_listen(folder)


def test_a_folder_of_thirty_kinds_is_read(folder, loaded):
    texts, _ = loaded
    assert len(list(folder.iterdir())) >= 30
    assert {path: texts.get(path) for path in EXACT} == EXACT
    assert f"{NAME} agreed." in texts["brief.docx"]
    assert "in a table" in texts["brief.docx"]
    assert f"{NAME} wrote it." in texts["book.epub"]
    assert re.fullmatch(r"\[image: PNG, 64 x 48 pixels, [\d,]+ bytes; .*\]", texts["shot.png"])
    assert texts["photo.jpg"].startswith("[image: JPEG, 64 x 48")


def test_what_was_not_read_or_is_not_utf_8_is_listed(loaded):
    texts, said = loaded
    assert "skipped 1 binary (video.mp4)" in said[0]
    assert not {"video.mp4", "old.doc", "archive.zip/.env", "archive.tar.gz/docs/link"} & texts.keys()
    assert (
        "rlm: not read: old.doc: it is a document of Office 97 to 2003: save it as .docx, .xlsx, .pptx or .pdf" in said
    )
    assert "rlm: not read: archive.zip/.env: hidden" in said
    assert "rlm: not read: archive.tar.gz/docs/link: a link or a device" in said
    assert "rlm: archive.zip/people.csv, people.csv: read as cp1252" in said
    assert "rlm: russian.txt: read as cp1251" in said


def test_each_file_of_its_own_is_read_as_in_the_folder(folder, loaded):
    texts, _ = loaded
    for name in ("people.csv", "report.pdf", "people.db", "wide.txt", "log.txt.gz"):
        assert inputs.load(folder / name) == texts[name]
    assert inputs.load(folder / "archive.zip") == {"people.csv": CSV, "sub/a.txt": NAME}
    assert inputs.load(folder / "letter.eml") == {"mail": LETTER, "people.csv": CSV}


def test_the_write_ahead_log_of_a_database_is_read(tmp_path):
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("CREATE TABLE t (a TEXT)")
        database.executemany("INSERT INTO t VALUES (?)", [(f"old {n}",) for n in range(100)])
        database.commit()
        database.execute("PRAGMA wal_checkpoint(RESTART)")
        database.execute("UPDATE t SET a = 'new' WHERE a = 'old 7'")
        database.executemany("INSERT INTO t VALUES (?)", [(f"more {n}" * 99,) for n in range(100)])
        database.commit()
        database.execute("PRAGMA cache_spill = ON")
        database.execute("DELETE FROM t WHERE a = 'old 8'")  # not committed
        text = inputs.load(path)
        assert text == inputs.load(tmp_path)["app.db"]
    assert "# table t of 200 rows" in text
    assert "\nnew\n" in text
    assert "old 7\n" not in text
    assert "old 8\n" in text


LOG = "app.db: its write-ahead log was not read: rows that are only there are old or missing"


@pytest.fixture
def open_database(tmp_path):
    """A database in use, whose only row is in its write-ahead log."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("CREATE TABLE t (a TEXT)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("INSERT INTO t VALUES ('only in the log')")
        database.commit()
        yield path


def test_a_write_ahead_log_in_an_archive_is_listed_as_not_read(open_database, tmp_path, capsys):
    with ZipFile(tmp_path / "a.zip", "w") as archive, tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("app.db", "app.db-wal"):
            archive.write(tmp_path / name, f"data/{name}")
            tar.add(tmp_path / name, f"data/{name}")
    for name in ("a.zip", "a.tar"):
        assert inputs.load(tmp_path / name).keys() == {"data/app.db"}
        said = capsys.readouterr().err
        assert f"rlm: data/{LOG}" in said
        assert "rlm: not read: data/app.db-wal: the write-ahead log of a database in an archive" in said


def test_a_write_ahead_log_that_cannot_be_found_or_read_is_said(open_database, tmp_path, capsys, monkeypatch):
    assert "only in the log" in inputs.load(open_database)
    (tmp_path / "app.db-wal").rename(tmp_path / "moved")
    assert "0 rows" in inputs.load(open_database)
    assert capsys.readouterr().err == ""
    (tmp_path / "app.db-wal").symlink_to(tmp_path / "moved")
    assert "0 rows" in inputs.load(open_database)
    assert LOG in capsys.readouterr().err


def test_a_system_that_does_not_say_where_the_log_would_be_is_said(open_database, tmp_path, capsys, monkeypatch):
    def unknown(_):
        raise OSError(errno.ENOTSUP, "the system does not say it")

    monkeypatch.setattr(inputs, "_path_of", unknown)
    (tmp_path / "plain.db").write_bytes(database(tmp_path))
    assert set(inputs.load(tmp_path)) >= {"app.db", "plain.db"}
    said = capsys.readouterr().err
    assert LOG in said
    assert "plain.db:" not in said


def test_a_damaged_write_ahead_log_does_not_hide_the_database(tmp_path):
    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        database.execute("CREATE TABLE t (a TEXT)")
    for log in (b"x" * 99, bytes.fromhex("377f0682") + b"\xff" * 5_000, bytes(40)):
        (tmp_path / "app.db-wal").write_bytes(log)
        assert inputs.load(tmp_path / "app.db").startswith("# table t of 0 rows")
    (tmp_path / "app.db-wal").unlink()
    (tmp_path / "app.db-wal").symlink_to("/dev/zero")
    assert inputs.load(tmp_path / "app.db").startswith("# table t of 0 rows")


def test_headers_and_footers_of_a_document_are_read(tmp_path):
    document = Document()
    document.add_paragraph("body")
    document.sections[0].header.paragraphs[0].text = "Confidential"
    document.sections[0].footer.paragraphs[0].text = "Page of X"
    document.save(str(tmp_path / "a.docx"))
    text = inputs.load(tmp_path / "a.docx")
    assert text.startswith("body")
    assert re.search(r"\[footer\d*\]\nPage of X\n\n\[header\d*\]\nConfidential$", text)


def test_formulas_without_values_are_counted(tmp_path, capsys):
    book = Workbook()
    for row in (["a", "b"], [1, "=A2*2"], [2, "=A3*2"], [3, 4]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert "3,4" in inputs.load(tmp_path / "a.xlsx")
    assert "formulas without values: 2 (open" in capsys.readouterr().err


def text_by(reader, content):
    pieces = []
    lines = Lines(1_000, pieces.append)
    reader(io.BytesIO(content), lines)
    rest = lines.rest()
    return rest if lines.is_replaced else "".join(pieces) + rest


def test_outputs_of_a_notebook_that_are_pages_or_pictures_are_named():
    outputs = [new_output("display_data", {"text/html": "<b>bold</b>"}), new_output("display_data", {"image/png": ""})]
    book = writes(new_notebook(cells=[new_code_cell("x", outputs=outputs)]))
    assert "# > **bold**\n# > [image/png]\n" in text_by(formats.notebook, book.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_page_in_utf_16_is_read_as_a_page(encoding):
    content = f"<html><body><p>{NAME} and his <b>brother</b></p></body></html>".encode(encoding)
    assert kind_of("page.htm", content) == "html"
    assert text_by(formats.html, content) == f"{NAME} and his **brother**"


def test_a_file_that_cannot_be_read_is_an_error_that_says_why(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"old.doc cannot be read: it is a document of Office 97 .* save it as .docx"):
        inputs.load(folder / "old.doc")
    with pytest.raises(ConfigError, match="is binary"):
        inputs.load(folder / "video.mp4")
    (tmp_path / "locked.docx").write_bytes((folder / "old.doc").read_bytes())
    with pytest.raises(ConfigError, match=r"locked.docx cannot be read: it needs a password"):
        inputs.load(tmp_path / "locked.docx")
    (tmp_path / "half.pdf").write_bytes((folder / "report.pdf").read_bytes()[:40])
    with pytest.raises(ConfigError, match="half.pdf cannot be read: it is no whole PDF"):
        inputs.load(tmp_path / "half.pdf")


def test_without_the_extra_the_error_names_the_command(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(inputs, "DocumentReader", DocumentReader)
    (tmp_path / "rlm_kernel").symlink_to(Path(inputs.__file__).parent)
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name: None if name in ('pypdfium2', 'markitdown') else find(name)\n"
    )
    monkeypatch.setattr("rlm_kernel.documents.reader._ROOT", str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape(install_command("files"))):
        inputs.load(folder / "report.pdf")
    assert NAME in inputs.load(folder / "page.html")


def test_importing_the_package_imports_no_reader():
    code = "import sys, rlm, rlm.inputs; print([m for m in ('markitdown', 'pandas', 'pyarrow', 'PIL', 'openpyxl', "
    code += "'charset_normalizer', 'nbformat') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (f"name;city\n{NAME};Köln\n", "cp1252"),
        ("“Quoted” – it’s fine…", "cp1252"),  # noqa: RUF001
        ("naïve résumé—coöperate", "cp1252"),
        ("Preis: 5 €", "cp1252"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy, žluté květy", "cp1250"),
        ("Zażółć gęślą jaźń, proszę bardzo", "cp1250"),
        ("Łódź i Gdańsk są daleko, a tam jest moja rodzina", "cp1250"),
        ("¿Qué tal? Son 5 m³ de agua, según él", "cp1252"),
        ("Það er gott veður í dag, þýðir hann", "cp1252"),
        ("Şişli ve Kadıköy, İstanbul'un ilçeleridir; yarın yağmur yağacak. " * 40, "cp1254"),  # noqa: RUF001
        ("İstanbul'da güneşli bir gün, çok güzel şeyler oluyor", "cp1254"),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю", "cp1251"),
        ("これは日本語のテキストです。今日は天気がいいですね。", "cp932"),
        ("한국어 텍스트입니다 안녕하세요", "euc_kr"),
        (f"{NAME} without a mark, in two bytes", "utf-16-le"),
        (f"{NAME} without a mark, in two bytes", "utf-16-be"),
    ],
)
def test_the_encoding_of_a_short_text_is_found(text, encoding, tmp_path):
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert inputs.load(tmp_path / "a.txt") == text


@pytest.mark.parametrize(("text", "encoding"), [("許功蓋", "big5"), ("Ç É ñ ≡", "cp437"), ("größer, schöner", "utf-8")])
def test_a_text_whose_encoding_is_not_found_says_so(text, encoding, tmp_path, capsys):
    content = text.encode(encoding) + b"\xff" * (encoding == "utf-8")
    (tmp_path / "a.txt").write_bytes(content)
    with ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.txt", content)
    texts = {inputs.load(tmp_path / "a.txt"), inputs.load(tmp_path / "b.zip")["a.txt"]}
    said = capsys.readouterr().err
    (text,) = texts
    assert text.encode("utf-8", "surrogateescape") == content or "read as" in said
    assert said.count("lone surrogates") == 2 or said.count("read as") == 2


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ('<?xml version="1.0" encoding="iso-8859-2"?><a>Łódź</a>', "iso-8859-2"),
        ('<?xml version="1.0" encoding="windows-1251"?><a>Я</a>', "cp1251"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?><a>5 €</a>', "cp1252"),
        ("#!/usr/bin/python\n# -*- coding: iso-8859-2 -*-\nname = 'Łódź'\n", "iso-8859-2"),
        ("固有の名前です。\n", "iso2022_jp"),
    ],
)
def test_a_text_is_read_in_the_encoding_that_it_names(text, encoding, tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert inputs.load(tmp_path / "a.txt") == text
    assert "read as" in capsys.readouterr().err


def test_a_name_in_utf_8_and_a_few_other_bytes_are_utf_8(tmp_path, capsys):
    content = b"ok line\n" * 1000 + f"{NAME}\n".encode() + b"bad \xff\xfe byte\n"
    (tmp_path / "a.txt").write_bytes(content)
    text = inputs.load(tmp_path / "a.txt")
    assert (text, NAME in text) == (content.decode("utf-8", "surrogateescape"), True)
    assert "lone surrogates" in capsys.readouterr().err


def test_a_log_with_a_few_nul_bytes_is_a_text(tmp_path):
    content = b"2024 started\n" * 500 + b"\0" * 16 + b"\n2024 went on\n" * 500
    (tmp_path / "a.log").write_bytes(content)
    assert inputs.load(tmp_path / "a.log") == content.decode()
    for binary in (b"a\0b", content + b"\1", content + b"\xff"):
        (tmp_path / "b.log").write_bytes(binary)
        with pytest.raises(ConfigError, match="is binary"):
            inputs.load(tmp_path / "b.log")


def test_the_files_of_an_archive_do_not_fill_the_list(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inputs, "_MAX_LINES", 2)
    with ZipFile(tmp_path / "a.dat", "w") as archive:
        for n in range(100):
            archive.writestr(f"in/{n:03}", b"\0\1")
    for n in range(8):
        (tmp_path / f"z{n}").write_bytes(b"\0\1")
    (tmp_path / "a.txt").write_text("text")
    inputs.load(tmp_path)
    said = capsys.readouterr().err
    assert "rlm: a.dat: not read: in/000, in/001" in said
    assert "… (100 in all)" in said
    assert "z7: binary" in said


def test_all_that_is_not_read_is_listed_with_the_reason(tmp_path, capsys, monkeypatch):
    names = [f"video {n:02}.mp4" for n in range(12)] + [f"old {n:02}.doc" for n in range(12)]
    for name in names:
        (tmp_path / name).write_bytes(bytes(9) if "video" in name else b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    (tmp_path / "a.txt").write_text("text")
    inputs.load(tmp_path)
    said = capsys.readouterr().err
    listed = [line for line in said.splitlines() if line.startswith("rlm: not read: ")]
    assert len(listed) == 6
    assert all(sum(name in line for line in listed) == 1 for name in names)
    assert listed[-1] == "rlm: not read: video 10.mp4, video 11.mp4: binary"
    monkeypatch.setattr(inputs, "_MAX_LINES", 2)
    inputs.load(tmp_path)
    assert "24 files in all; the first 10 are above" in capsys.readouterr().err


def test_a_few_wrong_bytes_in_utf_8_are_kept_and_do_not_change_the_rest(tmp_path):
    (tmp_path / "log").write_bytes("größer, schöner, süßer ".encode() + b"\xff\xfe")
    assert inputs.load(tmp_path / "log") == "größer, schöner, süßer \udcff\udcfe"


def test_the_page_lists_every_kind_of_the_folder_and_what_needs_the_extra(folder, loaded):
    rows = re.findall(
        r"^\| (`.*?) \| (.*?) \| (.*?) ?\|$", PAGE.read_text("utf-8").partition("## Limits")[0], re.MULTILINE
    )
    listed = {name: needs for names, _, needs in rows for name in re.findall(r"`(.*?)`", names)}
    unlisted = {"bom.txt", "russian.txt", "wide.txt", "wider.txt", "old.doc", "video.mp4"}  # texts; what is not read
    assert listed.keys() == {path.name for path in folder.iterdir()} - unlisted
    kinds = {name: kind_of(name, (folder / name).read_bytes()[:HEAD_BYTES]) for name in listed}
    with_extra = {kind for kind, (_, modules) in {**tables.KINDS, **formats.KINDS}.items() if modules}
    assert {name for name, needs in listed.items() if needs} == {n for n, kind in kinds.items() if kind in with_extra}


def test_the_chapters_before_a_damaged_one_are_kept(tmp_path, capsys):
    spine = "".join(f'<itemref idref="{name}"/>' for name in "ab")
    items = "".join(f'<item id="{name}" href="{name}.xhtml"/>' for name in "ab")
    book = f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>"
    container = '<container><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>'
    chapters = {"a.xhtml": "<body><h1>One</h1>the first</body>", "b.xhtml": "<body>the second</body>"}
    with ZipFile(tmp_path / "a.epub", "w") as archive:
        for name, content in {"META-INF/container.xml": container, "b.opf": book, **chapters}.items():
            archive.writestr(name, content)
    content = (tmp_path / "a.epub").read_bytes()
    (tmp_path / "a.epub").write_bytes(content.replace(b"the second", b"the secund"))
    assert inputs.load(tmp_path / "a.epub") == "# One\n\nthe first\n\n"
    assert "a.epub: the rest was not read: it is no whole EPUB book (BadZipFile)" in capsys.readouterr().err


def test_the_plain_text_of_slides_and_notes_is_kept_when_the_presentation_is_not_read_to_the_end(tmp_path, capsys):
    deck = Presentation()
    for number in range(1, 12):
        slide = deck.slides.add_slide(deck.slide_layouts[0])
        slide.shapes.title.text = f"Title {number}"
        slide.notes_slide.notes_text_frame.text = f"note {number}"
    deck.save(str(tmp_path / "whole.pptx"))
    with ZipFile(tmp_path / "whole.pptx") as whole, ZipFile(tmp_path / "a.pptx", "w") as archive:
        for name in set(whole.namelist()) - {"ppt/presentation.xml"}:
            archive.writestr(name, whole.read(name))
    lines = inputs.load(tmp_path / "a.pptx").splitlines()
    assert [line for line in lines if "itle" in line] == [f"Title {number}" for number in range(1, 12)]
    assert [line for line in lines if "note" in line] == [f"note {number}" for number in range(1, 12)]
    assert "a.pptx: the rest was not read" in capsys.readouterr().err


def test_the_plain_text_of_a_page_is_kept_when_its_markdown_is_not_finished(monkeypatch):
    def never_ends(*_):
        raise MemoryError

    monkeypatch.setattr(formats, "_of_page", never_ends)
    pieces = []
    page = b"<title>Title</title><style>p {}</style><body><p>One <b>two</b><p>th&amp;ree<script>x()</script></body>"
    with pytest.raises(MemoryError):
        formats.html(io.BytesIO(page), Lines(1_000, pieces.append))
    assert "".join(pieces) == "Title\nOne two\nth&ree"

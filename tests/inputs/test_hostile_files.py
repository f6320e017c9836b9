"""Files that were made to harm: each ends within the bounds, and the rest of the folder is read."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import sqlite3
import struct
import zipfile
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from by_hand import pdf, sheet, zipped
from hypothesis import example, given
from hypothesis import strategies as st
from real_files import thirty

from rlm_kernel import inputs
from rlm_kernel.documents import archives, reader
from rlm_kernel.documents.found import Reading
from rlm_kernel.errors import ConfigError
from rlm_kernel.untrusted.text_files import NotTextError, join_text

MEMORY = 150_000_000


pytestmark = pytest.mark.usefixtures("shared_child")


@pytest.fixture
def small_memory(monkeypatch, shared_child):
    """A child process with little memory, for one test."""
    del shared_child
    monkeypatch.setattr(inputs, "DocumentReader", partial(reader.DocumentReader, max_memory=MEMORY))


def test_a_zip_bomb_is_not_unpacked_further_than_the_limit():
    bomb = io.BytesIO(zipped({"a.txt": "first", "zeros.txt": b" " * 1_000_000}))
    (_, first), (_, zeros) = archives.zipped(bomb, Reading(1_000, lambda *_: None, unpacked=10_000))
    assert first.read() == b"first"
    assert zeros == "the archive holds more than 250,000,000 bytes"


@pytest.mark.full
def test_the_files_before_a_zip_bomb_are_kept(load):
    texts, said = load("bomb.zip", zipped({"a.txt": "first", "zeros.txt": b" " * 300_000_000}))
    assert texts["bomb.zip/a.txt"] == "first"
    assert "bomb.zip/zeros.txt" not in texts
    assert "rlm: bomb.zip: the rest was not read: " in said


def test_archives_within_archives_are_read_three_deep(load):
    content = b"the innermost"
    for level in range(8):
        content = zipped({"in.zip" if level else "in.txt": content})
    _, said = load("nested.zip", content)
    assert "archives are read 3 levels deep" in said


def test_a_zip_of_very_many_files_is_cut(load):
    files = {f"{number}.txt": "" for number in range(10_050)}
    texts, said = load("many.zip", zipped(files), max_bytes=1 << 24)
    assert len(texts) == 10_001
    assert "many.zip: the rest was not read: it holds more than 10,000 files" in said


@pytest.mark.parametrize(
    ("header", "begins"),
    [
        (f"To: {'(a' * 100_000}", 'To: "a a a'),
        (f"Subject: {'=?utf-8?q?=C3=A4?= ' * 200_000}", "Subject: ääää"),
        (f"To: {'a@b.c, ' * 200_000}", "To: a@b.c, a@b.c"),
        (f"Content-Type: text/plain; {'(' * 100_000}", "\nthe body"),
        (f"Content-Disposition: {'(' * 100_000}", "\nthe body"),
    ],
    ids=["comments", "encoded words", "addresses", "type", "disposition"],
)
def test_a_mail_with_a_long_header_is_read(load, header, begins):
    texts, said = load("long.eml", f"{header}\n\nthe body\n".encode())
    assert texts["long.eml"].startswith(begins)
    assert texts["long.eml"].endswith("\nthe body\n")
    assert len(texts["long.eml"]) < 11_000
    assert "rlm: long.eml: only the first 10,000 characters of a header" in said


def test_the_names_of_attachments_show_control_characters():
    mail = b"Content-Type: multipart/mixed; boundary=B\n\n--B\n\nhi\n--B\nContent-Type: text/plain\n"
    mail += b"Content-Disposition: attachment; filename*=utf-8''evil%0a%1b%5b31m.txt\n\nx\n--B--\n"
    reading = Reading(1_000, lambda *_: None)
    assert [name for name, _ in archives.attachments(io.BytesIO(mail), reading)] == ["evil\\n\\x1b[31m.txt"]


def test_the_names_of_members_show_control_characters_and_are_clipped():
    files = {"a\nb\x1b[31m\u202etxt.exe": "x", "b" * 60_000: "x"}
    found = archives.zipped(io.BytesIO(zipped(files)), Reading(1_000, lambda *_: None))
    assert [name for name, _ in found] == ["a\\nb\\x1b[31m\\u202etxt.exe", "b" * 4096]


def test_an_archive_in_which_nothing_can_be_read_is_an_error_with_each_reason_once(tmp_path, capsys):
    content = bytearray(zipped({f"{number:04}'\".txt": "x" for number in range(1_000)}))
    for number in range(1_000):
        place = content.index(f"{number:04}'".encode())  # of the first header; the directory comes after all
        content[place : place + 4] = b"9999"
    (tmp_path / "names.zip").write_bytes(content)
    why = "it is damaged (File name in directory … differ.)"
    with pytest.raises(ConfigError, match=re.escape(f"nothing in it could be read: {why} (1,000 files).")):
        inputs.load(tmp_path / "names.zip")
    assert f"{why}\n" in capsys.readouterr().err


def test_names_in_an_archive_lead_nowhere_and_are_shown_plainly(load, tmp_path):
    link = zipfile.ZipInfo("passwd")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        for name in ("../out.txt", "/etc/out.txt", "a/../../out.txt", "x\x1b[2J\nrlm: fine.bin"):
            archive.writestr(name, b"\0" if name.endswith("bin") else "text")
    texts, said = load("names.zip", buffer.getvalue())
    assert texts.keys() == {"z.pdf"}
    assert "\x1b" not in said
    assert said.count("its name leads out of the archive") == 1
    assert "names.zip/passwd: a link" in said
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("name", ["bomb.docx", "bomb.odt"])
def test_entities_that_grow_and_external_ones_are_not_resolved(load, name):
    grow = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    xml = f'<!DOCTYPE x [<!ENTITY a0 "ha"><!ENTITY f SYSTEM "file:///etc/passwd">{grow}]><x><p>&f;&a9;</p></x>'
    part = "content.xml" if name.endswith("odt") else "word/document.xml"
    texts, said = load(name, zipped({part: xml}))
    assert "root:" not in str(texts)
    assert f"not read: {name}:" in said


def test_a_pdf_of_very_many_pages_is_read(load):
    texts, _ = load("long.pdf", pdf(3_000))
    assert texts["long.pdf"].count("Mueller") == 3_000


def test_the_pages_around_a_damaged_one_are_read(load):
    bad = b"/Count 3/Kids[5 0 R 99 0 R 6 0 R]"
    texts, said = load("bad.pdf", pdf(3).replace(b"/Count 3/Kids[5 0 R 6 0 R 7 0 R]", bad))
    assert texts["bad.pdf"] == "Mueller owes 12 euros\n\n" * 2
    assert "rlm: bad.pdf: page 2 was not read" in said


def test_a_spreadsheet_of_very_many_columns_keeps_the_first_of_them(load):
    texts, said = load("wide.xlsx", sheet(f"<row>{'<c><v>1</v></c>' * 40_000}</row>"))
    assert texts.get("wide.xlsx", "").count("\n") <= 2
    assert "only the first 10,000 columns" in said


def test_a_sheet_that_claims_to_be_as_large_as_possible_is_read_by_its_cells(load):
    texts, _ = load(
        "claims.xlsx", sheet('<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"/></row>')
    )
    assert texts["claims.xlsx"] == "# table S; columns: 1\n1\n"


def test_a_database_that_never_ends_is_stopped(load, tmp_path):
    database = sqlite3.connect(tmp_path / "made.db")
    database.execute("CREATE TABLE a (n INTEGER)")
    database.execute("INSERT INTO a VALUES (1)")
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
    database.execute(f"CREATE VIEW endless AS {endless}")
    database.commit()
    database.close()
    texts, _ = load("endless.db", (tmp_path / "made.db").read_bytes())
    assert texts["endless.db"] == "# table a of 1 row; columns: n (INTEGER)\nn\n1\n"


def test_an_image_that_claims_to_be_huge_is_only_described(load):
    head = struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert load("huge.png", png)[0]["huge.png"].startswith("[image: ")


@pytest.mark.usefixtures("small_memory")
def test_a_document_that_needs_too_much_memory_is_listed(load):
    texts, said = load("memory.txt.gz", gzip.compress(b" " * (MEMORY // 2)))
    assert "memory.txt.gz" not in texts
    assert "not read: memory.txt.gz: it needs too much memory" in said


@pytest.mark.full
@pytest.mark.usefixtures("small_memory")
def test_a_document_whose_tree_needs_too_much_memory_is_listed(load):
    deep = zipped({"content.xml": "<x>" + "<y z='1'>" * 1_000_000 + "</x>"})
    texts, said = load("memory.odt", deep)
    assert "memory.odt" not in texts
    assert "not read: memory.odt:" in said


def test_the_empty_rows_of_a_sparse_sheet_take_no_time(load):
    cell = '<row r="{0}"><c r="A{0}"><v>{0}</v></c></row>'.format
    texts, said = load("rows.xlsx", sheet(cell(1) + cell(900_000) + cell(2_000_000_000)))
    assert texts["rows.xlsx"] == "# table S; columns: 1\n1\n900000\n"
    assert "rlm: rows.xlsx: gaps of 1,000 or more empty rows were left out; rows after 1,048,576 empty ones" in said


def test_cells_in_the_last_column_take_no_time(load):
    rows = "".join(f'<row r="{number}"><c r="XFD{number}"><v>1</v></c></row>' for number in range(2, 2_000))
    texts, said = load("columns.xlsx", sheet(f'<row r="1"><c r="A1"><v>1</v></c></row>{rows}'))
    assert texts["columns.xlsx"] == "# table S; columns: 1\n1\n"
    assert "rlm: columns.xlsx: only the first 10,000 columns" in said


def test_a_sparse_document_is_refused_by_its_size(tmp_path):
    (tmp_path / "sparse.pdf").write_bytes(pdf())
    os.truncate(tmp_path / "sparse.pdf", 6 << 30)
    with pytest.raises(ConfigError, match="at least 6,442,450,944 bytes"):
        inputs.load(tmp_path / "sparse.pdf")


def test_a_named_pipe_without_a_writer_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="a pipe to which no program writes: start that first"):
        inputs.load(tmp_path / "pipe")


def test_a_named_pipe_with_a_slow_writer_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "PIPE_SECONDS", 0)
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(tmp_path / "pipe", os.O_WRONLY)
    os.close(reading)
    waits = inputs._await_writer  # as soon as it has returned, the program writes

    def await_writer(fd, source):
        waits(fd, source)
        os.write(writing, b"late")
        os.close(writing)

    monkeypatch.setattr(inputs, "_await_writer", await_writer)
    assert inputs.load(tmp_path / "pipe") == "late"


@pytest.mark.parametrize("path", ["/proc/kmsg", "/proc/self/mem", "/proc/self/cmdline", "/proc/version"])
def test_a_file_of_the_system_is_text_or_an_error(path):
    if not Path(path).exists():
        pytest.skip("this system has none")
    with suppress(ConfigError):
        assert isinstance(inputs.load(path, max_bytes=100_000), str)


def test_the_child_has_no_key_of_the_host_and_leaves_nothing_behind(load, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    seen = {}
    popen = reader.subprocess.Popen

    def spy(*args, **options):
        seen["child"], seen["env"] = popen(*args, **options), options["env"]
        return seen["child"]

    monkeypatch.setattr(reader.subprocess, "Popen", spy)
    monkeypatch.setattr(inputs, "DocumentReader", reader.DocumentReader)
    load("a.txt", b"text")
    assert "sk-secret" not in str(seen["env"])
    assert seen["child"].returncode is not None


@pytest.mark.full
def test_a_damaged_file_of_any_kind_is_read_in_part_or_listed(tmp_path):
    chance = random.Random(1)
    with reader.DocumentReader() as documents:
        for name, content in thirty(tmp_path).items():
            for damaged in (content[: len(content) // 2], bytearray(content)):
                if isinstance(damaged, bytearray):
                    for _ in range(20):
                        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
                (tmp_path / "damaged").write_bytes(damaged)
                with (tmp_path / "damaged").open("rb") as file:
                    found = documents.read(file, name, 10_000_000)
                assert found.texts or found.unread, name
                assert "the process that read it ended" not in str(found.unread), name


@given(
    st.lists(
        st.sampled_from([b"\xff\xfe", b"\xfe\xff", b"a", b"\0", b"\xfc", b"\xc3\xbc", b"\n", b"\xd8"])
        | st.binary(max_size=3)
    )
)
@example([b"\0", b"\t" * 9])
def test_any_bytes_are_a_text_or_none(pieces):
    with suppress(NotTextError):
        content = b"".join(pieces)
        text = join_text(iter([content]), 10_000)
        assert text.text.count("\0") <= 0.1 * len(content)  # a log of a machine that lost its power holds some
        assert text.size == len(content)

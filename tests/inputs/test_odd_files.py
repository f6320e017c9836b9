"""Files as people have them: names that do not fit, formats that programs do not keep to, parts that are damaged."""

from __future__ import annotations

import functools
import gzip
import json
import sqlite3
from contextlib import closing

import pyarrow as pa
import pytest
from by_hand import pdf, zipped
from openpyxl import Workbook
from openpyxl.comments import Comment
from real_files import NAME, mail, saved, word, workbook

PEOPLE = f"# table People; columns: name, sum\nname,sum\n{NAME},12\n"
LETTER = f"From: {NAME}\nSubject: hi\nMIME-Version: 1.0\n\nbody of {NAME}\n".encode("cp1252")
TOO_FEW_KEYS = {"cells": [{"cell_type": "code", "source": "x", "outputs": [{"output_type": "error", "ename": "E"}]}]}


def odd_workbook():
    book = Workbook()
    book.active.append(["shown"])
    for state in ("hidden", "veryHidden"):
        book.create_sheet(state).append(["cell"])
        book[state].sheet_state = state
    return saved(book.save)


def annotated_workbook():
    book = Workbook()
    sheet = book.active
    sheet.title = "People"
    sheet.append(["name", "page"])
    sheet.append([NAME, "there"])
    sheet["A2"].comment = Comment("A remark\nof two lines", "me")
    sheet["B2"].hyperlink = "https://example.org/a?b=1&c=2"
    return saved(book.save)


def odd_zip():
    """Two members of one name; a name in UTF-8 without the flag for it, and one in cp437."""
    content = zipped({"a.txt": "one", "b.txt": "two", "mXXller.txt": NAME, "mYller.txt": NAME})
    renamed = ((b"b.txt", b"a.txt"), (b"mXX", "mü".encode()), (b"mY", b"m\x81"))
    return functools.reduce(lambda whole, names: whole.replace(*names), renamed, content)


def odd_mail():
    message = mail()
    message.add_attachment(pdf(), maintype="application", subtype="pdf", filename="people.csv")
    return bytes(message)


def odd_database(path):
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a * 2)); INSERT INTO t (a) VALUES (3);"
            "CREATE VIEW v AS SELECT a FROM t; CREATE VIEW w AS SELECT b FROM t"
        )
    return path.read_bytes()


def form():
    """A PDF with a field that was filled in, without a picture of the text."""
    field = b"/Annots[<</Type/Annot/Subtype/Widget/FT/Tx/T(n)/V(Filled in)/DA(/F1 12 Tf 0 g)/Rect[72 600 300 620]>>]"
    page = pdf().replace(b"/MediaBox", field + b"/MediaBox")
    return page.replace(b"/Catalog", b"/Catalog/AcroForm<</Fields[]/DR<</Font<</F1 3 0 R>>>>/DA(/F1 12 Tf 0 g)>>")


def zstd(content):
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(content)
    return buffer.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, load_and_listen):
    """The texts of a folder of such files, and what is said about them."""
    folder = tmp_path_factory.mktemp("odd")
    page = f"<!DOCTYPE html>\n<html><body><p>{NAME}</p></body></html>".encode()
    files = {
        "workbook": workbook(),
        "workbook.csv": workbook(),
        "workbook.docx": workbook(),
        "brief.xlsx": word(),
        "page": page,
        "bank.xls": page,
        "page.txt": page,
        "1700000000.M1.host:2,S": LETTER,
        "letter": LETTER,
        "Inbox": b"From - Mon\nFrom: a@b\n\none\n\nFrom - Tue\nFrom: c@d\n\ntwo\n\n",
        "saved.mht": b"MIME-Version: 1.0\nContent-Type: multipart/related; boundary=b\n\n"
        b"--b\nContent-Type: text/html\n\n<p>in a page</p>\n--b--\n",
        "memo": f"From: {NAME}\nTo: all\n\nno mail\n".encode(),
        "outlook.msg": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "rich.rtf": rb"{\rtf1 M\'fcller}",
        "notebook.ipynb": json.dumps(TOO_FEW_KEYS).encode(),
        "hidden.xlsx": odd_workbook(),
        "annotated.xlsx": annotated_workbook(),
        "odd.zip": odd_zip(),
        "odd.eml": odd_mail(),
        "odd.db": odd_database(folder / "odd.db"),
        "form.pdf": form(),
        "log.zst": zstd(NAME.encode()),
        "cut.gz": gzip.compress("".join(f"line {number}\n" for number in range(9_999)).encode())[:9_000],
        "ends.gz": gzip.compress(b"all of it") + b"garbage",
        "nothing.gz": gzip.compress(b"x")[:9],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    texts, said = load_and_listen(folder)
    return texts, "\n".join(said)


def test_a_file_is_read_as_what_it_is_whatever_its_name_says(loaded):
    texts, _ = loaded
    assert {texts[name] for name in ("workbook", "workbook.csv", "workbook.docx")} == {PEOPLE}
    assert f"{NAME} agreed." in texts["brief.xlsx"]
    assert {texts[name] for name in ("page", "bank.xls")} == {NAME}
    assert texts["page.txt"].startswith("<!DOCTYPE html>")


def test_mail_without_a_suffix_is_mail_and_a_memo_is_text(loaded):
    texts, _ = loaded
    letter = f"From: {NAME}\nSubject: hi\n\nbody of {NAME}\n"
    assert {texts[name] for name in ("letter", "1700000000.M1.host:2,S")} == {letter}
    assert texts["Inbox/00002.eml"] == "From: c@d\n\ntwo\n"
    assert texts["saved.mht"].strip() == "in a page"
    assert texts["memo"] == f"From: {NAME}\nTo: all\n\nno mail\n"


def test_members_of_one_name_are_all_kept_and_names_are_read_as_the_program_meant_them(loaded):
    texts, _ = loaded
    assert (texts["odd.zip/a.txt"], texts["odd.zip/a (2).txt"]) == ("one", "two")
    assert texts.keys() >= {"odd.zip/müller.txt", "odd.zip/müller (2).txt"}
    assert texts["odd.eml/people.csv"].startswith("name,city")
    assert texts["odd.eml/people (2).csv"].startswith("Mueller owes")


def test_columns_of_a_table_have_their_values_and_views_are_listed(loaded):
    texts, said = loaded
    assert texts["odd.db"] == "# table t of 1 row; columns: a (INT), b (INT)\na,b\n3,6\n"
    assert "odd.db: views and virtual tables were not read: v, w" in said
    assert "# table hidden (hidden); columns: cell" in texts["hidden.xlsx"]
    assert "# table veryHidden (hidden); columns: cell" in texts["hidden.xlsx"]


def test_what_was_filled_into_a_form_is_read(loaded):
    assert loaded[0]["form.pdf"] == "Mueller owes 12 euros\nFilled in\n\n"


def test_a_notebook_that_is_not_valid_in_all_is_read(loaded):
    assert loaded[0]["notebook.ipynb"] == "# %%\nx\n# > E: \n\n"


def test_what_comes_before_a_damage_of_a_compressed_file_is_kept(loaded):
    texts, said = loaded
    assert texts["cut.gz"].startswith("line 0\nline 1\n")
    assert texts["ends.gz"] == "all of it"
    assert texts["log.zst"] == NAME
    assert "cut.gz: the rest was not read: it is damaged (Compressed file ended" in said
    assert "ends.gz: the rest was not read: it is damaged (Not a gzipped file" in said
    assert "not read: nothing.gz: it is damaged" in said


def test_what_to_do_with_a_mail_of_outlook_and_with_rich_text_is_said(loaded):
    texts, said = loaded
    assert "not read: outlook.msg: it is a mail of Outlook: save it as .eml" in said
    assert texts["rich.rtf"] == r"{\rtf1 M\'fcller}"
    assert "rich.rtf: the source of a rich text document: save it as .docx to read its text" in said


def test_comments_and_links_of_cells_are_below_the_tables(loaded):
    texts, _ = loaded
    assert texts["annotated.xlsx"] == (
        f"# table People; columns: name, page\nname,page\n{NAME},there\n"
        "\n# comments of People\nA2: A remark of two lines\n"
        "\n# links of People\nB2: https://example.org/a?b=1&c=2\n"
    )

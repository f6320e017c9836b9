"""The comments and hyperlinks of the cells of an Excel workbook, which openpyxl's mode for large sheets leaves out."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET
from zipfile import ZipFile

MAX_PART = 100_000_000
"""Bytes of a part of a workbook. Larger ones are not searched."""

_LINK = re.compile(rb"<(?:\w{1,20}:)?hyperlink\s([^<>]{1,9999})>")
_ATTRIBUTE = re.compile(r"""(?:\w{1,20}:)?(\w{1,20})\s?=\s?["']([^"']*)["']""")


def cell_notes(archive: ZipFile, path: str) -> Iterator[tuple[str, list[str]]]:
    """What the cells of a sheet have besides their values: a heading, and the lines ``A2: text``.

    Args:
        archive: the workbook.
        path: of the sheet in it.
    """
    from openpyxl.packaging.relationship import get_dependents, get_rels_path

    relations_path = get_rels_path(path).lstrip("/")
    found = get_dependents(archive, relations_path) if relations_path in archive.namelist() else ()
    relations = {relation.Id: relation for relation in found}
    comments = [
        line
        for relation in relations.values()
        if relation.Type.endswith("/comments")
        for line in _comments(_part(archive, relation.Target))
    ]
    targets = {name: relation.Target for name, relation in relations.items()}
    links = list(_links(_part(archive, path), targets))
    yield from ((heading, lines) for heading, lines in (("comments", comments), ("links", links)) if lines)


def _part(archive: ZipFile, path: str) -> bytes:
    path = path.lstrip("/")
    return archive.read(path) if archive.getinfo(path).file_size <= MAX_PART else b""


def _comments(content: bytes) -> Iterator[str]:
    for comment in ET.fromstring(content).iter() if content else ():  # noqa: S314 (expat limits entities)
        if comment.tag.endswith("}comment"):
            text = "".join(each.text or "" for each in comment.iter() if each.tag.endswith("}t"))
            yield f"{comment.get('ref')}: {' '.join(text.split())}"


def _links(content: bytes, targets: dict[str, str]) -> Iterator[str]:
    for link in _LINK.findall(content):
        fields = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(link.decode("utf-8", "replace"))}
        place = f"#{fields['location']}" if "location" in fields else ""
        yield f"{fields.get('ref')}: {targets.get(fields.get('id', ''), '')}{place}"

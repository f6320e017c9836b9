"""The names of the files of a run: each is the name of the run with an ending.

A name is ``rlm_how-long-is-it_2026-11-30_19-05-00_1a2b3c4d``: the beginning that the logger was given, words of the
question, when the run began, and an id. A name without words, as that of a run without a question, is as good.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import datetime
from pathlib import Path, PurePath

from rlm_kernel.text import clip_end

RECORD = ".events.jsonl"
"""The record: all events, which replay, resume, the notebook and the viewer read."""
TURNS = ".jsonl"
"""The turns, in the documented format. In older runs this file is the record."""
NOTEBOOK = ".ipynb"


MAX_SLUG = 32
"""Characters of the words of a question in a name: a tab shows about as many."""
MAX_READ = 1_000
"""Characters of a question in which these words are looked for."""
_WORDS = re.compile(r"[^\W_]+")
_BEGAN = re.compile(r"_(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)_[0-9a-f]{8}\Z")


def new_name(begin: str, question: str = "") -> str:
    """The name of a run that begins now.

    Args:
        begin: how it begins.
        question: without secrets; its first words are in the name.
    """
    slug = slug_of(question)
    words = f"_{slug}" if slug else ""
    return f"{begin}{words}_{datetime.now().astimezone():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(4)}"


def slug_of(question: str) -> str:
    """The first words of a question, as ``how-long-is-it``; empty if it has none."""
    slug = ""
    for word in _WORDS.findall(unicodedata.normalize("NFKC", clip_end(question, MAX_READ)).lower()):
        longer = f"{slug}-{word}" if slug else word
        if len(longer) > MAX_SLUG:
            return slug or word[:MAX_SLUG]
        slug = longer
    return slug


def by_beginning(path: PurePath) -> tuple[str, str]:
    """A key that sorts files of runs by when the run began; other files come first."""
    began = _BEGAN.search(stem_of(path))
    return (began[1] if began else "", path.name)


def stem_of(path: PurePath) -> str:
    """The name of the run whose file this is."""
    return path.name.removesuffix(RECORD) if path.name.endswith(RECORD) else path.stem


def file_beside(path: Path, ending: str) -> Path:
    """Another file of the same run, in the same folder."""
    return path.with_name(f"{stem_of(path)}{ending}")


def record_beside(path: Path) -> Path:
    """The record of the run whose file this is. In older runs, and in logs of other tools, it is the `.jsonl`."""
    record = file_beside(path, RECORD)
    return record if record.is_file() else file_beside(path, TURNS)

"""Prompts of sub-calls in a log: a small one is in its line, a large one in a file that is named by its hash.

The line of a call holds the beginning and the end of a large prompt, and in `stored` the name of its file. The file is
written when a model was called, not for a call that was refused. A replay does not need it: it identifies a prompt by
its hash in `keys`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlm_kernel.text import GAP, clip
from rlm_kernel.untrusted import json_text

FOLDER = "prompts"
EMBEDDED_BYTES = 4_096
"""Prompts up to this size are in their line."""
MAX_BYTES = 40_000_000
"""Limit of a file that is read: a kernel can send half of that, and a stranger's file can have any size."""
SHOWN_CHARACTERS = 1_000
"""Of a larger prompt, in its line."""


def encoded(prompt: str) -> bytes | None:
    """The content of the file of a large prompt; None: the prompt is small."""
    if len(prompt) <= EMBEDDED_BYTES // 4:  # a character has at most four bytes
        return None
    content = prompt.encode("utf-8", "surrogatepass")
    return content if len(content) > EMBEDDED_BYTES else None


def file_of(content: bytes) -> str:
    """The file of a prompt, relative to the folder of the log."""
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()}.txt"


def shortened(line: dict[str, Any]) -> dict[str, Any]:
    """The line of a call with its large prompts clipped; `stored` names their files.

    The model's name and the schema may come from a cell, so they are clipped as well.
    """
    line = {**line, "model": clip(line["model"], SHOWN_CHARACTERS), "schema": _schema_in_short(line["schema"])}
    contents = {index: encoded(prompt) for index, prompt in enumerate(line["prompts"])}
    stored = {str(index): file_of(content) for index, content in contents.items() if content is not None}
    if not stored:
        return line
    shown = [
        clip(prompt, SHOWN_CHARACTERS) if str(index) in stored else prompt
        for index, prompt in enumerate(line["prompts"])
    ]
    return {**line, "prompts": shown, "stored": stored}


def is_in_part(prompt: str, characters: int) -> bool:
    """Whether a prompt is the clipped one of a line. `characters`: of the whole prompt."""
    limit = SHOWN_CHARACTERS + len(GAP.format(characters))
    return len(prompt) < characters and len(prompt) <= limit and GAP.partition("{")[0] in prompt


def _schema_in_short(schema: Any) -> Any:
    """A schema, or a comment in place of a large one: a replay does not need it, and the cell has it."""
    if schema is None or len(text := json.dumps(schema)) <= EMBEDDED_BYTES:
        return schema
    return {"$comment": f"a schema of {len(text):,} characters, which the log leaves out"}


def restore(line: dict[str, Any], folder: Path, known: dict[str, str | None]) -> None:
    """Put the whole prompts of a call back into its line, if their files exist and were not altered.

    Args:
        line: made by `shortened`, and read from a file, which is untrusted.
        folder: of the log.
        known: the prompts that were read already, by the name of their file.
    """
    stored, prompts = line.get("stored"), line.get("prompts")
    if not isinstance(stored, Mapping) or not isinstance(prompts, list):
        return
    for index, name in stored.items():
        place = int(index) if index.isdecimal() and len(index) <= len(str(len(prompts))) else len(prompts)
        if not isinstance(name, str) or place >= len(prompts):
            continue
        if name not in known:
            known[name] = _read(folder, name)
        prompts[place] = prompts[place] if (whole := known[name]) is None else whole


def _read(folder: Path, name: str) -> str | None:
    """The prompt in a file; None: the file is missing or altered, or its name is not one of ours."""
    path = folder / FOLDER / Path(name).name
    try:
        if name != f"{FOLDER}/{path.name}":
            return None
        content = json_text.read_file(path, MAX_BYTES)
        return content.decode("utf-8", "surrogatepass") if file_of(content) == name else None
    except (OSError, ValueError):
        return None

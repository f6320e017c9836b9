"""Prompts of sub-calls in a log: a small one is in its line, a large one in a file of its own, named by its hash.

The line of a call holds the beginning and the end of a large prompt, and in `stored` the name of its file. The file is
written when a model was asked: what was refused leaves a few words and nothing else. A replay needs neither, because
what identifies a prompt there is the hash in `keys`.
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
"""Up to this size a prompt is in its line."""
MAX_BYTES = 40_000_000
"""Limit of a file that is read: a kernel can send half of that, and a stranger's file can have any size."""
SHOWN_CHARACTERS = 1_000
"""Of a larger one."""


def encoded(prompt: str) -> bytes | None:
    """What is stored of a large prompt; None: it is small."""
    if len(prompt) <= EMBEDDED_BYTES // 4:  # so it is, in whatever letters
        return None
    content = prompt.encode("utf-8", "surrogatepass")
    return content if len(content) > EMBEDDED_BYTES else None


def file_of(content: bytes) -> str:
    """The file of a prompt, relative to the folder of the log."""
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()}.txt"


def shortened(line: dict[str, Any]) -> dict[str, Any]:
    """The line of a call without its large prompts: they are shown in part, and `stored` says where they are.

    The name of its model and its schema, which a cell may have made up, are shown in part as well.
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
    """Whether of a prompt of so many characters only what its line shows was found."""
    limit = SHOWN_CHARACTERS + len(GAP.format(characters))
    return len(prompt) < characters and len(prompt) <= limit and GAP.partition("{")[0] in prompt


def _schema_in_short(schema: Any) -> Any:
    """A schema, or a word about one that is large: a replay does not need it, and a person finds it in the cell."""
    if schema is None or len(text := json.dumps(schema)) <= EMBEDDED_BYTES:
        return schema
    return {"$comment": f"a schema of {len(text):,} characters, which the log leaves out"}


def restore(line: dict[str, Any], folder: Path, known: dict[str, str | None]) -> None:
    """Put the prompts of a call back into its line, as far as they are there and whole.

    Args:
        line: as `shortened` made it, and as JSON gave it back; anybody may have written it.
        folder: of the log.
        known: what was read already, by the name of its file.
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
    """The prompt in a file of ours; None: it is missing or altered, or the name is not one that we gave."""
    path = folder / FOLDER / Path(name).name
    try:
        if name != f"{FOLDER}/{path.name}":
            return None
        content = json_text.read_file(path, MAX_BYTES)
        return content.decode("utf-8", "surrogatepass") if file_of(content) == name else None
    except (OSError, ValueError):
        return None

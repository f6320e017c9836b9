"""The code of a reply as the reference reads it: blocks that are fenced as ``repl``, and no others."""

from __future__ import annotations

import re

_OPEN = re.compile(r"```repl[^\S\n]*+\n\s*+")


def marked_blocks(text: str) -> tuple[str, ...]:
    """The blocks, without white space around them. The end of one is the next line that begins with a fence."""
    blocks, place = [], 0
    while (opened := _OPEN.search(text, place)) is not None:
        lines = text.find("\n", opened.start()), text.rfind("\n", opened.start(), opened.end())
        start = lines[1] + 1  # after blank lines
        if (end := text.find("\n```", start)) < 0:
            start = lines[0] + 1
            if (end := text.find("\n```", start)) < 0:
                break
        blocks.append(text[start:end].strip())
        place = end + len("\n```")
    return tuple(blocks)

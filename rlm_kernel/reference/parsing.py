"""Code blocks of a reply, and turns as messages, as the reference's `rlm.utils.parsing` has them."""

from __future__ import annotations

import re
from typing import Any

from rlm_kernel.parsing import FencedBlock, split_blocks
from rlm_kernel.trajectory.log.iterations import REPLResult, RLMIteration

MAX_CHARACTERS = 20_000
"""Of the output of a block."""

_OPENED = re.compile(r"```repl\s*\n\s*")
"""A fence with the word alone."""
_SHOWN = (str, int, float, bool, list, dict, tuple)


def find_code_blocks(text: str) -> list[str]:
    """The code of the ```` ```repl ```` blocks of a reply. The engine also runs blocks marked ```` ```python ````."""
    parts = [part for part in split_blocks(text) if part]
    if parts and isinstance(parts[-1], FencedBlock) and not text.rstrip().endswith("```"):
        parts = parts[:-1]  # nothing closes it
    found = [part.code.strip() for part in parts if isinstance(part, FencedBlock) and part.language == "repl"]
    begins = [opened.end() for opened in _OPENED.finditer(text)]
    return [code for code in found if code and any(text.startswith(code, begin) for begin in begins)]


def format_iteration(iteration: RLMIteration, max_character_length: int = MAX_CHARACTERS) -> list[dict[str, str]]:
    """A turn as two messages: the reply, and the output of its blocks, each cut after so many characters."""
    parts = []
    for number, block in enumerate(iteration.code_blocks, 1):
        output = format_execution_result(block.result)
        if (rest := len(output) - max_character_length) > 0:
            output = f"{output[:max_character_length]}... + [{rest} chars...]"
        head = "REPL output:" if len(iteration.code_blocks) == 1 else f"REPL output (block {number}):"
        parts.append(f"{head}\n{output}")
    reply = {"role": "assistant", "content": iteration.response}
    return [reply, {"role": "user", "content": "\n\n".join(parts)}] if parts else [reply]


def format_execution_result(result: REPLResult) -> str:
    """The output of a block, and the names of its variables with plain values."""
    names = [name for name, value in result.locals.items() if name[:1] != "_" and isinstance(value, _SHOWN)]
    parts = [f"\n{text}" for text in (result.stdout, result.stderr) if text]
    parts += [f"REPL variables: {names}\n"] if names else []
    return "\n\n".join(parts) or "No output"


def convert_context_for_repl(context: Any) -> tuple[Any, str | None]:
    """A context as `(data, None)` or `(None, text)`; of a list of messages, the contents."""
    if isinstance(context, str):
        return None, context
    if isinstance(context, list) and context and isinstance(context[0], dict) and "content" in context[0]:
        return [message.get("content", "") for message in context], None
    return context, None

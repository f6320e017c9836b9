"""Parse a model's reply: the code to run, and an answer given as text.

Fenced blocks marked `repl` or `python` are code; a reply without one may hold code in unmarked blocks. An answer is
`FINAL(...)` or `FINAL_VAR(...)` outside of them and of the model's reasoning. `docs/replies.md` has a table.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from rlm_kernel.parsing.answers import CALL, FINAL, Argument, first_call, names_variable, read_argument, text_answer
from rlm_kernel.parsing.compiler import OPEN_TEXT, Compiler
from rlm_kernel.parsing.fences import (
    Block,
    FencedBlock,
    Fences,
    is_fence,
    only_block,
    opened_language,
    split_blocks,
)
from rlm_kernel.parsing.programs import does_more_than_answer, is_program
from rlm_kernel.parsing.records import ParsedReply, TextAnswer
from rlm_kernel.parsing.scan import Scanned, scan
from rlm_kernel.parsing.source import Source, source_of
from rlm_kernel.parsing.spellings import may_be_placeholder, usual
from rlm_kernel.parsing.thinking import without_last_tokens
from rlm_kernel.parsing.tool_calls import calls_of_reply

__all__ = [
    "CALL",
    "Argument",
    "FencedBlock",
    "ParsedReply",
    "Source",
    "TextAnswer",
    "begun_answer",
    "is_fence",
    "may_be_placeholder",
    "only_block",
    "opened_language",
    "parse",
    "read_answer",
    "split_blocks",
    "without_thinking",
]


_PROMPTS = re.compile(r"\A\s*+(?:>>>|In[ ]?\[\d{1,6}\]:)")
_PROMPTED = re.compile(r"\A(?:(?:>>>|\.\.\.)[ ]?|In[ ]?\[\d{1,6}\]:[ ]?|[ ]{0,9}\.\.\.:[ ]?)")
_AS_TYPED = str.maketrans("\u00a0\u3000\u201c\u201d\u201e\u2018\u2019\uff08\uff09\uff0c\uff1a\uff1d", '  """\'\'(),:=')
_LANGUAGE_LINE = re.compile(r"\A(?:python|repl|py)[ \t]*+\n", re.IGNORECASE)


def parse(text: str, *, finished: bool = True) -> ParsedReply:
    """Parse a reply.

    Args:
        text: the reply.
        finished: whether the model stopped by itself. The end of a finished reply closes an open fence, and an open
            answer. Of an unfinished reply, the open block is not run, and the open answer is not taken.
    """
    compiler = Compiler()
    scanned = scan(without_last_tokens(text), compiler)
    blocks = _blocks_to_run(scanned, compiler)
    prose = scanned.without([(block.start, block.end) for block in blocks])
    if not finished and blocks and _is_open(blocks[-1], compiler):
        return ParsedReply(cut=True, prose=prose.strip())
    answers = [block.code for block in blocks if _is_text_answer(block, compiler)]
    code = tuple(
        _typed(_without_prompts(block.code), compiler)
        for block in blocks
        if block.code.strip() and block.code not in answers
    )
    prose = "\n".join([prose, *answers, *scanned.answers])
    if not code and finished and (bare := _bare_code(prose, compiler)):
        return ParsedReply(bare, prose=prose.strip())
    answer, answer_cut = text_answer(usual(prose), compiler, finished=finished, has_code=bool(code))
    return ParsedReply(code, answer, prose=prose.strip(), answer_cut=answer_cut)


def without_thinking(text: str) -> str:
    """The reply without the model's reasoning in tags.

    A user may have asked for `<analysis>` or `<reflection>`, so what is in these stays.
    """
    return scan(text, Compiler(), widely=False).without([])


def begun_answer(text: str) -> bool | None:
    """Whether the first part of a reply, which ends with `FINAL(`, has begun the answer.

    Returns:
        None if it cannot have an answer that is final from its first word: it holds code, or the name of a variable.
    """
    compiler = Compiler()
    scanned = scan(text, compiler)
    prose = scanned.without([])
    first = first_call(prose)
    if first is None or first.end() < len(prose) or scanned.open_tag:
        return False
    return None if scanned.open_fence or _blocks_to_run(scanned, compiler) or names_variable(first["call"]) else True


def read_answer(text: str, start: int) -> Argument | None:
    """An answer of a reply.

    Args:
        text: the reply.
        start: where the argument of `FINAL` begins.

    Returns:
        The argument; None: it is in the model's reasoning.
    """
    compiler = Compiler()
    if any(begin < start <= end for begin, end in scan(text, compiler).thoughts):
        return None
    return read_argument(text[start:], compiler)


def _blocks_to_run(scanned: Scanned, compiler: Compiler) -> Sequence[Block]:
    """The marked blocks; if there is none, the unmarked ones that are programs."""
    marked = [block for block in scanned.blocks if block.role == "run"]
    if marked:
        return marked
    plain = [block for block in scanned.blocks if block.role == "plain"]
    if scanned.open_fence is not None:
        plain.append(Fences(scanned.text, compiler).rest(scanned.open_fence))
    if not plain:
        return ()
    words = scanned.without([(block.start, block.end) for block in plain])
    answered = first_call(words) is not None
    return [block for block in plain if _is_program(block, compiler, strictly=answered)]


def _bare_code(prose: str, compiler: Compiler) -> tuple[str, ...]:
    """The code of a reply that is nothing but a program, or the JSON of a tool's call."""
    if calls := calls_of_reply((only_block(prose) or prose).strip()):
        return tuple(call.text for call in calls if call.kind == "code")
    program = _LANGUAGE_LINE.sub("", prose.strip())
    tree = None if "```" in program else compiler.tree(program)
    return (program,) if tree is not None and does_more_than_answer(tree) else ()


def _is_open(block: Block, compiler: Compiler) -> bool:
    """Whether nothing closes the last block: a fence in a text of its code does not."""
    problem = compiler.problem(block.code) or ""
    return not block.closed or problem.startswith(OPEN_TEXT)


def _without_prompts(code: str) -> str:
    """The code of a session: without its prompts and its output."""
    if not _PROMPTS.match(code):
        return code
    lines = (line.rstrip() for line in textwrap.dedent(code).split("\n"))
    prompts = ((line, _PROMPTED.match(line)) for line in lines)
    return "\n".join(line[prompt.end() :] for line, prompt in prompts if prompt is not None)


def _typed(code: str, compiler: Compiler) -> str:
    """The code with the characters of a keyboard, if that makes it Python: a model may write typographic quotes."""
    if code.isascii() or compiler.problem(code) is None:
        return code
    typed = code.translate(_AS_TYPED)
    return typed if typed != code and compiler.problem(typed) is None else code


def _is_text_answer(block: Block, compiler: Compiler) -> bool:
    """Whether a block is nothing but `FINAL(...)` with words that are no Python."""
    call = FINAL.match(block.code.strip())
    if call is None or compiler.problem(block.code) is None:
        return False
    rest = block.code.strip()[call.end() :]
    argument = read_argument(rest, compiler)
    return argument.closed and not rest[argument.end + 1 :].strip() and not source_of(argument.text, compiler)


def _is_program(block: Block, compiler: Compiler, *, strictly: bool) -> bool:
    tree = compiler.tree(_without_prompts(block.code))
    return tree is not None and is_program(tree, strictly=strictly)

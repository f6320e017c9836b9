"""What a reply is parsed into."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlm_kernel.parsing.source import Source


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """An answer in the text of a reply.

    Attributes:
        text: the text between the parentheses, without the quotes of a quoted text.
        name: the variable that it may name, or None.
        must_be_variable: whether it was given as `FINAL_VAR(name)`, or within a sentence.
        source: the text as an expression of Python, whose value is the answer, or None.
    """

    text: str
    name: str | None = None
    must_be_variable: bool = False
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """The parsed parts of a reply.

    Attributes:
        blocks: the code blocks to run, in order.
        answer: the first answer given as text, or None.
        cut: whether the length limit ended the reply inside a code block.
        prose: the text outside of the code blocks; not compared.
        answer_cut: whether the length limit or an error ended the reply inside an answer, which is none then.
    """

    blocks: tuple[str, ...] = ()
    answer: TextAnswer | None = None
    cut: bool = False
    prose: str = field(default="", compare=False)
    answer_cut: bool = False

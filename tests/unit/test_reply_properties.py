"""Replies of blocks, reasoning and answers in any order: no cell is lost, no line, and no answer is made up."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from selection import mostly_full

from rlm_kernel.engine.spoken_answer import SpokenAnswer, parse_spoken
from rlm_kernel.errors import AnswerCutError
from rlm_kernel.parsing import parse, without_thinking

THOROUGH = pytest.mark.parametrize("examples", mostly_full([300, 5_000], 300))
"""Examples of a test: a few in the gate."""


def check(test, examples, *strategies):
    settings(max_examples=examples, suppress_health_check=list(HealthCheck))(given(*strategies)(test))()


# -- what a reply is made of

STATEMENTS = st.sampled_from(
    [
        "x = 1",
        "print(context[:100])",
        "if x:\n    y = 2",
        "def f(a):\n    return a",
        "a = s.partition('</think>')[2]",
        "b = '<think>'",
        "# </think> or [/THINK]",
        "c = 'FINAL(no)'",
        'q = """\n```json\n{}\n```\n"""',
        'p = """\n<think>\nno\n</think>\nFINAL(no)\n"""',
        "d = '''\n> quoted\n    deep\n'''",
        "e = '```'",
        "FINAL(x)",
        "await g()",
        "f'{x:>10}'",
    ]
)
CODE = st.lists(STATEMENTS, min_size=1, max_size=4).map("\n".join)
LEADS = [("", ""), ("   ", "   "), ("    ", "    "), ("\t", "\t"), ("> ", "> "), ("\ufeff", ""), ("\u200b", "")]
LEADS += [("Look: ", ""), ("1. ", "   "), ("- ", "  "), ("Use `x`: ", "")]
CLOSINGS = ["\n{}{}\n", "{1}\n", "\n{}{}<|im_end|>\n", "\n{}{} </s>\n", "\n{}{}  \n"]
MARKS = ["repl", "python", "Python3", "{.python}", "py title='a.py'", " repl"]


@st.composite
def cells(draw):
    """A block as it is written, and its code."""
    code = draw(CODE)
    lead, indent = draw(st.sampled_from(LEADS))
    fence = draw(st.sampled_from(["```", "````"] if lead.strip() not in ("", ">") else ["```", "````", "~~~"]))
    closing = draw(st.sampled_from(CLOSINGS if fence != "~~~" and "```" not in code else CLOSINGS[:1]))
    lines = "\n".join(indent + line for line in code.split("\n"))
    return f"{lead}{fence}{draw(st.sampled_from(MARKS))}\n{lines}{closing.format(indent, fence)}", code


TAGS = [
    ("<think>", "</think>"),
    ("<Thought>", "</Thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
]
TAGS += [("<|begin_of_thought|>", "<|end_of_thought|>"), ("<reasoning>", "</reasoning>")]
TAGS += [("<|channel|>analysis<|message|>", "<|end|>")]
INNER = st.sampled_from(
    [
        "hm",
        "FINAL(never)",
        "```repl\n1 / 0\n```",
        "```python\n1 / 0",
        "```",
        "(",
        "FINAL(",
        "**",
        "FINAL_VAR(never)",
        "`x`",
    ]
)


@st.composite
def thoughts(draw):
    opening, closing = draw(st.sampled_from(TAGS))
    inner = "\n".join(draw(st.lists(INNER, max_size=4)))
    return f"{opening}\n{inner}\n{closing}\n"


PROSE = st.sampled_from(
    [
        "Some words.\n",
        "A `name` (and more).\n",
        "1. one\n2. two\n",
        "\n",
        "```json\n{}\n```\n",
        "I use FINAL(...) later.\n",
    ]
)
WORDS = st.sampled_from(
    ["It is so", "42 apples", "yes", "x and y", "Berlin", "the (net) total", "a: b", "no :) really"]
)
ANSWERS = st.one_of(
    WORDS,
    st.builds("{} ({})".format, WORDS, st.sampled_from(["here", "a, b", "see (x)"])),
    st.builds("1) {}\n2) {}".format, WORDS, WORDS),
    st.builds("{}\n\n{}".format, WORDS, WORDS),
    st.builds("In [0, 1) {}".format, WORDS),
    st.builds("The tag <think> is {}".format, WORDS),
    st.builds("Rows 1-5) {}".format, WORDS.filter(lambda words: ")" not in words)),
)
AROUND = st.sampled_from(
    ["{}", "**{}**", "> {}", "# {}", "`{}`", "**Answer:** {}", "$\\boxed{{{}}}$", "{}<|im_end|>", "{}."]
)


# -- what holds


@THOROUGH
def test_no_cell_is_lost_and_none_is_changed(examples):
    def each(parts, words):
        reply = words + "".join(part if isinstance(part, str) else part[0] + words for part in parts)
        assert parse(reply).blocks == tuple(part[1] for part in parts if not isinstance(part, str))

    check(each, examples, st.lists(cells() | thoughts() | PROSE, max_size=5), PROSE)


@THOROUGH
def test_an_answer_is_what_was_given_and_nothing_else(examples):
    def each(before, answer, around, behind):
        given = around.format(f"FINAL({answer})")
        parsed = parse(f"{''.join(before)}{given}\n{behind}")
        assert parsed.answer is not None
        assert parsed.answer.text == answer
        assert parsed.blocks == ()

    check(each, examples, st.lists(thoughts() | PROSE, max_size=3), ANSWERS, AROUND, st.sampled_from(["", "Done.\n"]))


@THOROUGH
def test_what_is_not_reasoning_stays(examples):
    def each(parts):
        reply = "".join(text for text, _ in parts)
        assert without_thinking(reply) == "".join(text for text, is_thought in parts if not is_thought)

    kept = PROSE | cells().map(lambda cell: cell[0])
    parts = st.lists(
        kept.map(lambda text: (text, False)) | thoughts().map(lambda text: (text.rstrip("\n"), True)), max_size=5
    )
    check(each, examples, parts.map(lambda parts: [(text + "\n" if not t else text, t) for text, t in parts]))


@THOROUGH
def test_a_cut_reply_gives_nothing_that_the_whole_one_does_not(examples):
    def each(parts, answer, cut):
        reply = "".join(part if isinstance(part, str) else part[0] for part in parts) + f"FINAL({answer})\nDone."
        whole, part = parse(reply), parse(reply[: int(len(reply) * cut)], finished=False)
        assert part.blocks == whole.blocks[: len(part.blocks)]
        assert part.answer in (None, whole.answer)

    proper = cells().filter(lambda cell: cell[0].rstrip().endswith(("\n```", "\n````", "\n~~~")))
    check(each, examples, st.lists(proper | thoughts() | PROSE, max_size=4), ANSWERS, st.floats(0, 1))


PIECES = st.sampled_from(
    [
        *[
            "```",
            "```repl\n",
            "```python ",
            "```\n",
            "~~~\n",
            "> ",
            "    ",
            "\t",
            "- ",
            "\ufeff",
            "<think>",
            "</think>",
        ],
        *[
            "[THINK]",
            "[/THINK]",
            "<thought>",
            "<|channel|>analysis<|message|>",
            "<|channel|>final<|message|>",
            "<|end|>",
        ],
        *["<code>", "</code>", "FINAL(", "FINAL_VAR(", "(", ")", "1) ", "2) ", ":)", '"', "'''", 'f"{x}"', "x", " = "],
        *["str(x)", "\n", "a b"],
    ]
)


def spoken_answer(reply, *, finished):
    """The answer of a reply of a conversation; of one that was cut, its part."""
    try:
        parsed = parse_spoken(reply, finished=finished)
    except AnswerCutError as error:
        return error.partial_answer
    return parsed.answer.text if parsed.answer else ""


@THOROUGH
def test_anything_is_read_alike_as_a_whole_and_in_pieces(examples):
    def each(pieces, finished):
        reply = "".join(pieces)
        parsed = parse(reply, finished=finished)
        assert not (parsed.cut and (finished or parsed.blocks or parsed.answer))
        assert not (parsed.answer_cut and (finished or parsed.answer))
        lines = {line.strip(" \t\r>") for block in parsed.blocks for line in block.split("\n")}
        assert all(line in reply for line in lines)
        reader = SpokenAnswer()
        passed_on = "".join(map(reader.feed, pieces))
        if without_thinking(reply) == reply:  # a closing tag takes back what was before it
            assert spoken_answer(reply, finished=finished).startswith(passed_on)

    check(each, examples, st.lists(PIECES, max_size=30), st.booleans())

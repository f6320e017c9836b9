"""What is read out of a reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.parsing import FencedBlock, ParsedReply, TextAnswer, only_block, parse, split_blocks, without_thinking

# -- code blocks


@pytest.mark.parametrize("language", ["repl", "python", "py", "Python", "python3", "ipython", "{python}", "{.python}"])
def test_a_marked_fence_is_code(language):
    assert parse(f"Look:\n```{language}\nprint(1)\n```\nThat was it.").blocks == ("print(1)",)


@pytest.mark.parametrize("language", ["text", "json", "bash", "output", "pythonic", "c++"])
def test_another_fence_is_not_run(language):
    assert parse(f"```{language}\nprint(1)\n```") == ParsedReply()


def test_the_blocks_come_in_order():
    assert parse("```repl\na = 1\n```\nand\n```python\nb = 2\n```").blocks == ("a = 1", "b = 2")


def test_an_empty_block_is_no_block():
    assert parse("```repl\n\n   \n```") == ParsedReply()


@pytest.mark.parametrize(("open_", "close"), [("~~~", "~~~"), ("````", "````"), ("```", "`````"), ("   ```", "  ```")])
def test_the_fence_may_be_of_any_kind_and_length(open_, close):
    assert parse(f"{open_}repl\nx = 1\n{close}\nFINAL(x)") == ParsedReply(("x = 1",), TextAnswer("x", "x"))


def test_words_after_the_language_do_not_matter():
    assert parse("```python title='x.py' {1,2}\nx = 1\n```").blocks == ("x = 1",)


def test_windows_line_ends_do_no_harm():
    reply = parse("```repl\r\nx = 1\r\ny = 2\r\n```\r\nFINAL(x)\r\n")
    assert [block.splitlines() for block in reply.blocks] == [["x = 1", "y = 2"]]
    assert reply.answer == TextAnswer("x", "x")


def test_a_fence_in_a_text_of_the_code_does_not_end_the_block():
    code = 'prompt = """Answer so:\n```json\n{"a": 1}\n```\nNothing else."""\nllm_query(prompt)'
    assert parse(f"```repl\n{code}\n```\nThen I read it.").blocks == (code,)


def test_a_marked_fence_in_a_text_of_the_code_is_no_block_of_its_own():
    code = "prompt = '''\n```python\n1 / 0\n```\n'''"
    assert parse(f"```repl\n{code}\n```\n```repl\nx = 1\n```").blocks == (code, "x = 1")


def test_code_that_is_not_python_ends_at_the_first_fence():
    assert parse("```repl\n%time !ls\n```\n```repl\nx = (\n```\n").blocks == ("%time !ls", "x = (")


def test_a_text_that_is_never_closed_ends_at_the_first_fence():
    assert parse('```repl\nx = """oh\n```\nprose\n```repl\ny = 1\n```').blocks == ('x = """oh', "y = 1")


def test_top_level_await_is_code_like_other_code():
    assert parse('```repl\nawait f("""\n```\n""")\n```').blocks == ('await f("""\n```\n""")',)


def test_a_fence_left_open_is_closed_by_the_end_of_a_finished_reply():
    assert parse("```repl\nprint(1)") == ParsedReply(("print(1)",))


@pytest.mark.parametrize("before", ["", "```repl\nx = 1\n```\n"])
def test_a_fence_left_open_by_the_length_limit_means_that_nothing_is_run(before):
    assert parse(f"{before}```repl\nprint(1", finished=False) == ParsedReply(cut=True)


def test_a_reply_cut_outside_of_a_block_is_read():
    reply = parse("```repl\nx = 1\n```\nNow I want to", finished=False)
    assert reply == ParsedReply(("x = 1",))


# -- answers in words


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("FINAL(42)", TextAnswer("42")),
        ("FINAL(total)", TextAnswer("total", "total")),
        ("FINAL( total )", TextAnswer("total", "total")),
        ("FINAL(Ångström)", TextAnswer("Ångström", "Ångström")),
        ("FINAL(two words)", TextAnswer("two words")),
        ("FINAL('total')", TextAnswer("total")),
        ('FINAL("a \\"quoted\\" text")', TextAnswer('a "quoted" text')),
        ('FINAL("""three\nlines\nlong""")', TextAnswer("three\nlines\nlong")),
        ("FINAL('it ends with :)')", TextAnswer("it ends with :)")),
        ('FINAL("a :) in the middle")', TextAnswer("a :) in the middle")),
        ("FINAL('one', 'two')", TextAnswer("'one', 'two'")),
        ("FINAL((net) + f (y)) and more words (here)", TextAnswer("(net) + f (y)")),
        ("FINAL([1, (2, 3)])", TextAnswer("[1, (2, 3)]")),
        ("FINAL(several\nlines (with these)\nof words)\nand more", TextAnswer("several\nlines (with these)\nof words")),
        ("FINAL(never closed", TextAnswer("never closed")),
        ("FINAL(closed (too rarely)", TextAnswer("closed (too rarely")),
        ("FINAL(it's an 'apostrophe')", TextAnswer("it's an 'apostrophe'")),
        ("FINAL()", TextAnswer("")),
        ("FINAL('')", TextAnswer("")),
        ("FINAL_VAR(total)", TextAnswer("total", "total", must_be_variable=True)),
        ('FINAL_VAR("total")', TextAnswer('"total"', "total", must_be_variable=True)),
        ("FINAL_VAR(`total`)", TextAnswer("`total`", "total", must_be_variable=True)),
        ("  FINAL(indented)", TextAnswer("indented", "indented")),
        ("**FINAL(bold)**", TextAnswer("bold", "bold")),
        ("> FINAL(quoted)", TextAnswer("quoted", "quoted")),
        ("`FINAL(code)`", TextAnswer("code", "code")),
        ("Words first.\n\nFINAL(then)", TextAnswer("then", "then")),
        ("FINAL(one)\nFINAL(two)", TextAnswer("two", "two")),
        ("```text\nFINAL(in a fence that is not run)\n```", TextAnswer("in a fence that is not run")),
    ],
)
def test_an_answer_stands_at_the_start_of_a_line(text, answer):
    assert parse(text) == ParsedReply(answer=answer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Use FINAL(...) when you are done.",
        "FINAL 42",
        "NOT_FINAL(42)",
        "MY FINAL(42)",
        "<think>\nFINAL(42)\n</think>",
        "FINAL(42)\n</think>",
    ],
)
def test_other_words_are_no_answer(text):
    assert parse(text).answer is None


def test_an_answer_in_a_block_that_is_run_belongs_to_the_code():
    assert parse("```repl\nFINAL(42)\n```") == ParsedReply(("FINAL(42)",))


def test_an_answer_beside_code_is_kept_for_the_engine_to_judge():
    assert parse("FINAL(a guess)\n```repl\nx = 1\n```") == ParsedReply(("x = 1",), TextAnswer("a guess"))


# -- thinking


@pytest.mark.parametrize("tag", ["think", "thinking", "reasoning"])
def test_what_was_thought_aloud_is_not_read(tag):
    thought = f"<{tag}>\n```repl\n1 / 0\n```\nFINAL(no)\n</{tag}>\n"
    assert parse(f"{thought}FINAL(yes)") == ParsedReply(answer=TextAnswer("yes", "yes"))


def test_thinking_without_its_opening_tag_is_not_read():
    assert parse("Hm.\n```repl\n1 / 0\n```\n</think>\n\nFINAL(yes)") == ParsedReply(answer=TextAnswer("yes", "yes"))


def test_thinking_that_never_ends_leaves_nothing():
    assert parse("<think>\nFINAL(no)") == ParsedReply()
    assert without_thinking("Before.\n<think>\non and on") == "Before.\n"


def test_code_may_look_for_the_tags():
    code = "answers = [a.split('</think>')[-1] for a in answers]"
    assert parse(f"```repl\n{code}\n```").blocks == (code,)


# -- whatever a model writes

PIECES = st.sampled_from(
    [
        *[
            "```",
            "~~~",
            "```repl",
            "```python",
            "\n```\n",
            "\n```repl\n",
            "FINAL(",
            "FINAL_VAR(",
            "<think>",
            "</think>",
        ],
        *["(", ")", '"', "'", '"""', "'''", "\\", " ", "\n", "\r", "\t", "\x00", "\ud800", "\u2028"],
        *["x = 1", "await ", "1 +", "\N{SUPERSCRIPT TWO}"],
    ]
)
ANYTHING = st.lists(PIECES | st.text(st.characters(exclude_categories=[]), max_size=5), max_size=40).map("".join)


@given(ANYTHING, st.booleans())
def test_no_text_is_too_strange_to_be_read(text, finished):
    reply = parse(text, finished=finished)
    assert all(block.strip() and block in text for block in reply.blocks)
    assert not (reply.cut and (finished or reply.blocks or reply.answer))


LITERALS = st.text(st.characters(exclude_categories=["Cs"])).map(repr) | st.sampled_from(
    ["'''\n```\n'''", '"""\n```repl\nx = 1\n```\n"""', "'```'", 'f"""{x}\n~~~\n```"""', "b'''\n````\n'''"]
)
STATEMENTS = st.builds("{} = {}".format, st.sampled_from("abcxyz"), LITERALS) | st.sampled_from(
    ["", "    ", "# ``` a comment", "if x:\n    y = [\n        1,\n    ]", "def f():\n    return '```'", "await g()"]
)
CODE = st.lists(STATEMENTS, min_size=1, max_size=6).map("\n".join).filter(str.strip)
PROSE = st.sampled_from(["", "Some words.", "A `name` and (brackets.", "1. a list\n2. of things", "```json\n{}\n```"])


@given(st.lists(CODE, min_size=1, max_size=3), PROSE, st.sampled_from(["repl", "python"]))
def test_blocks_come_back_verbatim(blocks, prose, language):
    text = prose + "".join(f"\n```{language}\n{code}\n```\n{prose}" for code in blocks)
    assert parse(text).blocks == tuple(blocks)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_quoted_answer_comes_back_as_it_was_meant(text):
    assert parse(f"FINAL({text!r})\nMore words (and these).").answer == TextAnswer(text)


@given(
    st.recursive(st.integers().map(str), lambda inner: st.lists(inner, max_size=3).map(lambda x: f"({', '.join(x)})"))
)
def test_parentheses_are_balanced(inside):
    assert parse(f"FINAL({inside} )) and (more").answer == TextAnswer(inside)


HUGE = 1_000_000
FILLINGS = {
    "parentheses that open": "FINAL(" + "(" * HUGE,
    "parentheses that close": 'FINAL("' + ")" * HUGE,
    "parentheses in pairs": "FINAL(" + "()" * (HUGE // 2),
    "a long text with parentheses": 'FINAL("' + "a" * HUGE + ")" * 100,
    "answers": "FINAL(\n" * (HUGE // 7),
    "bare fences": "```\n" * (HUGE // 4),
    "opening fences": "```python\n" * (HUGE // 10),
    "empty blocks": "```python\n```\n" * (HUGE // 14),
    "blocks that are no Python": "```python\n!\n```\n" * (HUGE // 16),
    "texts that are not closed": '```python\n"""\n```\n' * (HUGE // 18),
    "one fence of backticks": "`" * HUGE,
    "one fence of tildes": "~" * HUGE,
    "a fence with a long language": "```" + "a" * HUGE + "`",
    "a fence with many spaces": "```" + " " * HUGE + "`",
    "tags": "a</think>" * (HUGE // 9),
    "tags that open": "<think>\n" * (HUGE // 8),
    "stars": "*" * HUGE,
    "a long sum": "```python\n1" + "+1" * (HUGE // 2) + "\n```",
    "a deep expression": "```python\n" + "-" * HUGE + "1\n```",
    "a deep answer": "FINAL(" + "[" * HUGE + ")",
}


@pytest.mark.timeout(30)  # what takes quadratic time takes hours here
@pytest.mark.parametrize("text", FILLINGS.values(), ids=FILLINGS)
def test_a_megabyte_of_anything_is_read_in_linear_time(text):
    parse(text)


# -- fenced blocks of any kind


def test_a_text_is_split_at_its_fenced_blocks():
    text = "One\n```python\na\n```\ntwo\n~~~\nb\n~~~~\nthree"
    python, plain = FencedBlock("python", "a"), FencedBlock("", "b")
    assert list(split_blocks(text)) == ["One\n", python, "\ntwo\n", plain, "\nthree"]
    assert list(split_blocks(text, 1)) == ["One\n", python, "\ntwo\n~~~\nb\n~~~~\nthree"]
    assert list(split_blocks("no block")) == ["no block"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```json\n{}\n```", "{}"),
        ("Here it is: ```\n[1]\n  ```. Done.", "[1]"),
        ("```\na ``` b\n```", "a ``` b"),
        ("```\nnot closed", None),
        ("`x` ```\n1\n```", None),
        ("~~~\n1\n~~~", None),
    ],
)
def test_a_single_block_may_begin_in_the_middle_of_a_line(text, code):
    assert only_block(text) == code

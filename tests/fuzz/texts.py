"""The functions that read foreign text, each with pieces of text that mean something to it."""

from __future__ import annotations

import io
from contextlib import suppress

from rich.console import Console

from rlm_kernel import parsing, text
from rlm_kernel.cli import demo_questions, diff, exit_codes
from rlm_kernel.clients import provider_errors
from rlm_kernel.engine.spoken_answer import parse_spoken
from rlm_kernel.errors import AnswerCutError, LMError
from rlm_kernel.kernel.outputs import OutputCollector
from rlm_kernel.prompts import PROFILES, cell_output, context_preview, few_shot, profile, question_matches
from rlm_kernel.schema import answer_schema
from rlm_kernel.schema.validation import MisfitError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.console import live_display, render
from rlm_kernel.trajectory.console.screen import Screen
from rlm_kernel.trajectory.console.status import Status
from rlm_kernel.trajectory.log import redaction
from rlm_kernel.trajectory.notebook import cells as notebook_cells
from rlm_kernel.trajectory.notebook import markdown, normaliser, saved_outputs
from rlm_kernel.trajectory.progress import RunProgress
from rlm_kernel.types import CellError, CellResult, Reply

TERMINAL = (
    "\x1b \x9b \x9d \x90 \x98 \x9e \x9f \x9c \x07 \b \r \n \t \x1b[ \x1b] \x1b\\ \x1bP [ ] 0 ; m \u202e \u2028 x".split(
        " "
    )
)
FENCES = [
    *["`", "```", "```python\n", "```\n", "~~~", "~", "'''", '"""', "\n", " ", "x", "{", ".", "\\", "#", "(", "é"],
    *["```python print(", "> ", "    ", "\t", "\ufeff", "<|im_end|>", "<code>", "</code>", "<python>", "</python>"],
]
TAGS = [
    *["<think>", "</think>", "<thinking>", "</thinking>", "<reasoning>", "<", "/", '"', "`", "\n", " ", "t", "think"],
    *[
        "[THINK]",
        "[/THINK]",
        "[",
        "<|",
        "|>",
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "<|end|>",
    ],
    *["FINAL(", ")", "```repl\n", "```\n", "think" * 9],
]
FINALS = [
    *["FINAL(", "FINAL_VAR(", "(", ")", "'", '"', "\\", "\n", " ", ">", "*", "x", "'''", "'a' ", "1) ", "2) ", " a) "],
    *[":)", ":(", "[0, 1)", "(0, 1]", "[", ",", "f'", "{x}", "str(x)", "\\boxed{", "Answer: ", "is FINAL(", "`"],
]
NOISE = [
    *"0 x a / . : % | [ ] ( ) - _ s \n \t é".split(" "),
    *[
        "0x",
        "ab12",
        "1.5",
        " ms",
        "ns ",
        "CPU times: ",
        "Wall time: ",
        " ± ",
        " per loop (",
        "1%|",
        "| 1/1 [",
        "In [1]",
    ],
    *["Out[", "<ipython-input-", "ipykernel_", "ipykernel_1/1.py", "/tmp/", "/private", "/var/folders/", "x/", " "],
]
MARKDOWN = [
    *"< > ! [ ] ( ) ` ~ \\ $ * _ # - + = | & \n \t x 1 . é".split(" "),
    " ",
    "http://x.y",
    "1. ",
    "- ",
    "> ",
    "```",
]
PYTHON = [
    *"( ) [ ] { } ' \" \\ # @ : = . , % 0 _ \n x".split(" "),
    " ",
    "'''",
    '"""',
    "f'",
    "rb'",
    "0x",
    "1e",
    "def ",
    "%d",
    "{x",
]
JSON = [*'{ } [ ] " : , \\ 0 1 - . e x'.split(" "), '"a":', "null", "\n", " ", "```", "```json\n", "\\u", "1e9", "true"]
ADDRESSES = ["://", ":", "@", "/", " ", "x", "key", "_", "-", "password", "secret", "token"]
QUESTIONS = [
    "what ",
    " is for",
    "how many ",
    "word ",
    "`",
    "'",
    "a.",
    "-",
    "/",
    "@",
    "x9 ",
    "Xy ",
    "\n",
    "about ",
    "is ",
    "?",
]
TRACEBACKS = ["-", "-> 1 ", "--> ", " ", "1", "\n", "x", "Traceback (most recent call last)", "Error: "]


def drawn(*blocks):
    Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard").print(*blocks)


def result(text="", traceback=None):
    error = None if traceback is None else CellError("ValueError", traceback[:1000], traceback)
    outputs = ({"output_type": "stream", "name": "stdout", "text": text},)
    return CellResult("x", "ok" if error is None else "error", outputs, error)


def shown(text):
    """A reply with code, drawn as the live view draws it."""
    view = live_display.ConsoleView(Screen(Console(file=io.StringIO(), width=100, force_terminal=True), live=False))
    with view:
        view(events.ModelReplied(time=0.0, iteration=1, reply=Reply(text, "m"), seconds=0.0))
        view(events.CellStarted(time=0.0, iteration=1, cell=1, code=text))
        view(events.CellFinished(time=0.0, iteration=1, cell=1, result=result(text, text)))
        view(events.Notice(time=0.0, message=text))


def tail(text):
    progress = RunProgress()
    progress(events.ModelText(time=0.0, iteration=1, text=text))
    drawn(Status(progress))


def collected(text):
    collector = OutputCollector()
    for start in range(0, len(text), 100_000):
        collector.add("stream", {"name": "stdout", "text": text[start : start + 100_000]})
    collector.add("error", {"ename": "E", "evalue": text, "traceback": text.split("\n")})
    collector.outputs()


def by_schema(text):
    with suppress(MisfitError):
        answer_schema.Schema({"type": "object"}).read(text)


def provider(text):
    error = LMError(text, backend="b", model="m", status=400)
    provider_errors.refuses_schema(error)
    provider_errors.asks_for_other_limit_name(error)
    provider_errors._kind(error)
    exit_codes.explain(error)


def cells(text):
    third = len(text) // 3
    list(notebook_cells.split(text, [text[:third], text[third : third + 20], text[third:]]))


def diffed(text):
    other = text[1:] + "y"
    return "\n".join(normaliser.unified(text, other))


def spoken(text):
    with suppress(AnswerCutError):
        parse_spoken(text, finished=False)


FUNCTIONS = {
    "plain": (text.plain, TERMINAL),
    "parse": (parsing.parse, [*FENCES, *FINALS]),
    "parse: thinking": (parsing.parse, TAGS),
    "parse: cut": (lambda text: parsing.parse(text, finished=False), [*FENCES, *FINALS, *TAGS]),
    "without thinking": (parsing.without_thinking, [*TAGS, *FENCES]),
    "parse: spoken": (spoken, [*FINALS, *TAGS, "a b"]),
    "split into cells": (cells, FENCES),
    "normalise": (normaliser.normalise_text, NOISE),
    "difference": (diffed, ["a\n", "b\n", "x", "\n", " ", "c\n\n"]),
    "compare": (lambda text: normaliser.as_text(result(text).outputs), NOISE),
    "Markdown: prose": (markdown.prose, MARKDOWN),
    "Markdown: prose with breaks": (lambda text: markdown.prose(text, breaks=True), MARKDOWN),
    "Markdown: line": (markdown.one_line, MARKDOWN),
    "Markdown: fenced": (markdown.code_block, MARKDOWN),
    "Markdown: fold": (lambda text: markdown.details(text, text), MARKDOWN),
    "notebook: outputs": (lambda text: saved_outputs.bound_outputs(result(text).outputs), NOISE),
    "redact": (
        redaction.Redactor(["secret-key-1", "aaaaaaaab", "x" * 40]),
        [*ADDRESSES, "secret-key-", "aaaaaaaa", "x" * 39],
    ),
    "secrets by name": (lambda text: (redaction.is_secret_name(text), redaction.named_secrets([text])), ADDRESSES),
    "render": (lambda text: cell_output.render_result(result(text, "at the end"), 20_000), TERMINAL),
    "brief": (lambda text: profile.brief(result(text, text), 1_000), TRACEBACKS),
    "hints": (lambda text: PROFILES["small"].outputs([result(text, text)], iteration=1, max_iterations=2), TRACEBACKS),
    "clues": (lambda text: question_matches.question_lines(text, text, 5), QUESTIONS),
    "examples": (
        lambda text: few_shot.choose(PROFILES["small"].examples, context_preview.describe(text), text, 3),
        QUESTIONS,
    ),
    "preview": (lambda text: context_preview.preview(context_preview.describe(text), 1_000), [*JSON, "\t", "|", ";"]),
    "opening": (lambda text: PROFILES["small"].opening(context_preview.describe(text), "", text), QUESTIONS),
    "schema": (by_schema, JSON),
    "collect": (collected, TERMINAL),
    "live view": (shown, [*FENCES, *TERMINAL]),
    "live view: code": (lambda text: drawn(render.code(text, 1)), PYTHON),
    "live view: words": (lambda text: drawn(render.words(text)), TERMINAL),
    "live view: answer": (lambda text: drawn(render.answer(text, "facts")), TERMINAL),
    "live view: tail": (tail, TERMINAL),
    "provider's error": (provider, [*ADDRESSES, "use ", "max_completion_tokens", "schema", "m"]),
    "rlm diff": (lambda text: diff._normal([text]), NOISE),
    "rlm demo": (
        lambda text: (demo_questions.check_paths(text, set()), demo_questions.check_judgements(text, set())),
        ["a.py", ".", "/", "x", " ", "py"],
    ),
}

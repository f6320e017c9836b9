"""What is fuzzed: each target is a test of Hypothesis, and says what must hold for any input.

`python -m tests.fuzz --minutes 10` runs them for long, and the suite (`tests/unit/test_fuzz_targets.py`) a few times.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import nbformat
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session
from recorded_runs import record_file
from rich.console import Console

from rlm import RLM, RecordingError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.kernel import protocol
from rlm_kernel.kernel.channels import FORGED
from rlm_kernel.kernel.comm import HostComm
from rlm_kernel.kernel.incoming import Incoming, parse_content
from rlm_kernel.kernel.outputs import OutputCollector
from rlm_kernel.parsing import parse
from rlm_kernel.prompts.cell_output import render_result
from rlm_kernel.text import plain
from rlm_kernel.trajectory.console import render
from rlm_kernel.trajectory.console.live_display import ConsoleView
from rlm_kernel.trajectory.console.screen import Screen
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.notebook import saved_outputs
from rlm_kernel.trajectory.notebook.build import identity_of_recording, notebook_of, runs
from rlm_kernel.trajectory.notebook.normaliser import as_text, normalise_text
from rlm_kernel.trajectory.tree import events_of
from rlm_kernel.types import CellResult

from . import texts

# -- inputs

ANY_TEXT = st.text(st.characters(exclude_categories=[]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
DEEP = st.integers(90, 120_000).map(lambda depth: b"[" * depth + b"]" * depth)


def made_of(pieces):
    """Text out of pieces that mean something to its reader, with others between them."""
    return st.lists(st.sampled_from(pieces) | st.text(max_size=3)).map("".join)


def fields(**known):
    """An object with these fields, some of them missing and some of another type."""
    return st.fixed_dictionaries({}, optional={name: value | JSON for name, value in known.items()}) | JSON


def encoded(values):
    """As bytes, which may be cut or hold something else."""
    whole = values.map(lambda value: json.dumps(value).encode())
    cut = st.tuples(whole, st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])
    return whole | cut | st.binary() | DEEP


# -- text


@given(made_of(texts.TERMINAL) | ANY_TEXT)
def plain_text(text):
    shown = plain(text)
    shown.encode()
    assert plain(shown) == shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)


@given(made_of([*texts.FENCES, *texts.FINALS, *texts.TAGS, "```repl\n", "```\n", "FINAL("]) | ANY_TEXT, st.booleans())
def reply(text, finished):
    parsed = parse(text, finished=finished)
    assert all(block.strip() and block in text for block in parsed.blocks)
    assert parsed.answer is None or isinstance(parsed.answer.text, str)
    assert not (parsed.cut and finished)


@given(made_of(texts.NOISE) | ANY_TEXT)
def normaliser(text):
    shown = normalise_text(text)
    shown.encode()
    assert plain(shown) == shown


# -- what a kernel sends

STREAM = st.fixed_dictionaries({"name": st.sampled_from(["stdout", "stderr"]), "text": made_of(texts.TERMINAL)})
BUNDLE = st.dictionaries(st.sampled_from(["text/plain", "text/html", "image/png", "application/json", "x"]), JSON)
DISPLAY = st.fixed_dictionaries({"data": BUNDLE, "metadata": BUNDLE, "execution_count": st.integers() | JSON})
ERROR = st.fixed_dictionaries({"ename": ANY_TEXT, "evalue": ANY_TEXT, "traceback": st.lists(made_of(texts.TERMINAL))})
CONTENT = (
    STREAM
    | DISPLAY
    | ERROR
    | fields(
        name=ANY_TEXT,
        text=ANY_TEXT,
        data=BUNDLE,
        metadata=BUNDLE,
        transient=fields(display_id=ANY_TEXT),
        wait=st.booleans(),
        execution_count=st.integers(),
        unread=st.integers(),
    )
)
KINDS = [
    "stream",
    "display_data",
    "execute_result",
    "error",
    "clear_output",
    "update_display_data",
    "status",
    "comm_msg",
]


@given(st.lists(st.tuples(st.sampled_from(KINDS), CONTENT), max_size=6))
def outputs(messages):
    collector = OutputCollector()
    for kind, content in messages:
        with suppress(*FORGED):
            collector.add(kind, content)
    kept = collector.outputs()
    result = CellResult("x", "ok", kept, collector.error)
    render_result(result, 500).encode()
    as_text(kept)
    Console(quiet=True).print(render.output(result))
    cell = nbformat.v4.new_code_cell("x", outputs=saved_outputs.bound_outputs(kept))
    nbformat.validate(nbformat.v4.new_notebook(cells=[json.loads(json.dumps(cell))]))


@given(st.sampled_from(KINDS), encoded(CONTENT))
def content(kind, written):
    with suppress(ValueError, KeyError, TypeError):
        parse_content(kind, written)


@given(encoded(JSON))
def buffer(written):
    with suppress(ValueError, RecursionError):
        protocol.unpack(written)


HEADER = encoded(fields(msg_type=st.sampled_from(KINDS), msg_id=ANY_TEXT, session=ANY_TEXT))


@given(
    st.lists(HEADER | encoded(CONTENT), max_size=6),
    st.booleans(),
    st.lists(st.binary(), max_size=3),
    st.integers(0, 40),
    st.booleans(),
)
def frames(parts, signed, before, cut, brief):
    """Nothing that comes in on a socket ends its reader, and nothing is taken that was not signed."""
    session, taken = Session(key=b"key"), []
    incoming = Incoming(session.auth, taken.append, brief=brief)
    signature = [session.sign(parts[:4])] if signed else []
    message = [*before, b"<IDS|MSG>", *signature, *parts]
    for number, frame in enumerate(message, 1):
        more = number < len(message)
        if len(frame) <= cut:
            incoming.whole(frame, more=more)
            continue
        incoming.begin(len(frame), more=more)
        incoming.piece(memoryview(frame)[:cut])
        incoming.piece(memoryview(frame)[cut:])
        incoming.end()
    assert signed or not taken


PAYLOAD = fields(
    kind=st.sampled_from(["llm_query", "rlm_query", "tool"]),
    prompts=st.lists(ANY_TEXT, max_size=3),
    model=st.none() | ANY_TEXT,
    batch=st.booleans(),
    schema=st.none() | st.dictionaries(ANY_TEXT, JSON, max_size=2),
    tool=ANY_TEXT,
    args=st.lists(JSON, max_size=2),
    kwargs=st.dictionaries(ANY_TEXT, JSON, max_size=2),
    final=st.none() | ANY_TEXT,
    answer=st.none() | ANY_TEXT,
    draft=st.none() | ANY_TEXT,
    variables=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=2),
    restored=st.dictionaries(ANY_TEXT, st.none() | ANY_TEXT, max_size=2),
    final_json=st.none() | ANY_TEXT,
    answer_json=st.none() | ANY_TEXT,
    values=st.dictionaries(ANY_TEXT, JSON, max_size=2),
)
DATA = fields(
    wire=st.just(protocol.WIRE),
    op=st.sampled_from(["ask", "cancel", "report", "stored"]),
    id=st.sampled_from(["a", "b", "c"]),
    error=ANY_TEXT,
)


class Nobody:
    """Answers every question with nothing."""

    async def answer(self, query):
        return []


@given(st.lists(st.tuples(DATA, st.lists(encoded(PAYLOAD), max_size=2)), max_size=6))
def bridge(messages):
    async def take():
        sent = []
        one = HostComm(lambda *message: sent.append(message), Nobody())
        one.cell_starts()
        takers = {
            "ask": one.take_question,
            "cancel": one.take_cancel,
            "report": one.take_report,
            "stored": one.take_stored,
        }
        for data, buffers in messages:
            with suppress(*FORGED):
                takers[data["op"]]({"content": {"data": data}, "buffers": buffers, "unread": 0})
        await asyncio.sleep(0)
        await one.close()

    asyncio.run(take())


# -- what a stranger has recorded


@functools.cache
def lines():
    """The lines of a real log: a sub-call, an error, an answer."""
    folder = tempfile.mkdtemp()
    logger = RLMLogger(folder, notebook=False)
    script = ["```repl\na = llm_query('x')\nprint(a)\n1/0\n```", "an answer", "Words.\n```repl\nFINAL(a)\n```"]
    RLM(ScriptedLM(script), logger=logger).completion("c" * 100, "q")
    return tuple(json.loads(line) for line in record_file(logger).read_text().splitlines())


def altered(line, path, value):
    """A copy of a line with another value somewhere in it."""
    copy = json.loads(json.dumps(line))
    place, keys = copy, []
    for step in path:
        if not isinstance(place, dict | list) or not place:
            break
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[step % len(keys)]
        before, place = place, place[key]
    if keys:
        before[key] = value
    return copy


CHANGES = st.lists(
    st.tuples(st.integers(0, 30), st.lists(st.integers(0, 30), min_size=1, max_size=5), JSON | made_of(texts.TERMINAL)),
    max_size=3,
)


@given(CHANGES, st.none() | encoded(JSON), st.integers(0, 20))
def log(changes, inserted, place):
    """A log is read, shown and made a notebook of, or it is refused with a `RecordingError`."""
    known = list(lines())
    for number, path, value in changes:
        known[number % len(known)] = altered(known[number % len(known)], path, value)
    written = [json.dumps(line).encode() for line in known]
    if inserted is not None:
        written.insert(place, inserted)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "log.jsonl")
        file.write_bytes(b"\n".join(written))
        with suppress(RecordingError):
            use(read_log(file))


def use(recording):
    for run, about in runs(recording.trajectory, identity_of_recording(recording)):
        notebook_of(run, about)
    with ConsoleView(Screen(Console(quiet=True), live=False)) as view:
        for event in events_of(recording.trajectory):
            view(event)


TARGETS = (plain_text, reply, normaliser, outputs, content, buffer, frames, bridge, log)

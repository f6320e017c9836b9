"""Both ends of the wire against its table (`rlm_kernel/kernel/protocol.py`).

A real kernel and a real session talk about everything they can talk about, and every message that crosses is held
against the table. The guest's end is read from its source as well, because no type checker sees both ends together.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.engine.tools import tools_of
from rlm_kernel.errors import ConfigError
from rlm_kernel.guest_sources import GUEST_MODULE, guest_sources
from rlm_kernel.kernel import comm as comm_module
from rlm_kernel.kernel import protocol, watch
from rlm_kernel.kernel.channels import Channels
from rlm_kernel.kernel.comm import HostComm
from rlm_kernel.kernel.guest import decoding, questions, repl, wire
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer, CellReport, Query, QueryKind, ToolCall
from rlm_kernel.untrusted.text_files import scan_text

GUEST = {
    name: importlib.import_module(name.replace(GUEST_MODULE, "rlm_kernel.kernel.guest")) for name in guest_sources()
}
PAYLOADS = {"ask": protocol.AskPayload, "report": protocol.ReportPayload, "answer": protocol.AnswerPayload}
FIELDS = {"put": {"name", "encoding"}, "stored": {"error", "missing"}}
"""The fields of `Data` beyond the three that every message has."""

CELL = """
import asyncio
llm_query("a question", model="a model")
tool(1, key="two")
rlm_query_batched(["one", "fail"])
await allm_query("slow")
llm_query("by schema", schema={"type": "string"}, images=[b"GIF89a", b"GIF87a"])
try:
    llm_query_batched(["refuse"])
except ValueError:
    pass
forgotten = asyncio.create_task(allm_query("never answered"))
await asyncio.sleep(0)
forgotten.cancel()
await asyncio.wait({forgotten})
answer["content"] = "a draft"
SHOW_VARS = "overwritten"
FINAL("the answer")
"""


@dataclass(frozen=True)
class Crossed:
    """A message as it crossed the wire, and the number of its buffers."""

    sender: Literal["guest", "host"]
    data: dict[str, Any]
    buffers: list[bytes]

    @property
    def op(self) -> str:
        return self.data["op"]


class Tap:
    """Records what crosses, and answers the guest's questions."""

    def __init__(self) -> None:
        self.crossed: list[Crossed] = []
        self.acknowledged = asyncio.Event()

    async def answer(self, query: Query | ToolCall) -> Sequence[Answer]:
        if isinstance(query, ToolCall):
            return [Answer("null")]
        if query.prompts == ("slow",):
            await self.acknowledged.wait()
        if query.prompts == ("never answered",):
            await asyncio.Event().wait()
        if query.schema is not None:
            return [Answer('"text"')]
        if query.prompts == ("refuse",):
            return [Answer(error="wrong", refused=True)]
        return [Answer(error="no luck") if p == "fail" else Answer(p.upper()) for p in query.prompts]

    def attach(self, patch: pytest.MonkeyPatch) -> None:
        deliver, send = Channels._deliver, Channels.send

        def delivered(channels: Channels, channel: Any, message: dict[str, Any]) -> None:
            if message["header"]["msg_type"] == "comm_msg":
                self.crossed.append(Crossed("guest", message["content"]["data"], [*map(bytes, message["buffers"])]))
            deliver(channels, channel, message)

        def sent(channels: Channels, channel: Any, kind: str, content: Any, *, buffers: Any = (), **rest: Any) -> str:
            if kind == "comm_msg":
                self.crossed.append(Crossed("host", dict(content["data"]), [bytes(b) for b in buffers]))
                if content["data"]["op"] == "ack":
                    self.acknowledged.set()
            return send(channels, channel, kind, content, buffers=buffers, **rest)

        patch.setattr(Channels, "_deliver", delivered)
        patch.setattr(Channels, "send", sent)
        patch.setattr(comm_module, "ACKNOWLEDGE_AFTER", 0)
        patch.setattr(watch, "CHECK_SECONDS", 0.05)


class Unreadable:
    """Can be pickled, but not read again."""

    def __reduce__(self) -> tuple[type[int], tuple[str]]:
        return int, ("not a number",)


async def talk() -> list[Crossed]:
    tap = Tap()
    with pytest.MonkeyPatch.context() as patch:
        tap.attach(patch)
        async with await Session.open(environment("local", None), tap) as session:
            with Path(__file__).open("rb") as content:
                file = scan_text(content, __file__)
            for value in ("text", b"bytes", {1: ["pickle"]}, file):
                await session.set("context", value)
            await session.define(tools_of({"tool": lambda a, key: None})[0].card())
            with pytest.raises(ConfigError, match="cannot read"):
                await session.set("unreadable", Unreadable())
            cell = await session.run(CELL)
            assert cell.status == "ok", cell.error
            await session.run("import time; time.sleep(0.3)")
            while not any(message.op == "waiting" for message in tap.crossed):
                session._send_to_guest("check", "m1", None)
                await asyncio.sleep(0.05)
    return tap.crossed


@pytest.fixture(scope="module")
def crossed():
    return asyncio.run(talk())


def test_every_message_of_the_table_crosses_and_no_other(crossed):
    for sender, ops in (("guest", protocol.FromGuest), ("host", protocol.ToGuest)):
        assert {message.op for message in crossed if message.sender == sender} == set(get_args(ops))


def test_every_message_carries_the_version_and_the_fields_of_its_kind(crossed):
    for message in crossed:
        assert message.data["wire"] == protocol.WIRE
        own = message.data.keys() - {"wire", "op", "id"}
        assert own == FIELDS.get(message.op, set()) or (message.op == "stored" and len(own) == 1)
        assert fits(message.data, protocol.Data), message.data


def test_the_fields_of_the_table_are_used_by_some_message(crossed):
    assert set().union(*(message.data for message in crossed)) == protocol.Data.__annotations__.keys()


def test_every_payload_is_as_the_table_says(crossed):
    for message in crossed:
        if (payload := PAYLOADS.get(message.op)) is not None:
            buffer, *images = message.buffers
            assert message.op == "ask" or not images
            unpacked = protocol.unpack(buffer)
            kind = protocol.ToolPayload if unpacked.get("kind") == "tool" else payload
            assert fits(unpacked, kind), unpacked
        elif message.op == "put":
            assert len(message.buffers) == 1
        else:
            assert message.buffers == []


def test_every_encoding_crosses(crossed):
    assert {m.data["encoding"] for m in crossed if m.op == "put"} == set(get_args(protocol.Encoding))


def test_pictures_follow_the_question_as_files_hold_them(crossed):
    assert [b"GIF89a", b"GIF87a"] in [message.buffers[1:] for message in crossed if message.op == "ask"]


def test_an_answer_is_a_text_or_an_error_or_a_refusal(crossed):
    entries = [entry for m in crossed if m.op == "answer" for entry in protocol.unpack(m.buffers[0])["answers"]]
    assert {frozenset(entry) for entry in entries} == {frozenset({kind}) for kind in ("text", "error", "refused")}


def test_every_kind_of_question_crosses(crossed):
    kinds = {protocol.unpack(m.buffers[0])["kind"] for m in crossed if m.op == "ask"}
    assert set(get_args(QueryKind)) == set(get_args(get_type_hints(protocol.AskPayload)["kind"]))
    assert kinds == {*get_args(QueryKind), "tool"}


def test_the_report_has_the_fields_of_its_record():
    assert protocol.ReportPayload.__annotations__.keys() == CellReport.__dataclass_fields__.keys()


def test_both_ends_have_the_same_version_and_names():
    assert wire.WIRE == protocol.WIRE
    names = questions.query_names(repl.Guest.__new__(repl.Guest), "llm_query", "")
    assert {function.__module__ for function in names.values()} == {GUEST_MODULE}


def test_both_ends_have_the_same_bounds():
    of_guest = {name: value for module in GUEST.values() for name, value in vars(module).items()}
    both = {name for name in vars(protocol).keys() & of_guest.keys() if name.startswith("MAX_")}
    assert len(both) > 5
    assert {name: of_guest[name] for name in both} == {name: vars(protocol)[name] for name in both}


def test_the_host_refuses_another_version():
    async def refuse() -> None:
        comm = HostComm(lambda *_: None, Tap())
        with pytest.raises(ValueError, match="wire version"):
            comm.take_question(
                {"content": {"data": {"wire": protocol.WIRE + 1, "op": "ask", "id": "q1"}}, "buffers": []}
            )

    asyncio.run(refuse())


# -- the source of the ends


def nodes_of_the_guest() -> list[ast.AST]:
    return [node for source in guest_sources().values() for node in ast.walk(ast.parse(source))]


def test_every_module_of_the_guest_is_sent_after_those_that_it_imports():
    folder = Path(wire.__file__ or "").parent
    assert {Path(module.__file__ or "") for module in GUEST.values()} == {*folder.glob("*.py")}
    sent: set[str] = set()
    for name, source in guest_sources().items():
        imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom) and node.level]
        assert {f"{GUEST_MODULE}.{node.module}" for node in imports} <= sent
        sent.add(name)


def test_the_guest_sends_the_messages_of_the_table():
    sent = {
        call.args[0].value
        for call in nodes_of_the_guest()
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "self.send"
    }
    assert sent == set(get_args(protocol.FromGuest))


def test_the_guest_knows_the_messages_of_the_table():
    on_control = next(f for f in nodes_of_the_guest() if getattr(f, "name", "") == "on_control")
    compared = {
        comparison.comparators[0].value
        for comparison in ast.walk(on_control)
        if isinstance(comparison, ast.Compare) and ast.unparse(comparison.left) == "data['op']"
    }
    # An acknowledgement is what is left: it needs nothing done that an answer does not do as well.
    assert compared | {"ack"} == set(get_args(protocol.ToGuest))


def test_the_host_takes_the_messages_of_the_table():
    async def taken() -> set[str]:
        session = Session(environment("local", None), Tap())
        handlers = session._receiver(HostComm(lambda *_: None, Tap())).handlers
        return {op for _, kind, op in handlers if kind == "comm_msg"}

    assert asyncio.run(taken()) == set(get_args(protocol.FromGuest))


def test_the_guest_imports_the_standard_library_and_ipython_only():
    nodes = nodes_of_the_guest()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "IPython"}


# -- values

texts = st.text(st.characters(exclude_categories=[])) | st.sampled_from(
    ["\ud800", "\udfff\x00", "\x00", "'\"\\{}\u2028"]
)
scalars = texts | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(texts | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(values)
def test_a_value_arrives_in_the_guest_as_it_left(value):
    encoding, buffer = protocol.encode(value)
    arrived = decoding.decode(encoding, memoryview(buffer))
    assert arrived == value
    assert repr(arrived) == repr(value)  # 1 is True, and 0.0 is -0.0, for ==


@given(texts)
def test_a_question_and_an_answer_hold_any_text(text):
    packed = protocol.pack({"answers": [{"text": text}]})
    # JSON joins two surrogates that stand side by side and make a character.
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert protocol.unpack(memoryview(packed)) == {"answers": [{"text": joined}]}
    asked = wire.Call(questions.question("llm_query", [text], None, False, None), lambda: None)
    assert protocol.unpack(asked.buffers[0])["prompts"] == [joined]


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of the type that the table says, all the way down."""
    if is_typeddict(annotation):
        hints = get_type_hints(annotation, include_extras=True)
        needed = {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}
        plain = get_type_hints(annotation)
        return needed <= value.keys() <= hints.keys() and all(fits(v, plain[k]) for k, v in value.items())
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return value in arguments
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in value.items()
        )
    return annotation is Any or isinstance(value, annotation)

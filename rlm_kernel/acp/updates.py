"""The events of a run as the updates of a session: thoughts, tool calls, words of the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from acp import schema

from rlm_kernel.agent.words import Words
from rlm_kernel.engine.agent_tools import OWN_NAMES, TAKE_MESSAGE
from rlm_kernel.mcp.server import CARD
from rlm_kernel.prompts.cell_output import render_result
from rlm_kernel.text import clip, one_line, plain
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.types import CellResult

Update = (
    schema.UserMessageChunk
    | schema.AgentMessageChunk
    | schema.AgentThoughtChunk
    | schema.ToolCallStart
    | schema.ToolCallProgress
)

MAX_OUTPUT = 20_000
"""Characters of the output of a cell, or of the result of a tool."""
MAX_CODE = 20_000
MAX_PICTURES = 8
"""Of one cell."""
MAX_PICTURE = 2_000_000
"""Characters of its base64."""
MAX_QUERIES = 20
"""The newest calls of models in a cell that have a line each."""
OUTPUT_SECONDS = 0.3
"""Between two updates of a running cell: each one carries all that is shown of it."""
_FENCE = re.compile(r"\A[ ]{0,3}(?:`{3}|~{3})")
_SAYS_LITTLE = ("import ", "from ", "#")
"""How a line of code begins that is no title for a cell."""
_TICKS = re.compile(r"`{3,}+")
_NO_NAME = re.compile(r"[^\w.]")
_LIST = f".{CARD}"
"""The end of the name by which a kernel asks for the functions of a server."""
_ANSWER = re.compile(r"\A[\s*_`#>-]*FINAL(?:_VAR)?\b")
_KINDS: dict[str, schema.ToolKind] = {"read_file": "read", "list_files": "search", "search_files": "search"}


class Thoughts:
    """The prose of a reply while it is written: its lines outside of code, up to the answer."""

    def __init__(self) -> None:
        self._line = ""
        self._in_code = self._over = False

    def feed(self, piece: str) -> str:
        """The thoughts that a piece of the reply adds."""
        *whole, self._line = (self._line + piece).split("\n")
        return "".join(f"{line}\n" for line in whole if self._is_thought(line))

    def rest(self) -> str:
        """The last line."""
        line, self._line = self._line, ""
        return line if self._is_thought(line) else ""

    def _is_thought(self, line: str) -> bool:
        if self._over:
            return False
        if _FENCE.match(line):
            self._in_code = not self._in_code
            return False
        self._over = not self._in_code and _ANSWER.match(line) is not None
        return not self._in_code and not self._over


@dataclass(slots=True)
class _Query:
    about: str
    count: int
    answered: int = 0
    failed: int = 0
    child: int = 0
    over: bool = False

    def line(self) -> str:
        done = f"{self.answered} of {self.count} answered" if self.count > 1 else "answered" * bool(self.answered)
        parts = (done, f"{self.failed} failed" * bool(self.failed), f"{self.child} cells" * bool(self.child))
        return f"{self.about} · {', '.join(filter(None, parts)) or '…'}"


@dataclass(slots=True)
class _Cell:
    id: str
    code: str
    output: str = ""
    pictures: list[tuple[str, str]] = field(default_factory=list)
    queries: dict[str, _Query] = field(default_factory=dict)
    shown_at: float = 0.0

    def content(self) -> list[Any]:
        """What is shown of it: the code, the calls of models, the output, the pictures."""
        texts = [f"```python\n{clip(plain(self.code), MAX_CODE)}\n```"]
        if self.queries:
            shown = list(self.queries.values())[-MAX_QUERIES:]
            earlier = len(self.queries) - len(shown)
            head = [f"- {earlier:,} earlier calls"] if earlier else []
            texts.append("\n".join([*head, *(f"- {query.line()}" for query in shown)]))
        if self.output.strip():
            texts.append(fenced(clip(self.output, MAX_OUTPUT)))
        blocks: list[Any] = [schema.TextContentBlock(type="text", text=text) for text in texts]
        blocks += [schema.ImageContentBlock(type="image", data=data, mime_type=kind) for kind, data in self.pictures]
        return [schema.ContentToolCallContent(type="content", content=block) for block in blocks]


class Updates:
    """Reads the events of a conversation, live or from a record.

    Args:
        session: makes the ids of tool calls unique.
        message: the number of the message, for a live run.
        words: gives the words of the answer of a live run; None: a record, which has the whole answer.
        asked: the ids of tool calls for which the client was asked already, by the code of the cell or the name of the
            tool, oldest first.
    """

    def __init__(self, message: int = 0, words: Words | None = None, asked: dict[str, list[str]] | None = None) -> None:
        self._message = message
        self._words = words
        self._asked = {} if asked is None else asked
        self._cells: dict[int, _Cell] = {}
        self._thoughts: Thoughts | None = None
        self._calls = 0

    def take(self, event: Event) -> Iterator[Update]:
        """The updates that an event brings."""
        if words := self._words.take(event) if self._words else "":
            yield said(words)
        match event:
            case events.MessageStarted(text=text):
                self._message += 1
                yield schema.UserMessageChunk(session_update="user_message_chunk", content=_text(text))
            case events.MessageFinished(answer=answer, error=error):
                yield from self.end()
                yield said(answer if answer is not None else f"(no answer: {error})")
            case events.ModelText(text=text):
                self._thoughts = self._thoughts or Thoughts()
                yield from _thought(self._thoughts.feed(text))
            case events.ModelReplied(reply=reply):
                rest = self._thoughts.rest() if self._thoughts else _all_thoughts(reply.text)
                self._thoughts = None
                yield from _thought(rest)
            case events.Notice(message=message):
                yield from _thought(f"\n({message})\n")
            case events.ToolCalled() if event.call.tool not in OWN_NAMES and not event.call.tool.endswith(_LIST):
                yield from self._tool(event)
            case _:
                yield from self._of_cell(event)

    def end(self) -> Iterator[Update]:
        """Close what is open: the run has ended."""
        waiting = [id_ for ids in self._asked.values() for id_ in ids]
        for id_ in [*(cell.id for cell in self._cells.values()), *waiting]:
            yield _progress(id_, "failed")
        self._cells.clear()
        self._asked.clear()

    def _of_cell(self, event: Event) -> Iterator[Update]:
        """Cells, what they print, and the calls of models in them."""
        match event:
            case events.CellStarted(code=code) if code != TAKE_MESSAGE:
                yield from self._start(event)
            case events.CellFinished(cell=number, result=result) if number in self._cells:
                yield _finished(self._cells.pop(number), result)
            case events.CellOutput(cell=number, output=output) if number in self._cells:
                cell = self._cells[number]
                cell.output += _text_of(output)
                if event.time - cell.shown_at >= OUTPUT_SECONDS:
                    cell.shown_at = event.time
                    yield _progress(cell.id, "in_progress", cell.content())
            case events.SubcallStarted() | events.SubcallAnswered() | events.SubcallFinished() | events.ChildEvent():
                asking = self._cells.get(event.cell)
                if asking and (_count(asking, event) or event.time - asking.shown_at >= OUTPUT_SECONDS):
                    asking.shown_at = event.time
                    yield _progress(asking.id, "in_progress", asking.content())

    def _start(self, event: events.CellStarted) -> Iterator[Update]:
        id_, is_new = self._id_of(event.replaced or event.code, f"{self._message}-cell-{event.cell}")
        cell = self._cells[event.cell] = _Cell(id_, event.code)
        if is_new:
            yield cell_call(cell.id, event.code)
        yield _progress(cell.id, "in_progress", cell.content())

    def _tool(self, event: events.ToolCalled) -> Iterator[Update]:
        """A call of a tool, which is over when its event comes."""
        self._calls += 1
        call, error = event.call, event.outcome.error
        id_, is_new = self._id_of(key_of_tool(call.tool), f"{self._message}-tool-{self._calls}")
        if is_new:
            yield tool_call(id_, call.tool, call.args, call.kwargs)
        text = fenced(clip(plain(error or event.outcome.text), MAX_OUTPUT))
        content = schema.ContentToolCallContent(type="content", content=_text(text))
        yield _progress(id_, "completed" if error is None else "failed", [content])

    def _id_of(self, asked_for: str, fresh: str) -> tuple[str, bool]:
        """The id of a tool call, and whether the client does not know it yet."""
        waiting = self._asked.get(asked_for)
        return (waiting.pop(0), False) if waiting else (fresh, True)


def key_of_tool(name: str) -> str:
    """The name of a tool as its calls are told apart: a server and Python write the same name differently."""
    return _NO_NAME.sub("_", name)


def said(words: str) -> Update:
    """Words of the answer."""
    return schema.AgentMessageChunk(session_update="agent_message_chunk", content=_text(words))


def cell_call(id_: str, code: str) -> schema.ToolCallStart:
    """A cell that is about to run."""
    lines = [line.strip() for line in code.splitlines() if line.strip()] or ["cell"]
    first = next((line for line in lines if not line.startswith(_SAYS_LITTLE)), lines[0])
    return schema.ToolCallStart(
        session_update="tool_call",
        tool_call_id=id_,
        title=one_line(plain(first), 80),
        kind="execute",
        status="pending",
        raw_input={"code": clip(plain(code), MAX_CODE)},
        content=_Cell(id_, code).content(),
    )


def tool_call(
    id_: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, title: str = ""
) -> schema.ToolCallStart:
    """A call of a tool that is about to happen. `title`: what a person calls the tool."""
    given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    called = f"{title} · " if title and title != name.rpartition(".")[2] else ""
    return schema.ToolCallStart(
        session_update="tool_call",
        tool_call_id=id_,
        title=one_line(plain(f"{called}{name}({given})"), 120),
        kind=_KINDS.get(name, "other"),
        status="pending",
        raw_input={"tool": plain(name), "arguments": clip(plain(given), MAX_OUTPUT)},
    )


def fenced(text: str) -> str:
    """Text that Markdown shows as it is."""
    ticks = max((len(run) for run in _TICKS.findall(text)), default=2) + 1
    fence = "`" * ticks
    return f"{fence}\n{text.rstrip()}\n{fence}"


def _finished(cell: _Cell, result: CellResult) -> Update:
    nothing = not result.outputs and result.error is None
    cell.output = "" if nothing else render_result(result, MAX_OUTPUT)
    cell.pictures = list(_pictures(result))
    return _progress(cell.id, "completed" if result.status == "ok" else "failed", cell.content())


def _pictures(result: CellResult) -> Iterator[tuple[str, str]]:
    left = MAX_PICTURES
    for output in result.outputs:
        for kind, data in output.get("data", {}).items():
            if kind in ("image/png", "image/jpeg") and isinstance(data, str) and len(data) <= MAX_PICTURE and left:
                left -= 1
                yield kind, "".join(plain(data).split())


def _progress(id_: str, status: str, content: list[Any] | None = None) -> Update:
    return schema.ToolCallProgress(
        session_update="tool_call_update",
        tool_call_id=id_,
        status=status,  # type: ignore[arg-type]  # checked when the model is made
        content=content,
    )


def _count(cell: _Cell, event: Event) -> bool:
    """Count what happened to a call of a model. Returns whether it is worth an update."""
    match event:
        case events.SubcallStarted():
            prompt = one_line(plain(event.prompts[0]), 80) if event.prompts else ""
            many = f" of {event.count}" if event.count > 1 else ""
            cell.queries[event.query] = _Query(f"{event.kind}{many} → {plain(event.model)}: {prompt}", event.count)
            return True
        case events.SubcallAnswered(query=query, error=error) if query in cell.queries:
            cell.queries[query].failed += error is not None
            cell.queries[query].answered += error is None
            return False
        case events.SubcallFinished(query=query) if query in cell.queries:
            cell.queries[query].over = True
            return True
        case events.ChildEvent(query=query, event=events.CellStarted()) if query in cell.queries:
            cell.queries[query].child += 1
            return True
    return False


def _text_of(output: Any) -> str:
    if output["output_type"] == "stream":
        return plain(str(output["text"]))
    if output["output_type"] == "error":
        return ""
    return plain(str(output["data"].get("text/plain", ""))) + "\n"


def _text(text: str) -> schema.TextContentBlock:
    return schema.TextContentBlock(type="text", text=plain(text))


def _thought(text: str) -> Iterator[Update]:
    if text.strip():
        yield schema.AgentThoughtChunk(session_update="agent_thought_chunk", content=_text(text))


def _all_thoughts(reply: str) -> str:
    thoughts = Thoughts()
    return thoughts.feed(reply) + thoughts.rest()

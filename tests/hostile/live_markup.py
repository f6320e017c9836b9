"""Markup that would run or load something in a browser, put into every field of every event of a run."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rlm import RLMError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.log.jsonl import line_of, text_of
from rlm_kernel.types import CellResult, RLMChatCompletion, UsageSummary

HOST = "http://attacker.test"
"""What a page must not ask for anything."""

FORMS = {
    "image": '<img src=x onerror="window.__ran=1">',
    "quote": "\"><svg onload='window.__ran=1'>",
    "apostrophe": "'><svg onload=window.__ran=1>",
    "space": "1 onload=window.__ran=1 onerror=window.__ran=1 onmouseover=window.__ran=1",
    "script": "<script>window.__ran=1</script>",
    "end of script": "</script><script>window.__ran=1</script>",
    "comment": "<!--><img src=x onerror=window.__ran=1>-->",
    "text elements": "</title></textarea></style></pre></details></summary><img src=x onerror=window.__ran=1>",
    "frame": "<iframe srcdoc='<script>parent.__ran=1</script>'></iframe><iframe src='javascript:top.__ran=1'></iframe>",
    "link": "<a href='javascript:window.__ran=1'>x</a><a href='JAVA\tSCRIPT:window.__ran=1'>x</a>",
    "markdown link": "[x](javascript:window.__ran=1) [y][z]\n\n[z]: javascript:window.__ran=1\n\n<javascript:__ran=1>",
    "markdown picture": f"![x]({HOST}/a) ![x][p]\n\n[p]: {HOST}/b",
    "fence": "```\n````\n~~~\n<img src=x onerror=window.__ran=1>\n",
    "open fence": "```python\nx\n````` \n\n<img src=x onerror=window.__ran=1>",
    "list": "- a\n\n    <img src=x onerror=window.__ran=1>\n\n  <img src=x onerror=window.__ran=1>",
    "table": "a | <img src=x onerror=window.__ran=1> | b\n|---|---|\n| <img src=x onerror=window.__ran=1> |",
    "code": "` `` <img src=x onerror=window.__ran=1>",
    "style": f"<style>@import url({HOST}/a);</style><link rel=stylesheet href={HOST}/b><base href={HOST}/>",
    "inline style": f"<div style='background:url({HOST}/a)'>x</div><table background={HOST}/b><tr><td>x</table>",
    "loads": f"<img src={HOST}/a><video poster={HOST}/b><audio src={HOST}/c></audio><img srcset='{HOST}/d 1x'>",
    "refresh": f"<meta http-equiv=refresh content='0;url={HOST}/a'>",
    "formula": r"$\href{javascript:window.__ran=1}{x}$ $$\href{javascript:window.__ran=1}{x}$$ \\(\unicode{x}\\)",
    "template": "{{ ''.__class__ }} {% raw %} ${window.__ran=1} `${window.__ran=1}`",
    "form": f"<form action={HOST}/a><button formaction='javascript:window.__ran=1'>x</button></form>",
    "command": "<a data-commandlinker-command='apputils:reset' href='#'>x</a>",
    "terminal": "\x1b]8;;javascript:window.__ran=1\x07x\x1b]8;;\x07<img src=x onerror=window.__ran=1>\u2028\r\x00",
}  # fmt: skip

STRUCTURE = {"iteration": 1, "cell": 1, "index": 0, "depth": 0, "attempts": 1, "count": 1, "slots": ()}
"""What joins the events of a run; a record with markup in these places is refused when it is read."""


DRAWING = """\
<svg xmlns='http://www.w3.org/2000/svg' onload='window.__ran=1'><script>window.__ran=1</script><text>{}</text></svg>"""


def value_of(hint: object, text: str, *, legal: bool) -> object:  # noqa: PLR0911 (one for each kind)
    """A value of a type that holds the text wherever that type has room for one. `legal`: a reader of logs takes it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return value_of(next(one for one in arguments if one is not type(None)), text, legal=legal)
    if origin is typing.Literal:
        return arguments[0] if legal else text
    if origin is tuple:
        kinds = arguments[:1] if arguments[1:] == (...,) else arguments
        return tuple(value_of(one, text, legal=legal) for one in kinds)
    if origin in (dict, Mapping):
        return {text: value_of(arguments[1], text, legal=legal)}
    if dataclasses.is_dataclass(hint):
        return filled(hint, text, legal=legal)
    if isinstance(hint, type) and issubclass(hint, BaseException):
        return error(text)
    return {int: 1, float: 1.0, bool: False, bytes: text.encode()}.get(hint, text)


def filled(kind: type, text: str, *, legal: bool = False, **fixed: object) -> object:
    """A record whose every field holds the text."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    free = [name for name in names if name not in fixed]
    given = {name: STRUCTURE.get(name, value_of(hints[name], text, legal=legal)) for name in free}
    return kind(**given, **fixed)


def error(text: str) -> BaseException:
    """An error whose class is called like that, too."""
    failure = type(text.replace("\0", ""), (RLMError,), {})(text)
    failure.partial_answer = text
    return failure


def outputs(text: str) -> tuple[dict, ...]:
    """Outputs of a cell: every kind that a front end draws, with the text in it."""
    kinds = ["text/plain", "text/html", "text/markdown", "text/latex", "application/javascript", "text/javascript",
             "application/json", "text/vnd.mermaid", "image/svg+xml", "image/png", "image/jpeg", "image/gif",
             "application/vnd.vega.v5+json", "application/vnd.plotly.v1+json", "application/geo+json",
             "application/vnd.jupyter.widget-view+json", "application/pdf", "video/mp4", text]  # fmt: skip
    sizes = {kind: {"width": text, "height": text, text: text} for kind in kinds}
    metadata = {**sizes, "filenames": dict.fromkeys(kinds, text), "isolated": True, "needs_background": text}
    bundles = [{kind: {text: text} if "json" in kind else text} for kind in kinds]
    bundles.append({"image/svg+xml": DRAWING.format(text)})
    shown = [{"output_type": "display_data", "data": data, "metadata": metadata} for data in bundles]
    return (
        {"output_type": "stream", "name": "stdout", "text": text},
        {"output_type": "stream", "name": "stderr", "text": text},
        *shown,
        {"output_type": "execute_result", "execution_count": 1, "data": {"text/plain": text}, "metadata": {}},
        {"output_type": "error", "ename": text, "evalue": text, "traceback": [text]},
    )


def story(text: str, *, depth: int = 1, failed: bool = False, legal: bool = False) -> list[Event]:
    """A run whose every event holds the text in every field that is not a number. `legal`: a log may say so."""
    make = partial(filled, text=text, legal=legal)
    done = make(RLMChatCompletion, usage_summary=make(UsageSummary), parsed=None)
    tool = {"name": text, "kind": "value", "description": text, text: text}
    kinds: dict[type[Event], dict[str, object]] = {
        events.RunStarted: {"tools": (tool,)},
        events.CellFinished: {"result": make(CellResult, outputs=outputs(text))},
        events.CellOutput: {"output": outputs(text)[0]},
        events.RunFinished: {"completion": done},
    }
    order = [
        events.RunStarted, events.MessageStarted, events.KernelReady, events.IterationStarted, events.ModelText,
        events.ModelReplied, events.CellStarted, events.CellOutput, events.SubcallStarted, events.SubcallRejected,
    ]  # fmt: skip
    told = [make(kind, **kinds.get(kind, {})) for kind in order]
    if depth:
        inner = story(text, depth=depth - 1, legal=legal)
        told += [make(events.ChildEvent, event=event) for event in inner]
    ends = [
        events.SubcallAnswered, events.SubcallFinished, events.ToolCalled, events.CellFinished, events.Compacted,
        events.Notice, events.IterationFinished, events.MessageFinished,
        events.RunFailed if failed else events.RunFinished,
    ]  # fmt: skip
    return told + [make(kind, **kinds.get(kind, {})) for kind in ends]


def log_of(folder: Path, name: str, told: list[Event]) -> Path:
    """The log of a run as the engine writes it."""
    path = folder / f"{name}.jsonl"
    lines = [line for event in told if (line := line_of(event)) is not None]
    path.write_text("".join(f"{text_of(line)}\n" for line in lines), "utf-8")
    return path

"""The frozen records that the parts of the engine pass to each other.

Messages, replies and usage; the questions of a cell (`Query`, `ToolCall`) and their `Answer`; the result of a cell; the
completion that a caller receives. `UsageMeter` adds up the usage of a run.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from types import NoneType
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, Self, TypedDict, TypeVar

from rlm_kernel.html import cards
from rlm_kernel.html.markup import Element, Markup
from rlm_kernel.html.prose import prose
from rlm_kernel.text import format_cost, format_duration, format_tokens

T = TypeVar("T")

MAX_IMAGE_BYTES = 20_000_000
"""Limit of one image. The guest refuses larger ones with a hint; the host refuses them, too."""

MAX_IMAGES = 100
"""Limit of one question."""

_BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
}


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file in UTF-8 that the kernel reads itself: the host never holds the whole text.

    Attributes:
        path: absolute.
        size: bytes.
        modified: when it was changed last, in nanoseconds. The kernel refuses a file that has changed.
        characters: how many.
        lines: how many.
        excerpt: its beginning and its end.
    """

    path: str
    size: int
    modified: int
    characters: int
    lines: int
    excerpt: str = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """A table or an array on its way to the kernel, which puts it together where it has the library.

    Attributes:
        kind: library and class, e.g. ``"pandas.DataFrame"``.
        parts: plain values (`values`, `guest.BUILT`).
        type_name: of the class.
        length: rows.
        head: the first rows as text.
        source: the object itself.
    """

    kind: str
    parts: dict[str, Any] = field(repr=False)
    type_name: str
    length: int
    head: str = field(repr=False)
    source: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.length

    def __str__(self) -> str:
        return self.head


Prompt = str | dict[str, Any] | list[Any] | bytes | Foreign
"""The input of `completion()`; it becomes the variable `context` in the kernel."""


class Shaped(Protocol):
    """A table or an array of pandas, polars, pyarrow or numpy."""

    @property
    def shape(self) -> Any:
        """Rows and columns, or the dimensions."""

    def __len__(self) -> int:
        """Rows."""


Input = Prompt | TextFile
"""The input of a run inside the engine."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a prompt.

    Attributes:
        media_type: ``"image/png"``, ``"image/jpeg"``, ``"image/gif"`` or ``"image/webp"``.
        sha256: of the bytes, in hexadecimal.
        size: how many bytes.
        data: the bytes; empty in an event that was read from a record.
    """

    media_type: str
    sha256: str
    size: int
    data: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The image in these bytes.

        Raises:
            ValueError: they are not a PNG, JPEG, GIF or WebP image, or too many.
        """
        kind = next((name for name, begins in _BEGINNINGS.items() if data.startswith(begins)), None)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            kind = "image/webp"
        if kind is None or len(data) > MAX_IMAGE_BYTES:
            raise ValueError(f"no PNG, JPEG, GIF or WebP image of at most {MAX_IMAGE_BYTES:,} bytes")
        return cls(kind, hashlib.sha256(data).hexdigest(), len(data), data)


QueryKind = Literal["llm_query", "rlm_query"]


class Slot(NamedTuple):
    """The place of one answer in the record of a run.

    Attributes:
        cell: the number of the cell that asks.
        key: identifies the question (`journal.keys`).
        occurrence: how often the cell has asked the same question before.
    """

    cell: int
    key: str
    occurrence: int


@dataclass(frozen=True, slots=True)
class Query:
    """One call of `llm_query` or `rlm_query`, or a batch of them, as it arrived from the kernel.

    Attributes:
        id: chosen by the guest; the same for every re-send.
        kind: which function was called.
        prompts: one text, or the texts of the batch in order.
        model: the requested model, or None for the default.
        batch: whether it was a `..._batched` call.
        schema: a JSON Schema that the answers have to fit, as the kernel sent it; None for text.
        images: the same for all prompts.
        slots: one for each prompt; empty until the engine has taken the question.
    """

    id: str
    kind: QueryKind
    prompts: tuple[str, ...]
    model: str | None = None
    batch: bool = False
    schema: dict[str, Any] | None = None
    images: tuple[Image, ...] = ()
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a custom tool, as it arrived from the kernel.

    Attributes:
        id: chosen by the guest; the same for every re-send.
        tool: its name.
        args, kwargs: JSON values.
        slots: one, as in `Query`.
    """

    id: str
    tool: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one prompt of a `Query`, or of a `ToolCall`.

    Attributes:
        text: the answer, with a schema as JSON; of a tool its result as JSON. With an `error`, the text so far.
        error: why there is no answer, or None; of a tool the exception's class name and message as JSON.
        refused: the call itself was wrong: the error is raised in the cell as a ValueError, for a batch too.
    """

    text: str = ""
    error: str | None = None
    refused: bool = False


class Message(TypedDict):
    """One message of a conversation with a model. Only user messages have `images`, which precede the text."""

    role: Literal["system", "user", "assistant"]
    content: str
    images: NotRequired[tuple[Image, ...]]


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens and the cost of one call.

    Attributes:
        input_tokens: tokens of the prompt, including those read from a cache.
        output_tokens: tokens of the reply.
        cached_tokens: how many of the input tokens came from the provider's cache.
        cost: US dollars, or None if it is unknown; never 0 for unknown.
        estimated_tokens: how many of the input and output tokens are an estimate: the call was cancelled, the
            connection broke, or the provider did not report them. An estimate is an upper bound.
        estimated_cost: how much of the cost is an estimate.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float | None = None
    estimated_tokens: int = 0
    estimated_cost: float = 0.0

    def plus(self, other: Usage) -> Usage:
        """Both together. The cost is unknown if one of them is."""
        return self._plus(other, 1)

    def minus(self, other: Usage) -> Usage:
        """The rest without one of several calls. The cost is unknown if one of them is."""
        return self._plus(other, -1)

    def _plus(self, other: Usage, sign: int) -> Usage:
        return Usage(
            self.input_tokens + sign * other.input_tokens,
            self.output_tokens + sign * other.output_tokens,
            self.cached_tokens + sign * other.cached_tokens,
            None if self.cost is None or other.cost is None else self.cost + sign * other.cost,
            self.estimated_tokens + sign * other.estimated_tokens,
            self.estimated_cost + sign * other.estimated_cost,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a model.

    Attributes:
        text: the text of the reply.
        model: the model that answered, as the provider names it.
        usage: tokens and cost of the call.
        finish_reason: ``"stop"``, ``"length"`` (cut by the length limit) or the provider's own term; None: not
            reported.
    """

    text: str
    model: str
    usage: Usage = Usage()
    finish_reason: str | None = "stop"


_NUMBER = (float, int, NoneType)
_SUMMARY_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("total_calls", "total_input_tokens", "total_output_tokens", "total_cached_tokens", "estimated_tokens"), (int,)
    ),
    "total_cost": _NUMBER,
    "estimated_cost": (float, int),
}
_COMPLETION_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("root_model", "response", "error"), (str, NoneType)),
    "execution_time": _NUMBER,
    "metadata": (dict, NoneType),
}


def check_fields(kind: str, fields: Any, types: Mapping[str, tuple[type, ...]]) -> None:
    """Check plain data that somebody gives to `from_dict`. Missing fields are allowed.

    Raises:
        ValueError: it is no dict, or a field has another type; the message names the field.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"{kind}.from_dict takes a dict, not {type(fields).__name__}.")  # noqa: TRY004
    for name, allowed in types.items():
        value = fields.get(name)
        if name in fields and (not isinstance(value, allowed) or isinstance(value, bool)):
            wanted = " or ".join("None" if one is NoneType else one.__name__ for one in allowed)
            raise ValueError(f"{name} must be {wanted}, not {type(value).__name__}.")


@dataclass(frozen=True, slots=True)
class ModelUsageSummary:
    """The sums over the calls of one model. `total_cost` (US dollars) is None if the cost of a call is unknown.

    The first four fields are those of the reference, in its order.
    `estimated_tokens` and `estimated_cost` are the parts of the sums that were not reported, see `Usage`.
    """

    total_calls: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    total_cost: float | None = None
    total_cached_tokens: int = 0
    estimated_tokens: int = 0
    estimated_cost: float = 0.0

    @classmethod
    def of(cls, calls: int, total: Usage) -> Self:
        """The summary of some calls with this usage in total."""
        return cls(
            calls,
            total.input_tokens,
            total.output_tokens,
            total.cost,
            total.cached_tokens,
            total.estimated_tokens,
            total.estimated_cost,
        )

    def __repr__(self) -> str:
        """Calls, tokens and cost."""
        return f"{type(self).__name__}({_facts_of(self.total_calls, self.usage, format_cost(self.total_cost))})"

    @property
    def usage(self) -> Usage:
        """The sums as the usage of one call."""
        return Usage(
            self.total_input_tokens,
            self.total_output_tokens,
            self.total_cached_tokens,
            self.total_cost,
            self.estimated_tokens,
            self.estimated_cost,
        )

    def to_dict(self) -> dict[str, Any]:
        """The documented fields; `total_cost` only if it is known, and the estimates only if there are some."""
        fields = asdict(self)
        if self.total_cost is None:
            del fields["total_cost"]
        return {name: value for name, value in fields.items() if value or not name.startswith("estimated_")}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The summary that `to_dict` wrote.

        Raises:
            ValueError: a field has another type.
        """
        check_fields(cls.__name__, fields, _SUMMARY_FIELDS)
        return cls(**{name: fields[name] for name in cls.__slots__ if name in fields})


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """All calls of a run, root and sub-calls, by model."""

    model_usage_summaries: dict[str, ModelUsageSummary] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Calls, tokens and cost of all models together."""
        return f"{type(self).__name__}({self.facts})"

    def _repr_html_(self) -> Markup:
        return cards.card(cards.title("Usage", self.facts), self.table())

    @property
    def facts(self) -> str:
        """Model calls, tokens and cost of all models together, in one line."""
        return _facts_of(self.total_calls, self.total, format_cost(self.total_cost, unpriced=self.unpriced_models))

    def table(self) -> Element:
        """A row for each model."""
        rows = [
            (
                name,
                f"{one.total_calls:,}",
                f"{one.total_input_tokens:,}",
                f"{one.total_output_tokens:,}",
                format_cost(one.total_cost, "unknown"),
            )
            for name, one in self.model_usage_summaries.items()
        ]
        return cards.table(("model", "calls", "tokens in", "tokens out", "cost"), rows)

    @property
    def total_calls(self) -> int:
        """Calls of all models."""
        return sum(m.total_calls for m in self.model_usage_summaries.values())

    @property
    def total(self) -> Usage:
        """Everything added up, as the usage of one call."""
        usages = [summary.usage for summary in self.model_usage_summaries.values()]
        return reduce(Usage.plus, usages) if usages else Usage()

    @property
    def total_input_tokens(self) -> int:
        """Input tokens of all models."""
        return self.total.input_tokens

    @property
    def total_output_tokens(self) -> int:
        """Output tokens of all models."""
        return self.total.output_tokens

    @property
    def estimated_tokens(self) -> int:
        """How many of the tokens were not reported, see `Usage`."""
        return self.total.estimated_tokens

    @property
    def total_cost(self) -> float | None:
        """US dollars of the models whose cost is known; None if none is. `unpriced_models` names the others."""
        known = [model.total_cost for model in self.model_usage_summaries.values() if model.total_cost is not None]
        return sum(known) if known else None

    @property
    def unpriced_models(self) -> tuple[str, ...]:
        """The models whose cost is unknown, and not a part of `total_cost`."""
        return tuple(name for name, model in self.model_usage_summaries.items() if model.total_cost is None)

    def plus(self, other: UsageSummary) -> UsageSummary:
        """The calls of both."""
        sums = dict(self.model_usage_summaries)
        for name, more in other.model_usage_summaries.items():
            known = sums.get(name)
            calls = more.total_calls + (known.total_calls if known else 0)
            sums[name] = ModelUsageSummary.of(calls, known.usage.plus(more.usage) if known else more.usage)
        return UsageSummary(sums)

    def to_dict(self) -> dict[str, Any]:
        """The documented form: `{"model_usage_summaries": {model: {...}}}`; see `total_cost` and `unpriced_models`."""
        fields: dict[str, Any] = {
            "model_usage_summaries": {name: m.to_dict() for name, m in self.model_usage_summaries.items()}
        }
        if self.total_cost is None:
            return fields
        unpriced = {"unpriced_models": list(self.unpriced_models)} if self.unpriced_models else {}
        return {**fields, "total_cost": self.total_cost, **unpriced}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The summary that `to_dict` wrote.

        Raises:
            ValueError: a field has another type.
        """
        check_fields(cls.__name__, fields, {"model_usage_summaries": (dict,)})
        models = fields.get("model_usage_summaries", {})
        return cls({name: ModelUsageSummary.from_dict(model) for name, model in models.items()})


class LoggedTrajectory(dict[str, Any]):
    """A trajectory as plain data, which also knows where it came from. A copy or a pickle of it is a dict.

    Args:
        content: the trajectory.
        log: the path of the log of the run, or None.
        run: the run itself, a `Trajectory`, or None.
    """

    def __init__(self, content: Mapping[str, Any], log: str | None = None, run: Any = None) -> None:
        super().__init__(content)
        self.log, self.run = log, run

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class StoredTrajectory:
    """A trajectory that is in the log of its run. A `ReadOnUse` attribute holds it until somebody reads that.

    Args:
        read: returns the trajectory; called once, also if several threads want it at the same time.
        log: the path of the log, or None.
    """

    def __init__(self, read: Callable[[], dict[str, Any]], log: str | None = None) -> None:
        self._read = read
        self.log = log
        self._lock = threading.Lock()
        self._known: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return "<in the log>"

    def __eq__(self, other: object) -> bool:
        """Compare the trajectories. One that cannot be read equals only itself."""
        return self is other or self._content() == (other._content() if isinstance(other, StoredTrajectory) else other)

    __hash__ = None  # type: ignore[assignment]  # like that of a dict

    def __deepcopy__(self, memo: object) -> StoredTrajectory:
        return StoredTrajectory(self._read, self.log)

    def __reduce__(self) -> tuple[Any, ...]:
        """The trajectory, as a dict. If it cannot be read, the error is pickled, and is raised where it is used."""
        content = self._content()
        return (dict if isinstance(content, dict) else StoredTrajectory), (content,)

    def _content(self) -> dict[str, Any] | _Unreadable:
        try:
            return self.load()
        except Exception as error:  # noqa: BLE001 (as `load` raises it)
            return _Unreadable(error)

    def load(self) -> dict[str, Any]:
        """The trajectory.

        Raises:
            RecordingError: the log is gone or was altered.
        """
        with self._lock:
            if self._known is None:
                self._known = self._read()
            return self._known


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Raises the error with which a trajectory could not be read."""

    error: Exception

    def __call__(self) -> dict[str, Any]:
        raise self.error


class ReadOnUse:
    """An attribute that may be given a `StoredTrajectory`: the first access replaces it by the trajectory, a dict.

    Args:
        slot: where the value is kept: the descriptor of a slot.
    """

    def __init__(self, slot: Any) -> None:
        self._slot = slot

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = self._slot.__get__(instance, owner)
        if isinstance(value, StoredTrajectory):
            value = value.load()
            self._slot.__set__(instance, value)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        self._slot.__set__(instance, value)

    def held(self, instance: Any) -> Any:
        """The value as it is, without reading a log."""
        return self._slot.__get__(instance)


_OPTIONAL = frozenset({"metadata", "error"})


def _reading_on_use(name: str) -> Callable[[type[T]], type[T]]:
    """A decorator that puts a `ReadOnUse` in the place of a slot of a class."""

    def wrapped(kind: type[T]) -> type[T]:
        setattr(kind, name, ReadOnUse(vars(kind)[name]))
        return kind

    return wrapped


@_reading_on_use("metadata")
@dataclass(frozen=True, slots=True, repr=False)
class RLMChatCompletion:  # noqa: PLW1641 (`dataclass` makes `__hash__`)
    """The result of `RLM.completion()`.

    Attributes:
        root_model: the model that led the run.
        prompt: the input as it was given.
        response: the answer.
        usage_summary: tokens and cost of the root and all sub-calls.
        execution_time: seconds.
        metadata: the whole trajectory if there is a logger, else None. If the log has more than 8 MB, it is read from
            its record when it is used; that raises a `RecordingError` if the record is gone or was changed.
        error: why a sub-call of the trajectory has no answer; None for the result of `completion`.
        parsed: with a `response_schema`, the answer as an object: JSON data, or of the given pydantic class.
    """

    root_model: str
    prompt: Prompt
    response: str
    usage_summary: UsageSummary
    execution_time: float
    metadata: dict[str, Any] | None = field(default=None, hash=False)
    error: str | None = None
    parsed: Any = None

    def __eq__(self, other: object) -> bool:
        """All fields are equal. A trajectory that cannot be read equals only itself."""
        return _compared_fields(self) == _compared_fields(other) if type(self) is type(other) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return _completion_of, (type(self), held_fields(self))  # the default one would read its log

    def __repr__(self) -> str:
        """The fields but the input, long ones shortened. A log is not read for it."""
        shown = {name: value for name, value in held_fields(self).items() if name != "prompt" and value is not None}
        if isinstance(shown.get("metadata"), dict):
            turns = shown["metadata"].get("iterations")
            shown["metadata"] = _Turns(len(turns) if isinstance(turns, list) else 0)
        return cards.short_repr(type(self).__name__, shown)

    def _repr_html_(self) -> Markup:
        """The answer, and below it model, time, calls, tokens and cost."""
        facts = f"{self.root_model} · {format_duration(self.execution_time)} · {self.usage_summary.facts}"
        failed = [] if self.error is None else [cards.as_it_is(str(self.error))]
        return cards.card(prose(self.response) if self.response else "No answer.", failed, cards.small(facts))

    def to_dict(self) -> dict[str, Any]:
        """The completion as plain data; metadata, error and `parsed` only if there are some, `parsed` as JSON."""
        given = {name: getattr(self, name) for name in RLMChatCompletion.__slots__ if name != "parsed"}
        known = {name: value for name, value in given.items() if value is not None or name not in _OPTIONAL}
        known["usage_summary"] = self.usage_summary.to_dict()
        known |= {} if self.error is None else {"error": str(self.error)}
        return known if self.parsed is None else {**known, "parsed": json.loads(self.response)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The completion that `to_dict` wrote, or an entry of `rlm_calls` in a trajectory. Missing fields are None.

        Raises:
            ValueError: a field has another type.
        """
        check_fields(cls.__name__, fields, _COMPLETION_FIELDS)
        known: dict[str, Any] = {name: fields.get(name) for name in RLMChatCompletion.__slots__}
        known["usage_summary"] = UsageSummary.from_dict(fields.get("usage_summary") or {})
        return cls(**known)


def _facts_of(calls: int, total: Usage, cost: str) -> str:
    if not calls:
        return "no model calls"
    counted = f"{calls:,} model call" + "s" * (calls != 1)
    return f"{counted} · {format_tokens(total.input_tokens, total.output_tokens, total.estimated_tokens)} · {cost}"


@dataclass(frozen=True, slots=True)
class _Turns:
    """Stands in a `repr` for a trajectory."""

    count: int

    def __repr__(self) -> str:
        return f"<{self.count} turn{'s' * (self.count != 1)}>"


def _completion_of(kind: type[T], fields: Mapping[str, Any]) -> T:
    return kind(**fields)


def _compared_fields(completion: Any) -> dict[str, Any]:
    fields = type(completion).__dataclass_fields__
    return {name: value for name, value in held_fields(completion).items() if fields[name].compare}


def held_fields(completion: RLMChatCompletion) -> dict[str, Any]:
    """All fields by name. A log is not read: `metadata` may be a `StoredTrajectory`."""
    metadata, names = vars(RLMChatCompletion)["metadata"], type(completion).__dataclass_fields__
    return {name: metadata.held(completion) if name == "metadata" else getattr(completion, name) for name in names}


Output = dict[str, Any]
"""One output of a cell in the format of nbformat 4: `stream`, `display_data`, `execute_result` or `error`."""


@dataclass(frozen=True, slots=True)
class CellError:
    """The exception of a cell: the class name, its message and the traceback without terminal colours."""

    name: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class CellReport:
    """The report of the guest after a cell, sent with the cell's own messages.

    Attributes:
        final: the value of the last `FINAL(...)` or `FINAL_VAR(...)` call, or None.
        answer: the content of `answer` when its `ready` is true, else None.
        draft: the content of `answer`, ready or not; None: it is empty.
        variables: the user's variables, name to type name.
        restored: names that the cell overwrote or deleted, to the name that keeps the cell's value (None: deleted).
        final_json, answer_json: the same values as JSON, if they are not text and JSON can hold them.
        values: the beginning of the `repr` of `context` and of variables of built-in types, by name.
    """

    final: str | None = None
    answer: str | None = None
    draft: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    restored: dict[str, str | None] = field(default_factory=dict)
    final_json: str | None = None
    answer_json: str | None = None
    values: dict[str, str] = field(default_factory=dict)


CellStatus = Literal["ok", "error", "timeout", "died", "refused"]


@dataclass(frozen=True, slots=True)
class CellResult:
    """The result of a cell.

    Attributes:
        code: the cell.
        status: ``ok``; ``error``: it raised; ``timeout``: it was stopped; ``died``: the kernel died; ``refused``: it
            did not run, because `on_cell` refused it; `error` says why.
        outputs: nbformat outputs in order; streams are merged, displays keep every MIME type.
        error: the exception, or None.
        report: the report of the guest after the cell.
        execution_count: the kernel's count, or None when the cell did not get that far.
        seconds: wall-clock time of the cell.
        dropped_characters: how much output is not in `outputs`, because of the memory limit.
        kernel_alive: False if the kernel has to be restarted before the next cell.
    """

    code: str
    status: CellStatus
    outputs: tuple[Output, ...] = ()
    error: CellError | None = None
    report: CellReport = CellReport()
    execution_count: int | None = None
    seconds: float = 0.0
    dropped_characters: int = 0
    kernel_alive: bool = True

    def stream(self, name: Literal["stdout", "stderr"]) -> str:
        """All text of one stream."""
        return "".join(o["text"] for o in self.outputs if o["output_type"] == "stream" and o["name"] == name)

    @property
    def stdout(self) -> str:
        """What the cell printed."""
        return self.stream("stdout")

    @property
    def stderr(self) -> str:
        """What the cell wrote to stderr."""
        return self.stream("stderr")

    @property
    def value(self) -> str | None:
        """The plain text of the last expression's value, or None."""
        for output in reversed(self.outputs):
            if output["output_type"] == "execute_result":
                return str(output["data"].get("text/plain", ""))
        return None


class UsageMeter:
    """The usage of one run by model. All calls of a run end in one event loop, so no lock is needed.

    Args:
        parent: the meter of the run that started this one; it counts the same calls.
    """

    def __init__(self, parent: UsageMeter | None = None) -> None:
        self._parent = parent
        self._models: dict[str, tuple[int, Usage]] = {}

    def add(self, model: str, usage: Usage) -> None:
        """Count one call of a model."""
        calls, total = self._models.get(model, (0, None))
        self._models[model] = calls + 1, usage if total is None else total.plus(usage)
        if self._parent is not None:
            self._parent.add(model, usage)

    def summary(self) -> UsageSummary:
        """The sums until now."""
        return UsageSummary({name: ModelUsageSummary.of(*counted) for name, counted in self._models.items()})

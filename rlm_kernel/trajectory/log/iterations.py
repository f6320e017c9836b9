"""The records of the reference that loggers of users receive: `RLMMetadata` once, an `RLMIteration` for each turn.

They are mutable and hold plain values, because programs build, change and print them. `to_dict` gives the documented
JSON form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from rlm_kernel.types import RLMChatCompletion, check_fields


def serialize(value: Any) -> Any:
    """A value as JSON can hold it: modules, functions and objects become texts."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, ModuleType):
        return f"<module '{value.__name__}'>"
    if isinstance(value, list | tuple):
        return [serialize(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): serialize(item) for key, item in value.items()}
    if callable(value):
        return f"<{type(value).__name__} '{getattr(value, '__name__', repr(value))}'>"
    return repr(value)


@dataclass
class REPLResult:
    """The result of a code block.

    Attributes:
        stdout: what it printed, and the value of its last line.
        stderr: what it wrote there, and the traceback.
        locals: the variables after it. In a run, the first 200 characters of the `repr` of each, or the name of its
            type if that is not a built-in one.
        execution_time: seconds; None: unknown.
        rlm_calls: its sub-calls, also those of `llm_query`.
        final_answer: the answer that it gave, or None.
    """

    stdout: str
    stderr: str
    locals: dict[str, Any]
    execution_time: float | None = None
    rlm_calls: list[RLMChatCompletion] = field(default_factory=list)
    final_answer: str | None = None

    def __post_init__(self) -> None:
        self.rlm_calls = self.rlm_calls or []

    def __str__(self) -> str:
        """Its fields, with the number of the calls only."""
        return (
            f"REPLResult(stdout={self.stdout}, stderr={self.stderr}, locals={self.locals}, "
            f"execution_time={self.execution_time}, rlm_calls={len(self.rlm_calls)})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data."""
        calls = [call.to_dict() for call in self.rlm_calls]
        return {**vars(self), "locals": serialize(self.locals), "rlm_calls": calls}


@dataclass
class CodeBlock:
    """A code block and its result."""

    code: str
    result: REPLResult

    def to_dict(self) -> dict[str, Any]:
        """The block as plain data."""
        return {"code": self.code, "result": self.result.to_dict()}


@dataclass
class RLMIteration:
    """One turn of the root model.

    Attributes:
        prompt: the messages that the model read for the first time in this turn.
        response: its reply.
        code_blocks: the blocks that ran.
        final_answer: the answer, in the last turn; else None.
        iteration_time: seconds; None: unknown.
    """

    prompt: Any
    response: str
    code_blocks: list[CodeBlock]
    final_answer: str | None = None
    iteration_time: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The turn as plain data."""
        return {**vars(self), "code_blocks": [block.to_dict() for block in self.code_blocks]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RLMIteration:
        """The turn that `to_dict` wrote, or an entry of `metadata["iterations"]`.

        Raises:
            ValueError: a field has another type.
        """
        check_fields(cls.__name__, fields, {"response": (str,), "code_blocks": (list,)})
        blocks = [CodeBlock(block["code"], _result(block["result"])) for block in fields["code_blocks"]]
        return cls(
            fields["prompt"], fields["response"], blocks, fields.get("final_answer"), fields.get("iteration_time")
        )


def _result(fields: Mapping[str, Any]) -> REPLResult:
    names = ("stdout", "stderr", "locals", "execution_time", "final_answer")
    calls = [RLMChatCompletion.from_dict(call) for call in fields.get("rlm_calls", ())]
    return REPLResult(**{name: fields[name] for name in names if name in fields}, rlm_calls=calls)


@dataclass
class RLMMetadata:
    """The arguments of an `RLM`, without its keys."""

    root_model: str
    max_depth: int
    max_iterations: int
    backend: str
    backend_kwargs: dict[str, Any]
    environment_type: str
    environment_kwargs: dict[str, Any]
    other_backends: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The arguments as plain data."""
        return {
            **vars(self),
            **{name: serialize(vars(self)[name]) for name in ("backend_kwargs", "environment_kwargs")},
        }


@dataclass(init=False)
class QueryMetadata:
    """The type of a prompt, and its length in characters, part by part."""

    context_lengths: list[int]
    context_total_length: int
    context_type: str

    def __init__(self, prompt: Any) -> None:
        if not isinstance(prompt, str | dict | list):
            raise ValueError(f"Invalid prompt type: {type(prompt)}")  # noqa: TRY004 (the reference's)
        self.context_type = type(prompt).__name__ if type(prompt) in {str, dict, list} else "dict"
        parts = [prompt] if isinstance(prompt, str) else list(prompt.values() if isinstance(prompt, dict) else prompt)
        self.context_lengths = [_length(part) for part in parts] or ([0] if isinstance(prompt, list) else [])
        self.context_total_length = sum(self.context_lengths)


def _length(part: Any) -> int:
    """The characters of a part: those of a message's content, else of its JSON."""
    if isinstance(part, dict) and "content" in part:
        part = str(part["content"])
    return len(part if isinstance(part, str) else json.dumps(part, default=repr))

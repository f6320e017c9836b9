"""`llm_query`, `rlm_query` and their other forms, with the pictures that they take."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .wire import MAX_QUESTION_BYTES, as_bytes

if TYPE_CHECKING:
    from .wire import Asker

MORE = """

schema: a JSON Schema (a dict) or a pydantic class; the answer is then an object that fits it.
images: figures, PIL images, image files or their bytes, or the execution count of a cell for the figures it showed.
allow_partial: True takes an answer that the length limit cut, with a mark at its end; otherwise it is an error."""
MAX_PICTURES_BYTES = 20_000_000
MAX_PROMPTS = 2_000
MAX_BATCH = 200_000
MAX_IMAGES = 100
MAX_IMAGE_BYTES = 20_000_000
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
CUT = "was cut at the length limit"
"""In the error of an answer that the length limit cut; the host writes it."""
CUT_MARK = "\n[cut at the length limit]"
"""The end of such an answer with `allow_partial=True`."""


class QueryError(RuntimeError):
    """A call of `llm_query` or `rlm_query` has no answer; the message says why, `partial_answer` is the text so far."""

    partial_answer = ""


class FailedQuery(str):
    """Stands in a batch for a prompt without an answer: a text that reads ``Error: …``; `isinstance` tells it apart.

    `partial_answer` is the text of the answer so far; empty if there is none.
    """

    __slots__ = ("partial_answer",)
    partial_answer: str

    def __new__(cls, text: str, partial_answer: str = "") -> FailedQuery:  # noqa: PYI034 (typing.Self needs Python 3.11)
        """The text of the error, with the text of the answer so far."""
        failed = super().__new__(cls, text)
        failed.partial_answer = partial_answer
        return failed


def query_names(guest: Asker, kind: str, purpose: str) -> dict[str, Any]:
    """`kind` and its batched and asynchronous forms, by name. `help()` shows their docstrings to the model."""
    one = f"{purpose} Give it one text, get its answer as a text. Raises QueryError when there is no answer.{MORE}"
    many = (
        f"{purpose} Give a list of texts, get a list of answers in the same order; they are asked side by side.{MORE}"
    )
    (query, aquery), (batched, abatched) = single_queries(guest, kind), batched_queries(guest, kind)
    named: dict[str, Any] = {kind: query, f"{kind}_batched": batched, f"a{kind}": aquery, f"a{kind}_batched": abatched}
    for name, function in named.items():
        function.__name__ = function.__qualname__ = name
        function.__doc__ = (many if name.endswith("batched") else one) + (" Use with await." if name[0] == "a" else "")
        function.__module__ = "rlm_guest"
    return named


def single_queries(guest: Asker, kind: str) -> tuple[Any, Any]:
    """The function that asks one question, and its asynchronous form."""

    def query(
        prompt: str, model: str | None = None, schema: Any = None, images: Any = None, allow_partial: bool = False
    ) -> Any:
        __tracebackhide__ = True
        asked = question(kind, [prompt], model, False, schema), pictures(guest, images)
        return single(guest.ask(*asked), kind, schema, allow_partial)

    async def aquery(
        prompt: str, model: str | None = None, schema: Any = None, images: Any = None, allow_partial: bool = False
    ) -> Any:
        __tracebackhide__ = True
        asked = question(kind, [prompt], model, False, schema), pictures(guest, images)
        return single(await guest.ask_async(*asked), kind, schema, allow_partial)

    return query, aquery


def batched_queries(guest: Asker, kind: str) -> tuple[Any, Any]:
    """The function that asks many questions at a time, and its asynchronous form."""

    def batched(
        prompts: Iterable[str],
        model: str | None = None,
        schema: Any = None,
        images: Any = None,
        allow_partial: bool = False,
    ) -> Any:
        __tracebackhide__ = True
        whole, files = question(kind, as_list(prompts, kind), model, True, schema), pictures(guest, images)
        answers: list[dict[str, str]] = []
        for part in parts(whole):
            answers += for_each(guest.ask(part, files), part)
        return several(answers, kind, schema, allow_partial)

    async def abatched(
        prompts: Iterable[str],
        model: str | None = None,
        schema: Any = None,
        images: Any = None,
        allow_partial: bool = False,
    ) -> Any:
        __tracebackhide__ = True
        whole, files = question(kind, as_list(prompts, kind), model, True, schema), pictures(guest, images)
        answers: list[dict[str, str]] = []
        for part in parts(whole):
            answers += for_each(await guest.ask_async(part, files), part)
        return several(answers, kind, schema, allow_partial)

    return batched, abatched


def question(kind: str, prompts: list[str], model: str | None, batch: bool, schema: Any) -> dict[str, Any]:
    """The payload of an `ask`."""
    __tracebackhide__ = True
    for prompt in prompts:
        if not isinstance(prompt, str):
            how = "value.to_csv()" if hasattr(prompt, "to_csv") else "str(...) or json.dumps(...)"
            raise TypeError(f"{kind} takes text, not {type(prompt).__name__}: make it one with {how}.")
    if model is not None and not isinstance(model, str):
        raise TypeError(f"model= takes the name of a model, not {type(model).__name__}.")
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    if not isinstance(schema, (dict, type(None))):
        raise TypeError(f"schema= takes a JSON Schema (a dict) or a pydantic class, not {type(schema).__name__}.")
    return {"kind": kind, "prompts": prompts, "model": model, "batch": batch, "schema": schema}


def as_list(prompts: Iterable[str], kind: str) -> list[str]:
    """The prompts of a batch. A single text is a mistake: each letter would be a prompt."""
    __tracebackhide__ = True
    if isinstance(prompts, str):
        raise TypeError(f"{kind}_batched takes a list of texts; for one text use {kind}.")
    listed = list(prompts)
    if len(listed) > MAX_BATCH:
        raise ValueError(f"{kind}_batched takes at most {MAX_BATCH:,} prompts at a time, not {len(listed):,}.")
    return listed


def parts(payload: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Split a batch into questions within the size limits, to be asked one after another."""
    rest: list[str] = []
    room = 0
    spare = MAX_QUESTION_BYTES - len(as_bytes({**payload, "prompts": []}))
    for prompt in payload["prompts"]:
        size = len(as_bytes(prompt)) + 2
        if rest and (size > room or len(rest) == MAX_PROMPTS):
            yield {**payload, "prompts": rest}
            rest = []
        room = (room if rest else spare) - size
        rest.append(prompt)
    if rest:
        yield {**payload, "prompts": rest}


def for_each(answers: list[dict[str, str]], payload: dict[str, Any]) -> list[dict[str, str]]:
    """One answer for each prompt: the host may send one for all."""
    __tracebackhide__ = True
    if "refused" in answers[0]:
        raise ValueError(answers[0]["refused"])
    return answers * len(payload["prompts"]) if len(answers) == 1 else answers


def value_of(answer: dict[str, str], schema: Any, allow_partial: bool = False) -> Any:
    """The value of an answer, or a `FailedQuery`. `allow_partial`: a text that was cut is a value, with a mark."""
    __tracebackhide__ = True
    if "refused" in answer:
        raise ValueError(answer["refused"])
    if "error" in answer:
        partial = answer.get("partial", "")
        is_cut = partial and CUT in answer["error"]
        return partial + CUT_MARK if is_cut and allow_partial else FailedQuery(f"Error: {answer['error']}", partial)
    value = answer["text"] if schema is None else json.loads(answer["text"])
    try:
        return value if schema is None or isinstance(schema, dict) else schema.model_validate(value)
    except Exception as error:
        return FailedQuery(f"Error: the answer {answer['text']} fits the schema, but its class refuses it: {error}")


def single(answers: list[dict[str, str]], kind: str, schema: Any = None, allow_partial: bool = False) -> Any:
    """The answer of a call, or its failure raised."""
    __tracebackhide__ = True
    value = value_of(answers[0], schema, allow_partial)
    if isinstance(value, FailedQuery):
        error = QueryError(f"{kind} has no answer: {value[len('Error: ') :]}")
        error.partial_answer = value.partial_answer
        raise error
    return value


def several(answers: list[dict[str, str]], kind: str, schema: Any = None, allow_partial: bool = False) -> list[Any]:
    """The answers of a batch. A failed one is a `FailedQuery`, and stderr says how many failed."""
    __tracebackhide__ = True
    values = [value_of(answer, schema, allow_partial) for answer in answers]
    failed = sum(isinstance(value, FailedQuery) for value in values)
    if failed:
        note = f"{failed} of {len(values)} prompts of {kind}_batched have no answer; theirs read 'Error: …'."
        print(note, file=sys.stderr)
    return values


def pictures(guest: Asker, images: Any) -> list[bytes]:
    """The image files for the argument `images=`."""
    __tracebackhide__ = True
    files: list[bytes] = []
    for image in [] if images is None else images if isinstance(images, (list, tuple)) else [images]:
        files += files_of(guest, image)
    if len(files) > MAX_IMAGES or sum(map(len, files)) > MAX_PICTURES_BYTES:
        raise ValueError(
            f"images= takes {MAX_IMAGES} pictures of {MAX_PICTURES_BYTES:,} bytes at most, not {[*map(len, files)]} "
            "bytes: make them smaller, with a lower dpi or image.thumbnail((2000, 2000))."
        )
    return files


def files_of(guest: Asker, image: Any) -> list[bytes]:
    """The picture as a file; for the execution count of a cell, all pictures that it displayed."""
    __tracebackhide__ = True
    if type(image) is int:
        if shown := [figure for cell, figure in guest.figures if cell == image]:
            return shown
        known = sorted({cell for cell, _ in guest.figures})
        raise ValueError(f"cell {image} has shown no figure, or too long ago; figures are kept of the cells {known}.")
    data = file_of(guest, image)
    begins = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
    if not data.startswith(begins) and (data[:4], data[8:12]) != (b"RIFF", b"WEBP"):
        raise TypeError(
            "images= takes matplotlib figures, PIL images, IPython.display.Image, the path of a PNG, JPEG, GIF or WebP "
            f"file or its bytes, and the execution counts of cells; this is none, or no such file: {repr(image)[:80]}."
        )
    return [data]


def file_of(guest: Asker, image: Any) -> bytes:
    """The bytes of a picture as a file; empty if it is not a picture."""
    if isinstance(image, (str, os.PathLike)) and os.path.isfile(image):  # noqa: PTH113 (Path raises for a long text)
        with open(image, "rb") as file:  # noqa: PTH123
            return file.read(MAX_IMAGE_BYTES + 1)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    for figure in list[Any]((image, getattr(image, "figure", None))):
        if hasattr(figure, "savefig"):
            figure.savefig(drawn := io.BytesIO(), format="png", bbox_inches="tight")
            return drawn.getvalue()
    shown = guest.shell.display_formatter.format(image, include=IMAGE_TYPES)[0]
    return decode_image(next((shown[kind] for kind in IMAGE_TYPES if kind in shown), b""))


def decode_image(data: Any) -> bytes:
    """The bytes of a picture in a display: raw, or in base64."""
    return base64.b64decode(data) if isinstance(data, str) else bytes(data)

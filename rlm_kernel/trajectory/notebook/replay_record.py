"""Read the log of a run inside a stock kernel: its cells and their recorded answers.

A part of the file that the setup cell of a notebook runs (`setup_cell.py`), where it is the module
`rlm_replay_record`. It needs only the standard library.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

SETUP = 0
"""The cell number for calls of the setup; the cells of the run begin at 1."""

TRAVELS = (
    "A notebook travels with its log (both .jsonl files), contexts/, prompts/ and rlm_replay_*.py. Where these are, "
    "`rlm export --bundle NOTEBOOK` makes one file that holds all."
)

CELL_ID = re.compile(r"rlm-[0-9a-f]{8}-t(\d{3,})-c(\d+)(?:-\d+)?")


class NotRecordedError(RuntimeError):
    """The record has no answer; the message says what is missing and what to do."""


class RecordedCell:
    """A cell of the run."""

    def __init__(self, number: int, turn: int, code: str) -> None:
        self.number = number
        self.turn = turn
        self.code = code
        self.result: dict[str, Any] | None = None
        self.unanswered = 0

    @property
    def raised(self) -> bool:
        """Whether it ended with an exception of its own."""
        return self.result is not None and self.result["status"] == "error" and not self.was_cut_off

    @property
    def was_cut_off(self) -> bool:
        """Whether it did not end by itself. It is not run again: it would hang again, or end the kernel."""
        if self.result is None or self.result["status"] not in ("ok", "error"):
            return True
        interrupted = (self.result.get("error") or {}).get("name") == "KeyboardInterrupt"
        return self.result["status"] == "error" and (interrupted or self.unanswered > 0)


class Record:
    """The content of the log of one run.

    Args:
        lines: of the log.
        child: the place of a child run in the logged run: cell, call and prompt of each level.
    """

    def __init__(self, lines: list[dict[str, Any]], child: list[Any]) -> None:
        self.context: dict[str, Any] = {}
        for cell, query, index in child:
            calls = [x for x in lines if x["type"] == "subcall" and (x["cell"], x["query"]) == (cell, query)]
            if not calls:
                raise NotRecordedError(f"The log holds no child run {child}: rlm_child was changed.")
            self.context = input_of(calls[0], index)
            here = [x for x in lines if x["type"] == "child" and (x["cell"], x["query"]) == (cell, query)]
            lines = [x["line"] for x in here if x["index"] == index]
        self.cells: dict[int, RecordedCell] = {}
        self.answers: dict[tuple[int, str, int], dict[str, str]] = {}
        self.histories: dict[int, list[dict[str, Any]]] = {}
        self._summarised = False
        self.metadata: dict[str, Any] = {}
        self.served = self.is_clipped = False
        self._slots: dict[tuple[int, str], list[tuple[int, str, int]]] = {}
        self._seen: Counter[tuple[int, str]] = Counter()
        self.conversation: list[dict[str, Any]] = []
        for line in lines:
            self.add(line)

    def add(self, line: dict[str, Any]) -> None:
        """Take the next line."""
        self.is_clipped = self.is_clipped or bool(line.get("clipped"))
        taken = getattr(self, "add_" + line["type"], None)
        if taken is not None:
            taken(line)

    def add_metadata(self, line: dict[str, Any]) -> None:
        """The first line of the run."""
        self.metadata = self.metadata or line

    def add_kernel_ready(self, _: dict[str, Any]) -> None:
        """The kernel has the input. A run that a busy kernel refused has no such line."""
        self.served = True

    def add_context(self, line: dict[str, Any]) -> None:
        """The place of the input."""
        self.context = line

    def add_asked(self, line: dict[str, Any]) -> None:
        """Messages to the model."""
        if not self._summarised:  # the history does not mention a summary
            self.conversation += line.get("told") or []
        self._summarised = False

    def add_reply(self, line: dict[str, Any]) -> None:
        """A reply of the model."""
        text = line["reply"]["text"]
        self.conversation.append({"role": "assistant", "content": text if text.strip() else "(empty)"})

    def add_summary(self, line: dict[str, Any]) -> None:
        """The conversation was summarised: from the next cell on, `history` holds the messages until now."""
        self.conversation += line.get("told") or []
        self._summarised = True
        self.histories[max(self.cells, default=0) + 1] = list(self.conversation)

    def add_cell(self, line: dict[str, Any]) -> None:
        """A cell began."""
        self.cells[line["cell"]] = RecordedCell(line["cell"], line["iteration"], line["code"])

    def add_cell_result(self, line: dict[str, Any]) -> None:
        """A cell ended."""
        self.cells[line["cell"]].result = line["result"]

    def add_subcall(self, line: dict[str, Any]) -> None:
        """A sub-call of a cell."""
        self._slots[line["cell"], line["query"]] = [self._slot(line["cell"], key) for key in line["keys"]]
        if line["cell"] != SETUP:
            self.cells[line["cell"]].unanswered += len(line["keys"])

    def add_answer(self, line: dict[str, Any]) -> None:
        """The answer to a prompt."""
        slot = self._slots[line["cell"], line["query"]][line["index"]]
        self.answers[slot] = answer_payload(line)
        if line["cell"] != SETUP:
            self.cells[line["cell"]].unanswered -= 1

    def add_tool_call(self, line: dict[str, Any]) -> None:
        """A call of a tool."""
        slot = self._slot(line["cell"], line["key"])
        occurrence = line.get("occurrence")  # concurrent calls may end in any order
        self.answers[slot if occurrence is None else (*slot[:2], occurrence)] = answer_payload(line["outcome"])

    def _slot(self, cell: int, key: str) -> tuple[int, str, int]:
        occurrence = self._seen[cell, key]
        self._seen[cell, key] += 1
        return cell, key, occurrence

    @property
    def asking(self) -> set[int]:
        """The cells with answers of models or tools."""
        return {cell for cell, _, _ in self.answers if cell != SETUP}

    def find(self, source: str, cell_id: Any, expected: int) -> int:
        """The number of the recorded cell that is running now. `expected`: the one after the latest."""
        named = CELL_ID.fullmatch(cell_id) if isinstance(cell_id, str) else None
        if named is not None:
            turn = [cell.number for cell in self.cells.values() if cell.turn == int(named[1])]
            if int(named[2]) <= len(turn):
                return turn[int(named[2]) - 1]
        same = [number for number, cell in self.cells.items() if is_same(cell.code, source)]
        return min(same, key=lambda number: (number < expected, abs(number - expected)), default=expected)


def is_same(code: str, source: str) -> bool:
    """Whether a cell was not edited. Converters drop the empty lines around a source."""
    return code == source or code.strip("\n") == source.strip("\n")


def input_of(call: dict[str, Any], index: int) -> dict[str, Any]:
    """The input of a child run: the prompt that it answers, which is in a file if it is large."""
    name = (call.get("stored") or {}).get(str(index))
    if name is None:
        return {"encoding": "text", "value": call["prompts"][index]}
    return {"encoding": "text", "file": name, "sha256": Path(name).stem}


def answer_payload(answer: dict[str, Any]) -> dict[str, str]:
    """An answer of the log as the host sends it."""
    if answer.get("refused"):
        return {"refused": answer["error"]}
    if answer.get("error") is None:
        return {"text": answer["text"]}
    return {"error": answer["error"], **({"partial": answer["text"]} if answer.get("text") else {})}


def keys(payload: dict[str, Any], images: list[bytes]) -> list[str]:
    """The keys that identify the prompts of a call, or the call of a tool; the same as `journal.keys` of the host."""
    if payload["kind"] == "tool":
        return [key("tool", payload["tool"], payload["args"], payload["kwargs"])]
    seen = [hashlib.sha256(image).hexdigest() for image in images]
    options = (payload.get("schema"), seen)
    return [key(payload["kind"], payload["model"], prompt, *options) for prompt in payload["prompts"]]


def key(*what: Any) -> str:
    """The SHA-256 of values as JSON, in hex."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode("ascii")).hexdigest()


def read_log(names: dict[str, Any], folders: list[Path]) -> tuple[Path, Record]:
    """The path of the log, and its content.

    Args:
        names: the parameters `rlm_log` and `rlm_child`.
        folders: where the log may be; the first folder that has it is used.

    Raises:
        NotRecordedError: no folder has it.
    """
    tried = [record_beside(folder / names["rlm_log"]) for folder in folders]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        places = ", ".join(map(str, tried))
        raise NotRecordedError(
            f"The log of this run is not there (looked for {places}).\nSet rlm_dir to its folder in the cell above, or "
            "run the notebook with `papermill … -p rlm_dir FOLDER`, or `--inject-paths` if it is beside the notebook.\n"
            + TRAVELS
        )
    return found, Record(lines_of(found), names.get("rlm_child") or [])


def record_beside(log: Path) -> Path:
    """The record of a run: in its own file, or in the log of an older run."""
    record = log.with_suffix(".events.jsonl")
    return record if record.is_file() else log


def earlier_records(record: Record, folder: Path) -> list[Record]:
    """The earlier runs in the same persistent kernel, in order."""
    name = record.metadata.get("continues")
    if not name:
        return []
    log = record_beside(folder / f"{name}.jsonl")
    if not log.is_file():
        raise NotRecordedError(f"The run used the kernel of an earlier run, whose log is missing: {log}. Put it back.")
    before = Record(lines_of(log), [])
    return [*earlier_records(before, folder), *([before] if before.served else [])]


def lines_of(log: Path) -> list[dict[str, Any]]:
    """The lines of a log. The last line of a run that was killed may be incomplete, and is skipped."""
    lines = []
    with log.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                lines.append(json.loads(raw))
            except ValueError as error:
                if raw.endswith(b"\n"):
                    raise NotRecordedError(
                        f"{log}: line {number} is not JSON: it was altered. Put back the log."
                    ) from error
    if lines and not {"log_schema", "model"} & lines[0].keys():
        record = log.with_suffix(".events.jsonl").name
        raise NotRecordedError(f"{log} holds only the turns of a run, whose log is missing: {record}. Put it back.")
    return lines


def shown_calls(notebook: dict[str, Any], names: dict[str, Any]) -> dict[int, dict[str, str]]:
    """The folded sub-calls of the cells of a notebook, by the number of the cell. Empty if it is of another run."""
    about = notebook.get("metadata", {}).get("rlm", {})
    if (about.get("log"), about.get("child") or []) != (names["rlm_log"], names.get("rlm_child") or []):
        return {}
    return {
        cell["metadata"]["rlm"]["cell"]: {kind: "".join(text) for kind, text in output["data"].items()}
        for cell in notebook["cells"]
        if "cell" in cell["metadata"].get("rlm", {})
        for output in cell.get("outputs", [])
        if output.get("metadata", {}).get("rlm", {}).get("role") == "calls"
    }


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook, or an empty object if there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def context_of(stored: dict[str, Any], folder: Path) -> tuple[str, bytes]:
    """The encoding and the bytes of the input of the run."""
    if not stored:
        raise NotRecordedError(
            "The run ended before its context was stored: assign `context` yourself in a cell below."
        )
    if stored.get("redacted"):
        raise NotRecordedError(
            "The context held a secret and is not on record: assign `context` yourself in a cell below."
        )
    encoding, name = stored["encoding"], stored.get("file")
    if name is None:
        value: Any = stored.get("value")
        content = (value if encoding == "text" else json.dumps(value)).encode("utf-8", "surrogatepass")
    else:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            why = f"The context of the run is missing: {folder / name} ({error.strerror})."
            raise NotRecordedError(f"{why} Put it back.\n{TRAVELS}") from None
    known = hashlib.sha256(content).hexdigest()
    if known != stored.get("sha256", known):
        why = f"The context of the run was altered: {name or 'that in the log'} is not what the run read."
        raise NotRecordedError(f"{why} Put the original back.")
    return encoding, content

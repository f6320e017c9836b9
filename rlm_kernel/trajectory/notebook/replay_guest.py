"""The guest for a replay in a stock Jupyter client: it answers from a log, without a host.

The setup cell of a notebook runs a file that holds this module, `replay_record.py` and the guest (`setup_cell.py`).
Each call of a cell gets its recorded answer. It needs the standard library, IPython and ipykernel.

The running cell is identified by its cell id if the client sends it (JupyterLab), else by its source, and an edited
cell by its position. So a cell can be edited or run a second time.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import random
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.utils.capture import capture_output

if TYPE_CHECKING:
    from rlm_kernel.kernel import guest as rlm_guest
    from rlm_kernel.trajectory.notebook import replay_record as rlm_replay_record
else:
    import rlm_guest
    import rlm_replay_record

MAX_PROMPT = 80
PARAMETERS = (
    *("rlm_dir", "rlm_log", "rlm_mode", "rlm_child", "rlm_bundle"),
    *("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"),
)
NOTEBOOKS = ("__vsc_ipynb_file__", "PAPERMILL_INPUT_PATH")
LIVE = (
    "To have live models answer what is not on record, set rlm_mode = 'live' above in a kernel that has your keys "
    "(RLM), or run `rlm replay --live FILE`, or `papermill --engine rlm IN OUT -p rlm_mode live`."
)


class ReplayGuest(rlm_guest.Guest):
    """The guest, answered from a record."""

    record: rlm_replay_record.Record

    def __init__(self, shell: Any, comm_id: str) -> None:
        super().__init__(shell, comm_id)
        self.number = min(self.record.cells, default=1)
        self.expected = self.number
        self.lock = threading.Lock()
        self.occurrences: Counter[str] = Counter()
        self.skipped: rlm_replay_record.RecordedCell | None = None
        self.is_set_up = False
        self.source = ""
        self.folded: dict[int, dict[str, str]] = {}
        self.answered: str | None = None

    def send(self, *_: Any, **__: Any) -> None:
        """There is no host to send to."""

    def ask(self, payload: dict[str, Any], images: Any = ()) -> list[dict[str, str]]:
        """The recorded answers."""
        __tracebackhide__ = True
        with self.lock:
            return [self.recorded(one, payload) for one in rlm_replay_record.keys(payload, list(images))]

    async def ask_async(self, payload: dict[str, Any], images: Any = ()) -> list[dict[str, str]]:
        """The recorded answers."""
        __tracebackhide__ = True
        return self.ask(payload, images)

    def recorded(self, key: str, payload: dict[str, Any]) -> dict[str, str]:
        """The recorded answer of a call; the n-th call with this key in the running cell gets the n-th answer."""
        __tracebackhide__ = True
        occurrence = self.occurrences[key]
        self.occurrences[key] += 1
        answer = self.record.answers.get((self.number, key, occurrence))
        if answer is None:
            why = "something that it depends on is not as it was in the run"
            why = why if self.is_unchanged else "it was edited or is new"
            if self.record.is_clipped:
                why += ", or the log does not hold the answer because it reached its max_log_bytes"
            raise rlm_replay_record.NotRecordedError(
                f"Cell {self.number} of the run asks what is not on record, {summarise(payload)}: {why}. {LIVE}"
            )
        return answer

    def cell_starts(self, *infos: Any) -> bool:
        """Find the cell of the run. `infos`: the `ExecutionInfo` of IPython, if it sends one."""
        if not super().cell_starts(*infos):
            return False
        self.source = infos[0].raw_cell if infos else ""
        cell_id = getattr(infos[0], "cell_id", None) if infos else None
        found = self.record.find(self.source, cell_id, self.expected)
        self.number = found if self.is_set_up else rlm_replay_record.SETUP
        self.expected = self.number + 1
        if self.is_set_up:
            self.occurrences.clear()
        cell = self.record.cells.get(self.number)
        self.skipped = (
            cell
            if cell is not None and cell.was_cut_off and rlm_replay_record.is_same(cell.code, self.source)
            else None
        )
        if self.number in self.record.histories:
            self.assign("history", self.record.histories[self.number])
        return True

    def cell_ended(self, result: Any = None) -> None:
        """Show the recorded sub-calls below a cell, unless it was edited. A cell within a cell shows nothing."""
        is_whole = self.cell is not None and (result is None or result.info is self.cell)
        super().cell_ended(result)
        content = self.ours["answer"]
        given = str(content["content"]) if isinstance(content, dict) and content.get("ready") else self.final[0]
        self.answered = self.answered if given is None else given
        if is_whole and self.is_set_up and self.is_unchanged and self.number in self.folded:
            self.shell.display_pub.publish(self.folded[self.number], {"rlm": {"role": "calls"}})

    def assign(self, name: str, value: Any) -> None:
        """Make a value one of the names that belong to the run."""
        self.ours[name] = self.shell.user_ns[name] = value
        self.shell.user_ns_hidden[name] = value

    @property
    def is_unchanged(self) -> bool:
        """Whether the running cell is as it was in the run."""
        cell = self.record.cells.get(self.number)
        return cell is not None and rlm_replay_record.is_same(cell.code, self.source)

    @property
    def expects_error(self) -> bool:
        """Whether the cell raised in the run."""
        cell = self.record.cells.get(self.number)
        return cell is not None and cell.raised


def summarise(payload: dict[str, Any]) -> str:
    """A call in a few words."""
    if payload["kind"] == "tool":
        return f"{payload['tool']}(…)"
    prompt = payload["prompts"][0]
    name = payload["kind"] + ("_batched" if payload["batch"] else "")
    return f"{name}({prompt if len(prompt) <= MAX_PROMPT else prompt[:MAX_PROMPT] + '…'!r})"


class Skip(ast.NodeTransformer):
    """Replaces the code of a cell that did not end by itself in the run by its recorded outputs."""

    def __init__(self, guest: ReplayGuest) -> None:
        self.guest = guest

    def visit(self, node: Any) -> Any:
        """The code to run."""
        if self.guest.skipped is None:
            return node
        return ast.parse("__import__('rlm_replay_guest').show_again(get_ipython())")


def show_again(shell: Any) -> None:
    """Show the recorded outputs of the running cell, whose code is not run."""
    guest = shell.kernel.rlm_guest
    result, guest.skipped = guest.skipped.result or {}, None
    for output in result.get("outputs") or []:
        if output["output_type"] == "stream":
            (sys.stdout if output["name"] == "stdout" else sys.stderr).write(output["text"])
        elif output["output_type"] == "error":
            print("\n".join(output["traceback"]), file=sys.stderr)
        else:
            shell.display_pub.publish(output["data"], output["metadata"])
    status = result.get("status")  # a log is untrusted
    ended = status if status in ("error", "timeout", "died", "refused") else "unfinished"
    text = f"Not run again: in the run this cell did not end by itself ({ended})."
    shell.display_pub.publish({"text/plain": text, "text/markdown": f"*{text}*"}, {"rlm": {"role": "ending"}})


def show_tracebacks_of_the_run(shell: Any, guest: ReplayGuest) -> None:
    """Print an exception that the run raised too, because papermill stops at an error output."""
    show = shell._showtraceback

    def show_traceback(kind: Any, error: Any, lines: list[str]) -> None:
        if not guest.expects_error:
            show(kind, error, lines)
            return
        shell._last_traceback = lines
        print("\n".join(lines), file=sys.stderr)

    shell._showtraceback = show_traceback


def unpack(encoding: str, content: bytes) -> Any:
    """A value from its bytes. Only the kernel opens a pickle."""
    return json.loads(content) if encoding == "json" else rlm_guest.decode(encoding, memoryview(content))


def install(shell: Any, folders: list[Path]) -> None:
    """Create the REPL of the run. Called by the setup cell. `folders`: where the log may be."""
    names = shell.user_ns
    mode = names.get("rlm_mode", "replay")
    if mode not in ("replay", "live"):
        raise ValueError(f"rlm_mode is 'replay' or 'live', not {mode!r}.")
    log, record = rlm_replay_record.read_log(names, folders)
    shell.user_ns_hidden.update({name: names[name] for name in PARAMETERS if name in names})
    uninstall(shell)
    if mode == "live":
        if (live := module_of_ours("papermill.live_notebook")) is None:
            raise rlm_replay_record.NotRecordedError(f"rlm_mode = 'live' needs rlm-kernel in this kernel. {LIVE}")
        live.begin(shell, log, names, record, calls_of(names, log, record))
        return
    ReplayGuest.record = record
    rlm_guest.Guest = ReplayGuest  # type: ignore[misc]
    rlm_guest.install(shell, {"comm_id": "rlm-record", "seed": None})
    guest = shell.kernel.rlm_guest
    show_tracebacks_of_the_run(shell, guest)
    prepare(guest, log.parent)
    guest.folded = calls_of(names, log, record)
    shell.ast_transformers.append(Skip(guest))
    count_as_the_run_did(shell, record)
    print(f"Replaying {log.name}: {len(record.cells):,} cells, {len(record.answers):,} recorded answers.")


def module_of_ours(name: str) -> Any:
    """A module of rlm-kernel, which may be installed in this kernel or not; None: it is not."""
    try:
        return importlib.import_module(f"rlm_kernel.{name}")
    except ImportError:
        return None


def calls_of(names: dict[str, Any], log: Path, record: rlm_replay_record.Record) -> dict[int, dict[str, str]]:
    """What the notebook of the run shows of its sub-calls: from its file, else made again if rlm-kernel is here."""
    opened = [os.environ.get("JPY_SESSION_NAME"), *(names.get(name) for name in NOTEBOOKS)]
    known: dict[int, dict[str, str]] = {}
    for path in (*map(Path, filter(None, opened)), log.with_name(names["rlm_log"]).with_suffix(".ipynb")):
        known = rlm_replay_record.shown_calls(rlm_replay_record.read_notebook(path), names) | known
        if record.asking <= known.keys():
            return known
    again = module_of_ours("trajectory.notebook.saved_again")
    made = {} if again is None else again.notebook_again(log, names.get("rlm_child") or [])
    return rlm_replay_record.shown_calls(made, names) | known


def uninstall(shell: Any) -> None:
    """Undo an earlier run of the setup cell."""
    live = sys.modules.get("rlm_kernel.papermill.live_notebook")
    if live is not None:
        live.end(shell)
    guest = getattr(shell.kernel, "rlm_guest", None)
    if guest is not None:
        shell.events.unregister("pre_run_cell", guest.cell_starts)
        shell.events.unregister("post_run_cell", guest.cell_ended)
        shell.ast_transformers[:] = [one for one in shell.ast_transformers if type(one).__module__ != __name__]
        vars(shell).pop("_showtraceback", None)


def prepare(guest: ReplayGuest, folder: Path) -> None:
    """Set the kernel up as in the run: its seed, setup cells, tools, earlier runs in the same kernel, and input."""
    record, earlier = guest.record, rlm_replay_record.earlier_records(guest.record, folder)
    guest.record = [*earlier, record][0]  # the first run has set the kernel up
    random.seed(record.metadata.get("seed", 0))
    for source in record.metadata.get("setup") or []:
        guest.shell.run_cell(source).raise_error()
    for tool in record.metadata.get("tools") or []:
        provide(guest, tool)
    guest.is_set_up = True
    for index, run in enumerate(earlier):
        live_through(guest, run, index, folder)
    give_context(guest, record, len(earlier), folder)


def live_through(guest: ReplayGuest, run: rlm_replay_record.Record, index: int, folder: Path) -> None:
    """Run the cells of an earlier run in the same persistent kernel."""
    give_context(guest, run, index, folder)
    with capture_output():
        for cell in run.cells.values():
            if not cell.was_cut_off:
                guest.shell.run_cell(cell.code, store_history=True)
    guest.assign(f"history_{index}", run.conversation)


def give_context(guest: ReplayGuest, run: rlm_replay_record.Record, index: int, folder: Path) -> None:
    """Begin a run: set its input in the kernel. `index`: counts the runs of the kernel from 0."""
    value = unpack(*rlm_replay_record.context_of(run.context, folder))
    if index:  # an earlier run may have changed them
        guest.assign("answer", {"content": "", "ready": False})
        guest.assign("history", [])
    if (run.metadata.get("configuration") or {}).get("persistent"):
        guest.assign(f"context_{index}", value)
    guest.assign("context", value)
    guest.record, guest.expected = run, min(run.cells, default=1)


def provide(guest: ReplayGuest, tool: dict[str, Any]) -> None:
    """Give the kernel one of the custom tools of the run."""
    name = tool["name"]
    if tool["kind"] == "function":
        guest.assign(name, rlm_guest.stand_in(guest, tool["card"]))
    elif "content" not in tool:
        print(f"The tool {name!r} is not on record: assign it yourself in a cell below.", file=sys.stderr)
    elif tool["kind"] == "code":
        guest.shell.run_cell(tool["content"]).raise_error()
    else:
        guest.assign(name, tool["content"])


def count_as_the_run_did(shell: Any, record: rlm_replay_record.Record) -> None:
    """Give the next cell its number in the run: a cell may use `_3`, `Out[3]` or its figures."""
    counts = [(cell.result or {}).get("execution_count") for cell in record.cells.values()]
    first = next((count for count in counts if count), None)

    def begin(*_: Any) -> None:
        shell.events.unregister("post_run_cell", begin)
        if first is not None:
            shell.history_manager.reset()
            shell.execution_count = first

    # Some versions of IPython count the setup cell when it begins, others when it ends.
    shell.events.register("post_run_cell", begin)

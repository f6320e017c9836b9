"""Run a script of a recorded run: its cells in a new kernel, with the recorded answers.

A part of the file beside the log (`setup_cell.py`), where it is the module `rlm_replay_script`. It needs ipykernel.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from IPython import get_ipython

if TYPE_CHECKING:
    from rlm_kernel.trajectory.notebook import replay_guest as rlm_replay_guest
else:
    import rlm_replay_guest

HEADER = re.compile(r"^# %%(.*)$", re.MULTILINE)
PREPARE = """\
exec(compile(__import__("pathlib").Path({code!r}).read_bytes(), {code!r}, "exec"), {{}})
__import__("sys").modules["rlm_replay_script"].install({folder!r})
"""


class Cell:
    """A cell of a script. `about`: what follows its `# %%`."""

    def __init__(self, about: str, text: str) -> None:
        self.about = about
        lines = text.strip("\n").split("\n")
        # What is no plain Python (magics, await) is in comments, so that Python can read the script.
        self.code = "\n".join(line[2:] for line in lines) if "[ipython]" in about else "\n".join(lines)

    @property
    def is_of_the_run(self) -> bool:
        """Whether it runs in the kernel."""
        return "[markdown]" not in self.about and "rlm-setup" not in self.about and bool(self.code.strip())


def cells_of(text: str) -> list[Cell]:
    """The cells of a script, without what stands before the first one."""
    _, *parts = HEADER.split(text)
    return [Cell(about, body) for about, body in zip(parts[::2], parts[1::2], strict=True)]


def install(folder: str) -> None:
    """Create the REPL of the run in this kernel. `folder`: of the script; the log is there, or in `rlm_dir`."""
    shell: Any = get_ipython()
    known = Path(shell.user_ns.get("rlm_dir") or ".")
    try:
        rlm_replay_guest.install(shell, [one.absolute() for one in (known, Path(known.name), Path(folder))])
    except Exception as error:
        shown = f"{type(error).__name__}: {error}"  # a traceback would show this code
        error._render_traceback_ = lambda: [shown]  # type: ignore[attr-defined]
        raise


def run_script(file: str, code: str) -> NoReturn:
    """Run the cells of a script in a new kernel of this Python until one fails, and leave Python.

    Args:
        file: the script.
        code: the file with this module.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import KernelManager

    class Here(KernelSpecManager):
        def get_kernel_spec(self, _: str) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

    manager = KernelManager(kernel_spec_manager=Here())
    manager.start_kernel(extra_arguments=["--log-level=ERROR"])
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        sys.exit(run_cells(client, Path(file).absolute(), code))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_cells(client: Any, script: Path, code: str) -> int:
    """The exit code: 0, or 1 if a cell failed that did not fail in the run."""
    parameters, *cells = [cell for cell in cells_of(script.read_text("utf-8")) if cell.is_of_the_run]
    first = Cell("", f"{parameters.code}\n{PREPARE.format(code=code, folder=str(script.parent))}")
    for cell in (first, *cells):
        reply = client.execute_interactive(cell.code, allow_stdin=False, output_hook=show)
        if reply["content"]["status"] != "ok" and "raises-exception" not in cell.about:
            return 1
    asked = {"answer": "get_ipython().kernel.rlm_guest.answered"}
    told = client.execute("", silent=True, user_expressions=asked, reply=True)["content"]["user_expressions"]["answer"]
    answer = ast.literal_eval(told["data"]["text/plain"])
    if answer is not None:
        print(f"Answer: {answer}")
    return 0


def show(message: dict[str, Any]) -> None:
    """Print an output of a cell; not the sub-calls, which our own code shows."""
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        print(content["text"], end="", file=sys.stderr if content["name"] == "stderr" else sys.stdout)
    elif kind == "error":
        print("\n".join(content["traceback"]), file=sys.stderr)
    elif kind in ("display_data", "execute_result") and content["metadata"].get("rlm") != {"role": "calls"}:
        print(content["data"].get("text/plain", ""))

"""The setup cell of a notebook, and the file beside the log that it runs.

The file holds the modules of `kernel/guest/` and the two `replay_*.py` files, so a kernel that has ipykernel and no
rlm-kernel can run the notebook. It is named after its content: all notebooks of a folder share it, and another version
of rlm-kernel writes another file. The setup cell holds its SHA-256 and runs no other content.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import inspect
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rlm_kernel.guest_sources import guest_sources
from rlm_kernel.trajectory.log.atomic_files import is_there, write_whole

_MODULES = {
    "rlm_replay_record": "trajectory/notebook/replay_record.py",
    "rlm_replay_guest": "trajectory/notebook/replay_guest.py",
    "rlm_replay_script": "trajectory/notebook/replay_script.py",
}

_FILE = """\
# Replays the notebooks in this folder from the logs in it, in a kernel without rlm-kernel. Written by rlm-kernel.
# Do not edit: the notebooks check the SHA-256 of this file and run it only if it is unchanged.

import sys
import types

SOURCES = {{
{sources}
}}

MODULES = {{name: types.ModuleType(name) for name in SOURCES}}
sys.modules.update(MODULES)
for name, module in MODULES.items():
    package = module.__package__ = name.partition(".")[0]
    exec(compile(SOURCES[name], f"{{package}}.py", "exec"), module.__dict__)


def run_script(file):
    MODULES["rlm_replay_script"].run_script(file, __file__)
"""

_COMMENT = """\
# Answers what the cells below ask (llm_query, tools, context) from the log of the run: no key, no network.
# The code is in the file beside the log that the last line names. rlm-kernel's own engine does not need this cell."""


class ReplayCode(NamedTuple):
    """The file that the setup cell runs: its name and its content."""

    name: str
    content: bytes


@cache
def replay_code() -> ReplayCode:
    """The file of this version of rlm-kernel."""
    package = importlib.resources.files("rlm_kernel")
    texts = guest_sources() | {name: (package / file).read_text("utf-8") for name, file in _MODULES.items()}
    sources = "\n".join(f"    {name!r}: r'''{text}'''," for name, text in texts.items())
    content = _FILE.format(sources=sources).encode("utf-8")
    return ReplayCode(f"rlm_replay_{hashlib.sha256(content).hexdigest()[:12]}.py", content)


def write_replay_code(folder: Path) -> None:
    """Write the file into a folder, unless the same is there.

    Raises:
        OSError: it could not be written.
    """
    name, content = replay_code()
    path = folder / name
    if not (is_there(path, len(content)) and path.read_bytes() == content):
        write_whole(path, content)


def rlm_setup(file: str, sha256: str) -> None:
    """Run the file, unless a host has prepared the kernel already."""
    import hashlib
    import os
    import sys
    from pathlib import Path

    from IPython import get_ipython

    if "rlm_guest" in sys.modules and "rlm_replay_guest" not in sys.modules:
        return
    names = get_ipython().user_ns
    log, folder = names["rlm_log"], Path(names.get("rlm_dir") or ".")
    opened = names.get("__vsc_ipynb_file__") or names.get("PAPERMILL_INPUT_PATH") or ""
    notebook = Path(os.environ.get("JPY_SESSION_NAME") or opened)
    looked = (folder, Path(folder.name), Path(), notebook.parent, Path(".."), notebook.parent.parent)
    folders = list(dict.fromkeys(one.absolute() for one in looked))

    def run() -> None:
        found = next((folder / file for folder in folders if (folder / file).is_file()), None)
        if found is None:
            raise ImportError(
                f"{file}, which replays this notebook, is not beside its log (looked for {log} and {file} in "
                f"{', '.join(map(str, folders))}).\nIf the run is elsewhere, set rlm_dir in the cell above (papermill: "
                f"-p rlm_dir FOLDER or --inject-paths).\nA notebook travels with its log (both .jsonl files), "
                f"contexts/, prompts/ and {file}. Where these are, `rlm export --bundle {log}` makes one file that "
                f"holds all.\nIf only {file} is missing, `rlm export {log} -o NEW.ipynb` writes it again."
            )
        source = found.read_bytes()
        if hashlib.sha256(source).hexdigest() != sha256:
            raise ImportError(
                f"{found} was altered, so it is not run: write it again with `rlm export {log} -o NEW.ipynb`."
            )
        exec(compile(source, str(found), "exec"), {})
        sys.modules["rlm_replay_guest"].install(get_ipython(), folders)

    try:
        run()
    except Exception as error:
        shown = f"{type(error).__name__}: {error}"  # a traceback would show this code
        error._render_traceback_ = lambda: [shown]  # type: ignore[attr-defined]
        raise


@cache
def source() -> str:
    """The source of the setup cell."""
    name, content = replay_code()
    digest = hashlib.sha256(content).hexdigest()
    return f"{_COMMENT}\n\n{inspect.getsource(rlm_setup)}\n\nrlm_setup({name!r}, {digest!r})\ndel rlm_setup"

"""The setup cell of a notebook: it makes a stock kernel answer as the run was answered, from the log beside it.

The cell holds the sources of `guest.py` and of the two `replay_*.py` files as they are, so a kernel that has ipykernel
and nothing of ours can run the notebook. They become modules: no name of theirs is a variable of the notebook. Each is
one line, because few clients fold a cell that asks to be folded.
"""

from __future__ import annotations

import importlib.resources
import inspect
from functools import cache

_SAYS = """\
# What the cells below ask (llm_query, tools, context) is answered from the log of the run: no key, no network.
# Three files of rlm-kernel, a line each; all they need is IPython. In our own engine this cell does nothing."""


_FILES = {
    "rlm_guest": "kernel/guest.py",
    "rlm_replay_record": "trajectory/notebook/replay_record.py",
    "rlm_replay_guest": "trajectory/notebook/replay_guest.py",
}


def rlm_setup(**sources: str) -> None:
    """Make the sources modules and have the last one prepare the kernel, unless a host has done so."""
    import sys
    import types

    from IPython import get_ipython

    if "rlm_guest" in sys.modules and "rlm_replay_guest" not in sys.modules:
        return
    modules = {name: types.ModuleType(name) for name in sources}
    sys.modules.update(modules)
    for name, module in modules.items():
        exec(compile(sources[name], f"{name}.py", "exec"), module.__dict__)
    modules["rlm_replay_guest"].install(get_ipython())


@cache
def source() -> str:
    """The source of the cell."""
    package = importlib.resources.files("rlm_kernel")
    given = "\n".join(f"    {name}={(package / file).read_text('utf-8')!r}," for name, file in _FILES.items())
    return f"{_SAYS}\n\n{inspect.getsource(rlm_setup)}\n\nrlm_setup(\n{given}\n)\ndel rlm_setup"

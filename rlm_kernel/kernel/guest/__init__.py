"""The model's REPL inside the kernel. Only this package runs there.

It needs the standard library, IPython and ipykernel only. The host sends the sources of its modules in one silent
request, which makes them `rlm_guest` and `rlm_guest.wire` and so on, and calls `install`. They import each other
relatively, because the package has another name on the host. After that both ends exchange `comm_msg`s, listed in
`protocol.py`. The guest sends on IOPub; the host sends on the control channel, whose thread is free while a cell runs.

The code of a model can change everything here. The host trusts none of it.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from .decoding import decode
from .hooks import end_whole, escape_surrogates, note_reply, remember_displays, skip_empty_flushes, wake_after_interrupt
from .leftovers import end_question
from .names import Budget, answer_names, budget_name, ignore_exit, refuse_input
from .questions import FailedQuery, QueryError, query_names
from .repl import Guest
from .tools import ToolError, stand_in

__all__ = [
    "Budget",
    "FailedQuery",
    "Guest",
    "QueryError",
    "ToolError",
    "decode",
    "end_question",
    "install",
    "read_final",
    "stand_in",
]

for _made in (Budget, FailedQuery, QueryError, ToolError, ignore_exit, refuse_input):
    _made.__module__ = __name__  # a model sees it, and a pickle holds it


def install(shell: Any, settings: dict[str, Any]) -> None:
    """Set up the REPL. Called once in each kernel, by the host's first request."""
    guest = Guest(shell, settings["comm_id"])
    kernel = shell.kernel
    shell.enable_tip = False  # the banner of each kernel_info_request would advance the module `random` for a tip
    if settings["seed"] is not None:
        random.seed(settings["seed"])
    kernel.rlm_guest = guest
    kernel.control_handlers["comm_msg"] = guest.on_control
    if hasattr(kernel.control_stream, "on_recv"):
        kernel.control_stream.on_recv(guest.on_frames, copy=False)
    # By default IOPub drops messages for a reader that is 1,000 messages behind.
    kernel.iopub_thread.schedule(lambda: setattr(kernel.iopub_thread.socket, "sndhwm", 0))
    escape_surrogates(kernel.session)
    for stream in (sys.stdout, sys.stderr):
        skip_empty_flushes(stream)
    remember_displays(guest, shell.display_pub, "publish")
    remember_displays(guest, shell.displayhook, "write_format_data")
    kernel.raw_input = kernel.getpass = refuse_input
    kernel.do_execute = end_whole(guest, kernel.do_execute)
    note_reply(guest)
    wake_after_interrupt(kernel)
    guest.ours = {
        **query_names(guest, "llm_query", "Ask a language model."),
        **query_names(guest, "rlm_query", "Ask a recursive language model, which has a REPL of its own."),
        **answer_names(guest),
        **dict.fromkeys(("exit", "quit"), ignore_exit),
        "answer": {"content": "", "ready": False},
        "history": [],
    }
    shell.user_ns.update(guest.ours)
    shell.user_ns_hidden.update(guest.ours)
    ordinary = budget_name(guest) | {made.__name__: made for made in (QueryError, FailedQuery, ToolError)}
    shell.push({name: made for name, made in ordinary.items() if name not in shell.user_ns}, interactive=False)
    shell.events.register("pre_run_cell", guest.cell_starts)
    shell.events.register("post_run_cell", guest.cell_ended)


def read_final(shell: Any) -> None:
    """Report the variable that the request names as the final answer. The host runs this as a silent cell."""
    guest = shell.kernel.rlm_guest
    guest.cell_starts()
    request = guest.parent["metadata"]["rlm"]
    take = guest.take_plain if request.get("plain") else guest.take_variable
    take(request["name"])
    guest.cell_ended()

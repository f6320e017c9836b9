"""Put the guest into a kernel: our first request there, silent, with the source of `guest.py` in its metadata."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from typing import Any

from rlm_kernel.errors import KernelError
from rlm_kernel.wire import COMM_ID, GUEST_MODULE

# The source and the settings are in the request's metadata: nothing is spliced into code.
INSTALL = f"""
def _install(shell):
    import sys, types
    request = shell.kernel.get_parent("shell")["metadata"]["rlm"]
    module = sys.modules["{GUEST_MODULE}"] = types.ModuleType("{GUEST_MODULE}")
    exec(compile(request["source"], "{GUEST_MODULE}.py", "exec"), module.__dict__)
    module.install(shell, request)
_install(get_ipython())
del _install
"""


def settings(seed: int | None) -> dict[str, Any]:
    """What the request carries. `seed`: of `random`; None: any."""
    source = importlib.resources.files("rlm_kernel").joinpath("guest.py").read_text("utf-8")
    return {"source": source, "comm_id": COMM_ID, "seed": seed}


def check_installed(reply: Mapping[str, Any]) -> None:
    """See what the kernel replied.

    Raises:
        KernelError: the guest did not start.
    """
    if reply.get("status") == "error":
        raise KernelError(f"The guest did not start: {reply.get('ename')}: {reply.get('evalue')}")

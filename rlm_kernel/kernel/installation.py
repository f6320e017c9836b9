"""Install the guest in a kernel: the first request, silent, with the sources of `guest/` in its metadata."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import KernelError
from rlm_kernel.guest_sources import GUEST_MODULE, guest_sources
from rlm_kernel.kernel.channels import Receiver
from rlm_kernel.kernel.protocol import COMM_ID

if TYPE_CHECKING:
    from rlm_kernel.kernel.process import Kernel

# The sources and the settings are in the request's metadata, not in its code.
INSTALL_CODE = f"""
def _install(shell):
    import builtins, sys, types
    request = shell.kernel.get_parent("shell")["metadata"]["rlm"]
    compiled = getattr(sys.modules.get("rlm_kernel.provisioners.launcher"), "compiled", {{}})
    own, modules = dict(vars(builtins)), {{name: types.ModuleType(name) for name in request["sources"]}}
    sys.modules.update(modules)
    for (name, source), module in zip(request["sources"].items(), modules.values()):
        module.__package__, module.__builtins__ = "{GUEST_MODULE}", own
        exec(compiled.get(source) or compile(source, "{GUEST_MODULE}.py", "exec"), module.__dict__)
    modules["{GUEST_MODULE}"].install(shell, request)
_install(get_ipython())
del _install
"""


_VERSION = re.compile(r"'(\d[\w.+]{0,30})'")


async def install_guest(kernel: Kernel, seed: int | None, receiver: Receiver) -> None:
    """Install the guest, and wait until the kernel is ready for cells.

    Args:
        kernel: it was just started, or runs the cells of another client.
        seed: of `random` in the kernel; None: random.
        receiver: takes the messages of the kernel, but for the reply to this request.

    Raises:
        KernelError: the kernel ended or did not answer in time, or the guest did not start.
    """
    content = {"code": INSTALL_CODE, "silent": True, "store_history": False, "allow_stdin": False}
    content["user_expressions"] = {"python": "__import__('platform').python_version()"}
    metadata = {"rlm": {"sources": guest_sources(), "comm_id": COMM_ID, "seed": seed}}
    asked = kernel.channels.send("shell", "execute_request", content, metadata=metadata)
    replied: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def take_reply(message: dict[str, Any]) -> None:
        if message["parent_header"].get("msg_id") == asked and not replied.done():
            replied.set_result(dict(message["content"]))

    handlers = {**receiver.handlers, ("shell", "execute_reply", ""): take_reply}
    kernel.channels.listen(Receiver(handlers, receiver.on_forged))
    await kernel.ready(replied)
    kernel.channels.listen(receiver)
    if (reply := replied.result()).get("status") == "error":
        raise KernelError(f"The guest did not start: {reply.get('ename')}: {reply.get('evalue')}")
    kernel.python = _version_in(reply)


def _version_in(reply: Mapping[str, Any]) -> str:
    """The version of Python in a reply; empty if it is not there."""
    match reply.get("user_expressions"):
        case {"python": {"data": {"text/plain": str(shown)}}} if found := _VERSION.fullmatch(shown):
            return found[1]
    return ""

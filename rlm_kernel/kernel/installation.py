"""Install the guest in a kernel: the first request, silent, with the source of `guest.py` in its metadata."""

from __future__ import annotations

import asyncio
import importlib.resources
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import KernelError
from rlm_kernel.kernel.channels import Receiver
from rlm_kernel.kernel.protocol import COMM_ID, GUEST_MODULE

if TYPE_CHECKING:
    from rlm_kernel.kernel.process import Kernel

# The source and the settings are in the request's metadata, not in its code.
INSTALL_CODE = f"""
def _install(shell):
    import builtins, sys, types
    request = shell.kernel.get_parent("shell")["metadata"]["rlm"]
    module = sys.modules["{GUEST_MODULE}"] = types.ModuleType("{GUEST_MODULE}")
    module.__builtins__ = dict(vars(builtins))
    compiled = getattr(sys.modules.get("rlm_kernel.provisioners.launcher"), "compiled", {{}})
    code = compiled.get(request["source"]) or compile(request["source"], "{GUEST_MODULE}.py", "exec")
    exec(code, module.__dict__)
    module.install(shell, request)
_install(get_ipython())
del _install
"""


async def install_guest(kernel: Kernel, seed: int | None, receiver: Receiver) -> None:
    """Install the guest, and wait until the kernel is ready for cells.

    Args:
        kernel: it was just started, or runs the cells of another client.
        seed: of `random` in the kernel; None: random.
        receiver: takes the messages of the kernel, but for the reply to this request.

    Raises:
        KernelError: the kernel ended or did not answer in time, or the guest did not start.
    """
    source = importlib.resources.files("rlm_kernel.kernel").joinpath("guest.py").read_text("utf-8")
    content = {"code": INSTALL_CODE, "silent": True, "store_history": False, "allow_stdin": False}
    metadata = {"rlm": {"source": source, "comm_id": COMM_ID, "seed": seed}}
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

"""A remote kernel as a plain command, for clients that run a kernelspec's `argv` and ignore provisioners.

    python -P -m rlm_kernel.provisioners.relay.proxy rlm-docker -f CONNECTION_FILE

The kernel is reachable at the ports or ipc paths of the connection file. The command runs as long as the kernel, and
ends the kernel when it is terminated or when its client has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, NoReturn

from rlm_kernel import terminal
from rlm_kernel._async import Job
from rlm_kernel.errors import RLMError
from rlm_kernel.provisioners import kernelspecs
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.provisioners.relay.host_end import interrupt
from rlm_kernel.provisioners.relay.provisioner import RelayedKernel

CLIENT_CHECK_SECONDS = 1.0
FAILED = 1
TERMINATED = 128 + signal.SIGTERM


def main(argv: list[str]) -> NoReturn:
    """Start the kernel, wait for its end, and exit with its status."""
    name, file = argv[0], Path(argv[argv.index("-f") + 1])
    connection = json.loads(file.read_text("utf-8"))
    job = Job(serve(name, connection))
    signal.signal(signal.SIGTERM, lambda *_: job.cancel())
    signal.signal(signal.SIGINT, lambda *_: interrupt(connection))
    try:
        status = job.wait()
    except CancelledError:
        status = TERMINATED
    except RLMError as error:
        terminal.print_note(str(error))
        status = FAILED
    sys.exit(status)


async def serve(name: str, connection: Any) -> int:
    """Run a kernel at the addresses of `connection` until it or our parent process ends.

    Args:
        name: of one of our kernelspecs.
        connection: the content of the connection file.

    Returns:
        the exit status of the kernel.

    Raises:
        RLMError: it cannot be started.
    """
    client = os.getppid()
    provisioner = _provisioner(name)
    provisioner.connection_info = connection
    provisioner.launch_directory = Path.cwd()
    link = provisioner.link = await provisioner.open_relay()
    try:
        while not link.ended.done() and os.getppid() == client:
            await asyncio.wait({link.ended}, timeout=CLIENT_CHECK_SECONDS)
        return link.ended.result() if link.ended.done() else TERMINATED
    finally:
        await link.close()
        terminal.print_note(provisioner.diagnosis())


def _provisioner(name: str) -> RelayedKernel:
    """The provisioner of a kernelspec, with the configuration in it."""
    config = environment(name, None).load().metadata["kernel_provisioner"]
    found = kernelspecs.provisioner_class(config["provisioner_name"])(**config["config"])
    if not isinstance(found, RelayedKernel):
        raise RLMError(f"The kernelspec {name!r} needs no relay.")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])

"""Whether this process may open as many files as a kernel needs.

Otherwise the errors are obscure: ipykernel has 60 files open, and at the limit every cell fails inside IPython. libzmq
ends a process that cannot open another file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rlm_kernel.errors import KernelError

MIN_LIMIT = 128
"""Files that a process may have open; a kernel on this machine has the same limit as this process."""
MIN_FREE = 24
"""Files that can still be opened: for the kernel's sockets, and for its start."""

_LISTED = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")


def check_open_files() -> None:
    """Check that one more kernel can be started.

    Raises:
        KernelError: the limit is too low; the message names it and what to do.
    """
    limit = _limit()
    if limit is None:
        return
    if limit < MIN_LIMIT:
        raise KernelError(
            f"A process may have {limit} files open here, and a kernel needs {MIN_LIMIT}: raise that with "
            "`ulimit -n 1024`."
        )
    if (open_now := len(list(_LISTED.iterdir()))) > limit - MIN_FREE:
        raise KernelError(
            f"Too many open files: this process has {open_now} of {limit} that it may have, and one more kernel needs "
            f"{MIN_FREE}. Raise that with `ulimit -n {4 * limit}`, or run fewer kernels at a time."
        )


def _limit() -> int | None:
    """How many files a process may have open; None: any number, or the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit

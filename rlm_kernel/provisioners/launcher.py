"""The two processes of a kernel: a watchdog, and ipykernel as its child.

    python -P -m rlm_kernel.provisioners.launcher [--host-pipe] [--memory BYTES] [--remove DIR] [--connection FD]
        [--group PATHS] [--hidden] -f CONNECTION_FILE ...
    python launcher.py --host-pipe --contained [--handover SOCKET] -f CONNECTION_FILE     (first process of a container)

The watchdog ends the kernel and all processes that the kernel started when its host ends, even by SIGKILL. With
`--host-pipe` its standard input is a pipe that only the host holds open, so the end of the pipe is the end of the host.
On Linux it also reaps the orphans below it, so processes that have left the kernel's group are found too.

`--connection`: a pipe with what the connection file would contain, and the numbers of the sockets that the host listens
at. `--group`: the directories of the kernel's control group, as JSON.

`--contained`: the watchdog is alone with the kernel, whose code runs as the same user. That code must not stop, end or
trace the watchdog. So no signal ends it: the end of its input does, and the end of the container. If the system kills
the kernel for its memory, a message says so. `--handover`: the kernel's sockets belong to the host, which passes them
through this one, so the kernel needs no writable directory of the host.

It uses the standard library only, with few imports: the kernel is forked from it, and waits for it. It also runs where
the rest of the package is missing, sent or mounted as a file.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, NoReturn

HOST_CHECK_SECONDS = 1.0
KILL_SECONDS = 5.0
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
_QUICK = {"HistoryManager": {"enabled": False}, "IPythonKernel": {"_execute_sleep": 0.0}}
"""A cell does not wait for the SQLite file of the history, and not half a millisecond for its output."""
_OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
OUT_OF_MEMORY = "The system killed the kernel: it used all the memory that there is."
_FLAGS = ("--host-pipe", "--contained", "--hidden")
_OPTIONS = ("--handover", "--memory", "--remove", "--connection", "--group")
NEVER_IGNORED = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
"""The first two cannot be ignored. If the last one was, no child could be waited for."""
_CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
PR_SET_CHILD_SUBREAPER = 36
_M_ARENA_MAX = -8
_OWN_ARGUMENTS = 2
"""`-f CONNECTION_FILE`."""
compiled: dict[str, CodeType] = {}
"""Code that a fork need not compile, by its source: the guest's, in the fork server."""
_prepared: list[Any] = []
"""The application of ipykernel, made by the fork server for its forks."""


def main(argv: list[str]) -> NoReturn:
    """Fork the kernel and watch it. Exits with the kernel's exit status, as a shell reports it."""
    options, kernel_argv = _parse(argv)
    # JPY_PARENT_PID names the host: ipykernel would watch a process that is not its parent.
    os.environ.pop("JPY_PARENT_PID", None)
    watchdog = os.getpid()
    connection, handed_over = _taken(options, kernel_argv)
    kernel = os.fork()
    if kernel == 0:
        _join(options)
        memory = int(options["--memory"]) if "--memory" in options else None
        become_kernel(
            watchdog,
            kernel_argv,
            memory=memory,
            listening=handed_over,
            connection=connection,
            hidden="--hidden" in options,
        )
    for fd in handed_over.values():
        os.close(fd)
    set_child_subreaper()
    continue_when_host_ends()
    if "--contained" in options:
        _prctl(PR_SET_DUMPABLE, 0)
    ignore_signals()
    if "--contained" not in options:  # the provisioner ends a local watchdog with one of these
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end_with(kernel))
    status = _watch(kernel, pipe="--host-pipe" in options)
    _end_group(options)
    _kill_everything_below(kernel)
    if "--contained" in options and status == 128 + signal.SIGKILL and _out_of_memory():
        sys.stderr.write(f"{OUT_OF_MEMORY}\n")
        sys.stderr.flush()
    if status is None and "--remove" in options:
        import shutil

        shutil.rmtree(options["--remove"], ignore_errors=True)
    os._exit(status if status is not None else 128 + signal.SIGKILL)


def _parse(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split the arguments into our options, which come first, and those of ipykernel."""
    options: dict[str, str] = {}
    rest = list(argv)
    while rest and rest[0] in (*_FLAGS, *_OPTIONS):
        name = rest.pop(0)
        options[name] = "" if name in _FLAGS else rest.pop(0)
    return options, rest


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def set_child_subreaper() -> None:
    """Become the parent of the orphans below this process (Linux)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """Keep other processes of this user from reading the memory of this one, or tracing it (Linux)."""
    _prctl(PR_SET_DUMPABLE, 0)


def continue_when_host_ends() -> None:
    """Have this process continued when its parent ends: a cell may have stopped it (Linux)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGCONT)


def _taken(options: dict[str, str], argv: list[str]) -> tuple[dict[str, Any] | None, dict[str, int]]:
    """The connection, if it is not in a file, and the listening sockets, that the host hands over."""
    if "--connection" in options:
        return _take_connection(int(options["--connection"]))
    return None, _take_sockets(options["--handover"], argv) if "--handover" in options else {}


def _take_sockets(handover: str, argv: list[str]) -> dict[str, int]:
    """The listening sockets that the host hands over, by the address that the kernel binds."""
    import json
    import socket

    with open(argv[argv.index("-f") + 1]) as file:  # noqa: PTH123
        connection = json.load(file)
    with socket.socket(socket.AF_UNIX) as host:
        host.connect(handover)
        _, fds, _, _ = socket.recv_fds(host, 1, len(_CHANNELS))
    ports = (connection[f"{channel}_port"] for channel in _CHANNELS)
    return {f"ipc://{connection['ip']}-{port}": fd for port, fd in zip(ports, fds, strict=True)}


def _take_connection(fd: int) -> tuple[dict[str, Any], dict[str, int]]:
    """What a connection file contains, and the listening sockets by the addresses that the kernel binds."""
    import json

    with open(fd, encoding="utf-8") as pipe:
        taken: dict[str, Any] = json.load(pipe)
    for socket in taken["listening"].values():
        os.set_inheritable(socket, False)
    return taken["connection"], taken["listening"]


def _join(options: dict[str, str]) -> None:
    """Move this process into the kernel's control group."""
    if "--group" in options:
        import json

        from rlm_kernel.provisioners import cgroups

        cgroups.add(json.loads(options["--group"]), os.getpid())


def _end_group(options: dict[str, str]) -> None:
    """Kill the kernel's control group and remove it."""
    if "--group" in options:
        import json

        from rlm_kernel.provisioners import cgroups

        cgroups.end(json.loads(options["--group"]), KILL_SECONDS)


def _out_of_memory() -> bool:
    """Whether the system killed a process of our control group for its memory."""
    for name in _OOM_COUNTERS:
        with contextlib.suppress(OSError), open(name) as counters:  # noqa: PTH123
            return any(line.split()[0] == "oom_kill" and line.split()[1] != "0" for line in counters)
    return False


def prepare_forks(guest: Iterable[str], name: str) -> None:
    """Do once, in the fork server, what each kernel would do.

    Compiles the guest and IPython's regular expressions, makes ipykernel's application, and limits the memory of the
    threads.

    Args:
        guest: the sources of its modules.
        name: the file name in its tracebacks.
    """
    compiled.update((source, compile(source, name, "exec", dont_inherit=True)) for source in guest)
    with contextlib.suppress(ImportError, TypeError, AttributeError):  # another version of IPython
        from IPython.core.completer import IPCompleter
        from IPython.core.inputtransformer2 import TransformerManager

        IPCompleter()  # type: ignore[no-untyped-call]
        TransformerManager().transform_cell("%who\n!ls\nvalue?\n")  # type: ignore[no-untyped-call]
    _prepared.append(kernel_app())
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError):  # a C library without it
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def become_kernel(
    watchdog: int,
    argv: list[str],
    *,
    memory: int | None,
    listening: dict[str, int],
    connection: dict[str, Any] | None = None,
    hidden: bool = False,
) -> NoReturn:
    """Turn this process into ipykernel, in its own process group: interrupts reach its children, not the watchdog.

    Args:
        watchdog: the parent process. The kernel ends with it.
        argv: ipykernel's arguments.
        memory: bytes that the kernel may allocate; None: no limit.
        listening: descriptors of the sockets that the host listens at, by their addresses.
        connection: what a connection file contains; None: `argv` names the file.
        hidden: whether other processes of this user may not read its memory.
    """
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != watchdog:
        os._exit(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if memory is not None:
        _limit_memory(memory)
    if hidden:
        hide_memory()
    if listening:
        _reuse_sockets(listening)
    _run_ipykernel(argv, connection)
    sys.exit(0)


def _reuse_sockets(handed_over: dict[str, int]) -> None:
    """Make a bind to one of these addresses use the socket that already listens there."""
    import zmq

    bind = zmq.Socket.bind

    def bind_or_use(socket: Any, address: str) -> Any:
        fd = handed_over.pop(address, None)
        if fd is not None:
            socket.setsockopt(zmq.USE_FD, fd)
        return bind(socket, address)

    zmq.Socket.bind = bind_or_use  # type: ignore[assignment,method-assign]


def _run_ipykernel(argv: list[str], connection: dict[str, Any] | None) -> None:
    """Start ipykernel without debugpy: its import takes as long as all the others together."""
    gc.disable()  # imports make no garbage
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    app = _prepared[0] if _prepared else kernel_app()
    sys.argv = ["ipykernel_launcher", *argv]
    app.connection = connection
    app.initialize(argv)
    # The handler drops what is below its level. A record that only it would see is not made.
    app.log.setLevel(app.log_level)
    del sys.modules["debugpy"]  # a cell may import it
    gc.enable()
    app.start()
    # After a `shutdown_request` the control thread still flushes. At exit ipykernel stops the IOPub thread first, and
    # the flush would wait for ten seconds, or forever.
    app.control_thread.stop()
    app.control_thread.join()


def kernel_app() -> Any:
    """The application of ipykernel, before it reads its arguments: without a thread or a socket."""
    from ipykernel.kernelapp import IPKernelApp
    from traitlets.config import Config

    class EngineKernelApp(IPKernelApp):  # type: ignore[misc]
        """Drops no message: with zmq's limit of 1,000 a busy machine loses output before it is sent.

        Attributes:
            connection: what a connection file contains; None: the arguments name the file.
        """

        connection: dict[str, Any] | None = None

        def parse_command_line(self, argv: list[str] | None = None) -> None:
            """Take our own arguments as they are: the parser and its 60 options take 6 ms of CPU."""
            self.update_config(Config(_QUICK))
            if argv is None or len(argv) != _OWN_ARGUMENTS or argv[0] != "-f":
                super().parse_command_line(argv)
            else:
                self.argv = list(argv)
                self.update_config(Config(IPKernelApp={"connection_file": argv[1]}))

        def _bind_socket(self, s: Any, port: int) -> Any:
            s.sndhwm = s.rcvhwm = 0
            return super()._bind_socket(s, port)

        def init_connection_file(self) -> None:
            if self.connection is None:
                super().init_connection_file()
            else:
                self.load_connection_info(self.connection)

        def write_connection_file(self, **kwargs: Any) -> None:
            if self.connection is None:
                super().write_connection_file(**kwargs)

    return EngineKernelApp.instance()


def _limit_memory(limit: int) -> None:
    """Limit the kernel's memory. RLIMIT_DATA counts private memory, not the address space that threads reserve."""
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    resource.setrlimit(kind, (limit, limit))


def ignore_signals() -> None:
    """Ignore all signals: the code of the kernel may send any."""
    for number in signal.valid_signals() - NEVER_IGNORED:
        signal.signal(number, signal.SIG_IGN)


def _watch(kernel: int, *, pipe: bool) -> int | None:
    """Wait for the end of the kernel (returns its exit status) or of the host (returns None)."""
    host = os.getppid()
    exited = os.pidfd_open(kernel) if hasattr(os, "pidfd_open") else None
    watched = [fd for fd in (0 if pipe else None, exited) if fd is not None]
    while True:
        pause = HOST_CHECK_SECONDS if exited is not None else 0.05
        readable, _, _ = select.select(watched, [], [], pause)
        status = _reap(kernel)
        if status is not None:
            return exit_status(status)
        if (0 in readable and os.read(0, 1) == b"") or os.getppid() != host:
            return None


def _reap(kernel: int) -> int | None:
    """Reap ended orphans and the kernel. Returns the kernel's status if it has ended."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == kernel:
            return status
        if pid == 0:
            return None


def _end_with(kernel: int) -> Callable[[int, object], None]:
    """A signal handler that ends the kernel and this process."""

    def end(number: int, _: object) -> None:
        _kill_everything_below(kernel)
        os._exit(128 + number)

    return end


def exit_status(status: int) -> int:
    """The exit status as a shell reports it, from that of `waitpid`."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _kill_everything_below(kernel: int) -> None:
    """Kill the kernel's group, then the processes that were re-parented to us, until none is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(kernel, signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline:
        for child in children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.0005)
        except ChildProcessError:
            return


def children() -> list[int]:
    """Our children, from Linux's /proc; empty on other systems, where only the kernel's group is known."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:  # noqa: PTH123 (pathlib costs an import)
            return [int(pid) for pid in listing.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    main(sys.argv[1:])

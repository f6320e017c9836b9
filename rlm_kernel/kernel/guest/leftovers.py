"""What cells have started, ended with their question."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import importlib
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures.thread import ThreadPoolExecutor, _worker
from types import CodeType, FunctionType
from typing import Any

from .values import attempt

END_SECONDS = 1.0
WAITS_FOR_WORK = _worker.__code__
DISPLAYS = ("matplotlib_inline", "IPython", "ipywidgets")


class Begun:
    """What the kernel does of itself and of its setup. A question of a persistent kernel ends with all the rest."""

    def __init__(self, shell: Any) -> None:
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.codes = codes_of("ipykernel")
        self.tasks = asyncio.all_tasks()
        self.timers = list(getattr(loop, "_scheduled", ()))
        self.readers = self.read()
        self.threads = set(sys._current_frames())
        self.children = set(self.below())
        self.handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        hooks = [*shell.events.callbacks.values(), shell.ast_transformers, shell.input_transformers_post]
        self.hooks = [(hook, list(hook)) for hook in (*hooks, shell.input_transformers_cleanup, gc.callbacks)]

    def read(self) -> set[int]:
        """The descriptors that the loop watches."""
        selector = getattr(self.loop, "_selector", None)
        return set() if selector is None else set(selector.get_map())

    def below(self) -> list[Any]:
        """The processes below the kernel. Landlock hides them; then only the host ends them."""
        psutil = importlib.import_module("psutil")  # ipykernel needs it
        try:
            return list(psutil.Process().children(recursive=True))
        except (OSError, psutil.Error):
            return []

    def end_callbacks(self) -> None:
        """Remove hooks of IPython, signal handlers and timers, and callbacks of the loop."""
        sys.settrace(None)
        sys.setprofile(None)
        for hook, before in self.hooks:
            hook[:] = [made for made in hook if made in before or is_part(made, DISPLAYS)]
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        for number, handler in self.handlers.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        for fd in self.read() - self.readers:
            self.loop.remove_reader(fd)
            self.loop.remove_writer(fd)
        for handle in [*getattr(self.loop, "_scheduled", ()), *getattr(self.loop, "_ready", ())]:
            if handle not in self.timers and not is_of_loop(handle):
                handle.cancel()

    def others(self) -> list[Any]:
        """The tasks of cells that go on."""
        made = asyncio.all_tasks() - self.tasks - {asyncio.current_task()}
        return [task for task in made if getattr(task.get_coro(), "cr_code", None) not in self.codes]

    def running(self) -> set[int]:
        """The identifiers of the threads that go on. Those of ipykernel serve clients; those of executors may wait."""
        ours = {thread.ident for thread in threading.enumerate() if is_part(type(thread), ("ipykernel",))}
        going_on = {ident for ident, frame in sys._current_frames().items() if frame.f_code is not WAITS_FOR_WORK}
        return going_on - self.threads - ours - {threading.get_ident()}

    def end(self) -> None:
        """Ask tasks, threads and processes to end."""
        for task in self.others():
            task.cancel()
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.cancel()
        if any(type(thread) is threading.Thread for thread in threading.enumerate()):
            cancel_work()
        if monitor := getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "monitor", None):
            attempt(monitor.exit)  # it waits ten seconds at a time, in which nothing else ends it
        for ident in self.running():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit))
        for process in set(self.below()) - self.children:
            attempt(process.kill)

    def left(self) -> list[str]:
        """What goes on."""
        counts = {"task": len(self.others()), "thread": len(self.running())}
        return [f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count]


def codes_of(package: str) -> set[Any]:
    """The code of the functions and methods of a package, and of those that they make."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == package]
    values = [value for module in modules for value in vars(module).values()]
    values += [made for value in values if isinstance(value, type) for made in vars(value).values()]
    found = [made.__code__ for made in values if isinstance(made, FunctionType)]
    for code in found:
        found += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return set(found)


def is_part(made: Any, packages: Iterable[str]) -> bool:
    """Whether a class, function or bound method is found in one of these packages under its own name."""
    made = getattr(made, "__func__", made)
    found = sys.modules.get(made.__module__) if isinstance(getattr(made, "__module__", None), str) else None
    if found is None or found.__name__.partition(".")[0] not in packages:
        return False
    for name in str(getattr(made, "__qualname__", "")).split("."):
        found = getattr(found, name, None)
    return found is made


def is_of_loop(handle: Any) -> bool:
    """Whether a callback belongs to asyncio, and not to a cell."""
    callback = handle._callback
    while isinstance(callback, functools.partial):
        callback = callback.func
    module = getattr(callback, "__module__", None) or type(callback).__module__
    if module == "tornado.ioloop" and handle._args:
        return is_of_loop(type("Handle", (), {"_callback": handle._args[0], "_args": ()}))
    return str(module).split(".", maxsplit=1)[0] in {"asyncio", "_asyncio", "tornado", "zmq", "ipykernel", "functools"}


def cancel_work() -> None:
    """Cancel the work that executors have not begun. They stay, and so do their threads, which wait for more."""
    for executor in [made for made in gc.get_objects() if type(made) is ThreadPoolExecutor]:
        with contextlib.suppress(queue.Empty):
            while True:
                if (work := executor._work_queue.get_nowait()) is not None:
                    work.future.cancel()


async def end_question(shell: Any) -> None:
    """End what the cells of a question have started. The host runs this as a silent cell; the first time it starts.

    Raises:
        RuntimeError: something goes on; the text says how much.
    """
    guest = shell.kernel.rlm_guest
    if guest.begun is None:
        guest.begun = Begun(shell)
        return
    begun, until = guest.begun, time.monotonic() + END_SECONDS
    begun.end_callbacks()
    while begun.left() and time.monotonic() < until:
        begun.end()
        await asyncio.sleep(0.005)
    begun.end()
    begun.end_callbacks()
    if left := begun.left():
        raise RuntimeError(" and ".join(left))

"""What the kernel needs to reply, put back after a cell that has replaced it."""

from __future__ import annotations

import asyncio
import builtins
import os
import signal
import sys
import threading
from types import FunctionType, ModuleType
from typing import Any

LOCK_SECONDS = 1.0
THREAD_SECONDS = 2.0
BROKEN = 79
"""The exit status of a kernel that cannot reply any more; `process.BROKEN` on the host."""
SET_BY_IPYTHON = frozenset({"_", "display", "exit", "get_ipython", "input", "quit"})
"""Built-in names that it sets while a cell runs."""
TRACES: tuple[tuple[Any, Any], ...] = ((sys.gettrace, sys.settrace), (sys.getprofile, sys.setprofile))
NEEDED = """builtins json json.encoder json.decoder time threading queue signal hmac uuid datetime os io copy inspect
    re types functools contextlib contextvars warnings traceback linecache logging asyncio asyncio.base_events
    asyncio.events asyncio.locks asyncio.selector_events selectors tornado.ioloop tornado.platform.asyncio
    zmq.eventloop.zmqstream jupyter_client.session jupyter_client.jsonutil ipykernel.iostream
    ipykernel.kernelbase""".split()
"""Modules that cells replace parts of, with what runs between the end of a cell and its reply."""
NEEDED_CLASSES = """json.encoder json.decoder threading jupyter_client.session ipykernel.iostream selectors
    asyncio.base_events asyncio.selector_events tornado.ioloop tornado.platform.asyncio
    zmq.eventloop.zmqstream""".split()
"""Those of them whose classes are needed, too."""
NEEDED_PARTS = {
    "shell": "events display_pub displayhook kernel input_transformer_manager history_manager compile display_formatter"
    " user_ns user_ns_hidden user_module builtin_trap display_trap",
    "kernel": "shell session iopub_socket iopub_thread io_loop control_stream shell_stream comm_manager rlm_guest"
    " msg_queue shell_handlers control_handlers",
    "events": "callbacks",
    "stdout": "pub_thread session",
    "stderr": "pub_thread session",
    **dict.fromkeys(("display_pub", "displayhook"), "session pub_socket"),
    "session": "key pack unpack",
    **dict.fromkeys(("iopub_thread", "loop"), ""),
}
"""Objects whose methods are needed, and attributes of them."""
OWN_MODULES = frozenset({"__main__", *getattr(sys, "stdlib_module_names", ("builtins", "functools", "unittest"))})
"""Where a replacement comes from that is put back. Those of other libraries, such as nest_asyncio, are made to work."""


class Needed:
    """What the kernel needs to reply, as it was before a cell. Compared by identity, in 0.1 ms.

    Args:
        hooks: those of the guest, by the event of IPython.

    Attributes:
        has_report: whether the report is made by a hook.
    """

    def __init__(self, shell: Any, hooks: dict[str, Any]) -> None:
        kernel = shell.kernel
        self.loop: Any = asyncio.get_running_loop()
        self.modules = {name: sys.modules[name] for name in NEEDED if sys.modules.get(name) is not None}
        self.loaded = {name: module for name, module in sys.modules.items() if module is not None}
        self.spaces = [Space(name, module) for name, module in self.modules.items()]
        for name in NEEDED_CLASSES:
            for kind in vars(self.modules.get(name, ModuleType(""))).values():
                if isinstance(kind, type) and kind.__module__ == name:
                    self.spaces.append(Space(kind.__name__, kind))
        found = {"shell": shell, "kernel": kernel, "loop": self.loop, "events": shell.events}
        found |= {"stdout": sys.stdout, "stderr": sys.stderr, "iopub_thread": kernel.iopub_thread}
        found |= {"session": kernel.session, "display_pub": shell.display_pub, "displayhook": shell.displayhook}
        self.parts = [Part(name, found[name], attributes.split()) for name, attributes in NEEDED_PARTS.items()]
        self.streams: dict[str, Any] = {"stdout": sys.stdout, "stderr": sys.stderr}
        self.handlers = [(handlers, dict(handlers)) for handlers in (kernel.shell_handlers, kernel.control_handlers)]
        self.lists: list[Any] = [(made, list(made)) for made in (sys.path, sys.meta_path, sys.path_hooks)]
        changes = (shell.ast_transformers, shell.input_transformers_cleanup, shell.input_transformers_post)
        self.transformers: list[Any] = [(made, list(made)) for made in changes]
        self.shell = shell
        self.hooks = [(event, hook) for event, hook in hooks.items() if hook in shell.events.callbacks[event]]
        self.callbacks = shell.events.callbacks
        self.events = dict(self.callbacks)
        self.has_report = len(self.hooks) > 1
        self.limit = sys.getrecursionlimit()
        self.traces = [(get, install, get()) for get, install in TRACES]
        threads = (getattr(kernel, name, None) for name in ("control_thread", "shell_channel_thread"))
        self.threads: list[Any] = [made for made in threads if hasattr(made, "io_loop")] + [kernel.iopub_thread]

    def is_served(self) -> bool:
        """Whether the threads live that receive and send for the kernel."""
        return all(getattr(made, "thread", made).is_alive() for made in self.threads) and not self.loop.is_closed()

    def await_threads(self) -> None:
        """Wait until each thread has taken something: one that a cell has broken may be about to end."""
        for thread in self.threads:
            taken = threading.Event()
            thread.io_loop.add_callback(taken.set)
            if not taken.wait(THREAD_SECONDS):
                os._exit(BROKEN)

    def put_back(self) -> list[str]:
        """Put back what a cell has replaced or deleted. Returns the names."""
        names = self.put_back_settings()
        if None in map(sys.modules.get, self.modules):
            missing = {name: made for name, made in self.loaded.items() if sys.modules.get(name) is None}
            sys.modules.update(missing)
            names += [f"sys.modules[{name!r}]" for name in missing]
        for space in self.spaces:
            names += space.put_back()
        for part in self.parts:
            names += part.put_back()
        return names + self.put_back_contents() + self.put_back_code()

    def put_back_settings(self) -> list[str]:
        """Put back settings of the interpreter, and its streams."""
        names = []
        for get, install, before in self.traces:
            if get() is not before and not is_of_library(get()):
                install(before)
                names += [f"sys.{install.__name__}"]
        if sys.getrecursionlimit() < self.limit:
            sys.setrecursionlimit(self.limit)
            names += ["sys.setrecursionlimit"]
        for name, stream in self.streams.items():
            if getattr(sys, name, None) is not stream:
                setattr(sys, name, stream)
                names += [f"sys.{name}"]
            lock = getattr(stream, "_buffer_lock", None)
            if lock is not None and not lock.acquire(timeout=LOCK_SECONDS):
                stream._buffer_lock = threading.RLock()
                names += [f"the lock of sys.{name}"]
            elif lock is not None:
                lock.release()
        if hasattr(signal, "setitimer") and signal.setitimer(signal.ITIMER_REAL, 0)[0]:
            names += ["signal.alarm"]
        return names

    def put_back_contents(self) -> list[str]:
        """Put back the contents of lists and tables."""
        names = []
        for made, kept in self.lists:
            if not made and kept:
                made[:] = kept
                names += ["a list of sys"]
        for handlers, kept in self.handlers:
            if handlers != kept:
                handlers.update(kept)
                names += ["a handler of the kernel"]
        for event, hooks in self.events.items():
            self.callbacks[event] = hooks
        for event, hook in self.hooks:
            if hook not in self.events[event]:
                self.events[event].append(hook)
                names += [f"the hook {event}"]
        return names

    def put_back_code(self) -> list[str]:
        """Put back what decides how a cell's code runs: its transformers, and its built-in functions."""
        names = []
        for made, kept in self.transformers:  # one of a cell may make every later cell fail, or empty
            found = [one for one in made if root_of(one) != "__main__" or any(one is before for before in kept)]
            if len(found) < len(made):
                made[:] = found
                names += ["a transformer of code"]
        if self.shell.user_ns.get("__builtins__", builtins) not in (builtins, vars(builtins)):
            self.shell.user_ns["__builtins__"] = builtins
            names += ["__builtins__"]
        return names


class Space:
    """The names of a module or a class. A change that the kernel can live with is from then on what it needs."""

    def __init__(self, name: str, owner: Any) -> None:
        self.name, self.owner = name, owner
        self.kept = dict(vars(owner))
        self.latest = dict(self.kept)

    def put_back(self) -> list[str]:
        """Put back what a cell has replaced or deleted. Returns the names."""
        if vars(self.owner) == self.latest:
            return []
        names, now = [], dict(vars(self.owner))
        for name, value in list(self.kept.items()):
            if name in now and now[name] is value:
                continue
            if self.owner is builtins and name in SET_BY_IPYTHON:
                del self.kept[name]
            elif name in now and is_other_version(now[name], value):
                self.kept[name] = now[name]
            else:
                setattr(self.owner, name, value)
                names.append(f"{self.name}.{name}")
        self.latest = dict(vars(self.owner))
        return names


class Part:
    """An object of the kernel: the methods that cover those of its class, and attributes."""

    def __init__(self, name: str, owner: Any, attributes: list[str]) -> None:
        self.name, self.owner = name, owner
        self.methods = frozenset(made for made in dir(type(owner)) if callable(getattr(type(owner), made, None)))
        self.covered = self.covering()
        self.kept = {made: getattr(owner, made) for made in attributes if getattr(owner, made, None) is not None}

    def covering(self) -> dict[str, Any]:
        """The attributes of the object that hide methods of its class."""
        held = vars(self.owner) if hasattr(self.owner, "__dict__") else {}
        return {name: held[name] for name in held.keys() & self.methods}

    def put_back(self) -> list[str]:
        """Put back what a cell has replaced. Returns the names."""
        names = []
        if (found := self.covering()) != self.covered:
            for name in found.keys() - self.covered.keys():
                if not is_of_library(found[name]):
                    del vars(self.owner)[name]
                    names += [f"{self.name}.{name}"]
            for name, value in self.covered.items():
                if found.get(name) is not value:
                    vars(self.owner)[name] = value
                    names += [f"{self.name}.{name}"]
        for name, value in self.kept.items():
            if getattr(self.owner, name, None) is not value:
                setattr(self.owner, name, value)
                names += [f"{self.name}.{name}"]
        return names


def is_other_version(new: Any, old: Any) -> bool:
    """Whether a value can take the place of another. A function must be of a library, or of the same package."""
    if not callable(old):
        return old is None or type(new) is type(old)
    root = root_of(new).lstrip("_")
    return is_of_library(new) or (callable(new) and root == root_of(old).lstrip("_") and root != "builtins")


def is_of_library(made: Any) -> bool:
    """Whether a function or a class is of a library that is not Python's own."""
    root = root_of(made)
    return callable(made) and root in sys.modules and root not in OWN_MODULES


def root_of(made: Any) -> str:
    """The package of a function or a class; that of a cell if there is none."""
    module = made.__globals__.get("__name__") if isinstance(made, FunctionType) else getattr(made, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else "__main__"

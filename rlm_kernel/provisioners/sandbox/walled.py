"""The launcher with a kernel behind a wall: the watchdog stays outside, where no cell can stop it. Runs as text.

    python -P -c SOURCE SETTINGS [options of the launcher] -f CONNECTION_FILE

`SETTINGS` is JSON: the sources of `launcher.py`, `landlock.py` and `seccomp.py`; and either `bwrap`, the command before
that of the kernel, or the paths for Landlock. Inside of bwrap this runs once more with `kernel`, the arguments of
ipykernel, and `taken`, a pipe with its connection.
"""

import json
import os
import signal
import sys
from types import ModuleType
from typing import Any, NoReturn


def load(name: str, source: str) -> Any:
    """A module from its source."""
    module = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)  # noqa: S102 (the host says what is started here)
    return module


def hand_over(connection: "dict[str, Any]", listening: "dict[str, int]") -> int:
    """A pipe with the connection, for the kernel inside of bwrap: its arguments can be read by others."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        json.dump({"connection": connection, "listening": listening}, pipe)
    for fd in (reading, *listening.values()):
        os.set_inheritable(fd, True)
    return reading


def main(argv: "list[str]") -> NoReturn:
    """Run the launcher, whose kernel goes behind the wall; or inside of it, become the kernel."""
    settings = json.loads(argv[0])
    launcher = load("launcher", settings["launcher"])
    become_kernel = launcher.become_kernel

    def behind_landlock(watchdog: int, kernel: "list[str]", **options: Any) -> NoReturn:
        load("landlock", settings["landlock"]).confine(settings["read"], settings["write"])
        load("seccomp", settings["seccomp"]).confine(alone=True)
        become_kernel(watchdog, kernel, **options)
        raise SystemExit

    def behind_bwrap(
        watchdog: int, kernel: "list[str]", *, listening: "dict[str, int]", connection: Any, **options: Any
    ) -> NoReturn:
        os.setsid()
        launcher._prctl(launcher.PR_SET_PDEATHSIG, signal.SIGKILL)  # noqa: SLF001 (this is a part of it)
        if os.getppid() != watchdog:
            os._exit(1)
        taken = None if connection is None else hand_over(connection, listening)
        load("landlock", settings["landlock"]).leave_keyring()
        sources = {name: settings[name] for name in ("launcher", "seccomp")}
        inside = json.dumps({**sources, "kernel": kernel, "taken": taken, "options": options})
        ours = sys.orig_argv[sys.orig_argv.index("-c") + 1]
        command = [*settings["bwrap"], sys.executable, "-P", "-c", ours, inside]
        os.execv(command[0], command)  # noqa: S606

    if "kernel" in settings:
        taken = settings["taken"]
        connection, listening = (None, {}) if taken is None else launcher._take_connection(taken)  # noqa: SLF001
        options = {**settings["options"], "listening": listening, "connection": connection}
        load("seccomp", settings["seccomp"]).confine(alone=False)
        become_kernel(os.getppid(), settings["kernel"], **options)
    launcher.become_kernel = behind_bwrap if "bwrap" in settings else behind_landlock
    launcher.main(argv[1:])
    raise SystemExit


if __name__ == "__main__":
    main(sys.argv[1:])

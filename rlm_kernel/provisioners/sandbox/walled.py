"""The launcher with a kernel behind a wall: the watchdog stays outside, where no cell can stop it. Runs as text.

    python -P -c SOURCE SETTINGS [options of the launcher] -f CONNECTION_FILE

`SETTINGS` is JSON: the sources of `launcher.py` and `landlock.py`, and either `bwrap`, the command before that of the
kernel, or the paths for Landlock. Inside of bwrap this runs once more with `kernel`, the arguments of ipykernel.
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


def main(argv: "list[str]") -> NoReturn:
    """Run the launcher, whose kernel goes behind the wall; or inside of it, become the kernel."""
    settings = json.loads(argv[0])
    launcher = load("launcher", settings["launcher"])
    become_kernel = launcher.become_kernel

    def behind_landlock(watchdog: int, kernel: "list[str]", **options: Any) -> NoReturn:
        load("landlock", settings["landlock"]).confine(settings["read"], settings["write"])
        become_kernel(watchdog, kernel, **options)
        raise SystemExit

    def behind_bwrap(watchdog: int, kernel: "list[str]", *, memory: "int | None", **_: Any) -> NoReturn:
        os.setsid()
        launcher._prctl(launcher.PR_SET_PDEATHSIG, signal.SIGKILL)  # noqa: SLF001 (this is a part of it)
        if os.getppid() != watchdog:
            os._exit(1)
        inside = json.dumps({"launcher": settings["launcher"], "kernel": kernel, "memory": memory})
        ours = sys.orig_argv[sys.orig_argv.index("-c") + 1]
        command = [*settings["bwrap"], sys.executable, "-P", "-c", ours, inside]
        os.execv(command[0], command)  # noqa: S606

    if "kernel" in settings:
        become_kernel(os.getppid(), settings["kernel"], memory=settings["memory"], listening={})
    launcher.become_kernel = behind_bwrap if "bwrap" in settings else behind_landlock
    launcher.main(argv[1:])
    raise SystemExit


if __name__ == "__main__":
    main(sys.argv[1:])

"""The program of the local model's server, which runs llama.cpp in a process of its own.

It is started by path (see `server_process`) and imports the standard library and xllamacpp only. It reads its settings
as one line of JSON from stdin, loads the model, writes one line of JSON to stdout (`{"address": ...}` or
`{"error": ...}`), and serves until stdin ends: when its parent closes the pipe or dies, for whatever reason.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

ERRORS_ONLY = 1
"""llama.cpp's log level: stderr then holds the reason of a failure and nothing else."""

CALLS_HEARD = 64
"""HTTP threads. A waiting call holds one; when all are held, a call that was given up is not even noticed."""

KEPT_PROMPTS_MIB = 1024
"""Memory for conversations that had to leave their slot and may come back; 28 KiB a token with this model."""


def main() -> None:
    """Serve until stdin ends."""
    settings = json.loads(sys.stdin.buffer.readline())
    report = _private_stdout()
    # A thread, because loading the model takes seconds and may have to be cut short as well.
    watch = threading.Thread(target=_exit_with_parent, daemon=True)
    watch.start()
    said, server = _start(settings)
    os.write(report, f"{json.dumps(said)}\n".encode())
    if server is not None:
        watch.join()


def _private_stdout() -> int:
    """A descriptor for the report; what a library prints goes to stderr from here on."""
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _exit_with_parent() -> None:
    while os.read(0, 4096):
        pass
    # Without clean-up: llama.cpp would first finish what it is computing.
    os._exit(0)


def _start(settings: dict[str, Any]) -> tuple[dict[str, str], Any]:
    try:
        server = _serve(settings)
    except Exception as error:  # noqa: BLE001 (reported to the parent, which raises it)
        return {"error": str(error)}, None
    return {"address": server.listening_address}, server


def _serve(settings: dict[str, Any]) -> Any:
    # Its threads wait for each other by spinning, which beside other work costs nine tenths of the speed. So short a
    # spin costs nothing on a quiet machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.verbosity = ERRORS_ONLY
    params.hostnames, params.port = ["127.0.0.1"], 0
    # Every program on the machine can reach the port, the kernel with the code of a model included.
    params.api_keys = [settings["api_key"]]
    params.ui = params.endpoint_props = False
    params.n_threads_http = CALLS_HEARD
    params.model.path = settings["model_path"]
    params.model_alias = {settings["alias"]}
    # llama.cpp divides its context evenly among the slots.
    params.n_parallel = settings["n_parallel"]
    params.n_ctx = settings["n_ctx"] * settings["n_parallel"]
    params.cache_ram_mib = KEPT_PROMPTS_MIB
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()

"""The program of the local model's server, which runs llama.cpp in a separate process.

It is started by path (see `server_process`) and only imports the standard library and xllamacpp. It reads its settings
as one line of JSON from stdin, loads the model, writes one line of JSON to stdout (`{"address": ...}` or
`{"error": ...}`), and serves until stdin ends, because its parent closes the pipe or ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

ERRORS_ONLY = 1
"""llama.cpp's log level: stderr then only contains the reason of a failure."""

HTTP_THREADS = 64
"""A waiting call occupies one. If all are occupied, the server does not notice cancelled calls."""

PROMPT_CACHE_MIB = 1024
"""Memory for conversations that have lost their slot and may continue; 28 KiB a token with this model."""


def main() -> None:
    """Serve until stdin ends."""
    settings = json.loads(sys.stdin.buffer.readline())
    report = _private_stdout()
    # A thread, because the parent may also end while the model is loaded, which takes seconds.
    watch = threading.Thread(target=_exit_with_parent, daemon=True)
    watch.start()
    message, server = _start(settings)
    os.write(report, f"{json.dumps(message)}\n".encode())
    if server is not None:
        watch.join()


def _private_stdout() -> int:
    """A descriptor for the report; all other output to stdout goes to stderr from now on."""
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _exit_with_parent() -> None:
    while os.read(0, 4096):
        pass
    # Without clean-up: llama.cpp would first finish its computation.
    os._exit(0)


def _start(settings: dict[str, Any]) -> tuple[dict[str, str], Any]:
    try:
        server = _serve(settings)
    except Exception as error:  # noqa: BLE001 (reported to the parent, which raises it)
        return {"error": str(error)}, None
    return {"address": server.listening_address}, server


def _serve(settings: dict[str, Any]) -> Any:
    # Its threads wait for each other by spinning, which on a busy machine costs nine tenths of the speed. A short spin
    # costs nothing on an idle machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.verbosity = ERRORS_ONLY
    params.hostnames, params.port = ["127.0.0.1"], 0
    # Every program on the machine can reach the port, also the kernel that runs a model's code.
    params.api_keys = [settings["api_key"]]
    params.ui = params.endpoint_props = False
    params.n_threads_http = HTTP_THREADS
    params.model.path = settings["model_path"]
    params.model_alias = {settings["alias"]}
    # llama.cpp divides its context evenly among the slots.
    params.n_parallel = settings["n_parallel"]
    params.n_ctx = settings["n_ctx"] * settings["n_parallel"]
    params.cache_ram_mib = PROMPT_CACHE_MIB
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()

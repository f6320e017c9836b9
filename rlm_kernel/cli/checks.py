"""The checks of `rlm doctor`: each examines one thing and reports on it."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Literal

from rlm_kernel.clients import registry
from rlm_kernel.documents import confinement
from rlm_kernel.errors import RLMError
from rlm_kernel.installation import install_command
from rlm_kernel.provisioners.docker import daemon
from rlm_kernel.provisioners.sandbox.walls import Sandbox, trouble
from rlm_kernel.types import Answer, Query, ToolCall

DOCKER_SECONDS = 2.0
_REQUIRED = ("ipykernel", "jupyter_client", "pyzmq", "openai", "anthropic", "genai-prices", "rich", "python-dotenv")
_ALSO_REQUIRED = ("ipywidgets", "papermill")  # a completion runs without them
REFERENCE = "rlms"
_EXTRAS = {
    "xllamacpp": "local",
    "huggingface_hub": "local",
    "litellm": "litellm",
    "modal": "modal",
    "prime-sandboxes": "prime",
    "daytona": "daytona",
    "e2b": "e2b",
    "anywidget": "widget",
    "nbconvert": "notebooks",
    "nbdime": "notebooks",
    "mcp": "mcp",
    "google-re2": "mcp",
    "pathspec": "mcp",
    "aiohttp": "jupyter",
}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        area: the heading in the report.
        name: what was checked.
        state: ``ok``; ``absent`` (not there, but optional); ``broken``.
        detail: what was found.
        fix: what to do; empty if there is nothing to do.
        essential: whether a local completion needs it.
    """

    area: str
    name: str
    state: Literal["ok", "absent", "broken"]
    detail: str
    fix: str = ""
    essential: bool = False


def everything() -> list[Check]:
    """All checks, in the order in which they are shown."""
    parts: tuple[Callable[[], list[Check]], ...] = (python, packages, kernels, local_model, keys, docker)
    return [check for part in parts for check in part()]


def python() -> list[Check]:
    """The interpreter."""
    return [Check("Python", f"Python {platform.python_version()}", "ok", sys.executable, essential=True)]


def packages() -> list[Check]:
    """The packages a completion needs, those of the extras, and the client of environment='ssh'."""
    required = [
        _package(name, f"pip install {name}", essential=name in _REQUIRED) for name in (*_REQUIRED, *_ALSO_REQUIRED)
    ]
    extras = [_package(name, install_command(extra)) for name, extra in _EXTRAS.items()]
    return [*required, *extras, *_reference(), _ssh()]


def kernels() -> list[Check]:
    """Whether a local kernel starts and runs a cell, and which kernelspecs are installed."""
    from jupyter_client.kernelspec import KernelSpecManager

    specs = KernelSpecManager().find_kernel_specs()
    found = Check("Kernels", "kernelspecs", "ok" if specs else "absent", ", ".join(sorted(specs)) or "none")
    return [_local_kernel(), _sandbox("bwrap"), _sandbox("landlock"), _documents(), found]


def local_model() -> list[Check]:
    """The file of the small model of `rlm demo`."""
    from rlm_kernel.clients.llamacpp.weights import QWEN_CODER, cache_folder, is_verified

    path = cache_folder() / QWEN_CODER.file
    if not path.is_file():
        fix = f"`rlm demo` downloads it ({QWEN_CODER.size / 1e9:.1f} GB)"
        return [Check("Local model", QWEN_CODER.name, "absent", f"not at {path}", fix)]
    if not is_verified(path, QWEN_CODER):
        detail, fix = f"{path} has a wrong checksum", "remove it; `rlm demo` downloads it again"
        return [Check("Local model", QWEN_CODER.name, "broken", detail, fix)]
    return [Check("Local model", QWEN_CODER.name, "ok", f"{path}, checksum verified")]


def keys() -> list[Check]:
    """Which API keys are set and where; never their values."""
    variables = [row.key_variable for row in registry.BACKENDS.values() if row.key_variable]
    try:
        known = registry.environment_variables()
    except RLMError as error:
        return [Check("Keys", ".env", "broken", str(error))]
    return [_key(variable, known.get(variable, "")) for variable in dict.fromkeys(variables)]


def docker() -> list[Check]:
    """Whether docker-py is installed, and if it is, whether the engine answers within `DOCKER_SECONDS`."""
    client = replace(_package("docker", "pip install docker"), area="Docker", name="docker (client)")
    return [client, _docker_engine()] if client.state == "ok" else [client]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _package(name: str, fix: str, *, essential: bool = False) -> Check:
    if (version := _version(name)) is not None:
        return Check("Packages", name, "ok", version, essential=essential)
    return Check("Packages", name, "broken" if essential else "absent", "not installed", fix, essential=essential)


def _ssh() -> Check:
    if (path := shutil.which("ssh")) is not None:
        return Check("Packages", "ssh (client)", "ok", path)
    return Check("Packages", "ssh (client)", "absent", "not installed", "install openssh-client")


def _reference() -> list[Check]:
    """The distribution `rlms`, if it is installed: it has the import name `rlm` too, so one hides the other."""
    if (version := _version(REFERENCE)) is None:
        return []
    detail = f"{version} has the same import name `rlm` as rlm-kernel"
    fix = f"use two environments: pip uninstall {REFERENCE}, then install rlm-kernel again"
    return [Check("Packages", REFERENCE, "broken", detail, fix, essential=True)]


def _sandbox(name: Sandbox) -> Check:
    why, _, fix = trouble(name).partition(": ")
    return Check("Kernels", f"sandbox='{name}'", "absent" if why else "ok", why or "it works here", fix)


def _documents() -> Check:
    if lacking := " and ".join(confinement.missing()):
        fix = "read hostile documents in a container"
        return Check("Kernels", "documents in a sandbox", "absent", f"the system has no {lacking}", fix)
    return Check("Kernels", "documents in a sandbox", "ok", "it works here")


def _local_kernel() -> Check:
    try:
        ready, cell = asyncio.run(_first_cell())
    except (RLMError, OSError) as error:
        fix = f"install ipykernel into {sys.executable}, or follow the reason above"
        return Check("Kernels", "local kernel", "broken", str(error), fix, essential=True)
    detail = f"ready in {ready:.2f} s, first cell in {cell * 1000:.1f} ms"
    return Check("Kernels", "local kernel", "ok", detail, essential=True)


async def _first_cell() -> tuple[float, float]:
    from rlm_kernel.kernel.session import Session
    from rlm_kernel.provisioners.kernelspecs import environment

    started = time.perf_counter()
    async with await Session.open(environment("local", None), _NoResponder()) as session:
        ready = time.perf_counter()
        result = await session.run("6 * 7")
        if result.value != "42":
            raise RLMError(f"A kernel started, but 6 * 7 gave {result.value!r}.")
        return ready - started, time.perf_counter() - ready


class _NoResponder:
    """Answers the sub-calls of a cell that makes none."""

    async def answer(self, query: Query | ToolCall) -> Sequence[Answer]:
        raise RLMError(f"There is no model to answer {query.id}.")


def _key(variable: str, value: str) -> Check:
    if not value.strip():
        return Check("Keys", variable, "absent", "not set")
    return Check("Keys", variable, "ok", f"set in {'the environment' if os.environ.get(variable) else '.env'}")


def _docker_engine() -> Check:
    import docker
    from docker.errors import DockerException

    host = daemon.host()
    if host.startswith("ssh://"):
        return Check("Docker", "engine", "absent", f"{host} is not checked: ssh:// is not supported here")
    try:
        with closing(docker.from_env(timeout=DOCKER_SECONDS)) as client:
            version = client.api.api_version  # the client asked the engine for it
    except ValueError as error:
        fix = "set it to unix:///PATH or tcp://HOST:PORT, or unset it"
        return Check("Docker", "engine", "broken", f"DOCKER_HOST is {host}, which is not a valid address: {error}", fix)
    except (DockerException, OSError) as error:
        return Check("Docker", "engine", "absent", f"{host} does not answer: {error}", "start the Docker engine")
    return Check("Docker", "engine", "ok", f"{host} answers, API {version}")

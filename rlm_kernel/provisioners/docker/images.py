"""The image of a kernel: the user's if ipykernel is in it, else one derived from it, built once.

The result is stored with the images: both kinds are tagged `rlm-kernel:DIGEST`, the digest of the image's id, the
packages and the recipe. So nothing is probed or built twice on machines that share an engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.provisioners.docker.daemon import translate_errors
from rlm_kernel.provisioners.environ import scrub_environ

if TYPE_CHECKING:
    from docker import APIClient

REPOSITORY = "rlm-kernel"
REQUIREMENTS = ("ipykernel>=6.29,!=7.0.*", "pyzmq>=26")
LOG_LINES = 15
_RECIPE = """FROM {image}
USER root
COPY requirements.txt /tmp/rlm-requirements.txt
RUN PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \\
    python3 -m pip install --no-cache-dir --disable-pip-version-check -r /tmp/rlm-requirements.txt
"""
_PROBE = "import sys\nif sys.version_info < (3, 10): sys.exit(3)\nimport ipykernel, zmq"
_TOO_OLD = 3
_building = threading.Lock()


def kernel_image(client: APIClient, image: str, packages: Sequence[str]) -> str:
    """The id of an image like `image` that can hold a kernel. Blocks; reports slow steps on stderr.

    Args:
        client: of the engine.
        image: a name, with or without a tag, or an id.
        packages: what pip installs besides ipykernel; lines of a requirements file.

    Raises:
        ConfigError: there is no such image, or no suitable Python in it.
        KernelError: it cannot be pulled, tried or built.
    """
    with translate_errors(f"The image {image!r} cannot be used"):
        base = _inspect(client, image) or _pull(client, image)
        tag = hashlib.sha256(json.dumps([base, list(packages), _RECIPE, REQUIREMENTS]).encode()).hexdigest()[:16]
        with _building:
            return _inspect(client, f"{REPOSITORY}:{tag}") or _make(client, image, base, tag, packages)


def _inspect(client: APIClient, image: str) -> str | None:
    """The id of a local image, or None."""
    from docker.errors import ImageNotFound

    try:
        return str(client.inspect_image(image)["Id"])
    except ImageNotFound:
        return None


def _pull(client: APIClient, image: str) -> str:
    from docker.errors import APIError

    terminal.print_note(f"Pulling {image} ...")
    name = image if ":" in image.rsplit("/", 1)[-1] or "@" in image else f"{image}:latest"
    try:
        # Read to the end, also after an error: unread output keeps the connection open.
        errors = [step["error"] for step in client.pull(name, stream=True, decode=True) if "error" in step]
    except APIError as error:
        raise ConfigError(_absent(image, error.explanation or str(error))) from error
    found = None if errors else _inspect(client, name)
    if found is None:
        raise ConfigError(_absent(image, errors[0] if errors else "nothing was pulled"))
    return found


def _absent(image: str, reason: str) -> str:
    return (
        f"There is no image {image!r} on this engine, and it cannot be pulled: {reason}. "
        "Check the name (docker images lists what is there), or docker login first."
    )


def _make(client: APIClient, image: str, base: str, tag: str, packages: Sequence[str]) -> str:
    if not packages and _has_ipykernel(client, image, base):
        client.tag(base, REPOSITORY, tag)
        return base
    started = time.monotonic()
    terminal.print_note(f"Building an image from {image} with ipykernel in it. This is done once.")
    _build(client, image, f"{REPOSITORY}:{tag}", packages)
    terminal.print_note(f"The image {REPOSITORY}:{tag} is ready after {time.monotonic() - started:.0f} s.")
    built = _inspect(client, f"{REPOSITORY}:{tag}")
    assert built is not None
    return built


def _has_ipykernel(client: APIClient, image: str, base: str) -> bool:
    """Try to import it, in a container without network, capabilities and writable files."""
    confined = client.create_host_config(
        network_mode="none", cap_drop=["ALL"], security_opt=["no-new-privileges"], read_only=True, mem_limit="512m"
    )
    made = client.create_container(
        base, command=["-c", _PROBE], entrypoint=["python3"], host_config=confined, use_config_proxy=False
    )
    try:
        client.start(made["Id"])
        status = client.wait(made["Id"])["StatusCode"]
    finally:
        client.remove_container(made["Id"], force=True)
    if status == _TOO_OLD:
        raise ConfigError(f"The Python of the image {image!r} is older than 3.10: choose another image.")
    return bool(status == 0)


def _build(client: APIClient, image: str, tag: str, packages: Sequence[str]) -> None:
    from docker.utils import create_archive

    requirements = "\n".join([*REQUIREMENTS, *packages])
    files = [("Dockerfile", _RECIPE.format(image=image)), ("requirements.txt", requirements)]
    proxies = {name: value for name, value in scrub_environ(os.environ).items() if "proxy" in name.lower()}
    log: deque[str] = deque(maxlen=LOG_LINES)
    steps = client.build(
        fileobj=create_archive("", files=[], extra_files=files),
        custom_context=True,
        tag=tag,
        rm=True,
        forcerm=True,
        buildargs=proxies,
        decode=True,
    )
    failed = False
    for line, is_error in _lines(steps):
        log.append(line)
        failed |= is_error
        if line.startswith(("Step", "Collecting", "Successfully installed")):
            terminal.print_note(f"  {line}")
    if failed:
        raise KernelError(_build_failure(image, packages, "\n".join(log)))


def _lines(steps: Iterator[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """The lines of the build's output, each with whether it is an error."""
    for step in steps:
        text = step.get("error") or step.get("stream") or ""
        for line in filter(None, map(str.rstrip, text.splitlines())):
            yield line, "error" in step


def _build_failure(image: str, packages: Sequence[str], log: str) -> str:
    if "no space left on device" in log.lower():
        hint = "The engine's disk is full: docker system prune makes room."
    else:
        named = f" and {', '.join(packages)}" if packages else ""
        hint = (
            f"It installs ipykernel{named} with the image's python3 and pip; the engine needs a way to the package "
            "index for it. Or give an image that has ipykernel."
        )
    return f"The image for kernels could not be built from {image!r}. {hint} The log ends:\n{log}"

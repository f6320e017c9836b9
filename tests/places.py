"""The places where a kernel can live, and which tests run at each of them.

A test that uses the fixture `kernel_place` runs with a kernel of this machine. With the marker `everywhere` it runs at
each place; with `anywhere` it does so in `pytest --full` only.
"""

from __future__ import annotations

import contextlib

import psutil
import pytest

PLACES = {
    "local": ("local", {}, None),
    "local-plain": ("local", {"fork": False}, None),
    "docker": ("docker", {"packages": ["pillow"]}, "docker_engine"),
    "docker-relay": ("docker", {"packages": ["pillow"], "transport": "relay"}, "docker_engine"),
    "modal": ("modal", {}, "modal_emulator"),
    "prime": ("prime", {}, "prime_emulator"),
    "daytona": ("daytona", {}, "daytona_emulator"),
    "e2b": ("e2b", {}, "e2b_emulator"),
    "jupyter": ("jupyter", {}, "jupyter_server"),
    "ssh": ("ssh", {}, "sshd"),
    "bwrap": ("local", {"sandbox": "bwrap"}, "bwrap"),
    "landlock": ("local", {"sandbox": "landlock"}, "landlock"),
}


OF_THEIR_OWN = {"prime", "daytona", "e2b", "jupyter", "ssh", "bwrap", "landlock"}
"""Places with tests of their own in every run, so that they run the suite of all places with `--full` only."""


def _elsewhere(*marks):
    return [
        pytest.param(name, marks=[pytest.mark.elsewhere, *marks, *([pytest.mark.full] if name in OF_THEIR_OWN else [])])
        for name in PLACES
        if not name.startswith("local")
    ]


EVERYWHERE = ["local", *_elsewhere()]
ANYWHERE = ["local", *_elsewhere(pytest.mark.full)]
SANDBOXES = [pytest.param(name, marks=[pytest.mark.elsewhere, pytest.mark.full]) for name in ("bwrap", "landlock")]
MEASURED = [*ANYWHERE[:3], *SANDBOXES]
"""Where the memory of the host is measured: Modal's emulator runs in the process of the tests."""


def parametrize(metafunc):
    """Give a test that stands on `place` the places where it runs."""
    if "kernel_place" in metafunc.fixturenames:
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        names = EVERYWHERE if "everywhere" in marks else ANYWHERE if "anywhere" in marks else ["local"]
        metafunc.parametrize("kernel_place", names, indirect=True)


def provided(name, request):
    """Environment and options of a place that is ready to be used."""
    environment, options, fixture = PLACES[name]
    provided = None if fixture is None else request.getfixturevalue(fixture)
    return environment, {**options, **getattr(provided, "kernel_options", {})}


def living_kernels():
    """The processes of the local kernels of this process: children of its fork servers and launchers."""
    found = []
    for watchdog in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if {"rlm_kernel.provisioners.fork_server", "rlm_kernel.provisioners.launcher"} & {*watchdog.cmdline()}:
                found += watchdog.children()
    return found

"""The places where a kernel can live: each by its environment, options and the fixture that provides it."""

from __future__ import annotations

import pytest

PLACES = {
    "local": ("local", {}, None),
    "docker": ("docker", {"packages": ["pillow"]}, "docker_engine"),
    "docker-relay": ("docker", {"packages": ["pillow"], "transport": "relay"}, "docker_engine"),
    "modal": ("modal", {}, "modal_emulator"),
}

EVERYWHERE = [
    "local",
    *(pytest.param(name, marks=pytest.mark.elsewhere) for name in PLACES if name != "local"),
]


def provided(name, request):
    """Environment and options of a place that is ready to be used."""
    environment, options, fixture = PLACES[name]
    if fixture is not None:
        request.getfixturevalue(fixture)
    return environment, options

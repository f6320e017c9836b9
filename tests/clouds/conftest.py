from __future__ import annotations

import pytest
from selection import mostly_full

from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer

PLACES = ["prime", "daytona", "e2b"]


class Echo:
    async def answer(self, query):
        return [Answer(prompt.upper()) for prompt in query.prompts]


@pytest.fixture
def place(request):
    """The name of a cloud. Tests with it are parametrized over `PLACES`."""
    return request.param


@pytest.fixture
def cloud(place, request):
    """The emulator of `place`."""
    return request.getfixturevalue(f"{place}_emulator")


@pytest.fixture
def open_session(place, cloud):
    """Opens a session in a sandbox of `place` with the given options."""
    return lambda **options: Session.open(environment(place, options), Echo())


@pytest.fixture
def open_prime(prime_emulator):
    return lambda **options: Session.open(environment("prime", options), Echo())


@pytest.fixture
def open_daytona(daytona_emulator):
    return lambda **options: Session.open(environment("daytona", options), Echo())


@pytest.fixture
def open_e2b(e2b_emulator):
    return lambda **options: Session.open(environment("e2b", options), Echo())


def pytest_generate_tests(metafunc):
    """What the places have in common is asked of one in each run, and with `--full` of the others."""
    if "place" in metafunc.fixturenames:
        in_common = any(metafunc.definition.iter_markers("anywhere"))
        metafunc.parametrize("place", mostly_full(PLACES, "prime") if in_common else PLACES, indirect=True)

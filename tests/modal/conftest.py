from __future__ import annotations

import pytest

from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import Environment
from rlm_kernel.types import Answer


class Echo:
    async def answer(self, query):
        return [Answer(prompt.upper()) for prompt in query.prompts]


@pytest.fixture
def modal_session(modal_emulator):
    """Opens a session in a sandbox with the given options."""

    def opened(**options):
        return Session.open(Environment("modal", "rlm-modal", options), Echo())

    return opened

from __future__ import annotations

import pytest

from rlm_kernel.kernelspecs import Environment
from rlm_kernel.records import Answer
from rlm_kernel.session import Session


class Echo:
    async def answer(self, query):
        return [Answer(prompt.upper()) for prompt in query.prompts]


@pytest.fixture
def modal_session(modal_emulator):
    """Opens a session in a sandbox with the given options."""

    def opened(**options):
        return Session.open(Environment("modal", "rlm-modal", options), Echo())

    return opened

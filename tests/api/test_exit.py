"""The documents never close an RLM: it ends with the process, without a word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
from rlm import RLM
rlm = RLM(backend_kwargs={"model_name": "m"})
print(rlm.completion("How many?").response)
"""

CLIENT = """
import gc
from rlm.clients import get_client
client = get_client("openai", {"model_name": "m"})
print(client.completion("How many?"))
del client
gc.collect()
"""


def test_a_client_that_is_never_closed_ends_without_a_word(provider):
    pytest.importorskip("aiohttp")
    provider.script = ["42"]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        env={**os.environ, **provider.environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_an_rlm_that_is_never_closed_ends_without_a_word(provider):
    pytest.importorskip("aiohttp")  # it reports open connections
    provider.script = ["```repl\nFINAL(42)\n```"]
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **provider.environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("42\n", "")

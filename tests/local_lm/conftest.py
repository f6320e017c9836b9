"""The real model, or a reason: on a user's machine without it these tests are skipped, in CI they fail."""

import importlib.util
import os
from pathlib import Path

import pytest

from rlm_kernel.clients.llamacpp.weights import QWEN_CODER, cache_folder, is_verified


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("local_lm")


@pytest.fixture(scope="session")
def what_is_missing():
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed: pip install 'rlm-kernel[local]'"
    if not is_verified(cache_folder() / QWEN_CODER.file, QWEN_CODER):
        return f"{QWEN_CODER.file} is not in {cache_folder()}: `rlm demo` fetches it"
    return None


@pytest.fixture(autouse=True)
def _real_model(what_is_missing):
    if what_is_missing and os.environ.get("CI"):
        pytest.fail(f"CI does not go without the real model: {what_is_missing}")
    if what_is_missing:
        pytest.skip(what_is_missing)

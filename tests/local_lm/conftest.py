"""The model of these tests: its recorded replies, or the real one (marker `full`, and one smoke test)."""

import importlib.util
import os
from pathlib import Path

import pytest
from local_lm.recorded_model import RecordedModel

from rlm_kernel.clients.llamacpp.weights import QWEN_CODER, cache_folder, is_verified
from rlm_kernel.installation import install_command


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("local_lm")


@pytest.fixture(scope="module")
def model(request):
    """The recorded replies of a module. The real model is asked for one that is not there; in CI that is a failure."""
    file = request.path.parent / "replies" / f"{request.path.stem.removeprefix('test_')}.jsonl"
    if request.config.getoption("record"):
        file.unlink(missing_ok=True)
    with RecordedModel(file) as recorded:
        yield recorded
    if request.config.getoption("record"):
        recorded.save(file)
    elif recorded.missed and os.environ.get("CI"):
        pytest.fail(f"{recorded.missed} requests are not in {file.name}: pytest tests/local_lm --record")


@pytest.fixture(scope="session")
def real_model():
    """There is the real model; in CI it must be there."""
    missing = what_is_missing()
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI does not go without the real model: {missing}")
    if missing:
        pytest.skip(missing)


def what_is_missing():
    if importlib.util.find_spec("xllamacpp") is None:
        return f"xllamacpp is not installed: {install_command('local')}"
    if not is_verified(cache_folder() / QWEN_CODER.file, QWEN_CODER):
        return f"{QWEN_CODER.file} is not in {cache_folder()}: `rlm demo` fetches it"
    return None

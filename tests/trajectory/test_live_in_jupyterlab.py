"""A person edits a cell of a recorded run in JupyterLab, runs it live, and lets the model go on from there.

RLM_SCREENSHOTS names a folder for what that looks like.
"""

from __future__ import annotations

import os
import re

import nbformat
import pytest
from laboratory import IN_CHROMIUM, Tab, browser, lab
from loopback import MODEL
from recorded_runs import code, notebook_beside, record_file
from stock_clients.test_every_client import install
from trajectory.stories import codes

from rlm import RLM
from rlm.logger import RLMLogger

pytest.importorskip("jupyterlab")
pytestmark = [
    *IN_CHROMIUM,
    pytest.mark.full,
]

TURNS = [
    "I split the text.\n" + code("parts = context.split(';')", "print(len(parts), 'parts')"),
    "Now I ask about each.\n" + code("kinds = llm_query_batched(parts)", "print(kinds)"),
    "The first one is it.\n" + code("FINAL(kinds[0])"),
]
EDITED = "kinds = llm_query_batched([part + ' in one word' for part in parts])\nprint(kinds)"
GOES_ON = "With other kinds I take the last.\n" + code("FINAL('the last: ' + kinds[-1])")


def script(request):
    """The root model and those of the sub-calls. It goes another way when it reads of the edited cell."""
    messages = [message for message in request.messages if message["role"] == "assistant"]
    if len(request.messages) == 1:
        return f"kind of {request.prompt}"
    return GOES_ON if "in one word" in request.said else TURNS[len(messages)]


@pytest.fixture
def run(tmp_path, provider, monkeypatch):
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    provider.script = script
    logger = RLMLogger(tmp_path / "logs")
    with RLM(backend="openai", backend_kwargs={"model_name": MODEL}, logger=logger) as rlm:
        rlm.completion("apples;pears;plums", "Of which kind is it?")
    return notebook_beside(record_file(logger))


@pytest.fixture
def tab(run, tmp_path):
    install("rlm", {}, tmp_path / "share")
    environment = {**os.environ, "HOME": str(tmp_path), "JUPYTER_PATH": str(tmp_path / "share")}
    with lab(run.parent, env={**environment, "PYTHONWARNINGS": "ignore"}) as address, browser() as chromium:
        tab = Tab(chromium, address, run.name)
        tab.ready()
        yield tab


@pytest.mark.parametrize("kernel", ["RLM", "Python 3 (ipykernel)"])
def test_an_edited_cell_runs_live_and_the_model_goes_on(kernel, tab, run, provider):
    tab.shot("live-1-opened")
    tab.choose_kernel(kernel)
    before = len(provider.requests)
    tab.write(0, lambda source: source.replace("'replay'", "'live'"))
    tab.write(3, lambda _: EDITED)
    tab.run_all()
    tab.says(1, "models answer what is not on record")
    tab.says(3, "kind of plums in one word")
    tab.ready()
    tab.output(3).locator("summary", has_text="llm_query: 3").click()
    tab.shot("live-2-ran")
    assert [request.prompt for request in provider.requests[before:]] == [
        f"{fruit} in one word" for fruit in ("apples", "pears", "plums")
    ]
    tab.append("%rlm resume")
    tab.says(-1, "Answered")
    tab.says(-1, "the last: kind of plums in one word")
    tab.ready()
    tab.shot("live-3-the-model-went-on")
    assert len(provider.requests) == before + 4  # the root model's next reply
    tab.append("RLM.resume(rlm_record, at=2)")
    tab.says(-1, "the last: kind of plums in one word")
    tab.append("RLM.resume(str(rlm_record), at=2).response")
    tab.says(-1, re.compile("^'kind of apples'"))
    tab.shot("live-4-by-one-line")
    new = [path for path in run.parent.glob("*.ipynb") if path != run]
    forked = [nbformat.read(path, 4) for path in new]
    assert [codes(one)[1].source for one in forked if one.metadata.rlm.forked_from.get("edited_cells")] == [EDITED] * 2

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from ipykernel.kernelspec import write_kernel_spec
from loopback import API_KEY, MODEL, Hangs, Says
from nbclient.exceptions import CellTimeoutError
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError
from recorded_runs import code, record
from trajectory.comparison import differences

from rlm_kernel.errors import ConfigError, RecordingError
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log.file_names import TURNS, file_beside

NAMED = {"backend": "openai", "model": MODEL}


def notebook(*sources, parameters="", kernel="rlm-local", **about):
    cells = [new_code_cell(source) for source in sources]
    if parameters:
        cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made = new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    if about:
        made.metadata["rlm"] = about
    return made


def shown(done):
    """What each cell of ours has printed; the injected one is left out."""
    ours = (cell for cell in done.cells if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.tags)
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in ours]


@pytest.fixture
def asked(provider, monkeypatch):
    """The provider answers each prompt with an echo, and its key stands in the environment of this process."""
    provider.script = lambda request: f"echo {request.prompt}"
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    return provider


@pytest.fixture
def mill(tmp_path):
    """Execute a notebook with the engine; the output is in `out.ipynb`."""

    def execute(made, parameters=None, **options):
        output = tmp_path / "out.ipynb"
        return papermill.execute_notebook(
            made, output, parameters or {}, engine_name="rlm", progress_bar=False, **options
        )

    return execute


def test_cells_ask_models_and_the_key_stays_on_the_host(asked, mill):
    done = mill(
        notebook(
            "print(llm_query('one'))",
            "print(llm_query_batched(['a', 'b', 'c']))",
            "print(await allm_query('later'))",
            "import os\nprint([name for name in os.environ if 'KEY' in name or 'OPENAI' in name])",
        ),
        NAMED,
    )
    assert shown(done) == ["echo one\n", "['echo a', 'echo b', 'echo c']\n", "echo later\n", "[]\n"]
    assert len(asked.requests) == 5
    assert asked.requests[0].headers["authorization"] == f"Bearer {API_KEY}"
    assert API_KEY not in nbformat.writes(done)


def test_the_names_of_a_persons_notebook_are_its_own(asked, mill):
    done = mill(
        notebook("answer = llm_query('one')\ncontext = 'mine'\nFINAL = 3", "print(answer, context, FINAL)"), NAMED
    )
    assert shown(done)[1] == "echo one mine 3\n"


def test_a_persons_notebook_may_ask_what_is_left(asked, mill):
    done = mill(notebook("llm_query('one')\nprint(budget().calls)"), {**NAMED, "max_calls": 3})
    assert shown(done) == ["2\n"]


def test_what_the_models_cost_stands_in_the_notebook(asked, mill):
    asked.script = lambda _: Says("yes", usage=(30, 2))
    done = mill(notebook("llm_query('one')"), NAMED)
    usage = done.metadata.rlm["usage_of_this_execution"]["model_usage_summaries"][MODEL]
    assert (usage["total_calls"], usage["total_input_tokens"], usage["total_output_tokens"]) == (1, 30, 2)


@pytest.mark.full
def test_parameters_come_before_their_defaults_those_before_metadata_and_that_before_variables(
    asked, mill, monkeypatch
):
    ask = "print(llm_query('which?'))"

    def model_of(made, parameters=None):
        mill(made, parameters)
        return asked.requests[-1].body["model"]

    monkeypatch.setenv("RLM_BACKEND", "openai")
    monkeypatch.setenv("RLM_MODEL", "of the environment")
    assert model_of(notebook(ask)) == "of the environment"
    assert model_of(notebook(ask, model="of the metadata")) == "of the metadata"
    defaults = "question = 'x'  # not ours\nmodel: str = 'of the defaults'\nbackend = None"
    assert model_of(notebook(ask, parameters=defaults, model="of the metadata")) == "of the defaults"
    assert model_of(notebook(ask, parameters=defaults), {"model": "of the parameters"}) == "of the parameters"


def test_sub_calls_go_to_the_sub_model_and_rlm_query_to_a_child(asked, mill):
    def script(request):
        if request.body["model"] == "small" and "FINAL" not in request.said:
            return "small words"
        return "```repl\nFINAL(llm_query('below ' + context))\n```"

    asked.script = script
    cells = notebook("print(llm_query('one'))", "print(rlm_query('two'))")
    done = mill(cells, {**NAMED, "sub_model": "small", "max_depth": 2})
    assert shown(done) == ["small words\n", "small words\n"]


def test_limits_hold(asked, mill):
    asked.script = lambda _: Says("yes", usage=(30, 2))
    cell = "for i in range(5):\n    print(llm_query(str(i)))"
    with pytest.raises(PapermillExecutionError, match="max_tokens"):
        mill(notebook(cell), {**NAMED, "max_tokens": 60})
    assert len(asked.requests) == 2


def test_without_a_model_the_cell_says_how_to_name_one(mill):
    with pytest.raises(PapermillExecutionError, match=r"papermill -p backend … -p model …, or set RLM_BACKEND"):
        mill(notebook("llm_query('one')"))
    assert shown(mill(notebook("print('no question')"))) == ["no question\n"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"backend": "nobody"}, "nobody"),
        ({"backend": "openai"}, "model_name"),
        ({**NAMED, "backend_kwargs": {"api_key": "sk-secret-1"}}, "does not belong among the parameters"),
        ({**NAMED, "max_tokens": -1}, "max_tokens"),
    ],
)
def test_wrong_parameters_are_named_before_a_kernel_starts(asked, mill, parameters, message):
    with pytest.raises(ConfigError, match=message) as caught:
        mill(notebook("print('never')"), parameters)
    assert "sk-secret-1" not in str(caught.value)


def test_a_failing_cell_is_reported_where_it_is(asked, mill, tmp_path):
    with pytest.raises(PapermillExecutionError) as caught:
        mill(notebook("print('fine')", "1 / 0", "print('never')"), NAMED)
    assert (caught.value.ename, caught.value.source) == ("ZeroDivisionError", "1 / 0")
    written = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "An Exception was encountered" in written.cells[0].source
    status = {cell.source: cell.metadata.papermill.status for cell in written.cells if cell.cell_type == "code"}
    assert (status["print('fine')"], status["1 / 0"], status["print('never')"]) == ("completed", "failed", "pending")


def test_a_cell_that_takes_too_long_ends_the_execution_also_while_it_waits_for_a_model(asked, mill):
    asked.script = lambda _: Hangs()
    with pytest.raises(CellTimeoutError):
        mill(notebook("llm_query('hangs')"), NAMED, execution_timeout=1)
    asked.wait_for_disconnects(1)


def test_any_kernel_of_jupyter_will_do_and_gets_no_key(asked, mill, tmp_path, monkeypatch, caplog):
    write_kernel_spec(tmp_path / "kernels" / "python3")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    keys = "import os\nprint([name for name in os.environ if 'KEY' in name], os.getcwd())"
    done = mill(notebook("print(llm_query('one'))", keys, kernel="python3"), NAMED)
    assert shown(done) == ["echo one\n", f"[] {Path.cwd()}\n"]
    assert "The kernel 'python3' gets no key of your environment" in caplog.text
    assert "rlm_query" not in caplog.text.replace("llm_query and rlm_query", "")


@pytest.mark.parametrize(("parameters", "is_said"), [({}, True), ({"max_depth": 2}, False)])
def test_an_rlm_query_that_is_a_plain_call_is_announced(asked, mill, caplog, parameters, is_said):
    asked.script = lambda request: f"FINAL({request.prompt})" if parameters else request.prompt
    mill(notebook("rlm_query('one')"), {**NAMED, **parameters})
    assert ("rlm_query is answered by one call of a model, as llm_query is" in caplog.text) is is_said
    assert ("-p max_depth 2" in caplog.text) is is_said


def test_a_notebook_finds_files_where_papermill_runs_it(asked, mill, tmp_path):
    (tmp_path / "here.txt").write_text("found")
    done = mill(notebook("print(open('here.txt').read())"), NAMED, cwd=tmp_path)
    assert shown(done) == ["found\n"]


def test_the_command_shows_progress_and_ctrl_c_ends_it(asked, tmp_path):
    (tmp_path / "in.ipynb").write_text(nbformat.writes(notebook("print('first')", "llm_query('hangs')")))
    asked.script = lambda _: Hangs()
    command = [sys.executable, "-m", "papermill", "--engine", "rlm", "in.ipynb", "out.ipynb", "-p", "model", MODEL]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True)
    asked.wait_for_requests(1)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode != 0
    assert "Executing" in said
    assert "KeyboardInterrupt" in said or "Aborted" in said
    asked.wait_for_disconnects(1)
    written = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "first" in nbformat.writes(written)


def test_a_plain_notebook_without_a_model_says_what_is_missing_and_nothing_of_a_record(mill, monkeypatch):
    for variable in ("RLM_BACKEND", "RLM_MODEL"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(PapermillExecutionError) as caught:
        mill(notebook("llm_query('hi')"))
    assert caught.value.evalue.startswith("No model is named: give papermill -p backend")
    assert "record" not in caught.value.evalue


def test_the_requests_of_a_notebook_are_no_lines_of_papermill(asked, mill, caplog):
    caplog.set_level(logging.INFO)
    level = logging.getLogger("httpx").level  # litellm sets it when it is imported

    def script(request):
        logging.getLogger("LiteLLM").info("a line of litellm for each call")
        return "yes"

    asked.script = script
    mill(notebook("llm_query('hi')"), NAMED)
    assert len(asked.requests) == 1
    lines = [one.getMessage() for one in caplog.records]
    assert [line for line in lines if "HTTP Request" in line or "litellm" in line] == []
    assert logging.getLogger("httpx").level == level


# -- notebooks of recorded runs


RECORDED = [
    "Look.\n" + code("import random", "print(random.random())", "print(undefined)"),
    code("import os", "os._exit(1)"),
    code("answers = llm_query_batched([context[:4], context[4:]])", "print(answers, price('a'))"),
    code("from IPython.display import HTML, display", "display(HTML('<b>bold</b>'))", "FINAL(' '.join(answers))"),
]


@pytest.fixture
def recorded(tmp_path):
    return record(tmp_path / "logs", RECORDED, custom_tools={"price": len})


@pytest.mark.parametrize("engine", ["rlm", None])
def test_the_notebook_of_a_run_runs_without_a_model(recorded, tmp_path, engine):
    asked = len(recorded.lm.calls)
    output = tmp_path / "out.ipynb"
    done = papermill.execute_notebook(recorded.notebook, output, engine_name=engine, progress_bar=False)
    before = nbformat.read(recorded.notebook, as_version=4)
    assert differences(before, done) == []
    assert len(recorded.lm.calls) == asked
    assert replay(output).equal


def test_sub_calls_stay_folded_below_their_cell(recorded, mill):
    done = mill(recorded.notebook)
    third = next(cell for cell in done.cells if cell.metadata.get("rlm", {}).get("cell") == 3)
    assert third.outputs[-1].data["text/plain"].startswith("↳ llm_query: 2")
    assert re.search("price.*⇒ 1", third.outputs[-1].data["text/plain"])


def test_an_edited_cell_says_what_is_missing_and_live_mode_asks_for_it(recorded, asked, mill):
    path = recorded.edit("context[4:]]", "'new']")
    with pytest.raises(PapermillExecutionError, match="rlm_mode live") as caught:
        mill(path)
    assert "cell 3 asks what it did not ask in the recorded run: llm_query('new')" in caught.value.evalue
    mill(path, {**NAMED, "rlm_mode": "live"})
    assert [request.prompt for request in asked.requests] == ["new"]


def test_a_notebook_without_its_log_says_where_it_was_looked_for(recorded, mill):
    for file in (recorded.log, file_beside(recorded.log, TURNS)):
        file.unlink()
    with pytest.raises(RecordingError, match="-p rlm_dir"):
        mill(recorded.notebook)


def test_a_log_in_another_folder_is_found_by_its_parameter(recorded, mill, tmp_path):
    recorded.log.parent.rename(tmp_path / "moved")
    apart = tmp_path / "apart.ipynb"
    (tmp_path / "moved" / recorded.notebook.name).rename(apart)
    mill(apart, {"rlm_dir": str(tmp_path / "moved")})
    with pytest.raises(ConfigError, match="rlm_mode must be one of"):
        mill(apart, {"rlm_dir": str(tmp_path / "moved"), "rlm_mode": "dry"})


def test_a_record_is_found_when_only_the_turns_are_beside_the_notebook(recorded, mill, tmp_path):
    (tmp_path / "records").mkdir()
    recorded.log.rename(tmp_path / "records" / recorded.log.name)
    mill(recorded.notebook, {"rlm_dir": str(tmp_path / "records")})


def test_a_notebook_cannot_have_a_key_sent_to_a_server_of_its_choice(asked, mill):
    evil = notebook("print('never')", **NAMED, base_url="https://example.com/v1")
    with pytest.raises(ConfigError, match=r"names the server https://example.com/v1.*papermill -p"):
        mill(evil)
    evil = notebook("print('never')", parameters="base_url = 'https://example.com/v1'")
    with pytest.raises(ConfigError, match="names the server"):
        mill(evil, NAMED)
    ours = notebook("print(llm_query('hi'))", **NAMED, base_url="https://example.com/v1")
    assert shown(mill(ours, {"base_url": asked.base_url})) == ["echo hi\n"]

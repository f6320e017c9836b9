"""`%rlm` in a real kernel: what was, what is set, and what can be."""

from __future__ import annotations

import json

import pytest

from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.types import ModelUsageSummary, UsageSummary
from rlm_magics import commands


@pytest.fixture(scope="module", autouse=True)
def _a_run(notebook):
    notebook.run(
        "leads = leader(cell('x = llm_query(\"a question\")\\nprint(x)'), 'FINAL_VAR(x)')\ntext = 'words ' * 9"
    )
    assert notebook.run("%%rlm -b leads --sub-backend reader -c text -o out\nWhat?").error is None


def test_last_is_the_latest_result(notebook):
    assert notebook.run("%rlm last").result["text/plain"].startswith("A QUESTION\n")
    assert notebook.value("_ is out") == "True"


def test_before_the_first_run_there_is_nothing_to_show(started):
    fresh = started()
    fresh.run("%load_ext rlm_magics")
    for command in ("last", "open", "trace", "replay", "resume"):
        assert "There was no run in this session yet" in fresh.run(f"%rlm {command}").error
    assert "No model was asked" in str(fresh.run("%rlm usage").messages)


def test_open_links_to_the_notebook_and_the_log(notebook):
    shown = notebook.run("%rlm open").of("display_data")[0]["data"]["text/markdown"]
    assert "(rlm_logs/rlm_" in shown
    assert ".ipynb)" in shown
    assert ".jsonl)" in shown


def test_trace_shows_every_turn(notebook):
    shown = notebook.run("%rlm trace").views[0]
    assert "llm_query(&quot;a question&quot;)" in shown
    assert "A QUESTION" in shown
    assert "Answered" in shown


def test_usage_adds_up_the_session(notebook):
    notebook.run("%rlm model whatever --backend reader\nllm_query('one more')")
    shown = notebook.run("%rlm usage").of("display_data")[0]["data"]["text/markdown"]
    assert "| `%%rlm` | leader |" in shown
    assert "| `llm_query` | reader | 1 |" in shown
    notebook.run("%rlm model --backend openai")


def test_an_unknown_cost_hides_no_known_one():
    def used(calls, cost):
        return ModelUsageSummary(calls, 1_000, 10, cost)

    runs = [UsageSummary({"priced": used(2, 0.25), "free": used(1, None)}), UsageSummary({"priced": used(3, None)})]
    shown = commands.usage(runs, [UsageSummary({"priced": used(1, 0.5)})]).replace("<span>\\$</span>", "$")
    assert shown.splitlines()[2:] == [
        "| `%%rlm` | priced | 5 | 2,000 | 20 | $0.2500 without 3 calls (cost unknown) |",
        "| `%%rlm` | free | 1 | 1,000 | 10 | unknown |",
        "| `llm_query` | priced | 1 | 1,000 | 10 | $0.5000 |",
        "| **Total** |  | 7 | 4,000 | 40 | $0.7500 without 4 calls (cost unknown) |",
    ]


def test_replay_needs_no_model(notebook):
    assert "equal to the recorded run" in notebook.run("%rlm replay").printed


def test_resume_goes_on_from_a_turn(notebook):
    notebook.run("goes_on = leader('', 'FINAL(another)')")
    ran = notebook.run("%rlm resume --at 1 -b goes_on --sub-backend reader -o more")
    assert ran.error is None
    assert notebook.value("more.answer") == "'another'"
    kept = notebook.run("print(more.trajectory, end='')").printed
    assert read_log(kept).metadata["forked_from"]["at"] == 1
    assert "Answered" in ran.html
    notebook.run("%%rlm -b leads --sub-backend reader -c text -o out\nWhat?")


def test_what_could_not_begin_is_not_the_latest_run(notebook):
    assert "at=99 is not a finished iteration of rlm_" in notebook.run("%rlm resume --at 99").error
    assert "equal to the recorded run" in notebook.run("%rlm replay").printed
    missing = notebook.run("%rlm resume -e nowhere")
    assert missing.error is not None
    assert "equal to the recorded run" in notebook.run("%rlm replay").printed


def test_what_is_on_record_is_not_paid_twice(started):
    fresh = started()
    fresh.run(
        "%load_ext rlm_magics\n"
        "from rlm import LMError, Reply, ScriptedLM, Usage\n"
        "paid = lambda text: Reply(text, 'm', Usage(1_000, 10, cost=1.0))\n"
        "code, broken = paid('```repl\\n1\\n```'), LMError('no luck', backend='b', model='m', requests=0)\n"
        "breaks = ScriptedLM([code, code, broken], model='m')\n"
        "goes_on = ScriptedLM([paid('FINAL(x)')], model='m')"
    )
    assert fresh.run("%%rlm -b breaks\nWhat?").error == "LMError: no luck"
    assert fresh.run("%rlm resume -b goes_on").result["text/plain"].startswith("x\n")
    shown = fresh.run("%rlm usage").of("display_data")[0]["data"]["text/markdown"]
    assert "| m | 3 | 3,000 | 30 |" in shown
    assert "3.0000" in shown


def test_environments_lists_where_cells_can_run(notebook):
    lines = notebook.run("%rlm environments").printed.splitlines()
    assert lines[0].split() == ["*", "local", "ready"]
    assert any(line.split()[0] == "docker" for line in lines)


def test_a_person_who_says_nothing_is_told_what_there_is(notebook):
    said = notebook.run("%rlm").printed
    assert "%rlm last" in said
    assert "%%rlm? shows its options" in said
    assert "--context VALUE" in notebook.value("get_ipython().magics_manager.magics['cell']['rlm'].__doc__")


def test_the_model_is_set_for_all_cells(notebook):
    assert notebook.run("%rlm model gpt-5-mini --backend openrouter").printed == "openrouter: gpt-5-mini\n"
    assert notebook.run("%rlm model").printed == "openrouter: gpt-5-mini\n"
    assert "No API key for 'openrouter'" in notebook.run("%%rlm -c text\nWhat?").error
    assert "No model is named for the backend 'vercel'" in notebook.run("%%rlm -b vercel\nWhat?").error
    notebook.run("%rlm model '' --backend openai")


def test_defaults_are_set_by_either_command(notebook):
    notebook.run(
        "%config RLMMagics.max_iterations = 3\n%rlm config view quiet\n%rlm config backend_kwargs {'max_retries': 0}"
    )
    assert notebook.run("%rlm config max_iterations").printed == "max_iterations = 3\n"
    assert notebook.run("%rlm config backend_kwargs").printed == "backend_kwargs = {'max_retries': 0}\n"
    assert "* max_iterations" in notebook.run("%rlm config").printed
    assert "  max_depth" in notebook.run("%rlm config").printed
    endless = notebook.run("endless = leader(*[cell('1')] * 3, 'FINAL(at last)')\n")
    assert endless.error is None
    assert not notebook.run("%%rlm -b endless -c text\nWhat?").views
    notebook.run("%rlm config view live\n%rlm config max_iterations 30\n%rlm config backend_kwargs {}")


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("environment jupiter", "Unknown environment 'jupiter'"),
        ("environment_kwargs {'memroy': '2g'}", "has no option 'memroy'"),
        ("backend opnai", "Unknown backend 'opnai'"),
        ("sub_backend opnai", "Unknown backend 'opnai'"),
        ("backend_kwargs {'timeout': 'long'}", "timeout in backend_kwargs must be a number"),
        ("base_url localhost:8000", "must be a URL"),
        ("max_iterations 0", "should not be less than 1"),
        ("max_budget -1", "max_budget must be a number above 0"),
        ("view loud", "any of"),
    ],
)
def test_a_wrong_setting_is_refused_when_it_is_set(notebook, setting, why):
    before = notebook.run("%rlm config").printed
    assert why in notebook.run(f"%rlm config {setting}").error
    assert notebook.run("%rlm config").printed == before


def test_settings_are_kept_for_the_kernels_to_come(started, tmp_path):
    home = {"IPYTHONDIR": str(tmp_path / "ipython")}
    first = started("python3", **home)
    first.run("%load_ext rlm_magics\n%rlm config max_iterations 5")
    file = first.run("%rlm config --save").printed.removeprefix("Saved in ").strip()
    with open(file) as kept:
        assert json.load(kept) == {"RLMMagics": {"max_iterations": 5}}
    second = started("python3", **home)
    second.run("%load_ext rlm_magics")
    assert second.run("%rlm config max_iterations").printed == "max_iterations = 5\n"


def test_a_key_is_not_kept(notebook):
    said = notebook.run("%rlm config backend_kwargs {'api_key': 'sk-123456789'}").error
    assert said.startswith("ConfigError: An API key does not belong in a notebook")
    assert notebook.run("%rlm config backend_kwargs").printed == "backend_kwargs = {}\n"


def test_unloading_takes_everything_back(started):
    fresh = started()
    fresh.run("%load_ext rlm_magics\nllm_query_batched = 'mine'")
    assert fresh.run("%unload_ext rlm_magics").error is None
    assert fresh.value("'llm_query' in dir(), llm_query_batched") == "(False, 'mine')"
    assert "not found" in str(fresh.run("%rlm last").messages)
    assert fresh.run("%load_ext rlm_magics\n%rlm").error is None

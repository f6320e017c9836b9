"""The kernelspec `rlm`: a notebook in which a person has the model's REPL, and the command that installs it."""

from __future__ import annotations

import json
import sys

import pytest

from rlm_kernel.cli import main

ASKS = """\
from rlm import ScriptedLM
said = ["```repl\\nn = len(context)\\n```", "FINAL_VAR(n)"]
leads = ScriptedLM(lambda messages: said[sum(m["role"] == "assistant" for m in messages)])
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The folder of the kernelspec below a prefix, where Jupyter finds it."""
    assert main(["kernel", "install", "--prefix", str(tmp_path)]) == 0
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    return tmp_path / "share" / "jupyter" / "kernels" / "rlm"


def test_it_is_installed_with_this_python(installed):
    spec = json.loads((installed / "kernel.json").read_text())
    assert spec["argv"][0] == sys.executable
    assert spec["display_name"] == "RLM"
    assert (installed / "logo-svg.svg").is_file()


def test_it_is_removed_from_the_place_that_is_named_and_from_no_other(installed, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["kernel", "install", "--prefix", str(other)]) == 0
    assert main(["kernel", "remove", "--prefix", str(other)]) == 0
    assert installed.exists()
    assert not (other / "share" / "jupyter" / "kernels" / "rlm").exists()
    assert main(["kernel", "remove", "--prefix", str(other)]) == 2
    said = capsys.readouterr().err
    assert "There is no kernelspec 'rlm' in" in said
    assert f"Jupyter finds one in {installed.parent}" in said
    assert "choose another place" not in said


def test_a_place_that_cannot_be_written_is_said(capsys, tmp_path):
    (tmp_path / "share").write_text("a file")
    assert main(["kernel", "install", "--prefix", str(tmp_path)]) == 2
    assert "choose another place with --user, --sys-prefix or --prefix DIR" in capsys.readouterr().err


def test_a_name_may_be_given(tmp_path, capsys):
    assert main(["kernel", "install", "--prefix", str(tmp_path), "--name", "mine"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "share" / "jupyter" / "kernels" / "mine")
    assert main(["kernel", "install", "--prefix", str(tmp_path), "--name", "no name"]) == 2
    said = capsys.readouterr().err
    assert "Choose another one with --name" in said
    assert "another place" not in said


def test_a_person_has_what_a_model_has(installed, started):
    repl = started("rlm")
    names = ("context", "answer", "FINAL", "FINAL_VAR", "SHOW_VARS", "llm_query", "rlm_query", "allm_query_batched")
    assert repl.value(f"all(name in globals() for name in {names})") == "True"
    repl.run(ASKS)
    assert repl.run("%rlm model scripted --backend leads").error is None
    repl.run("context = 'words ' * 7")
    assert (
        repl.value("SHOW_VARS()") == "{'context': 'str', 'ScriptedLM': 'type', 'said': 'list', 'leads': 'ScriptedLM'}"
    )
    assert repl.value("rlm_query('five.')") == "'5'"
    assert (
        repl.run("FINAL('**bold** <b>no</b>')").of("display_data")[0]["data"]["text/markdown"].startswith("**bold** <")
    )
    assert repl.value("answer") == "{'content': '**bold** <b>no</b>', 'ready': True}"
    assert repl.run("FINAL_VAR('context')").error is None
    assert "there is no variable 'nothing'" in repl.run("FINAL_VAR('nothing')").error


def test_a_cell_without_an_input_asks_about_context(installed, started):
    repl = started("rlm")
    repl.run(ASKS)
    repl.run("context = 'words ' * 7")
    assert repl.run("%%rlm -b leads\nHow long?").result["text/plain"].startswith("42\n")
    for nothing in ("''", "None"):
        repl.run(f"context = {nothing}")
        assert repl.run("%%rlm -b leads\nHow long?").result["text/plain"].startswith("9\n")
    repl.run("from pathlib import Path\ncontext = Path('report.txt')\ncontext.write_text('seventy-seven ' * 5)")
    assert repl.run("%%rlm -b leads\nHow long?").result["text/plain"].startswith("70\n")
    repl.run("context = 5")
    assert "ConfigError: --context context is of type int" in repl.run("%%rlm -b leads\nHow long?").error


def test_loading_the_magics_once_more_keeps_those_of_the_kernel(installed, started):
    repl = started("rlm")
    repl.run(ASKS)
    repl.run("context = 'words ' * 7\n%rlm config max_iterations 5")
    assert repl.run("%load_ext rlm_magics").error is None
    assert repl.run("%%rlm -b leads\nHow long?").result["text/plain"].startswith("42\n")
    assert repl.run("%rlm config max_iterations").printed == "max_iterations = 5\n"


def test_a_table_in_context_travels_as_the_environment_of_the_cell_wants_it(installed, started):
    other = {"argv": ["env", sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    (installed.parent / "other").mkdir()
    (installed.parent / "other" / "kernel.json").write_text(
        json.dumps({**other, "display_name": "Other", "language": "python"})
    )
    repl = started("rlm")
    repl.run(ASKS.replace("len(context)", "type(context).__name__"))
    repl.run("import pandas\ncontext = pandas.DataFrame({'month': ['May']})")
    assert repl.run("%%rlm -b leads -e other\nWhat is it?").result["text/plain"].startswith("list\n")

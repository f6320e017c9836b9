"""`rlm_mode = 'live'` in a notebook of a run, in a stock client: models answer what is not on record."""

from __future__ import annotations

import ast

import nbformat
import pytest
from loopback import MODEL
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from recorded_runs import code, record
from trajectory.stories import codes

SETUP = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    cells = [
        code("n = len(context)", "first = llm_query('one')", "print(first)"),
        code("import os", "print([name for name in os.environ if 'OPENAI' in name])", "undefined"),
        code("FINAL([n, first])"),
    ]
    return record(tmp_path_factory.mktemp("logs"), cells)


@pytest.fixture
def keys(provider, monkeypatch):
    provider.script = lambda request: f"live {request.prompt}"
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    return provider


def lived(run, *changes, kernel="python3", model=f"backend = 'openai'\nmodel = {MODEL!r}", added=()):
    """The notebook after it ran live, some of its cells edited and some added at its end."""
    notebook = nbformat.read(run.notebook, 4)
    notebook.cells[1].source = notebook.cells[1].source.replace("'replay'", "'live'") + f"\n{model}"
    for old, new in changes:
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in added]
    resources = {"metadata": {"path": str(run.notebook.parent)}}
    return NotebookClient(notebook, kernel_name=kernel, timeout=90, resources=resources).execute()


def printed(notebook):
    return ["".join(o.get("text", "") for o in c.outputs if o.get("name") == "stdout") for c in codes(notebook)]


def test_an_edited_cell_asks_a_model_and_the_others_the_record(run, keys):
    more = ["print(llm_query('of my own'), n)", "RLM.__name__, str(rlm_record)"]
    done = lived(run, ("print(first)", "print(first, llm_query('two'))"), added=more)
    assert printed(done) == ["echo: one live two\n", "[]\n", ""]
    assert done.cells[-2].outputs[0].text == "live of my own 12\n"
    assert ast.literal_eval(done.cells[-1].outputs[0].data["text/plain"]) == ("RLM", str(run.log))
    assert [request.prompt for request in keys.requests] == ["two", "of my own"]
    assert "name 'undefined' is not defined" in str(codes(done)[1].outputs)


def test_what_a_model_wrote_never_runs_where_the_keys_are(tmp_path, keys):
    """However its cell begins, and also when a person edits or shortens it."""
    looks = "print([name for name in os.environ if 'OPENAI' in name])"
    cells = [
        code("RLM = 'a note'", "import os", looks),
        code("'a line before'", "rlm_note = 1", "import os", looks),
        code("# Answers what", "import os", looks),
        code("get_ipython().rlm_live.run('1')", "import os", looks),
        code(f"rlm_x = 1; import os; {looks}"),
        code("FINAL(1)"),
    ]
    done = lived(
        record(tmp_path, cells),
        ("RLM = 'a note'", "RLM = 'an edited note'"),
        ("'a line before'\n", ""),
        ("# Answers what\n", "# Answers what it is\n"),
        ("rlm_x = 1", "rlm_x = 2"),
    )
    assert printed(done)[:5] == ["[]\n", "[]\n", "[]\n", "", "[]\n"]  # the fourth has raised


def test_an_error_of_an_edited_cell_is_an_error(run, keys):
    with pytest.raises(CellExecutionError, match="division by zero") as raised:
        lived(run, ("FINAL([n, first])", "1 / 0"))
    assert "live_notebook" not in str(raised.value)


def test_a_kernel_without_a_key_is_told_which_one_to_choose(run, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CellExecutionError) as raised:
        lived(run)
    assert "Kernel > Change Kernel… > RLM" in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_the_model_goes_on_from_the_edited_cell(run, keys):
    """Its code and what models answered it are what the root model reads, and no question is asked twice."""
    asked = []

    def script(request):
        asked.append(request.prompt)
        return "```repl\nFINAL([n, first, more])\n```" if "live two" in request.prompt else f"live {request.prompt}"

    keys.script = script
    edit = ("print(first)", "more = llm_query('two')\nprint(first, more)")
    done = lived(run, edit, added=["result = RLM.resume(rlm_record)", "RLM.__name__, result.response"])
    assert "live two" in done.cells[-1].outputs[0].data["text/plain"], done.cells[-1].outputs
    assert len(asked) == 2
    new = max(run.log.parent.glob("*.ipynb"), key=lambda path: path.stat().st_mtime)
    about = nbformat.read(new, 4)
    assert about.metadata.rlm.forked_from.at == 1
    assert about.metadata.rlm.forked_from.edited_cells == [1]
    assert codes(about)[0].source.endswith("print(first, more)")
    assert printed(about)[0] == "echo: one live two\n"

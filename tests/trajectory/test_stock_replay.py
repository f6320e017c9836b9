"""The notebook of a run runs again in stock Jupyter clients: no key, no network, nothing of ours but a kernelspec."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from recorded_runs import record_file
from trajectory.comparison import differences
from trajectory.stories import Story, cell, codes, command, equal, executed, papermill, told

from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.cli import main
from rlm_kernel.errors import LMError
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log.reader import log_of
from rlm_kernel.trajectory.notebook.build import identity_of_recording, notebook_of
from rlm_kernel.trajectory.notebook.setup_cell import replay_code

PICTURE = """\
from IPython.display import HTML, display
display(HTML("<b>bold</b>"))
import matplotlib.pyplot as plt
plt.plot([1, 2, 3], [3, 1, 2])
plt.show()"""
BATCH = """\
answers = llm_query_batched([f"question {n}" for n in range(200)])
print(len(answers), answers[199], answers[13])
[llm_query("the same"), llm_query("the same"), (await allm_query("awaited"))]"""
FAILS = """\
import sys
x = 1
print("out"); print("err", file=sys.stderr)
def inner(): return undefined_name
inner()"""
OTHERS = """\
import random
print(random.random(), hash("abc"), object(), SHOW_VARS())
print(look_up("a", n=2), value, double(4))
try:
    look_up("b", n=1)
except KeyError as error:
    print("tool:", repr(error))
rlm_query("child: 1 2 3")"""
THREADS = """\
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    parts = list(pool.map(llm_query, [f"part {n}" for n in range(40)]))
%time y = 2
try:
    llm_query("fails")
except RuntimeError as error:
    print(repr(error))
llm_query = None
"""


def look_up(key, n=1):
    """Look up a key."""
    return {"a": n}[key]


def answer(prompt):
    if prompt in ("question 13", "fails"):
        return LMError("no such thing", backend="b", model="sub")
    return prompt.upper()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    replies = [
        cell("print(type(context), len(context))\ncontext[:20]") + "\nThen:\n```python\n" + PICTURE + "\n```",
        cell(BATCH),
        cell(FAILS),
        cell(OTHERS),
        cell(THREADS),
        cell("result = [x, len(answers), parts[39], double(3)]\nresult") + "\nFINAL_VAR(result)",
    ]
    return told(
        tmp_path_factory.mktemp("story"),
        replies,
        context="ünïcode, \ud800 and a long text. " * 2_000,
        sub=answer,
        child=[cell("numbers = context.split()[1:]\nllm_query('the child asks')"), "FINAL_VAR(numbers)"],
        environment_kwargs={"setup_code": "import math"},
        custom_tools={"look_up": look_up, "value": {"k": [1, 2]}, "double": "def double(n):\n    return 2 * n"},
    )


def test_plain_papermill(story, tmp_path):
    code, said, replayed = papermill(tmp_path, story.path)
    assert code == 0, said
    assert equal(story, replayed)
    assert story.response == "[1, 200, 'PART 39', 6]"
    numbers = [c.execution_count for c in codes(story.notebook)]
    assert [c.execution_count for c in codes(replayed)] == numbers


def test_a_kernel_without_anything_of_ours(story, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    code, said, replayed = papermill(tmp_path, story.path, "-k", "python3")
    assert code == 0, said
    assert equal(story, replayed)


@pytest.mark.full
def test_papermill_finds_a_run_that_has_moved_when_it_is_told_where_or_tells_it(story, tmp_path):
    folder = shutil.copytree(story.log.parent, tmp_path / "far" / "moved")
    path = folder / story.path.name
    code, said, _ = papermill(tmp_path, path, "-p", "rlm_dir", "/not/here")
    assert code != 0
    assert "-p rlm_dir FOLDER" in said
    assert "--inject-paths" in said
    for options in (["-p", "rlm_dir", folder], ["-p", "rlm_dir", "/not/here", "--inject-paths"]):
        code, said, replayed = papermill(tmp_path, path, *options)
        assert code == 0, said
        assert equal(story, replayed)


def test_nbconvert(story, tmp_path):
    folder = shutil.copytree(story.log.parent, tmp_path / "moved")
    code, said = command(tmp_path, "nbconvert", "--execute", "--to", "notebook", "--inplace", folder / story.path.name)
    assert code == 0, said
    assert equal(story, nbformat.read(folder / story.path.name, 4))


def test_jupyter_execute(story, tmp_path):
    folder = shutil.copytree(story.log.parent, tmp_path / "moved")
    code, said = command(tmp_path, "jupyter", "execute", "--inplace", folder / story.path.name)
    assert code == 0, said
    assert equal(story, nbformat.read(folder / story.path.name, 4))


def test_nbclient_finds_a_log_that_has_moved(story, tmp_path):
    folder = shutil.copytree(story.log.parent, tmp_path / "moved")
    assert equal(story, executed(story.notebook, folder, rlm_dir="/not/here"))


def test_the_log_is_found_below_the_working_directory(story, tmp_path):
    shutil.copytree(story.log.parent, tmp_path / "logs")
    assert equal(story, executed(story.notebook, tmp_path, rlm_dir="/elsewhere/logs"))


def test_the_notebook_of_a_child(story, tmp_path):
    (child,) = story.children()
    assert equal_to_child(story, child, executed(nbformat.read(child, 4), tmp_path))
    assert log_of(child) == story.log


def equal_to_child(story, child, replayed):
    (call,) = [call for c in story.recording.trajectory.cells for call in c.calls if call.children]
    return differences(call.children[0], replayed) == differences(nbformat.read(child, 4), replayed) == []


def test_a_missing_log_is_named_with_the_way_out(story, tmp_path):
    with pytest.raises(CellExecutionError) as raised:
        executed(story.notebook, tmp_path, rlm_dir="/not/here")
    assert f"looked for {f'{story.name}.jsonl'} and {replay_code().name} in /not/here, " in str(raised.value)
    assert "-p rlm_dir FOLDER" in str(raised.value)
    shutil.copy(story.log.parent / replay_code().name, tmp_path)
    with pytest.raises(CellExecutionError) as raised:
        executed(story.notebook, tmp_path, rlm_dir="/not/here")
    assert f"/not/here/{f'{story.name}.jsonl'}" in str(raised.value)
    assert "-p rlm_dir FOLDER" in str(raised.value)


def test_missing_replay_code_is_named_and_an_export_writes_it_again(story, tmp_path, capsys):
    folder = shutil.copytree(story.log.parent, tmp_path / "moved")
    log, code = folder / story.log.name, folder / replay_code().name
    code.unlink()
    with pytest.raises(CellExecutionError, match=f"rlm export {story.name}.jsonl -o NEW.ipynb") as raised:
        executed(story.notebook, folder, rlm_dir=str(folder))
    assert f"{code.name}, which replays this notebook, is not beside its log" in str(raised.value)
    (tmp_path / "out").mkdir()
    assert main(["export", str(log), "-o", str(tmp_path / "out" / "new.ipynb")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "new.ipynb")
    assert equal(story, executed(story.notebook, folder, rlm_dir=str(folder)))
    assert equal(story, executed(nbformat.read(tmp_path / "out" / "new.ipynb", 4), tmp_path))
    assert (tmp_path / "out" / code.name).read_bytes() == code.read_bytes()


def test_altered_replay_code_is_not_run(story, tmp_path):
    folder = shutil.copytree(story.log.parent, tmp_path / "moved")
    code = folder / replay_code().name
    code.write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n" + code.read_text())
    with pytest.raises(CellExecutionError, match=f"{code} was altered, so it is not run"):
        executed(story.notebook, tmp_path, rlm_dir=str(folder))
    assert not (tmp_path / "it-ran").exists()


def test_a_notebook_that_holds_the_replay_code_itself_is_replayed(tmp_path):
    """As rlm-kernel wrote them before the code had a file of its own."""
    folder = shutil.copytree(Path(__file__).with_name("embedded_notebook"), tmp_path / "old")
    story = Story(folder / "run.jsonl")
    (folder / "run.ipynb.json").rename(story.path)
    assert "class ReplayGuest" in story.notebook.cells[2].source
    assert equal(story, executed(story.notebook, folder))
    report = replay(story.path, trust=True)
    assert report.equal, report


def test_an_export_gives_a_saved_notebook_the_setup_cell_of_this_version(story, tmp_path):
    notebook = story.notebook
    notebook.cells[2].source = "rlm_setup('of another version')"
    codes(notebook)[2].source += "\n# edited"
    nbformat.write(notebook, story.log.parent / "edited.ipynb")
    assert main(["export", str(story.log.parent / "edited.ipynb"), "-o", str(tmp_path / "new.ipynb")]) == 0
    new = nbformat.read(tmp_path / "new.ipynb", 4)
    assert new.cells[2] == story.notebook.cells[2]
    assert codes(new)[2].source == codes(notebook)[2].source


def folded(notebook):
    """The sub-calls and the links to children below the cells."""
    shown = ((c, output) for c in codes(notebook) for output in c.outputs if "data" in output)
    return [(c.metadata.rlm.cell, o.data) for c, o in shown if o.metadata.get("rlm", {}).get("role") == "calls"]


@pytest.mark.parametrize("saved", ["as it was", "without outputs"])
def test_the_sub_calls_are_folded_below_their_cells_again(story, tmp_path, saved):
    """The notebook was saved with them, or somebody has cleared its outputs: then they are made from the log."""
    folder = shutil.copytree(story.log.parent, tmp_path / "copy")
    expected = folded(story.notebook)
    assert [number for number, _ in expected] == [3, 5, 6]
    assert f"{story.name}/5-1-1_child" in str(expected)
    notebook = story.notebook
    if saved == "without outputs":
        for c in notebook.cells:
            c.update({"outputs": []} if c.cell_type == "code" else {})
        nbformat.write(notebook, folder / story.path.name)
    codes(notebook)[5].source += "\n# edited"
    assert folded(executed(notebook, folder, rlm_dir=str(folder))) == expected[:-1]


@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_context_that_is_not_what_it_was_is_named(story, tmp_path, harm):
    folder = shutil.copytree(story.log.parent, tmp_path / "moved")
    (stored,) = (folder / "contexts").iterdir()
    stored.unlink() if harm == "missing" else stored.write_bytes(stored.read_bytes() + b".")
    with pytest.raises(CellExecutionError, match=f"The context of the run (is|was) {harm}.*{stored.name}"):
        executed(story.notebook, tmp_path, rlm_dir=str(folder))


def test_a_context_in_the_log_that_was_altered_is_named(tmp_path):
    story = told(tmp_path, [cell("FINAL(context)")])
    story.log.write_text(story.log.read_text().replace('"value":"some context"', '"value":"some other context"'))
    with pytest.raises(CellExecutionError, match="The context of the run was altered: that in the log"):
        executed(story.notebook, tmp_path)


def test_a_line_of_the_log_that_was_altered_is_named(tmp_path):
    story = told(tmp_path, [cell("FINAL(context)")])
    story.log.write_text(story.log.read_text().replace('"type":"cell"', '"type:"cell"'))
    with pytest.raises(CellExecutionError, match=r"line \d+ is not JSON: it was altered"):
        executed(story.notebook, tmp_path)


def test_an_edited_cell_that_asks_the_same_is_answered(story, tmp_path):
    notebook = story.notebook
    codes(notebook)[2].source += "\n# edited"
    replayed = executed(notebook, tmp_path)
    assert "THE SAME" in str(codes(replayed)[2].outputs)
    assert [(one.cell, one.what) for one in differences(story.notebook, replayed)] == [(3, "source")]


def test_another_call_is_named_by_cell_and_call_and_live_mode_is_offered(story, tmp_path):
    notebook = story.notebook
    codes(notebook)[2].source = "llm_query('something else')"
    with pytest.raises(CellExecutionError) as raised:
        executed(notebook, tmp_path, rlm_mode="replay")
    assert "Cell 3 of the run asks what is not on record, llm_query('something else'): it was edited" in str(
        raised.value
    )
    assert "papermill --engine rlm" in str(raised.value)
    assert "rlm replay --live" in str(raised.value)


def test_an_unknown_mode_is_refused(story, tmp_path):
    with pytest.raises(CellExecutionError, match="rlm_mode is 'replay' or 'live', not 'dream'"):
        executed(story.notebook, tmp_path, rlm_mode="dream")


def test_a_cell_can_be_run_again_and_others_left_out(story):
    """As somebody does who plays with the notebook: cells twice, in another order, new ones between them."""
    notebook = story.notebook
    first, batch = codes(notebook)[0], codes(notebook)[2]
    new = nbformat.v4.new_code_cell("print('a cell of my own')")
    end = notebook.cells.index(batch) + 1
    notebook.cells = [*notebook.cells[:end], batch, new, first, batch]
    for n, one in enumerate(notebook.cells):
        one["id"] = f"cell-{n}"
    nbclient.NotebookClient(notebook).execute()
    shown = [c.outputs[0].text for c in notebook.cells if c.source == batch.source]
    assert len(shown) == 3
    assert len(set(shown)) == 1


def test_the_setup_cell_can_be_run_again(story):
    notebook = story.notebook
    setup = notebook.cells[2]
    notebook.cells = [*notebook.cells[:3], codes(notebook)[0], setup, *notebook.cells[3:]]
    notebook.cells[3] = nbformat.from_dict({**notebook.cells[3], "id": "again"})
    notebook.cells[4] = nbformat.from_dict({**setup, "id": "setup-again"})
    assert equal(story, nbclient.NotebookClient(notebook).execute())


def test_cells_that_did_not_end_by_themselves_are_not_run_again(tmp_path):
    story = told(
        tmp_path,
        [
            cell("kept = 1"),
            cell("print('soon'); import time; time.sleep(60)"),
            cell("print('dies', flush=True); time = __import__('time'); time.sleep(0.3); __import__('os')._exit(1)"),
            cell("kept"),
            "FINAL_VAR(kept)",
        ],
        environment_kwargs={"cell_timeout": 1},
    )
    assert [c.metadata.rlm.status for c in codes(story.notebook)] == ["ok", "timeout", "died", "ok"]
    assert [c.metadata.get("tags") for c in codes(story.notebook)[1:3]] == [["rlm-cut-off"], ["rlm-cut-off"]]
    assert "The cell was stopped after" in str(codes(story.notebook)[1].outputs)
    assert "The kernel died" in str(codes(story.notebook)[2].outputs)
    code, said, replayed = papermill(tmp_path, story.path, "--execution-timeout", "20")
    assert code == 0, said
    assert equal(story, replayed)
    assert "soon" in str(codes(replayed)[1].outputs)
    assert "Not run again" in str(codes(replayed)[1].outputs)


def test_a_run_that_was_killed_runs_again_as_far_as_it_got(tmp_path):
    story = told(
        tmp_path, [cell("a = llm_query('one')"), cell("print(a)\nllm_query_batched(['two', 'three'])"), "FINAL(a)"]
    )
    lines = story.log.read_text().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if '"type":"answer"' in line and '"index":1' in line)
    story.log.write_text("".join(lines[:cut]) + lines[cut][:20])
    nbformat.write(notebook_of(story.recording.trajectory, identity_of_recording(story.recording)), story.path)
    assert codes(story.notebook)[1].metadata.rlm.status == "unfinished"
    assert "had begun" in "".join(c.source for c in story.notebook.cells)
    code, said, replayed = papermill(tmp_path, story.path)
    assert code == 0, said
    assert equal(story, replayed)


def test_the_setup_cell_leaves_a_kernel_alone_that_a_host_has_prepared(story, tmp_path):
    """Our own engine puts the guest there itself; the notebook's cell then does nothing."""
    notebook = nbformat.v4.new_notebook(metadata=story.notebook.metadata)
    pretend = "import sys, types\nsys.modules['rlm_guest'] = types.ModuleType('rlm_guest')\nllm_query = 'of the host'"
    notebook.cells = [
        nbformat.v4.new_code_cell(pretend),
        story.notebook.cells[2],
        nbformat.v4.new_code_cell("llm_query"),
    ]
    nbclient.NotebookClient(notebook).execute()
    assert notebook.cells[1].outputs == []
    assert notebook.cells[2].outputs[0].data["text/plain"] == "'of the host'"


def test_a_tool_that_was_not_recorded_is_named(tmp_path):
    story = told(tmp_path, [cell("print(thing)"), "FINAL(1)"], custom_tools={"thing": {1: (2, 3)}})
    notebook = story.notebook
    with pytest.raises(CellExecutionError, match="name 'thing' is not defined"):
        executed(notebook, tmp_path)
    assert "The tool 'thing' is not on record" in str(notebook.cells[2].outputs)


def test_what_was_left_of_the_limits_is_on_record(tmp_path):
    code = "left = budget()\nprint(left)\nround(left.seconds), left.calls"
    story = told(tmp_path, [cell(code), "FINAL_VAR(left)"], max_timeout=600, max_calls=7)
    replayed = executed(story.notebook, tmp_path)
    assert equal(story, replayed)
    assert "Budget(seconds=" in str(codes(replayed)[0].outputs)


def test_a_run_in_a_persistent_kernel_has_what_the_runs_before_it_left(tmp_path):
    replies = iter(
        [
            cell("left = llm_query('first')\nimport random\nrandom.random()\n1 / 0"),
            "FINAL(one)",
            cell("print(left, context, context_0, context_1, len(history_0), random.random())"),
            "FINAL(two)",
        ]
    )
    lead = ScriptedLM(lambda messages: next(replies) if messages[0]["role"] == "system" else "FIRST", model="m")
    logger = RLMLogger(tmp_path)
    with RLM(lead, persistent=True, logger=logger) as rlm:
        rlm.completion("one", "q")
        rlm.completion("two", "q")
    story = Story(record_file(logger))
    assert "FIRST two one two" in str(codes(story.notebook)[0].outputs)
    replayed = executed(story.notebook, tmp_path)
    assert equal(story, replayed)
    earlier = Path(next(one for one in tmp_path.glob("*.events.jsonl") if one != story.log))
    earlier.unlink()
    with pytest.raises(CellExecutionError, match=f"whose log is missing: .*{earlier.name}"):
        executed(story.notebook, tmp_path)


def test_answers_by_schema_and_pictures_of_cells_are_there(tmp_path):
    code = """\
import matplotlib.pyplot as plt
plt.plot([1, 2]); plt.show()"""
    asks = """\
kinds = llm_query_batched(["a", "b"], schema={"type": "object", "required": ["kind"]})
print(kinds[1]["kind"], llm_query("what is on it?", images=[1]), In[1].count("plt"), len(In))"""
    story = told(
        tmp_path,
        [cell(code), cell(asks), "FINAL(1)"],
        sub=lambda prompt: "a line" if "on it" in prompt else '{"kind": 3}',
    )
    assert "3 a line" in str(codes(story.notebook)[1].outputs)
    shown = codes(story.notebook)[1].outputs[-1].data["text/html"]
    assert "1 pictures" in shown
    assert "an answer by schema" in shown
    assert equal(story, executed(story.notebook, tmp_path))


def test_a_call_that_was_refused_is_refused_again(tmp_path):
    code = """\
try:
    llm_query("a", model="gpt-99")
except RuntimeError as error:
    print(error)
print(llm_query_batched(["a", "b"], model="gpt-99"))
try:
    llm_query("a", schema={"type": 3})
except ValueError as error:
    print("refused:", error)
llm_query("a", model="gpt-99")"""
    story = told(tmp_path, [cell(code), "FINAL(1)"])
    shown = str(codes(story.notebook)[0].outputs)
    assert "there is no model 'gpt-99'" in shown
    assert "refused:" in shown
    assert story.recording.trajectory.completion.usage_summary.total_calls == 2
    assert equal(story, executed(story.notebook, tmp_path))


def test_a_cell_within_a_cell_is_a_part_of_it(tmp_path):
    nested = "get_ipython().run_cell('1')\nprint(llm_query('a'))\nFINAL('kept')\nget_ipython().run_cell('2');"
    story = told(tmp_path, [cell("llm_query('first')"), cell(nested)])
    assert story.response == "kept"
    assert replay(story.log).equal
    assert equal(story, executed(story.notebook, tmp_path))


def test_what_was_said_before_a_summary_is_there_again(tmp_path):
    shown = cell("print([(m['role'], len(m['content']), m['content'][:40]) for m in history])")
    lm = ScriptedLM([cell("a = 1"), "one", shown, "two", shown, "three", "FINAL(1)"], context_window=100)
    logger = RLMLogger(tmp_path)
    RLM(lm, compaction=True, logger=logger).completion("c", "q")
    assert replay(logger.log_file_path).equal
    story = Story(record_file(logger))
    assert equal(story, executed(nbformat.read(logger.notebook_path, 4), tmp_path))


def test_what_the_setup_asked_is_on_record(tmp_path):
    setup = {"setup_code": "known = llm_query('by the setup')"}
    tools = {"loud": "other = llm_query('by a tool')\ndef loud(): return other"}
    last = cell("FINAL([known, loud()])")
    story = told(tmp_path, [cell("print(known, other)"), last], environment_kwargs=setup, custom_tools=tools)
    assert story.response == "['BY THE SETUP', 'BY A TOOL']"
    assert replay(story.log).equal
    assert equal(story, executed(story.notebook, tmp_path))
    run = story.recording.trajectory
    assert [call.started.prompts for call in run.setup.calls] == [("by the setup",), ("by a tool",)]
    assert [spent for spent, _ in run.spending()] == ["root", "root", "sub", "sub"]
    models = {"backend": ScriptedLM([], model="root"), "other_backends": [ScriptedLM([], model="sub")]}
    again = RLM.resume(story.log, **models)
    assert (again.response, again.usage_summary) == (story.response, run.completion.usage_summary)


def test_what_an_earlier_run_of_a_kernel_said_before_a_summary_is_there_again(tmp_path):
    ask = cell("seen = [len(m['content']) for m in history]; print(seen)")
    script = [cell("a = 1"), "one", ask, "two", "FINAL(1)", cell("print(seen, history)"), "three", "FINAL(2)"]
    logger = RLMLogger(tmp_path)
    with RLM(ScriptedLM(script, context_window=100), compaction=True, persistent=True, logger=logger) as rlm:
        rlm.completion("first", "q")
        rlm.completion("second", "q")
    story = Story(record_file(logger))
    (shown,) = codes(story.notebook)
    assert shown.outputs[0].text.startswith("[")
    assert not shown.outputs[0].text.startswith("[]")
    assert shown.outputs[0].text.endswith(" []\n")
    report = replay(story.log)
    assert report.equal, report
    assert equal(story, executed(story.notebook, tmp_path))
    forked = ScriptedLM(["FINAL_VAR(seen)"], context_window=100)
    again = RLM.resume(story.log, 1, backend=forked)
    assert shown.outputs[0].text == f"{again.response} []\n"

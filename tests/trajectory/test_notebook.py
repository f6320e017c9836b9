"""The notebook of a run: valid, whole, readable without a kernel, and the same whenever it is made."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from trajectory.comparison import notebooks_of
from trajectory.stories import CHILD, cell, codes, text_of, told

from rlm_kernel.errors import LMError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.notebook.build import RunIdentity, fingerprint, identity_of_recording, notebook_of
from rlm_kernel.trajectory.notebook.cells import split
from rlm_kernel.trajectory.tree import Trajectory
from rlm_kernel.types import CellResult, Reply, Usage

HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> ![x](http://evil.example/x.png) "
    "[x](javascript:alert(1)) </pre></details> \x1b[31mred \u202ebidi \ud800 ``` $a$ | "
)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    def sub(prompt):
        return LMError("no such thing", backend="b", model="sub") if prompt == "question 13" else prompt.upper()

    replies = [
        cell("1 + 1", "I look first.") + "\nThen a figure:\n```python\n" + FIGURE + "\n```\nThat was it.",
        cell("answers = llm_query_batched([f'question {n}' for n in range(200)])\nllm_query('one more')"),
        cell("print('before')\n1 / 0") + "\nand\n```repl\nnever_run\n```",
        cell(f"rlm_query({CHILD!r} + 'a', model='sub')\nadd(2, b=3)"),
        cell("result = len(answers)") + "\nFINAL_VAR(result)",
    ]
    child = [cell("llm_query_batched(['x', 'y'])\nrlm_query('deeper')"), "FINAL(the child)"]
    return told(
        tmp_path_factory.mktemp("story"), replies, sub=sub, child=child, custom_tools={"add": lambda a, b=0: a + b}
    )


FIGURE = """\
from IPython.display import HTML, display
display(HTML("<b>bold</b>"))
import matplotlib.pyplot as plt
plt.plot([1, 2])
plt.show()"""


def cell_of(notebook, name):
    return next(c for c in notebook.cells if c.id.split("-", 2)[2] == name)


def made_again(story, redact=None):
    return notebook_of(story.recording.trajectory, identity_of_recording(story.recording), redact)


def test_the_cells_stand_in_the_order_of_the_run(story):
    nbformat.validate(story.notebook)
    names = [c.id.split("-", 2)[2] for c in story.notebook.cells]
    assert names == [
        "title", "parameters", "setup",
        "t001-model", "t001-c1", "t001-p2", "t001-c2", "t001-p4",
        "t002-model", "t002-c1", "t002-n1",
        "t003-model", "t003-c1", "t003-p2",
        "t004-model", "t004-c1",
        "t005-model", "t005-c1", "t005-p2",
        "answer", "usage",
    ]  # fmt: skip
    roles = [c.metadata.rlm.role for c in story.notebook.cells]
    assert roles[:4] == ["title", "parameters", "setup", "model"]


def test_the_cells_that_prepare_a_replay(story):
    _, parameters, setup = story.notebook.cells[:3]
    assert parameters.metadata.tags == ["parameters"]
    named = dict(line.split(" = ") for line in parameters.source.split("\n"))
    assert named == {
        "rlm_dir": repr(str(story.log.parent)), "rlm_log": repr(f"{story.name}.jsonl"), "rlm_mode": "'replay'"
    }  # fmt: skip
    assert setup.metadata.tags == ["rlm-setup"]
    assert setup.metadata.jupyter.source_hidden


def test_real_outputs_and_counts_are_kept(story):
    first, figure, batch, failed, *_ = codes(story.notebook)
    assert first.outputs[0] == {
        "output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}, "execution_count": 1
    }  # fmt: skip
    assert first.execution_count == 1
    assert [sorted(o.data) for o in figure.outputs] == [["text/html", "text/plain"], ["image/png", "text/plain"]]
    assert [o.output_type for o in batch.outputs] == ["stream", "execute_result", "display_data"]
    assert failed.outputs[-1].output_type == "error"
    assert "\x1b[" in "".join(failed.outputs[-1].traceback)
    assert failed.metadata.tags == ["raises-exception"]
    assert "tags" not in first.metadata


def test_words_stand_around_the_code_as_the_model_wrote_them(story):
    model = cell_of(story.notebook, "t001-model").source
    assert model.startswith("## Turn 1\n\n<small>817 tokens in, 76 out")
    assert model.endswith("I look first.")
    assert cell_of(story.notebook, "t001-p2").source == "Then a figure:"
    assert cell_of(story.notebook, "t001-p4").source == "That was it."
    assert cell_of(story.notebook, "t003-p2").source == "and\n\n```repl\nnever_run\n```"


def test_a_batch_is_folded_and_can_be_read(story):
    output = codes(story.notebook)[2].outputs[-1]
    assert output.metadata.rlm.role == "calls"
    soup = BeautifulSoup(output.data["text/html"], "html.parser")
    titles = [tag.text for tag in soup.find_all("summary")]
    assert titles[0].startswith("↳ llm_query: 201 · 4,555 tokens in, 17,384 out")  # the failed one by estimate
    assert titles[0].endswith("1 failed")
    assert "1 to 50 · 1 failed" in titles
    assert "14 question 13 ✗ Error: no such thing" in titles
    assert "200 question 199 ⇒ QUESTION 199" in titles
    assert "llm_query one more ⇒ ONE MORE" in titles
    assert [pre.text for pre in soup.find_all("pre")][-2:] == ["one more", "ONE MORE"]
    assert output.data["text/plain"].count("\n") == output.data["text/markdown"].count("\n* ") + 0 == 9
    assert "193 more" in output.data["text/plain"]


def test_tools_and_children_are_told_below_their_cell(story):
    html = codes(story.notebook)[4].outputs[-1].data["text/html"]
    soup = BeautifulSoup(html, "html.parser")
    (child,) = story.children()
    link = f"{story.name}/{child.name}"
    assert child.name.startswith("5-1-1_child-")
    assert [unquote(a["href"]) for a in soup.find_all("a")] == [link]
    assert "add(2, b=3) ⇒ 5" in [tag.text for tag in soup.find_all("summary")]
    notebook = nbformat.read(child, 4)
    assert story.notebook.metadata.rlm.children == [link]
    assert f"[parent run](../{story.path.name})" in notebook.cells[0].source
    assert f"[log](../{story.name}.jsonl)" in notebook.cells[0].source
    assert notebook.metadata.rlm.child == [[5, notebook.metadata.rlm.child[0][1], 0]]
    assert f"rlm_child = {notebook.metadata.rlm.child}" in notebook.cells[1].source
    assert cell_of(notebook, "answer").source == "## Answer\n\nthe child"


def test_children_of_children_are_told_by_their_place(tmp_path):
    deeper = cell(f"rlm_query({CHILD!r} + 'deeper') if 'deeper' not in context else 0")
    story = told(tmp_path, [cell(f"rlm_query({CHILD!r})"), "FINAL(1)"], child=[deeper, "FINAL(2)"], max_depth=3)
    names = [f"{story.name}{end}.ipynb" for end in ("", "/1-1-1_child", "/1-1-1-1-1-1_child-deeper")]
    found = notebooks_of(story.recording.trajectory, identity_of_recording(story.recording))
    assert [*found] == names
    assert "[parent run](1-1-1_child.ipynb)" in found[names[2]].cells[0].source
    assert len(found[names[2]].metadata.rlm.child) == 2


def test_a_run_whose_children_were_written_beside_it_is_linked_to_them_there(tmp_path):
    deeper = cell(f"rlm_query({CHILD!r} + 'deeper') if 'deeper' not in context else 0")
    story = told(tmp_path, [cell(f"rlm_query({CHILD!r})"), "FINAL(1)"], child=[deeper, "FINAL(2)"], max_depth=3)
    names = [f"{story.name}{end}.ipynb" for end in ("", "-child-1-1-1", "-child-1-1-1-1-1-1")]
    story.children()[0].rename(tmp_path / names[1])  # as earlier versions did
    found = notebooks_of(story.recording.trajectory, identity_of_recording(story.recording))
    assert [*found] == names
    assert f'href="{names[1]}"' in str(found[names[0]])
    assert f"[log]({story.name}.jsonl) · [parent run]({names[0]})" in found[names[1]].cells[0].source
    assert f"[parent run]({names[1]})" in found[names[2]].cells[0].source


def test_a_link_to_a_child_leads_to_its_file():
    started = events.SubcallStarted(time=1, cell=1, query="q", kind="rlm_query", model="m", prompts=("a",))
    inner = events.IterationStarted(time=0, iteration=1)
    run = Trajectory(
        [
            events.IterationStarted(time=0, iteration=1),
            events.ModelReplied(time=1, iteration=1, reply=Reply("```repl\n1\n```", "m"), seconds=1),
            events.CellStarted(time=1, iteration=1, cell=1, code="1"),
            started,
            events.ChildEvent(time=1, cell=1, query="q", index=0, event=inner),
        ]
    )
    ((name, notebook), (child, _)) = notebooks_of(run, RunIdentity("50% #1")).items()
    (link,) = BeautifulSoup(codes(notebook)[0].outputs[-1].data["text/html"], "html.parser").find_all("a")
    assert (name, unquote(link["href"])) == ("50% #1.ipynb", child)
    assert "#" not in link["href"]


def test_answer_and_usage_stand_at_the_end(story):
    *_, answer, usage = story.notebook.cells
    assert answer.source == "## Answer\n\n200"
    assert "| root | 5 | 4,085 | 380 |" in usage.source
    assert story.notebook.metadata.rlm.outcome == "answered"


def test_metadata_says_what_the_run_was(story):
    about = story.notebook.metadata
    assert about.kernelspec == {"name": "rlm-local", "display_name": "RLM (local)", "language": "python"}
    assert about.language_info.name == "python"
    assert (about.rlm["schema"], about.rlm.log, about.rlm.run) == (1, f"{story.name}.jsonl", story.name)
    assert (about.rlm.question, about.rlm.model, about.rlm.sub_model) == ("What is it?", "root", "sub")
    for one in codes(story.notebook):
        source = one.source.encode("utf-8", "surrogatepass")
        assert one.metadata.rlm.sha256 == hashlib.sha256(source).hexdigest() == fingerprint(one.source)
        assert sorted(one.metadata.execution) == [
            "iopub.execute_input", "iopub.status.busy", "iopub.status.idle", "shell.execute_reply"
        ]  # fmt: skip


def test_made_again_from_the_log_it_is_the_same(story):
    again, live = made_again(story), story.notebook
    del again.metadata.rlm["context"]
    assert again == live


def test_the_trajectory_is_left_as_it_was(story):
    trajectory = story.recording.trajectory
    before = copy.deepcopy([c.result for c in trajectory.cells])
    assert notebook_of(trajectory, RunIdentity("x")) == notebook_of(trajectory, RunIdentity("x"))
    assert [c.result for c in trajectory.cells] == before


def test_two_runs_of_a_question_have_the_same_ids(tmp_path):
    first, second = (told(tmp_path / n, [cell(code), "FINAL(1)"]).notebook for n, code in [("a", "1"), ("b", "2")])
    assert [c.id for c in first.cells] == [c.id for c in second.cells]


def test_foreign_text_does_nothing(tmp_path):
    story = told(
        tmp_path,
        [
            cell(f"print(llm_query({HOSTILE!r}).replace('\\ud800', ''))\nlook_up({HOSTILE!r})", HOSTILE),
            f"```js\n{HOSTILE}\n```\nFINAL({HOSTILE!r})",
        ],
        context=HOSTILE,
        question=HOSTILE * 3,
        custom_tools={"look_up": lambda key: [key]},
    )
    assert story.response == HOSTILE
    nbformat.validate(story.notebook)
    notebook = story.notebook
    notebook.cells[2].source = ""  # our own text, which speaks of nothing foreign
    for index, output in enumerate(codes(notebook)[0].outputs):
        assert index or "\x1b" in str(output.text)  # what a kernel sent stays what it is
    html, _ = HTMLExporter(exclude_input=True, template_name="basic").from_notebook_node(notebook)
    soup = BeautifulSoup(html, "html.parser")
    assert not soup.find_all(["script", "img", "iframe"])
    assert not [tag for tag in soup.find_all() if any(name.startswith("on") for name in tag.attrs)]
    assert not [a for a in soup.find_all("a") if a["href"].startswith("javascript")]
    ours = json.dumps([c.source for c in notebook.cells if c.cell_type == "markdown"], ensure_ascii=False)
    calls = json.dumps(codes(notebook)[0].outputs[-1].data, ensure_ascii=False)
    assert not {"\x1b", "\u202e", "\ud800"} & set(ours + calls)


def test_a_run_that_failed_says_how_far_it_got(tmp_path):
    story = told(tmp_path, [cell("answer['content'] = 'a draft'"), LMError("gone", backend="b", model="root")])
    text = text_of(story.notebook)
    assert "## Failed" in text
    assert "**LMError** after" in text
    assert "turn 2, 1 finished cells" in text
    assert "gone" in text
    assert "| root | 2 |" in text  # the failed call counts by estimate
    assert story.notebook.metadata.rlm.outcome == "failed"


def test_a_limit_leaves_the_draft(tmp_path):
    story = told(tmp_path, [cell("answer['content'] = 'a draft'\n1 / 0")] * 2, max_errors=2)
    assert "The best answer so far:\n\na draft" in text_of(story.notebook)


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(asyncio.CancelledError(), "stopped"), (KeyboardInterrupt(), "stopped"), (None, "running")],
)
def test_a_run_that_is_under_way_or_was_stopped(failure, outcome):
    run = Trajectory(
        [
            events.RunStarted(time=0, model="m", sub_model="m", environment="mine", question=None,
                            context_type="str", context_length=3, max_iterations=5),
            events.IterationStarted(time=0, iteration=1),
            events.ModelReplied(time=1, iteration=1, reply=Reply("```repl\n1\n```", "m"), seconds=1),
            events.CellStarted(time=1, iteration=1, cell=1, code="1"),
            events.SubcallStarted(time=1, cell=1, query="q1", kind="llm_query", model="m", prompts=("a", "b")),
            *([events.RunFailed(time=2, error=failure)] if failure else []),
        ]
    )  # fmt: skip
    notebook = notebook_of(run, RunIdentity("x"))
    (code,) = codes(notebook)
    assert code.metadata.rlm.status == "unfinished"
    assert code.metadata.tags == ["rlm-cut-off"]
    assert ("This cell is running." in str(code.outputs)) is (failure is None)
    assert "2 without an answer" in str(code.outputs)
    assert "cell 1 had begun" in text_of(notebook)
    assert notebook.metadata.rlm.outcome == outcome
    assert notebook.metadata.kernelspec.name == "mine"
    assert "# A run without a question" in text_of(notebook)


def test_a_trajectory_of_nothing_is_a_notebook():
    notebook = notebook_of(Trajectory(), RunIdentity("x"))
    assert "no call of the model yet" in text_of(notebook)


def test_every_text_is_redacted(story):
    notebook = made_again(story, lambda text: text.replace("question", "[hidden]").replace("QUESTION", "[hidden]"))
    assert "question 1" not in json.dumps(notebook).lower()
    batch = codes(notebook)[2]
    assert "[hidden] {n}" in batch.source
    assert batch.metadata.rlm.sha256 == fingerprint(batch.source)
    nbformat.validate(notebook)


def test_all_notebooks_of_a_run(story):
    found = notebooks_of(story.recording.trajectory, identity_of_recording(story.recording))
    assert [*found] == [
        story.path.name,
        *(child.relative_to(story.log.parent).as_posix() for child in story.children()),
    ]
    for notebook in found.values():
        nbformat.validate(notebook)


def result(*outputs, **fields):
    return CellResult("code", "ok", outputs, execution_count=1, **fields)


def notebook_with(result, code="code"):
    run = Trajectory(
        [
            events.IterationStarted(time=0, iteration=1),
            events.ModelReplied(time=1, iteration=1, reply=Reply(f"```repl\n{code}\n```", "m"), seconds=1),
            events.CellStarted(time=1, iteration=1, cell=1, code=code),
            events.CellFinished(time=2, iteration=1, cell=1, result=result),
        ]
    )
    return codes(notebook_of(run, RunIdentity("x")))[0]


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def display(**data):
    data = {kind.replace("_", "/", 1): value for kind, value in data.items()}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def test_long_output_keeps_its_two_ends():
    (output,) = notebook_with(result(stream("a" * 3_000_000 + "b"))).outputs
    assert 1_000_000 < len(output.text) < 1_000_200
    assert output.text.startswith("aaa")
    assert output.text.endswith("b")
    assert "2,000,001 characters left out" in output.text


def test_pictures_have_a_room_of_their_own():
    shown = notebook_with(result(stream("a" * 2_000_000), *[display(image_png="A" * 4_000_000)] * 3)).outputs
    assert ["image/png" in o.data for o in shown[1:]] == [True, True, False]
    assert shown[3].data["text/plain"] == "(image/png: not kept in the notebook)"


def test_a_widget_leaves_its_text():
    kinds = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "IntSlider(value=0)"}
    (output,) = notebook_with(result({"output_type": "display_data", "data": kinds, "metadata": {}})).outputs
    assert output.data == {"text/plain": "IntSlider(value=0)"}


@pytest.mark.parametrize("value", [3, None, {"a": 1}, ["a", 2], "\ud800"])
def test_what_a_kernel_forges_is_still_a_notebook(value):
    forged = [
        {"output_type": "display_data", "data": {"text/html": value, "application/json": value}, "metadata": {}},
        {"output_type": "execute_result", "data": {}, "metadata": {}, "execution_count": 1},
        {"output_type": "error", "ename": "E", "evalue": "\ud800", "traceback": []},
    ]
    nbformat.writes(nbformat.v4.new_notebook(cells=[notebook_with(result(*forged))]))


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("count", [-5, True])
def test_what_no_notebook_can_hold_takes_nothing_else_away(count):
    deep = {"text/plain": "shallow", "application/json": nested(5_000)}
    shown = {"output_type": "execute_result", "data": deep, "metadata": {"a": nested(5_000)}, "execution_count": count}
    code = notebook_with(CellResult("code", "ok", (stream("before"), shown), execution_count=count))
    assert code.execution_count is None
    assert code.outputs[0].text == "before"
    assert (code.outputs[1].data, code.outputs[1].execution_count) == ({"text/plain": "shallow"}, None)


def test_dropped_output_is_said():
    assert "5,000 characters of output were not kept" in str(notebook_with(result(dropped_characters=5_000)).outputs)


def test_thoughts_are_folded():
    reply = Reply("<think>\nhm <b>\n\nhm\n</think>\nLook:\n```repl\n1\n```", "m", Usage(1, 1))
    run = Trajectory(
        [
            events.IterationStarted(time=0, iteration=1),
            events.ModelReplied(time=1, iteration=1, reply=reply, seconds=1),
            events.CellStarted(time=1, iteration=1, cell=1, code="1"),
        ]
    )
    (model,) = [c for c in notebook_of(run, RunIdentity("x")).cells if c.id.endswith("t001-model")]
    assert "<details><summary>Thoughts of the model</summary>\n\n```\n<think>\nhm <b>" in model.source
    assert model.source.endswith("Look:")


def test_summaries_and_notices_are_told():
    run = Trajectory(
        [
            events.IterationStarted(time=0, iteration=1),
            events.ModelReplied(time=1, iteration=1, reply=Reply("hello", "m"), seconds=1),
            events.Notice(time=1, message="The kernel is <b>started</b> again."),
            events.Compacted(time=2, iteration=1, reply=Reply("In short: <b>", "m")),
        ]
    )
    text = text_of(notebook_of(run, RunIdentity("x", forked_from={"run": "y", "at": 3})))
    assert "> The kernel is \\<\u2060b\\>started\\<\u2060/b\\> again." in text
    assert "This summary replaces it from here on:*\n\nIn short: <" in text
    assert "*Resumed from run: y, at: 3.*" in text


@pytest.mark.parametrize(
    ("words", "ran", "pieces"),
    [
        ("a\n```repl\n1\n```\nb", ["1"], ["a", 0, "b"]),
        ("```repl\n1\n```", ["1"], [0]),
        ("```repl\n1", ["1"], [0]),
        ("```repl\n1\n2\n```\n```repl\n1\n```", ["1\n2", "1"], [0, 1]),
        ("a 1\n~~~~python\n1\n~~~~\n1", ["1"], ["a 1", 0, "1"]),
        ("a\n```repl\n1\n```\n```repl\n2\n```", ["1"], ["a", 0, "```repl\n2\n```"]),
        ("it says\n1\nand\n```\n1\n```\n```repl\n1\n```\nb", ["1"], ["it says\n1\nand\n```\n1\n```", 0, "b"]),
        ("a\n```\n1\n```\nb", ["1"], ["a", 0, "b"]),
        ("no code at all", ["1"], [0, "no code at all"]),
        ("a", [], ["a"]),
    ],
)
def test_a_reply_in_pieces(words, ran, pieces):
    assert list(split(words, ran)) == pieces

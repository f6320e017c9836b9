"""What "the same outputs" means, and what it does not."""

from __future__ import annotations

import copy

import nbformat
import pytest
from trajectory.comparison import differences
from trajectory.stories import cell, codes, told

from rlm_kernel.trajectory.notebook.normaliser import as_text, normalise_outputs, normalise_text
from rlm_kernel.trajectory.notebook.saved_outputs import bound_outputs


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<object object at 0x7f1a2b3c4d5e>", "<object object at 0x55d0c0ffee00>"),
        ("CPU times: user 2 μs, sys: 1 μs, total: 3 μs\nWall time: 5.25 μs", "CPU times: user 1 s\nWall time: 1min 2s"),
        ("Wall time: 3 s", "Wall time: 120 ms"),
        (
            "1.2 ms ± 3.4 μs per loop (mean ± std. dev. of 7 runs, 1,000 loops each)",
            "800 ns ± 10 ns per loop (mean ± std. dev. of 7 runs, 1,000,000 loops each)",
        ),
        ("Cell In[3], line 2", "Cell In[14], line 2"),
        ("In [3]", "In [4]"),
        ("<ipython-input-3-0a1b2c>", "<ipython-input-12-ffffff>"),
        ("File /tmp/ipykernel_123/456.py:1", "File /tmp/ipykernel_9/1.py:1"),
        ("/tmp/tmpab12cd/file.txt", "/tmp/tmpzz99/file.txt"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("  5%|#  | 1/20 [00:01<00:20, 1.0it/s]\r100%|###| 20/20 [00:02<00:00, 9.7it/s]\n",
         "100%|###| 20/20 [00:41<00:00, 0.5it/s]\n"),
        ("ends with blanks  \n\n", "ends with blanks"),
    ],
)  # fmt: skip
def test_what_no_replay_can_repeat_is_equal(one, other):
    assert normalise_text(one) == normalise_text(other)
    assert normalise_outputs([stream(one)]) == normalise_outputs([stream(other)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "2"),
        ("0x1f", "0x2f"),
        ("it took 3 s", "it took 4 s"),
        ("line 2", "line 3"),
        ("3/20", "4/20"),
        ("Wall time: 3 s\nx", "Wall time: 3 s\ny"),
        ("a b", "a  b"),
        ("/data/a.txt", "/data/b.txt"),
    ],
)
def test_a_real_difference_stays_one(one, other):
    assert normalise_outputs([stream(one)]) != normalise_outputs([stream(other)])


def test_an_error_is_its_traceback_on_stderr():
    error = {
        "output_type": "error",
        "ename": "E",
        "evalue": "m",
        "traceback": ["\x1b[31mTraceback", "Cell In[1]\x1b[0m", "E: m"],
    }
    text = stream("Traceback\nCell In[7]\nE: m\n", "stderr")
    assert normalise_outputs([stream("a\n"), stream("warn\n", "stderr"), error]) == normalise_outputs(
        [stream("warn\n", "stderr"), text, stream("a\n")]
    )


def test_pieces_of_a_stream_are_one():
    pieces = [stream("a"), stream("x", "stderr"), stream("b\n")]
    assert normalise_outputs(pieces) == [stream("ab"), stream("x", "stderr")]


def test_a_long_stream_is_equal_to_what_a_notebook_keeps_of_it():
    text = "".join(f"line {n}\n" for n in range(300_000))
    (short,) = bound_outputs([stream(text)])
    assert len(short["text"]) < len(text)
    assert normalise_outputs([short]) == normalise_outputs([stream(text[:1_000]), stream(text[1_000:])])
    assert normalise_outputs([short]) != normalise_outputs([stream(text + "one more line\n")])


def test_a_widget_is_its_text():
    kinds = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "IntSlider()"}
    shown = normalise_outputs([{"output_type": "display_data", "data": kinds, "metadata": {}}])
    assert shown == [{"output_type": "display_data", "data": {"text/plain": "IntSlider()"}}]


def test_base64_is_left_alone():
    shown = {"output_type": "display_data", "data": {"image/png": "/tmp/abcd+In[3]==\n"}, "metadata": {}}
    assert normalise_outputs([shown])[0]["data"] == {"image/png": "/tmp/abcd+In[3]=="}


@pytest.mark.parametrize(
    "piece",
    ["1.", "1,234.5,", "9", "1e1", "1s ", "1s ± 1s per loop (", "12%|", "1%|| 1/2 [", "/", "/a", "/ipykernel_1/",
     "0xabcd", "Wall time: 1s ", "In [1", "<ipython-input-1-", "/var/folders/a/"],
)  # fmt: skip
def test_no_output_keeps_the_normaliser_for_long(piece):
    text = piece * (200_000 // len(piece))
    assert normalise_text(text)


def test_the_order_of_displays_matters():
    picture = {"output_type": "display_data", "data": {"image/png": "A"}, "metadata": {}}
    assert normalise_outputs([stream("a"), picture]) != normalise_outputs([picture, stream("a")])


def test_what_we_show_of_calls_is_left_out():
    ours = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {"rlm": {"role": "calls"}}}
    assert normalise_outputs([ours]) == []
    assert as_text([ours, stream("a\nb")]) == "stdout: a\nstdout: b"


def test_lists_of_lines_are_texts():
    shown = {"output_type": "display_data", "data": {"text/html": ["<b>", "x</b>"]}, "metadata": {}}
    assert normalise_outputs([shown])[0]["data"] == {"text/html": "<b>x</b>"}


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    return told(folder, [cell("print(object())"), cell("1 / 0"), cell("import time; time.sleep(30)"), "FINAL(1)"],
                environment_kwargs={"cell_timeout": 1})  # fmt: skip


def test_a_run_is_equal_to_itself_in_all_its_forms(story):
    forms = [story.notebook, story.recording, story.recording.trajectory]
    assert [differences(one, other) for one in forms for other in forms] == [[]] * 9


def test_differences_are_named_by_cell_and_shown(story):
    other = copy.deepcopy(story.notebook)
    first, second, third = codes(other)
    first.source = "print(2)"
    first.outputs = [nbformat.v4.new_output("stream", text="2\n")]
    other.cells.remove(second)
    third.outputs = []
    found = differences(story.recording, other)
    assert [(one.cell, one.what) for one in found] == [(1, "source"), (1, "outputs"), (2, "missing")]
    assert found[1].diff.split("\n")[2:] == ["@@ -1 +1 @@", "-stdout: <object object at 0x…>", "+stdout: 2"]

"""What the model reads of a cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.prompts.cell_output import NO_OUTPUT, render_result
from rlm_kernel.text import clip
from rlm_kernel.types import CellError, CellResult

GAP = 60
"""More than the line that says how much is missing."""


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def shown(kind="display_data", **data):
    return {"output_type": kind, "data": {key.replace("__", "/"): value for key, value in data.items()}, "metadata": {}}


def failed(traceback, *outputs):
    error = {"output_type": "error", "ename": "E", "evalue": "e", "traceback": traceback.split("\n")}
    return CellResult("", "error", (*outputs, error), CellError("E", "e", traceback))


# -- clip


@given(st.text(), st.integers(0, 300), st.floats(0, 1))
def test_a_clipped_text_is_its_two_ends(text, limit, head):
    clipped = clip(text, limit, head=head)
    if len(text) <= limit:
        assert clipped == text
        return
    first = int(limit * head)
    assert clipped.startswith(text[:first])
    assert clipped.endswith(text[len(text) - (limit - first) :])
    assert f"{len(text) - limit:,} characters left out" in clipped
    assert len(clipped) <= limit + GAP


def test_the_head_is_the_larger_end_unless_said():
    assert clip("a" * 50 + "b" * 50, 10) == "aaaaaa\n… 90 characters left out …\nbbbb"
    assert clip("a" * 50 + "b" * 50, 10, head=0.1) == "a\n… 90 characters left out …\n" + "b" * 9


# -- render


def test_everything_is_shown_in_its_order():
    outputs = (
        stream("one\n"),
        stream("two\n", "stderr"),
        shown(text__plain="three"),
        shown("execute_result", text__plain="4"),
    )
    assert render_result(CellResult("", "ok", outputs), 1000) == "one\ntwo\nthree\n4"


def test_a_picture_is_named():
    outputs = (shown(text__plain="<Figure>", image__png="iVBOR", image__svg="<svg/>"),)
    assert render_result(CellResult("", "ok", outputs), 1000) == "<Figure> [image/png, image/svg was shown]"


def test_only_the_plain_text_of_a_display_is_shown():
    assert render_result(CellResult("", "ok", (shown(text__plain="a b", text__html="<b>a b</b>"),)), 1000) == "a b"


@pytest.mark.parametrize("outputs", [(), (stream("\n\n"),), (shown(text__html="<b>only</b>"),)])
def test_a_cell_without_output_says_so(outputs):
    assert render_result(CellResult("", "ok", outputs), 1000) == NO_OUTPUT


def test_no_terminal_controls_reach_the_model():
    result = CellResult("", "ok", (stream("10%\r20%\r\x1b[32m100%\x1b[0m\n"),))
    assert render_result(result, 1000) == "100%"


def test_the_traceback_comes_after_the_output_and_once():
    assert render_result(failed("Traceback\n1/0\nE: e", stream("before\n")), 1000) == "before\nTraceback\n1/0\nE: e"


def test_a_long_output_does_not_push_the_traceback_out():
    text = render_result(failed("Traceback\n" + "frame\n" * 20 + "E: e", stream("x" * 100_000)), 1000)
    assert text.endswith("Traceback\n" + "frame\n" * 20 + "E: e")
    assert text.startswith("xxx")
    assert len(text) <= 1000 + 2 * GAP


def test_a_long_traceback_keeps_its_end_and_leaves_room_for_the_output():
    text = render_result(failed("Traceback\n" + "frame\n" * 10_000 + "E: what went wrong", stream("seen " * 50)), 1000)
    assert text.startswith("seen " * 50)
    assert "\nTraceback\n" in text
    assert text.endswith("frame\nE: what went wrong")
    assert len(text) <= 1000 + 2 * GAP


def test_a_cell_that_was_ended_says_why():
    assert "ended after 30 s" in render_result(CellResult("", "timeout", (stream("so far"),), seconds=30.2), 1000)
    assert render_result(CellResult("", "died", (stream("last words"),)), 1000).startswith(
        "last words\nThe kernel died"
    )


OUTPUTS = st.lists(
    st.builds(stream, st.text(max_size=400)) | st.builds(lambda t: shown(text__plain=t), st.text()), max_size=5
)


@given(OUTPUTS, st.none() | st.text(max_size=400), st.integers(0, 500))
def test_the_limit_holds_for_any_cell(outputs, traceback, limit):
    result = CellResult("", "ok", tuple(outputs)) if traceback is None else failed(traceback, *outputs)
    text = render_result(result, limit)
    assert 0 < len(text) <= limit + 2 * GAP or text == NO_OUTPUT

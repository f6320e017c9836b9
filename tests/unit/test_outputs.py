"""What a cell shows, collected within a bound on memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.kernel.outputs import ITEM_COST, OutputCollector, OutputRoom


def stream(text, name="stdout"):
    return "stream", {"name": name, "text": text}


def display(text, display_id=None):
    transient = {} if display_id is None else {"display_id": display_id}
    return "display_data", {"data": {"text/plain": text}, "metadata": {}, "transient": transient}


def update(text, display_id):
    return "update_display_data", display(text, display_id)[1]


def clear(*, wait=False):
    return "clear_output", {"wait": wait}


ERROR = "error", {"ename": "E", "evalue": "what", "traceback": ["\x1b[31mTraceback\x1b[0m", "E: what"]}


def collect(*messages, **bounds):
    collector = OutputCollector(**bounds)
    for kind, content in messages:
        collector.add(kind, content)
    return collector


def texts(collector):
    """The outputs in short: the texts of streams, the plain text of displays."""
    return [o["text"] if o["output_type"] == "stream" else o["data"]["text/plain"] for o in collector.outputs()]


# -- in order


def test_pieces_of_a_stream_are_one_output():
    collector = collect(stream("a"), stream("b\n"), stream("c", "stderr"), stream("d"))
    assert collector.outputs() == (
        {"output_type": "stream", "name": "stdout", "text": "ab\n"},
        {"output_type": "stream", "name": "stderr", "text": "c"},
        {"output_type": "stream", "name": "stdout", "text": "d"},
    )


def test_asking_in_between_changes_nothing():
    collector = OutputCollector()
    for piece in "abc":
        collector.add(*stream(piece))
        collector.outputs()
    assert texts(collector) == ["abc"]


def test_a_display_parts_a_stream():
    assert texts(collect(stream("a"), display("D"), stream("b"))) == ["a", "D", "b"]


def test_a_result_keeps_its_count_and_every_mime_type():
    content = {"data": {"text/plain": "1", "text/html": "<b>1</b>"}, "metadata": {"x": 1}, "execution_count": 7}
    assert collect(("execute_result", content)).outputs() == ({"output_type": "execute_result", **content},)


def test_an_error_is_kept_as_it_came_and_as_plain_text():
    collector = collect(stream("before"), ERROR)
    assert collector.outputs()[-1] == {"output_type": "error", **ERROR[1]}
    assert (collector.error.name, collector.error.message) == ("E", "what")
    assert collector.error.traceback == "Traceback\nE: what"


def test_what_was_added_is_handed_back():
    collector = OutputCollector()
    assert collector.add(*stream("a")) == {"output_type": "stream", "name": "stdout", "text": "a"}
    assert collector.add(*clear()) is None
    assert collector.add(*update("x", "d")) is None
    assert collector.add("status", {"execution_state": "busy"}) is None
    assert collector.add("comm_open", {}) is None


# -- updates


def test_an_update_changes_every_display_of_its_name():
    collector = collect(display("one", "d"), display("other", "e"), display("two", "d"), update("new", "d"))
    assert texts(collector) == ["new", "other", "new"]


def test_an_update_of_an_unknown_display_changes_nothing():
    assert texts(collect(display("one"), update("new", "d"))) == ["one"]


def test_updates_do_not_grow_beyond_the_cap():
    collector = collect(display("small", "d"), update("x" * 6000, "d"), display("y", "e"), head=2000)
    assert texts(collector) == ["small", "y"]
    assert collector.dropped > 5000


def test_updates_of_one_display_do_not_add_up():
    updates = [update(f"{n} %".ljust(100), "d") for n in range(100)]
    collector = collect(display("0 %", "d"), *updates, stream("done"), head=2000)
    assert texts(collector) == ["99 %".ljust(100), "done"]
    assert collector.dropped == 0


# -- clearing


def test_clear_output_clears():
    assert texts(collect(stream("a"), display("D"), clear(), stream("b"))) == ["b"]


def test_clear_output_may_wait_for_what_comes_next():
    collector = collect(stream("a"), clear(wait=True))
    assert texts(collector) == ["a"]
    collector.add(*stream("b"))
    assert texts(collector) == ["b"]


def test_waiting_ends_with_the_first_output():
    assert texts(collect(stream("a"), clear(wait=True), stream("b"), stream("c"))) == ["bc"]


def test_a_cleared_display_is_not_updated_any_more():
    assert texts(collect(display("a", "d"), clear(), stream("b"), update("new", "d"))) == ["b"]


def test_what_was_cleared_leaves_its_room_to_others():
    rounds = [message for n in range(100) for message in (clear(wait=True), display(f"{n}".ljust(500)))]
    collector = collect(*rounds, head=2000)
    assert texts(collector) == ["99".ljust(500)]
    assert collector.dropped == 0


# -- within bounds


@given(st.lists(st.text(max_size=400), max_size=30), st.integers(0, 600), st.integers(1, 100))
def test_a_stream_is_whole_or_its_two_ends(pieces, head, tail):
    collector = collect(*map(stream, pieces), head=head, tail=tail)
    whole, shown = "".join(pieces), texts(collector)
    if not collector.dropped:
        assert "".join(shown) == whole
        return
    gap = f"\n… {collector.dropped:,} characters were left out here …\n"
    first, last = "".join(shown).split(gap)
    assert whole.startswith(first)
    assert whole.endswith(last)
    assert len(first) + collector.dropped + len(last) == len(whole)
    assert len(first) <= head


@given(
    st.lists(
        st.one_of(
            st.builds(stream, st.text(max_size=200), st.sampled_from(["stdout", "stderr"])),
            st.builds(display, st.text(max_size=200), st.sampled_from([None, "d", "e"])),
            st.builds(update, st.text(max_size=200), st.sampled_from(["d", "e"])),
            st.builds(clear, wait=st.booleans()),
            st.just(ERROR),
        ),
        max_size=60,
    ),
    st.integers(0, 2000),
)
def test_the_cap_holds_for_any_messages(messages, head):
    tail = 100
    collector = collect(*messages, head=head, tail=tail)
    kept = [output for output in collector.outputs() if output["output_type"] != "error"]
    # Two streams keep their ends, each with a line that says what is missing.
    assert sum(len(output.get("text") or str(output)) for output in kept) <= head + 2 * (2 * tail + 60)


def test_a_million_empty_displays_are_bounded():
    collector = collect(*[display("")] * 1000, head=100 * ITEM_COST)
    assert len(collector.outputs()) < 100
    assert collector.dropped > 0


def test_a_display_that_is_too_large_is_left_out_and_a_small_one_kept():
    collector = collect(display("x" * 5000), display("small"), head=2000)
    assert texts(collector) == ["small"]
    assert collector.dropped >= 5000


def test_a_display_without_room_is_kept_by_the_ends_of_its_text():
    content = {"data": {"text/plain": "a" * 5_000_000 + "b" * 5_000_000, "text/html": "c"}, "metadata": {}}
    collector = collect(("display_data", content), stream("after"))
    (shown, after) = texts(collector)
    assert shown == f"{'a' * 50_000}\n… 9,900,000 characters were left out here …\n{'b' * 50_000}"
    assert after == "after"
    assert collector.outputs()[0]["data"].keys() == {"text/plain"}
    assert 9_800_000 < collector.dropped < 10_000_000


def test_an_error_is_kept_whatever_came_before():
    collector = collect(stream("x" * 10_000), ERROR, head=100, tail=50)
    assert collector.outputs()[-1]["output_type"] == "error"
    assert collector.error is not None


def test_both_streams_keep_their_ends():
    collector = collect(
        stream("a" * 1000), stream("b" * 1000, "stderr"), stream("end"), stream("END", "stderr"), head=500, tail=10
    )
    ends = {output["name"]: output["text"][-5:] for output in collector.outputs()[-2:]}
    assert ends == {"stdout": "aaend", "stderr": "bbEND"}


# -- a cell may forge messages

FORGED = [
    ("stream", {}),
    ("stream", {"name": "stdout"}),
    ("stream", {"name": "stdout", "text": 5}),
    ("stream", {"name": "stdout", "text": None}),
    ("stream", {"name": "elsewhere", "text": "a"}),
    ("stream", {"name": ["stdout"], "text": "a"}),
    ("display_data", {}),
    ("display_data", {"data": "text", "metadata": {}}),
    ("display_data", {"data": None, "metadata": {}}),
    ("display_data", {"data": {}, "metadata": "x"}),
    ("display_data", {"data": {}, "metadata": {}, "transient": "d"}),
    ("execute_result", {"data": {}, "metadata": {}}),
    ("execute_result", {"data": {}, "metadata": {}, "execution_count": "1"}),
    ("execute_result", {"data": [], "metadata": {}, "execution_count": 1}),
    ("execute_result", {"data": {}, "metadata": {}, "execution_count": -1}),
    ("execute_result", {"data": {}, "metadata": {}, "execution_count": True}),
    ("error", {}),
    ("error", {"ename": 1, "evalue": "", "traceback": []}),
    ("error", {"ename": "", "evalue": {}, "traceback": []}),
    ("error", {"ename": "", "evalue": "", "traceback": [1]}),
    ("error", {"ename": "", "evalue": "", "traceback": "text"}),
    ("error", {"ename": "", "evalue": "", "traceback": None}),
    ("update_display_data", {"transient": {"display_id": "d"}}),
    ("update_display_data", {"transient": {"display_id": "d"}, "data": "x", "metadata": {}}),
    ("update_display_data", {"transient": {"display_id": "d"}, "data": {}, "metadata": 3}),
]


@pytest.mark.parametrize(("kind", "content"), FORGED)
def test_a_forged_message_is_refused_and_leaves_nothing_behind(kind, content):
    collector = collect(display("before", "d"))
    with pytest.raises((KeyError, TypeError, ValueError)):
        collector.add(kind, content)
    assert texts(collector) == ["before"]
    assert collector.error is None
    collector.add(*stream("after"))
    assert texts(collector) == ["before", "after"]


def nested(depth):
    return {} if depth == 0 else {"inner": [nested(depth - 2)]} if depth > 1 else []


def test_what_is_nested_too_deep_for_its_readers_is_left_out():
    data = {"text/plain": "here", "application/json": nested(90), "application/x-deep": nested(1000)}
    collector = collect(("display_data", {"data": data, "metadata": {"deep": nested(1000)}}))
    (output,) = collector.outputs()
    assert output["data"].keys() == {"text/plain", "application/json"}
    assert output["metadata"] == {}


def test_cells_share_a_room_and_each_gets_a_little():
    room, kept = OutputRoom(1_000_000), []
    for _ in range(8):
        collector = room.collector()
        collector.add("stream", {"name": "stdout", "text": "a" * 3_000_000 + "the end"})
        room.spend(collector)
        kept.append(collector.kept)
        assert sum(len(output["text"]) for output in collector.outputs()) < collector.kept + 1_000
        assert collector.outputs()[-1]["text"].endswith("the end")
    assert 500_000 < kept[0] < 700_000
    assert 100_000 < kept[-1] < 200_000

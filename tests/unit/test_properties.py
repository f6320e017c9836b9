"""What holds for any input: the model's view of a cell, the sums of a tree, messages that are too large."""

from __future__ import annotations

import json
from unittest.mock import patch

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlm_kernel.kernel import incoming
from rlm_kernel.kernel.incoming import parse_content
from rlm_kernel.prompts.cell_output import NO_OUTPUT, render_result
from rlm_kernel.types import CellError, CellResult, Usage, UsageMeter, UsageSummary

# -- the sums of a tree

MODELS = st.sampled_from("abc")
USAGES = st.builds(Usage, st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.none() | st.just(0.25))


@given(
    st.lists(st.tuples(st.integers(0, 100), st.lists(st.tuples(MODELS, USAGES), max_size=4)), min_size=1, max_size=9)
)
def test_a_meter_counts_its_own_calls_and_those_below_it(nodes):
    """A tree: each node names one of those before it as its parent, and makes calls."""
    meters = []
    for parent, _ in nodes:
        meters.append(UsageMeter(meters[parent % len(meters)] if meters else None))
    everything = UsageMeter()
    for meter, (_, calls) in zip(meters, nodes, strict=True):
        for model, usage in calls:
            meter.add(model, usage)
            everything.add(model, usage)
    assert meters[0].summary() == everything.summary()
    assert all(len(meter.summary().model_usage_summaries) <= 3 for meter in meters)
    assert UsageSummary().total_cost is None


# -- what the model reads of a cell


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


WORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=3000)
PIECES = st.lists(st.tuples(WORDS, st.sampled_from(["stdout", "stderr"])), min_size=1, max_size=6)


@given(PIECES, WORDS, st.integers(200, 2000))
def test_the_end_of_a_traceback_is_never_pushed_out(pieces, traceback, limit):
    outputs = tuple(stream(text, name) for text, name in pieces)
    shown = render_result(CellResult("", "error", outputs, CellError("E", "e", traceback)), limit)
    assert shown.endswith(traceback[-int(limit * 0.6 * 0.7) :])


@given(PIECES, st.integers(200, 2000))
def test_a_long_output_begins_and_ends_as_the_cell_began_and_ended(pieces, limit):
    whole = "\n".join(text for text, _ in pieces)
    shown = render_result(CellResult("", "ok", tuple(stream(text, name) for text, name in pieces)), limit)
    assert shown.startswith(whole[: int(limit * 0.6)])
    assert shown.endswith(whole[-limit + int(limit * 0.6) :])
    assert (shown == whole) == (len(whole) <= limit)


@given(st.lists(st.text(max_size=200).map(stream), max_size=4), st.integers(1, 10**9))
def test_the_model_is_told_of_output_that_was_not_kept(outputs, dropped):
    shown = render_result(CellResult("", "ok", tuple(outputs), dropped_characters=dropped), 500)
    assert f"({dropped:,} characters of output were not kept.)" in shown
    assert NO_OUTPUT not in shown


# -- messages that are too large

SMALL = patch.multiple(incoming, ALWAYS_READ=0, MAX_PARSED_BYTES=2_000, _STREAM_HEAD=120, _STREAM_TAIL=60)
ANYTHING = st.characters(exclude_categories=[]) | st.sampled_from('"\\\n\x00\N{GRINNING FACE}')
TEXTS = st.text(ANYTHING, max_size=99)


@given(st.text(ANYTHING, min_size=180), st.booleans())
def test_a_large_stream_is_read_by_its_two_ends(text, escaped):
    content = json.dumps({"name": "stdout", "text": text}, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    with SMALL:
        read = parse_content("stream", content)
    head, tail = read["text"].split(f"\n… {len(content) - 180:,} bytes were left out here …\n")
    assert read["name"] == "stdout"
    assert text.startswith(head[:-1])  # half of a surrogate pair may be left at the cut
    assert len(json.dumps(head)) > 60
    assert text.endswith(tail[6:])  # the cut may have fallen into an escape sequence
    assert len(tail) > 6


@given(st.recursive(st.none() | st.integers() | TEXTS, lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_what_is_small_is_read_as_it_is(content):
    written = json.dumps({"data": content}).encode()
    assert parse_content("display_data", written) == json.loads(written)


@pytest.mark.parametrize("kind", ["display_data", "execute_result", "error", "execute_reply"])
@pytest.mark.parametrize("content", ["[" * 9 + "]" * 9, "x" * 9000], ids=["many values", "a long text"])
def test_what_would_take_too_much_room_says_so(kind, content):
    with SMALL:
        read = parse_content(kind, json.dumps({"data": {"text/html": content * 99}}).encode())
    assert "too many to be read" in str(read)


@pytest.mark.parametrize("kind", ["display_data", "execute_result"])
@given(st.text(ANYTHING, min_size=250), st.booleans())
def test_a_large_display_is_read_by_the_two_ends_of_its_text(kind, text, escaped):
    written = {"data": {"text/plain": text}, "metadata": {}, "execution_count": 3}
    content = json.dumps(written, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    with SMALL:
        read = parse_content(kind, content)["data"]["text/plain"]
    head, tail = read.split(f"\n… {len(content) - 180:,} bytes were left out here …\n")
    assert text.startswith(head[:-1])
    assert text.endswith(tail[6:])


@pytest.mark.parametrize("kind", ["display_data", "execute_result", "error", "execute_reply"])
def test_what_is_nested_too_deeply_says_so(kind):
    content = b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert "nested too deeply" in str(parse_content(kind, content))


def test_only_we_say_that_something_was_not_read():
    forged = b'{"name": "stdout", "text": "x", "unread": Infinity}'
    assert parse_content("stream", forged) == {"name": "stdout", "text": "x"}


@pytest.mark.parametrize("kind", ["status", "comm_msg", "update_display_data", "nonsense"])
def test_what_nothing_can_stand_in_for_is_refused(kind):
    with SMALL, pytest.raises(ValueError, match="too many to be read"):
        parse_content(kind, json.dumps({"x": "x" * 9000}).encode())


@given(st.binary(min_size=181, max_size=400), st.sampled_from(["stream", "error", "status"]))
def test_what_is_no_message_is_refused(content, kind):
    assume(b"{" not in content)
    with SMALL, pytest.raises((ValueError, KeyError)):
        parse_content(kind, content)

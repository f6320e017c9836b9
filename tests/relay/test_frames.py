"""The frames of the relay: whatever is cut into whatever pieces comes out as it went in, and nothing else does."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.provisioners.relay.remote_end import (
    MAX_NOISE,
    MAX_PART_BYTES,
    MAX_PARTS,
    BrokenStreamError,
    Frames,
    Lines,
    as_lines,
    encode,
)

FRAMES = st.lists(st.tuples(st.integers(0, 255), st.lists(st.binary(max_size=300), max_size=5)), max_size=5)


def stream_of(frames):
    return b"".join(bytes(piece) for kind, parts in frames for piece in encode(kind, parts))


def cut(data, places):
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(FRAMES, st.lists(st.integers(0, 5_000)))
def test_frames_survive_any_cut(frames, places):
    reader = Frames()
    seen = [frame for piece in cut(stream_of(frames), places) for frame in reader.feed(piece)]
    assert [(kind, [bytes(part) for part in parts]) for kind, parts in seen] == frames


@given(st.binary(max_size=10_000), st.lists(st.integers(0, 20_000)))
def test_lines_survive_any_cut_and_any_noise(data, places):
    noisy = b"a warning of the shell\r\n" + as_lines(data).replace(b"\n", b"\r\n") + b"more noise\n"
    reader = Lines()
    assert b"".join(reader.feed(piece) for piece in cut(noisy, places)) == data


def test_no_line_is_longer_than_a_terminal_takes():
    assert max(map(len, as_lines(bytes(100_000)).splitlines())) < 4096


def test_a_large_part_is_received_where_it_stays():
    reader, part = Frames(), bytes(5_000_000)
    pieces = encode(1, [b"small", part])
    frames = [frame for piece in pieces for frame in reader.feed(piece)]
    ((kind, (small, large)),) = frames
    assert (kind, small, len(large)) == (1, b"small", len(part))


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("!BI", 1, MAX_PARTS + 1),
        struct.pack("!BIQ", 1, 1, MAX_PART_BYTES + 1),
        struct.pack("!BIQQ", 1, 2, MAX_PART_BYTES, 1),
    ],
)
def test_a_frame_that_is_too_large_breaks_the_stream(head):
    with pytest.raises(BrokenStreamError):
        Frames().feed(head)


@pytest.mark.parametrize("noise", [b"rlm:no base64!\n", b"rlm:YQ\n", b"x" * (MAX_NOISE + 1)])
def test_a_line_that_is_none_breaks_the_stream(noise):
    with pytest.raises(BrokenStreamError):
        Lines().feed(noise)

"""Cutting tiles the video; leaving intervals out leaves exactly the rest."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handloom.errors import ConfigError
from handloom.ingest.human.cutting import check_clip_seconds, cut, joined, overlaps, subtract

times = st.floats(0, 20_000, allow_nan=False).map(lambda x: round(x, 4))
lengths = st.floats(0.001, 900).map(lambda x: round(x, 4) or 0.001)
intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1])), max_size=6)


@given(times, lengths, st.floats(1, 600))
def test_pieces_tile_the_video(start_s, length_s, clip_seconds):
    pieces = cut(start_s, start_s + length_s, clip_seconds)
    assert pieces[0][0] == start_s
    assert pieces[-1][1] == start_s + length_s
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    assert all(end > start for start, end in pieces)


@given(times, lengths, st.floats(0.1, 600))
@settings(deadline=None)
def test_every_piece_but_the_last_has_the_requested_length(start_s, length_s, clip_seconds):
    pieces = cut(start_s, start_s + length_s, clip_seconds)
    least = max(0.1 * clip_seconds, 0.5)
    assert all(abs(end - start - clip_seconds) < 1e-6 for start, end in pieces[:-1])
    last = pieces[-1][1] - pieces[-1][0]
    assert last < clip_seconds + least + 1e-6
    assert len(pieces) == 1 or last > min(least, clip_seconds) - 1e-6


@pytest.mark.parametrize(
    ("length_s", "clip_seconds", "expected"),
    [
        (30.0, 10.0, [(0, 10), (10, 20), (20, 30.0)]),
        (30.9, 10.0, [(0, 10), (10, 20), (20, 30.9)]),  # a tail of 0.9 s is under a tenth of 10 s
        (31.0, 10.0, [(0, 10), (10, 20), (20, 30), (30, 31.0)]),
        (2.4, 1.0, [(0, 1), (1, 2.4)]),  # under half a second
        (4.0, 10.0, [(0, 4.0)]),
        (4.0, None, [(0, 4.0)]),
    ],
)
def test_short_tails_join_the_piece_before(length_s, clip_seconds, expected):
    assert cut(0.0, length_s, clip_seconds) == expected


@pytest.mark.parametrize("clip_seconds", [0, -1, float("nan"), float("inf"), 0.01])
def test_an_impossible_clip_length_is_refused(clip_seconds):
    with pytest.raises(ConfigError, match="clip length"):
        check_clip_seconds(clip_seconds)


@given(st.tuples(st.integers(0, 40), st.integers(41, 90)), intervals)
def test_removed_and_remaining_intervals_do_not_overlap(whole, out):
    left = subtract(whole, joined(out))
    moments = [x + 0.5 for x in range(*whole)]
    inside = [m for m in moments if any(a <= m < b for a, b in left)]
    assert inside == [m for m in moments if not any(a <= m < b for a, b in out)]


@given(st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1])), intervals)
def test_intervals_that_only_touch_do_not_overlap(interval, others):
    assert overlaps(interval, joined(others)) == any(interval[0] < b and a < interval[1] for a, b in others)

"""The sampling grid: which frames a clip uses, whatever the video's frame times."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo
from handloom.video.grid import EDGE_S, OVERHANG_S, clip_range, sample_frames, working_size

STEPS_S = st.lists(st.sampled_from([1 / 90, 1001 / 60000, 0.02, 1 / 30, 0.04, 0.1, 0.7, 3.0]), min_size=1, max_size=120)


def frame_times(steps_s: list[float], start_s: float) -> np.ndarray:
    return start_s + np.concatenate([[0.0], np.cumsum(steps_s)])


@given(
    steps_s=STEPS_S,
    first_s=st.sampled_from([-0.08, 0.0, 5.0, 3600.0]),
    start=st.floats(0, 1),
    length_s=st.floats(0.001, 20),
    hz=st.sampled_from([1.0, 7.5, 10.0, 15.0, 30.0, 59.94, 240.0]),
)
def test_frames_are_those_nearest_to_the_grid(steps_s, first_s, start, length_s, hz):
    times = frame_times(steps_s, first_s)
    start_s = first_s + start * (times[-1] - first_s)
    end_s = start_s + length_s
    indices = sample_frames(times, start_s, end_s, hz)
    assert len(indices) >= 1
    assert (np.diff(indices) > 0).all()
    assert indices[0] >= 0
    assert indices[-1] < len(times)
    inside = np.flatnonzero((times >= start_s - EDGE_S) & (times < end_s - EDGE_S))
    if not len(inside):
        assert indices.tolist() == [max(np.searchsorted(times, start_s - EDGE_S) - 1, 0)]  # the one shown at the start
        return
    assert np.isin(indices, inside).all()
    grid_s = start_s + np.arange(math.ceil(length_s * hz - 1e-6)) / hz
    distance = np.abs(times[inside][:, None] - grid_s)
    chosen = np.abs(times[indices][:, None] - grid_s)
    assert (chosen.min(0) <= distance.min(0) + 2e-6).all(), "a grid point has a nearer frame"
    assert (chosen <= distance.min(0) + 2e-6).any(1).all(), "a frame is nearest to no grid point"


@pytest.mark.parametrize("source_hz", [10.0, 15.0, 25.0, 30.0, 60_000 / 1001, 90.0])
def test_a_steady_source_gives_the_grid_or_all_it_has(source_hz):
    num = 20 if source_hz == 10.0 else 30
    times = 3.0 + np.arange(600) / source_hz
    indices = sample_frames(times, 3.0, 5.0, 15.0)
    assert len(indices) == num
    assert np.abs(times[indices] - 3.0 - np.arange(num) / min(15.0, source_hz)).max() <= 0.5 / source_hz + 1e-6


def test_clips_that_tile_a_video_use_each_frame_once():
    times = np.arange(900) * 1001 / 30_000
    bounds = np.round(np.linspace(0, times[-1] + 0.04, 12), 3)  # milliseconds, as annotations have them
    parts = [sample_frames(times, a, b, 1000.0) for a, b in itertools.pairwise(bounds)]
    assert np.concatenate(parts).tolist() == list(range(900))


def test_a_gap_gives_fewer_frames_and_none_twice():
    times = np.concatenate([np.arange(15) / 15, 4 + np.arange(15) / 15])
    assert sample_frames(times, 0.0, 5.0, 15.0).tolist() == list(range(30))
    assert sample_frames(times, 2.0, 2.5, 15.0).tolist() == [14]  # inside the gap: the frame that a player shows then


INFO = VideoInfo(640, 360, 30.0, "h264", "yuv420p", 0, 5.0, 15.0, 300)


def clip(start_s: float, end_s: float | None) -> Clip:
    return Clip("d:v:0-1", "d", "v", "/v.mp4", start_s, end_s)


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(3.0, 3.0), (4.0, 3.0), (math.nan, 6.0), (6.0, math.nan), (6.0, math.inf), (-math.inf, 6.0)]
)
def test_invalid_ranges_are_refused(start_s, end_s):
    with pytest.raises(ClipError, match="are no range") as caught:
        clip_range(clip(start_s, end_s), INFO)
    assert caught.value.reason == "bad_range"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0.0, 5.0), (-3.0, 6.0), (0.0, 10.0), (15.0, 16.0), (14.0, 15.6), (20.0, 30.0), (20.0, None)]
)
def test_times_outside_the_video_are_refused(start_s, end_s):
    with pytest.raises(ClipError, match=r"5\.000 s to 15\.000 s") as caught:
        clip_range(clip(start_s, end_s), INFO)
    assert caught.value.reason == "outside_video"


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (5.0, 15.0, (5.0, 15.0)),
        (6.0, 7.0, (6.0, 7.0)),
        (5.0 - OVERHANG_S, 7.0, (5.0, 7.0)),
        (14.0, 15.0 + OVERHANG_S, (14.0, 15.0)),
        (0.0, None, (5.0, 15.0)),
        (7.0, None, (7.0, 15.0)),
    ],
)
def test_times_inside_the_video_are_taken(start_s, end_s, expected):
    assert clip_range(clip(start_s, end_s), INFO) == expected


@given(st.integers(16, 5000), st.integers(16, 5000), st.sampled_from([64, 180, 360, 1080]))
def test_working_size_keeps_the_aspect_ratio_and_never_enlarges(width, height, short_side):
    w, h = working_size(width, height, short_side)
    assert w % 2 == h % 2 == 0
    assert w <= width + 1
    assert h <= height + 1
    assert min(w, h) <= max(short_side, 2)
    scale = min(1.0, short_side / min(width, height))
    assert abs(w - width * scale) <= 1
    assert abs(h - height * scale) <= 1

"""Stored frames and the strip: the same bytes however the frames arrive, and no more memory than the stored images."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.schemas.settings import FramesConfig
from handloom.video.stored_frames import FrameKeeper, strip_indices


def clip(num_frames: int, height: int = 36, width: int = 64) -> NDArray[np.uint8]:
    """Frames of one grey level each, which rises through the clip."""
    greys = np.linspace(10, 240, num_frames).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (num_frames, height, width, 3)).copy()


def keep(config: FramesConfig, frames: NDArray[np.uint8], sizes: list[int]) -> tuple[list[bytes] | None, bytes]:
    keeper = FrameKeeper(config)
    keeper.begin(len(frames))
    for chunk in np.split(frames, np.clip(np.cumsum(sizes), 0, len(frames))):
        keeper.feed(chunk, np.arange(len(chunk), dtype=np.float64))
    return keeper.finish()


def decode(data: bytes) -> NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


@settings(max_examples=25, deadline=None)
@given(num_frames=st.integers(1, 40), sizes=st.lists(st.integers(0, 12), max_size=8), store=st.booleans())
def test_any_chunking_gives_the_same_bytes(num_frames: int, sizes: list[int], store: bool) -> None:
    rng = np.random.default_rng(num_frames)
    frames = rng.integers(0, 256, (num_frames, 20, 30, 3), dtype=np.uint8)
    config = FramesConfig(store=store, short_side_px=16)
    assert keep(config, frames, sizes) == keep(config, frames, [])


@given(num_frames=st.integers(1, 10_000), num_kept=st.integers(1, 64))
def test_the_strip_is_spread_evenly(num_frames: int, num_kept: int) -> None:
    indices = strip_indices(num_frames, num_kept)
    assert len(indices) == min(num_frames, num_kept)
    gaps = np.diff(indices)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)
    assert abs(indices[0] - (num_frames - 1 - indices[-1])) <= 1


def test_the_strip_shows_the_clip_from_left_to_right() -> None:
    _, strip = keep(FramesConfig(), clip(60), [])
    image = decode(strip)
    assert image.shape == (96, 6 * 171, 3)
    greys = image.reshape(96, 6, 171, 3).mean(axis=(0, 2, 3))
    assert np.abs(greys - np.linspace(10, 240, 60)[strip_indices(60, 6)]).max() < 2


@pytest.mark.parametrize(
    ("size", "expected"), [((360, 640), (256, 455)), ((640, 360), (455, 256)), ((100, 50), (100, 50))]
)
def test_stored_frames_are_shrunk_and_never_enlarged(size: tuple[int, int], expected: tuple[int, int]) -> None:
    jpegs, _ = keep(FramesConfig(), clip(1, *size), [])
    assert decode(jpegs[0]).shape == (*expected, 3)


@pytest.mark.parametrize("short_side_px", [64, 200, 360])
def test_stored_frames_keep_their_colours(short_side_px: int) -> None:
    frame = np.full((1, 360, 640, 3), 30, np.uint8)
    frame[:, :, :320] = (220, 120, 20)
    jpegs, strip = keep(FramesConfig(short_side_px=short_side_px), frame, [])
    for image in (jpegs[0], strip):
        image = decode(image).astype(int)
        assert np.abs(image[:, : image.shape[1] // 2 - 9] - (220, 120, 20)).max() < 6


def test_a_clip_begun_anew_forgets_the_last_one() -> None:
    keeper = FrameKeeper(FramesConfig())
    keeper.begin(30)
    keeper.feed(clip(30)[:17], np.arange(17.0))
    keeper.begin(4)
    keeper.feed(clip(4), np.arange(4.0))
    assert keeper.finish() == keep(FramesConfig(), clip(4), [])


def test_another_number_of_frames_than_announced_is_an_error() -> None:
    keeper = FrameKeeper(FramesConfig())
    keeper.begin(5)
    with pytest.raises(ShapeError, match="fed 6 frames, the clip was begun with 5"):
        keeper.feed(clip(6), np.arange(6.0))
    keeper.feed(clip(4), np.arange(4.0))
    with pytest.raises(ShapeError, match="fed 4 frames, the clip was begun with 5"):
        keeper.finish()


def test_a_strip_too_wide_for_a_jpeg_is_made_lower() -> None:
    _, strip = keep(FramesConfig(store=False, thumbnail_frames=64, thumbnail_height_px=1080), clip(64, 16, 160), [])
    height, width = decode(strip).shape[:2]
    assert width <= 65_000
    assert height * 640 == pytest.approx(width, rel=0.02)


def test_memory_holds_the_images_kept_and_no_frames() -> None:
    keeper = FrameKeeper(FramesConfig(store=False))
    frames = clip(9000, 18, 32)
    tracemalloc.start()
    keeper.begin(len(frames))
    for chunk in np.split(frames, 100):
        keeper.feed(chunk, np.zeros(len(chunk)))
    jpegs, strip = keeper.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert jpegs is None
    assert strip
    assert peak < 3e6 < frames.nbytes

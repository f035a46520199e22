"""The `appearance` embedding: chunking, bounded memory, what changes it and what does not."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handloom.errors import ShapeError
from handloom.models.embeddings.appearance import MAX_FRAMES, GistHogHsv, gist_of, hog_of
from handloom.schemas.clip import Clip
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.values import Hands, VideoInfo

CLIP = Clip("test:a:0-2000", "test", "a", "a.mp4", 0.0, 2.0)
DIM = EMBEDDINGS["appearance"].dim
HAND_BLOCKS = slice(384 + 160, 720)


def info_of(width: int, height: int) -> VideoInfo:
    return VideoInfo(width, height, 30.0, "h264", "yuv420p", 0, 0.0, 10.0, 300)


def scene(seed: int, num_frames: int, width: int = 96, height: int = 64) -> np.ndarray:
    """(T, h, w, 3): a coarse random image that drifts a little."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (6, 9, 3)).astype(np.uint8)
    large = cv2.resize(image, (width + num_frames, height), interpolation=cv2.INTER_CUBIC)
    return np.stack([large[:, t : t + width] for t in range(num_frames)])


def no_hands(num_frames: int) -> Hands:
    seen = np.zeros((num_frames, 2), bool)
    points = np.full((num_frames, 2, 21, 3), np.nan, np.float32)
    return Hands(seen, seen.copy(), np.full((num_frames, 2), np.nan, np.float32), points[..., :2].copy(), points)


def hand_at(num_frames: int, x_px: float, y_px: float, size_px: float = 20.0) -> Hands:
    hands = no_hands(num_frames)
    hands.visible[:, 1] = True
    spread = np.random.default_rng(0).uniform(-0.5, 0.5, (21, 2)) * size_px
    hands.keypoints_px[:, 1] = spread + np.array([x_px, y_px])
    return hands


def encode(frames, hands: Hands, frame_s=None, info: VideoInfo | None = None, cuts=()) -> np.ndarray:
    frame_s = np.arange(len(frames)) / 15 if frame_s is None else frame_s
    encoder = GistHogHsv()
    encoder.begin(CLIP, info or info_of(frames.shape[2], frames.shape[1]))
    for start, end in pairwise([0, *sorted(cuts), len(frames)]):
        encoder.feed(frames[start:end], frame_s[start:end])
    vector = encoder.finish(hands)
    assert vector.shape == (DIM,)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    assert abs(float(np.linalg.norm(vector.astype(np.float64))) - 1) < 1e-5
    return vector


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 120), st.lists(st.integers(0, 120), max_size=6))
def test_chunking_never_changes_a_byte(num_frames: int, cuts: list[int]) -> None:
    frames, hands = scene(1, num_frames), hand_at(num_frames, 40, 30)
    whole = encode(frames, hands)
    assert encode(frames, hands, cuts=[min(cut, num_frames) for cut in cuts]).tobytes() == whole.tobytes()


def test_clips_do_not_influence_each_other() -> None:
    encoder = GistHogHsv()
    vectors = []
    for seed in (1, 2, 1):
        encoder.begin(CLIP, info_of(96, 64))
        encoder.feed(scene(seed, 20), np.arange(20) / 15)
        vectors.append(encoder.finish(no_hands(20)).tobytes())
    assert vectors[0] == vectors[2]
    assert vectors[0] != vectors[1]


def test_ten_minutes_keep_at_most_32_frames() -> None:
    encoder = GistHogHsv()
    encoder.begin(CLIP, info_of(48, 32))
    block = scene(1, 300, 48, 32)
    for k in range(30):
        encoder.feed(block, 7.5 + (np.arange(300) + 300 * k) / 15)
        assert len(encoder._kept) <= MAX_FRAMES
    assert len(encoder._kept) > MAX_FRAMES // 2
    assert np.isfinite(encoder.finish(no_hands(9000))).all()


def test_rate_size_and_start_hardly_matter() -> None:
    frames, hands = scene(3, 60, 480, 270), hand_at(60, 200, 150, 80)
    whole = encode(frames, hands)
    assert encode(frames[::2], hand_at(30, 200, 150, 80), np.arange(30) / 7.5) @ whole > 0.99
    assert encode(frames, hands, 1000.0 + np.arange(60) / 15) @ whole > 0.9999
    half = np.stack([cv2.resize(frame, (240, 135), interpolation=cv2.INTER_AREA) for frame in frames])
    assert encode(half, hands, info=info_of(480, 270)) @ whole > 0.99


def test_the_halves_of_a_scene_find_each_other() -> None:
    first = np.stack([encode(scene(seed, 30), no_hands(30)) for seed in range(6)])
    later = np.stack([encode(scene(seed, 60)[30:], no_hands(30)) for seed in range(6)])
    assert ((first @ later.T).argmax(1) == np.arange(6)).all()


def test_hand_blocks_show_the_hand_region_and_are_zero_without_one() -> None:
    frames = scene(4, 20)
    without = encode(frames, no_hands(20))
    left, right = encode(frames, hand_at(20, 20, 30)), encode(frames, hand_at(20, 70, 30))
    assert not without[HAND_BLOCKS].any()
    assert left[HAND_BLOCKS].any()
    assert left[HAND_BLOCKS] @ right[HAND_BLOCKS] < 0.9 * left[HAND_BLOCKS] @ left[HAND_BLOCKS]
    for hands in (hand_at(20, 500, 30), hand_at(20, 20, 30, 1.0), hand_at(20, np.nan, 30), hand_at(20, np.inf, 30)):
        assert not encode(frames, hands)[HAND_BLOCKS].any()  # outside, too small, unknown


@pytest.mark.parametrize(("width", "height"), [(2, 2), (16, 16), (17, 200), (640, 1)])
def test_any_size_and_flat_images(width: int, height: int) -> None:
    for level in (0, 255):
        encode(np.full((3, height, width, 3), level, np.uint8), no_hands(3))


def test_gist_and_hog_see_direction() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = stripes[:, 3::8] = 255
    across, down = gist_of(stripes).reshape(3, 8, 16), gist_of(stripes.transpose(1, 0, 2)).reshape(3, 8, 16)
    assert across.sum((0, 2)).argmax() == 0
    assert down.sum((0, 2)).argmax() == 4
    assert hog_of(stripes).reshape(16, 9).sum(0).argmax() in (0, 8)
    assert hog_of(np.ascontiguousarray(stripes.transpose(1, 0, 2))).reshape(16, 9).sum(0).argmax() in (4, 5)


def test_shapes_must_agree() -> None:
    encoder = GistHogHsv()
    with pytest.raises(ShapeError, match="at least one"):
        encoder.finish(no_hands(0))
    encoder.begin(CLIP, info_of(96, 64))
    with pytest.raises(ShapeError, match="frame_s"):
        encoder.feed(scene(0, 3), np.arange(2.0))
    encoder.feed(scene(0, 3), np.arange(3.0))
    with pytest.raises(ShapeError, match="expected the 3 fed"):
        encoder.finish(no_hands(2))

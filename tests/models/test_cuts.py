"""Cuts are found; turns, changes of light, flashes and black parts, which change a histogram as well, are none."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest

from handloom.models.cuts import find_cuts
from handloom.models.hands.hand_points import without_infill_across
from handloom.schemas.values import HandPoints
from handloom.video.decode.frame_store import FrameStore

WIDTH, HEIGHT = 320, 180


@functools.cache
def room(seed: int) -> np.ndarray:
    """(600, 1600, 3) uint8: objects of several sizes and colours in front of a wall, all with some texture."""
    rng = np.random.default_rng(seed)
    image = np.full((600, 1600, 3), rng.integers(60, 200, 3), np.uint8)
    for _ in range(160):
        x, y, w, h = rng.integers(0, 1600), rng.integers(0, 600), rng.integers(20, 160), rng.integers(20, 120)
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), rng.integers(0, 255, 3).tolist(), -1)
    grain = sum(cv2.resize(rng.standard_normal((600 // s, 1600 // s)), (1600, 600)) for s in (4, 10, 20))
    return np.clip(image + 15 * grain[..., None], 0, 255).astype(np.uint8)


def shot(seed: int, num: int, speed_px: float = 2.0, blur_px: int = 1) -> list[np.ndarray]:
    """Frames of a camera that turns to the right, with motion blur of `blur_px`."""
    image, out = room(seed), []
    for t in range(num):
        x = round(speed_px * t) % 1200
        view = image[150 : 150 + HEIGHT, x : x + WIDTH]
        out.append(cv2.blur(view, (blur_px, 1)) if blur_px > 1 else view.copy())
    return out


def cuts_of(frames: list[np.ndarray]) -> list[int]:
    noise = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 1))
    store = FrameStore(np.arange(len(frames)) / 15)
    for t, frame in enumerate(frames):
        store.append(np.clip(frame + np.roll(noise, 17 * t, axis=1), 0, 255).astype(np.uint8)[None])
    return find_cuts(store).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_the_first_frame_of_every_shot_is_found(seed):
    frames = shot(seed, 7) + shot(seed + 10, 6) + shot(seed + 20, 1) + shot(seed + 30, 8)
    assert cuts_of(frames) == [7, 13, 14]


def test_a_shot_that_comes_back_after_another_is_cut_twice():
    frames = shot(1, 14)
    assert cuts_of(frames[:7] + shot(2, 6) + frames[7:]) == [7, 13]


def test_fast_turns_are_none():
    assert cuts_of(shot(3, 9, speed_px=0.35 * WIDTH)) == []
    assert cuts_of(shot(4, 12, speed_px=0.25 * WIDTH, blur_px=41)) == []


def test_jumps_of_the_exposure_are_none():
    frames = shot(5, 16)
    darker = [np.clip(0.45 * frame + 5, 0, 255).astype(np.uint8) for frame in frames[5:10]]
    brighter = [np.clip(1.6 * frame.astype(float) + 30, 0, 255).astype(np.uint8) for frame in frames[10:]]
    assert cuts_of(frames[:5] + darker + brighter) == []


def test_flashes_torn_images_and_black_parts_between_two_of_one_shot_are_none():
    frames = shot(6, 20)
    frames[4] = np.full_like(frames[4], 255)
    frames[8] = np.random.default_rng(1).integers(0, 255, frames[8].shape).astype(np.uint8)
    for t in (11, 12, 13, 14):
        frames[t] = np.zeros_like(frames[t])
    assert cuts_of(frames) == []


def test_another_shot_after_black_is_a_cut_where_it_begins():
    black = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3
    assert cuts_of(shot(7, 6) + black + shot(8, 6)) == [9]


def test_one_colour_and_one_frame_have_none():
    plain = [np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (20, 20, 220, 220)]
    assert cuts_of(plain) == []
    assert cuts_of(shot(9, 1)) == []
    assert find_cuts(FrameStore(np.zeros(0))).tolist() == []


def test_hands_are_not_infilled_across_a_cut():
    infilled = np.zeros((12, 2), bool)
    infilled[[3, 4, 8, 9], 0] = True  # left: seen, filled in at 3 and 4, and at 8 and 9 where the cut is
    infilled[5:7, 1] = True
    shape = (12, 2, 21)
    points = HandPoints(
        np.ones((12, 2), bool), infilled, np.ones((12, 2), np.float32), np.ones((*shape, 2), np.float32),
        np.ones((*shape, 3), np.float32), "ego",
    )  # fmt: skip
    assert without_infill_across(points, np.array([11])).infilled.tolist() == infilled.tolist()
    left = without_infill_across(points, np.array([9]))
    assert np.flatnonzero(~left.visible[:, 0]).tolist() == [8, 9]
    assert np.flatnonzero(np.isnan(left.keypoints_px[:, 0, 0, 0])).tolist() == [8, 9]
    assert np.flatnonzero(left.infilled[:, 0]).tolist() == [3, 4]
    assert left.visible[:, 1].all()
    assert np.isfinite(points.keypoints_px).all()

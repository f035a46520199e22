"""Corners are followed to a fraction of a pixel, and never on hands."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handloom.models.corner_tracks import CornerTracks
from handloom.schemas.values import FeatureTracks, HandPoints, VideoInfo
from handloom.video.decode.frame_store import FrameStore

INFO = VideoInfo(1280, 720, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
SIZE = (640, 360)


def texture(seed=0) -> np.ndarray:
    """A wall of blotches, larger than the image."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (620, 1000)).astype(np.float32), (0, 0), 3)
    return np.clip((noise - noise.mean()) * 8 + 128, 0, 255)


def warps(num) -> np.ndarray:
    """(T, 2, 3) image from wall: a shift, a slow turn and a little zoom."""
    result = []
    for t in range(num):
        matrix = cv2.getRotationMatrix2D((500, 310), 0.4 * t, 1 + 0.003 * t)
        matrix[:, 2] += [-180 + 5.3 * t, -130 - 2.1 * t]
        result.append(matrix)
    return np.array(result)


def store(images) -> FrameStore:
    frames = FrameStore(np.arange(len(images)) / 15)
    frames.append(np.repeat(np.clip(images, 0, 255).astype(np.uint8)[..., None], 3, axis=3))
    return frames


def seen_wall(num, seed=0, light=(1.0,)) -> FrameStore:
    rng = np.random.default_rng(seed)
    wall = texture()
    shown = [cv2.warpAffine(wall, m, SIZE, flags=cv2.INTER_LINEAR) + rng.normal(0, 2, SIZE[::-1]) for m in warps(num)]
    return store(np.array(shown) * np.resize(light, num)[:, None, None])


def working(features: FeatureTracks) -> np.ndarray:
    return (features.points_px.astype(np.float64) + 0.5) / 2 - 0.5


@pytest.fixture(scope="module")
def followed() -> FeatureTracks:
    return CornerTracks().track(INFO, seen_wall(24), None)


def test_a_corner_stays_on_its_spot_of_the_wall(followed):
    to_wall = np.array([cv2.invertAffineTransform(m) for m in warps(24)])[followed.frame]
    spots = np.einsum("mij,mj->mi", to_wall[:, :, :2], working(followed)) + to_wall[:, :, 2]
    first = np.unique(followed.track, return_index=True)[1]
    start = np.full((followed.track.max() + 1, 2), np.nan)
    start[followed.track[first]] = spots[first]
    way = np.linalg.norm(spots - start[followed.track], axis=1)
    assert np.median(way) < 0.2
    assert np.mean(way < 0.8) > 0.98


def test_corners_cover_the_image_and_last(followed):
    count = np.bincount(followed.frame)
    assert count.min() > 120
    cells = {(int(x // 128), int(y // 120)) for x, y in working(followed)[followed.frame == 23]}
    assert len(cells) == 15  # every part of the image
    assert np.median(np.bincount(followed.track)) >= 8


def test_order_and_identity(followed):
    assert (np.lexsort([followed.track, followed.frame]) == np.arange(len(followed.frame))).all()
    pairs = set(zip(followed.frame.tolist(), followed.track.tolist(), strict=True))
    assert len(pairs) == len(followed.frame)
    for track in range(0, followed.track.max() + 1, 9):  # a lost corner does not come back
        assert (np.diff(followed.frame[followed.track == track]) == 1).all()


def test_the_same_frames_give_the_same_corners(followed):
    again = CornerTracks().track(INFO, seen_wall(24), None)
    assert again.points_px.tobytes() == followed.points_px.tobytes()
    assert again.track.tobytes() == followed.track.tobytes()


def _hand_at(x, y, num) -> HandPoints:
    """A left hand of 160 px whose fingers point up, at source pixels (x, y) of its wrist; the right one unseen."""
    keypoints = np.full((num, 2, 21, 2), np.nan, np.float32)
    finger, joint = np.divmod(np.arange(20), 4)
    keypoints[:, 0, 0] = x, y
    keypoints[:, 0, 1:] = np.stack([x - 75 + 30 * finger, y - 70 - 30 * joint], axis=1)
    visible = np.zeros((num, 2), bool)
    visible[:, 0] = True
    confidence = np.where(visible, 1, np.nan).astype(np.float32)
    return HandPoints(visible, visible & False, confidence, keypoints, np.full((num, 2, 21, 3), np.nan, np.float32))


def test_no_corner_on_a_hand_or_its_forearm():
    hands = _hand_at(640, 420, 8)
    features = CornerTracks().track(INFO, seen_wall(8), hands)
    points = features.points_px
    on_hand = (np.abs(points[:, 0] - 640) < 45) & (points[:, 1] > 240) & (points[:, 1] < 720)
    assert not on_hand.any()
    assert (points[:, 0] < 300).any()
    assert (points[:, 0] > 980).any()


def test_a_bare_wall_has_no_lasting_corners():
    rng = np.random.default_rng(0)
    for level in (0, 128, 255):  # black, grey, saturated
        features = CornerTracks().track(INFO, store(np.full((8, 360, 640), level, np.uint8)), None)
        assert len(features.frame) == 0
    noisy = store(rng.normal(128, 2, (12, 360, 640)))
    features = CornerTracks().track(INFO, noisy, None)
    assert np.sum(np.bincount(features.track, minlength=1) >= 6) < 10


def test_no_corner_near_what_is_laid_over_an_image_that_moves():
    """A line of text, a picture in picture and black bars. With a camera at rest they cannot be told from the scene."""
    frames = seen_wall(24)
    shown = np.stack([frames.grey(t) for t in range(24)])
    shown[:, :40], shown[:, -40:] = 0, 0
    shown[:, 200:280, 480:600] = texture(5)[:80, :120]
    for image in shown:
        cv2.putText(image, "REC 7", (30, 90), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)
    features = CornerTracks().track(INFO, store(shown), None)
    x, y = working(features).T
    assert ((y > 50) & (y < 310)).all()
    assert not ((x > 470) & (x < 610) & (y > 190) & (y < 290)).any()
    assert not ((x > 30) & (x < 120) & (y > 65) & (y < 95)).any()
    assert np.bincount(features.frame, minlength=24).min() > 60
    for track in np.unique(features.track)[::5]:
        assert (np.diff(features.frame[features.track == track]) == 1).all()
    rests = CornerTracks().track(INFO, store(shown[[0] * 8]), None)
    assert ((working(rests)[:, 0] > 480) & (working(rests)[:, 0] < 600)).any()


@pytest.mark.parametrize("gain", [0.6, 1.5])
def test_a_step_of_the_exposure_loses_few_corners(followed, gain):
    frames = seen_wall(24)
    shown = np.stack([frames.grey(t) for t in range(24)]).astype(float)
    shown = 20 + 0.6 * shown
    shown[12:] *= gain
    features = CornerTracks().track(INFO, store(shown), None)
    go_on = np.intersect1d(features.track[features.frame == 11], features.track[features.frame == 12])
    assert len(go_on) > 0.8 * (features.frame == 11).sum()
    to_wall = np.array([cv2.invertAffineTransform(m) for m in warps(24)])
    was, now = (
        np.einsum("ij,mj->mi", to_wall[t][:, :2], working(features)[at]) + to_wall[t][:, 2]
        for t in (11, 12)
        for at in [(features.frame == t) & np.isin(features.track, go_on)]
    )
    assert np.median(np.linalg.norm(now - was, axis=1)) < 0.2


def test_a_bare_wall_beside_the_scene_is_not_laid_over_it():
    """It never changes, either; but it has no edge that stays in place while the image moves."""
    scene = texture()
    scene[330:] = 128
    shifts = [np.array([[1.0, 0, -20 - 6 * t], [0, 1, -120 - 2 * t]]) for t in range(10)]
    seen = store(np.array([cv2.warpAffine(scene, m, SIZE) for m in shifts]))
    found, unmasked = (CornerTracks(*min_motion_px).track(INFO, seen, None) for min_motion_px in ((), (np.inf,)))
    assert found.points_px.tobytes() == unmasked.points_px.tobytes()


def test_one_frame_and_tiny_frames():
    assert set(CornerTracks().track(INFO, seen_wall(1), None).frame.tolist()) == {0}
    small = VideoInfo(16, 16, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
    assert len(CornerTracks().track(small, store(np.zeros((3, 16, 16))), None).frame) == 0


def test_tracks_continue_across_steps_of_the_exposure(followed):
    steps = CornerTracks().track(INFO, seen_wall(10, light=4 * [0.9] + 3 * [1.35] + 3 * [0.6]), None)
    for frame in (4, 7):
        before, after = (set(steps.track[steps.frame == f]) for f in (frame - 1, frame))
        assert len(before & after) > 0.85 * len(before)
    both = np.isin(steps.frame, 9), np.isin(followed.frame, 9)
    near = np.linalg.norm(working(steps)[both[0]][:, None] - working(followed)[both[1]], axis=2).min(axis=1)
    assert np.median(near) < 0.2  # and stay on their spots: those of a steady light are there as well


def test_no_track_crosses_a_cut():
    features = CornerTracks().track(INFO, seen_wall(8), None, cuts=[5])
    before, after = (set(features.track[features.frame < 5]), set(features.track[features.frame >= 5]))
    assert len(before) > 20
    assert len(after) > 20
    assert not before & after

"""The recovering tracker on moving images whose motion is known to the last pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handloom.models.tracks.lucas_kanade import LucasKanade, query_grid
from handloom.models.tracks.recovering_tracker import RecoveringTracker
from handloom.schemas.clip import Clip
from handloom.schemas.settings import TracksConfig
from handloom.schemas.values import HandPoints, TrackKind, Tracks, VideoInfo
from handloom.synth import follow as surfaces
from handloom.synth.render.render import render_all
from handloom.synth.script.scene import SceneSpec
from handloom.video.decode.frame_store import FrameStore

CLIP = Clip("test:v:0-1000", "test", "v", "v.mp4", 0.0, 1.0)
WIDTH, HEIGHT, NUM = 320, 240, 24
SMALL = TracksConfig(grid=12, extra=32)


def surface(seed: int = 0, size: int = 700, contrast: float = 40.0) -> np.ndarray:
    """(size, size, 3) uint8, an image with detail at several sizes."""
    rng = np.random.default_rng(seed)
    out = sum(cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), s) * s for s in (1.5, 3.0, 6.0))
    out = np.clip(128 + contrast * out / out.std(), 0, 255).astype(np.uint8)
    return np.repeat(out[..., None], 3, axis=2)


def homography(t: float) -> np.ndarray:
    """Image of frame `t` to the surface, which shifts, turns and comes nearer, as under a moving head."""
    turn, zoom = 0.006 * t, 1 - 0.004 * t
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    return np.array([[c, -s, 180 + 3.0 * t], [s, c, 200 - 1.7 * t], [0, 0, 1.0]])


def truth(queries: np.ndarray, num: int) -> np.ndarray:
    """(T, N, 2) where points of the first image are."""
    flat = cv2.perspectiveTransform(queries[None].astype(np.float64), homography(0))
    return np.concatenate([cv2.perspectiveTransform(flat, np.linalg.inv(homography(t))) for t in range(num)])


def film(num: int = NUM, noise: float = 2.0, cover=None, contrast: float = 40.0) -> np.ndarray:
    """(T, h, w, 3) of the surface; `cover(frame, t)` paints over a frame."""
    rng, image = np.random.default_rng(1), surface(contrast=contrast)
    out = []
    for t in range(num):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame = cv2.warpPerspective(image, homography(t), (WIDTH, HEIGHT), flags=flags)
        if cover is not None:
            cover(frame, t)
        out.append(np.clip(frame + rng.normal(0, noise, frame.shape[:2])[..., None], 0, 255).astype(np.uint8))
    return np.stack(out)


def no_hands(num: int) -> HandPoints:
    nan = np.full((num, 2, 21, 3), np.nan, np.float32)
    none = np.zeros((num, 2), bool)
    return HandPoints(none, none, nan[..., 0, 0], nan[..., :2], nan)


def follow(frames: np.ndarray, hands: HandPoints | None = None, config: TracksConfig = SMALL, cls=RecoveringTracker):
    store = FrameStore(np.arange(len(frames)) / 15)
    store.append(frames)
    info = VideoInfo(frames.shape[2], frames.shape[1], 15.0, "h264", "yuv420p", 0, 0.0, 1.0, len(frames))
    return cls(config).track(CLIP, info, store, hands or no_hands(len(frames)))


def inside(points: np.ndarray, margin: float) -> np.ndarray:
    return np.all((points > margin) & (points < np.array([WIDTH, HEIGHT]) - 1 - margin), axis=-1)


@pytest.fixture(scope="module")
def seen() -> Tracks:
    return follow(film())


def test_the_grid_comes_first_in_arm4r_order_and_unused_slots_are_empty(seen):
    num = SMALL.grid**2
    assert seen.points_px.shape == (NUM, num + SMALL.extra, 2)
    np.testing.assert_array_equal(seen.points_px[0, :num], query_grid(WIDTH, HEIGHT, SMALL.grid))
    assert (seen.kind[:num] == TrackKind.GRID).all()
    assert (seen.query_frame[:num] == 0).all()
    assert (seen.kind[num:] != TrackKind.GRID).all()
    assert (seen.kind == TrackKind.CORNER).any()
    unused = seen.kind == TrackKind.NONE
    assert (seen.query_frame[unused] == -1).all()
    assert not seen.visible[:, unused].any()
    np.testing.assert_array_equal(np.isnan(seen.points_px).any(-1), ~seen.visible)


def test_every_point_is_where_the_surface_went_and_visible_while_it_is_inside(seen):
    num = SMALL.grid**2
    where = truth(query_grid(WIDTH, HEIGHT, SMALL.grid), NUM)
    error = np.linalg.norm(seen.points_px[:, :num] - where, axis=-1)
    assert np.nanmedian(error) < 0.15
    assert np.nanpercentile(error, 98) < 1.0
    assert seen.visible[:, :num][inside(where, 3)].mean() > 0.99
    assert not seen.visible[:, :num][~inside(where, -3)].any()


def test_points_chosen_later_are_followed_back_to_the_start(seen):
    late = np.flatnonzero(seen.query_frame > 0)
    assert len(late)
    at = seen.points_px[seen.query_frame[late], late]
    flat = np.stack([cv2.perspectiveTransform(p[None, None].astype(float), homography(t))[0, 0]
                     for p, t in zip(at, seen.query_frame[late], strict=True)])  # fmt: skip
    where = np.concatenate([cv2.perspectiveTransform(flat[None], np.linalg.inv(homography(t))) for t in range(NUM)])
    error = np.linalg.norm(seen.points_px[:, late] - where, axis=-1)
    before = np.arange(NUM)[:, None] < seen.query_frame[late]
    assert (seen.visible[:, late] & before).any()
    assert np.nanmax(error[before]) < 1.0


def passing(frame: np.ndarray, t: int) -> None:
    """A board of another texture moves over the image from left to right."""
    x = int(-90 + 22 * t)
    board = surface(5, 260)[:, :90]
    left, right = max(0, x), min(WIDTH, x + 90)
    if right > left:
        frame[:, left:right] = board[:HEIGHT, left - x : right - x]


def test_points_come_back_under_their_number_after_something_passed(seen):
    tracks, num = follow(film(cover=passing)), SMALL.grid**2
    where = truth(query_grid(WIDTH, HEIGHT, SMALL.grid), NUM)
    x = -90 + 22 * np.arange(NUM)[:, None]
    behind = (where[..., 0] > x + 4) & (where[..., 0] < x + 86)
    free = (where[..., 0] < x - 12) | (where[..., 0] > x + 102)
    visible, error = tracks.visible[:, :num], np.linalg.norm(tracks.points_px[:, :num] - where, axis=-1)
    assert visible[behind].mean() < 0.05
    was_hidden = np.cumsum(behind, axis=0) > 0
    again = was_hidden & free & inside(where, 8)
    again &= np.cumsum(again, axis=0) > 3  # a few frames to be found
    assert again.sum() > 200
    assert visible[again].mean() > 0.9
    assert np.nanpercentile(error[again & visible], 95) < 1.0


def test_points_that_leave_the_image_and_come_back_keep_their_number():
    frames = film(13)
    there_and_back = np.concatenate([frames, frames[-2::-1]])
    tracks, num = follow(there_and_back), SMALL.grid**2
    where = truth(query_grid(WIDTH, HEIGHT, SMALL.grid), 13)
    left = ~inside(where[12], -2)
    assert left.sum() > 10
    assert not tracks.visible[12, :num][left].any()
    back = tracks.visible[-1, :num] & left
    assert back.sum() > 0.6 * left.sum()
    error = np.linalg.norm(tracks.points_px[-1, :num] - where[0], axis=-1)
    assert np.median(error[back]) < 0.5


def test_points_that_are_gone_are_not_visible():
    def cut(frame: np.ndarray, t: int) -> None:
        if t >= 12:
            frame[:] = surface(9, 400)[:HEIGHT, :WIDTH]

    tracks = follow(film(cover=cut))
    assert tracks.visible[12:, : SMALL.grid**2].mean() < 0.02


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_images_without_texture_have_no_known_motion(grey):
    tracks = follow(np.full((4, 64, 96, 3), grey, np.uint8), config=TracksConfig(grid=4, extra=8))
    assert tracks.visible[0, :16].all()
    assert not tracks.visible[1:, :16].any()


def test_hands_without_size_or_far_outside_change_nothing():
    frames = film(6)
    hands = no_hands(6)
    hands.visible[:] = True
    hands.keypoints_px[:, 0] = 50
    hands.keypoints_px[:, 1] = 5000 + np.random.default_rng(0).normal(0, 40, (6, 21, 2))
    with_hands, without = (follow(frames, given) for given in (hands, no_hands(6)))
    assert (with_hands.visible[:, :144] == without.visible[:, :144]).mean() > 0.98


@pytest.mark.parametrize("num", [1, 2])
def test_clips_of_one_and_two_frames(num):
    tracks = follow(film(num))
    assert tracks.visible.shape[0] == num
    assert tracks.visible[:, :144].mean() > 0.9


def test_the_same_frames_give_the_same_bytes(seen):
    again = follow(film())
    for name in ("points_px", "visible", "query_frame", "kind"):
        assert getattr(again, name).tobytes() == getattr(seen, name).tobytes()


def test_points_of_a_hand_stay_on_it_and_those_behind_it_do_not_move():
    """A rendered scene whose truth has the object at every pixel."""
    images, truth = render_all(SceneSpec("pick-place", "can", seed=3, duration_s=1.2, fps=12.5, width=320, height=240))
    seen = truth.hand_visible
    keypoints = np.where(seen[..., None, None], truth.keypoints_px, np.nan).astype(np.float32)
    confidence = np.where(seen, 1, np.nan).astype(np.float32)
    hands = HandPoints(seen, np.zeros_like(seen), confidence, keypoints, np.zeros((*seen.shape, 21, 3), np.float32))
    tracks = follow(images, hands, TracksConfig(grid=24, extra=128))
    assert {TrackKind.LEFT_HAND, TrackKind.RIGHT_HAND} <= set(tracks.kind.tolist())
    used = np.flatnonzero(tracks.query_frame >= 0)
    query = tracks.points_px[tracks.query_frame[used], used]
    what = surfaces.follow(truth, query, tracks.query_frame[used]).kind
    x, y = np.rint(np.nan_to_num(tracks.points_px[:, used])).astype(int).transpose(2, 0, 1)
    shown = truth.ids[np.arange(len(images))[:, None], np.clip(y, 0, 239), np.clip(x, 0, 319)]
    on_hand = (shown == 1) | (shown == 2)
    visible = tracks.visible[:, used]
    assert on_hand[visible & ((what == 1) | (what == 2))].mean() > 0.95
    assert on_hand[visible & (what == 0)].mean() < 0.03


def test_more_points_survive_than_with_plain_lucas_kanade():
    frames = film(cover=passing)
    where = inside(truth(query_grid(WIDTH, HEIGHT, 12), NUM)[-1], 3)
    kept = {cls: follow(frames, cls=cls).visible[-1, :144][where].mean() for cls in (LucasKanade, RecoveringTracker)}
    assert kept[RecoveringTracker] > 1.3 * kept[LucasKanade]


def wall(t: int) -> np.ndarray:
    """(h, w, 3) a plain wall with a soft shadow, and detail in one corner, seen by a camera that sways by 2 px."""
    y, x = np.mgrid[:300, :400]
    grey = 150 + 20 * np.sin(x / 60) * np.cos(y / 50)
    grey[:90, :110] = surface(3, 200)[:90, :110, 0]
    shift = np.float32([[1, 0, -30 - 2 * np.sin(t / 4)], [0, 1, -30]])
    return np.repeat(cv2.warpAffine(grey, shift, (WIDTH, HEIGHT))[..., None], 3, axis=2)


def test_points_on_a_plain_wall_stay_when_a_hand_covers_the_last_corners():
    frames, hands = np.stack([wall(t) for t in range(NUM)]), no_hands(NUM)
    frames[8:, :62, :82] = 110
    hands.visible[8:, 0] = True
    hands.keypoints_px[8:, 0] = [(x, y) for y in (6, 30, 54) for x in (4, 16, 28, 40, 52, 64, 76)]
    hands.keypoints_px[8:, 0, 9] = 40, 60
    frames = np.clip(frames + np.random.default_rng(2).normal(0, 1.5, frames.shape[:3])[..., None], 0, 255)
    tracks = follow(frames.astype(np.uint8), hands)
    num = SMALL.grid**2
    queries = query_grid(WIDTH, HEIGHT, SMALL.grid)
    plain = ((queries[:, 0] > 150) | (queries[:, 1] > 130)) & inside(queries, 6)
    assert tracks.visible[:, :num][:, plain].mean(axis=1).min() > 0.95
    off = tracks.points_px[:, :num, 0] - (queries[:, 0] - 2 * np.sin(np.arange(NUM) / 4)[:, None])
    sigma = tracks.sigma_px[:, :num]
    assert np.nanmedian(np.abs(off[-1, plain])) < 4
    assert (np.abs(off) < 2 * sigma)[1:, plain].mean() > 0.9
    assert np.nanmedian(sigma[-1, plain]) > np.nanmedian(sigma[4, plain])


def test_a_camera_at_rest_stays_at_rest_when_something_that_no_detector_sees_has_all_corners():
    desk, thing = wall(0), surface(7, 160)
    desk[:90, :110] = 150
    desk[:, 15::45] = 100
    frames = np.repeat(desk[None], NUM, axis=0)
    for t in range(NUM):
        x = 20 + 4 * t
        frames[t, 90:190, x : x + 100] = thing[:100, :100]
    frames = np.clip(frames + np.random.default_rng(4).normal(0, 1.0, frames.shape[:3])[..., None], 0, 255)
    tracks, num = follow(frames.astype(np.uint8)), SMALL.grid**2
    queries = query_grid(WIDTH, HEIGHT, SMALL.grid)
    beside = (queries[:, 1] < 80) | (queries[:, 1] > 195)
    off = np.linalg.norm(tracks.points_px[:, :num] - queries, axis=-1)
    assert np.nanmax(np.nanmedian(off[:, beside], axis=1)) < 1.0
    assert tracks.visible[-1, :num][beside].mean() > 0.9


def test_points_stay_through_jumps_of_the_exposure_and_come_back_after_a_black_part():
    def light(frame: np.ndarray, t: int) -> None:
        frame[:] = np.clip(frame * (0.0 if 10 <= t < 14 else 0.6 if t >= 6 else 1.0), 0, 255)

    tracks, num = follow(film(cover=light, noise=0.0)), SMALL.grid**2
    where = truth(query_grid(WIDTH, HEIGHT, SMALL.grid), NUM)
    visible, there = tracks.visible[:, :num], inside(where, 8)
    assert not visible[10:14].any()
    for t in (5, 6, 7, 9, 14, 16, 23):
        assert visible[t, there[t]].mean() > 0.9, t
    assert np.nanpercentile(np.linalg.norm(tracks.points_px[:, :num] - where, axis=-1), 98) < 1.5


def test_a_plain_wall_may_grow_darker():
    frames = np.stack([wall(0) * (0.65 if t >= 4 else 1.0) for t in range(9)])
    frames += np.random.default_rng(3).normal(0, 1.0, frames.shape[:3])[..., None]
    tracks = follow(np.clip(frames, 0, 255).astype(np.uint8))
    assert tracks.visible[:, : SMALL.grid**2].mean(axis=1).min() > 0.9

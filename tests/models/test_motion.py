"""The `motion` embedding on smooth synthetic hands and tracks."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handloom.errors import ShapeError
from handloom.models.embeddings.flow_course import courses_of, mirrored_steps, step_ends
from handloom.models.embeddings.flow_steps import flow_steps
from handloom.models.embeddings.motion import encode_motion, mirror_clip
from handloom.models.embeddings.motion_mirror import mirrored_motion
from handloom.retrieval.movement.warping import alignments
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.values import Hands, Tracks, VideoInfo

DIM = EMBEDDINGS["motion"].dim
GRID = 14
HAND = np.random.default_rng(5).normal(0, 1, (21, 3)) * [0.04, 0.05, 0.02]  # any rigid hand will do


def info_of(width: int = 640, height: int = 360) -> VideoInfo:
    return VideoInfo(width, height, 30.0, "h264", "yuv420p", 0, 0.0, 10.0, 300)


def clip(seed: int, hz: float = 15.0, seconds: float = 3.0, pan: float = 0.0, backwards: bool = False, hands=(0, 1)):
    """Hands on smooth paths (shares of the width), a background at rest, an object that follows the right hand."""
    rng = np.random.default_rng(seed)
    frame_s = np.arange(round(seconds * hz) + 1) / hz
    at = (seconds - frame_s) if backwards else frame_s
    wave = rng.uniform(0.05, 0.25, (2, 2, 2)) * [[[1.0], [0.5]]] / [1, 2]
    rate, phase = rng.uniform(0.15, 0.6, (2, 2, 2)), rng.uniform(0, 6.28, (2, 2, 2))
    angle = 2 * np.pi * rate * at[:, None, None, None] + phase
    path = (wave * np.sin(angle)).sum(-1) + np.array([[0.3, 0.3], [0.7, 0.3]])  # (T, 2, 2), shares of the width
    size = 1 + 0.2 * np.sin(angle[..., 0, 0])
    keypoints = (path[:, :, None] + HAND[:, :2] * size[..., None, None]) * 640
    cam = (HAND * [1, 1, 1 + seed % 3]).astype(np.float32) + np.zeros((len(at), 2, 1, 1), np.float32)
    x, y = np.meshgrid((np.arange(GRID) + 0.5) / GRID * 640, (np.arange(GRID) + 0.5) / GRID * 360)
    points = np.tile(np.stack([x, y], -1).reshape(-1, 2), (len(at), 1, 1))
    on_object = np.hypot(*(points[0] - path[0, 1] * 640).T) < 90
    points[:, on_object] += ((path - path[0])[:, 1] * 640)[:, None]
    camera = pan * 640 * np.stack([np.sin(2.1 * at), np.cos(1.7 * at)], -1)
    points, keypoints = points + camera[:, None], keypoints + camera[:, None, None]
    seen = np.zeros((len(at), 2), bool)
    seen[:, list(hands)] = True
    keypoints[~seen], cam[~seen] = np.nan, np.nan
    confidence = np.where(seen, 0.9, np.nan).astype(np.float32)
    both = Hands(seen, np.zeros_like(seen), confidence, keypoints.astype(np.float32), cam)
    return both, Tracks.of_grid(points.astype(np.float32), np.ones(points.shape[:2], bool)), frame_s


def encode(clip_of, **options) -> np.ndarray:
    vector = encode_motion(*clip_of, info_of(), **options)
    assert vector is not None
    assert vector.shape == (DIM,)
    assert vector.dtype == np.float32
    assert abs(float(np.linalg.norm(vector.astype(np.float64))) - 1) < 1e-5
    return vector


def taken(clip_of, frames):
    hands, tracks, frame_s = clip_of
    values = (hands.visible, hands.infilled, hands.confidence, hands.keypoints_px, hands.keypoints_cam_m)
    some = Tracks.of_grid(tracks.points_px[frames], tracks.visible[frames])
    return Hands(*(v[frames] for v in values)), some, frame_s[frames]


@pytest.mark.parametrize("seed", range(3))
def test_mirror_law_is_exact(seed: int) -> None:
    hands, tracks, frame_s = clip(seed)
    mirrored = encode((*mirror_clip(hands, tracks, info_of()), frame_s))
    assert encode((hands, tracks, frame_s), mirrored=True).tobytes() == mirrored.tobytes()
    assert mirrored @ encode((hands, tracks, frame_s)) < 0.9
    again = mirror_clip(*mirror_clip(hands, tracks, info_of()), info_of())
    assert encode((*again, frame_s)) @ encode((hands, tracks, frame_s)) > 0.9999


@pytest.mark.parametrize("hands", [(0, 1), (0,), (1,), ()])
def test_an_embedding_can_be_mirrored_without_its_clip(hands) -> None:
    """But for flow_edges, whose differences are taken to one side: they would be half a cell further."""
    vector, exact = (encode(clip(7, pan=0.02, hands=hands), mirrored=mirrored) for mirrored in (False, True))
    turned = mirrored_motion(vector)
    assert turned @ exact > (0.985 if hands else 0.9)
    others = np.r_[:348, 428:608]
    assert np.abs(turned - exact)[others].max() < 0.01
    assert mirrored_motion(turned).tobytes() == vector.tobytes()


@pytest.mark.parametrize("factor", [0.25, 1.5, 3])
def test_image_size_does_not_matter(factor: float) -> None:
    hands, tracks, frame_s = clip(1)

    def resized(points):
        return ((points + 0.5) * factor - 0.5).astype(np.float32)

    large = Hands(hands.visible, hands.infilled, hands.confidence, resized(hands.keypoints_px), hands.keypoints_cam_m)
    info = info_of(round(640 * factor), round(360 * factor))
    vector = encode_motion(large, Tracks.of_grid(resized(tracks.points_px), tracks.visible), frame_s, info)
    assert vector @ encode((hands, tracks, frame_s)) > 0.999


@pytest.mark.parametrize("hz", [7.5, 10.0, 30.0])
def test_sampling_rate_hardly_matters(hz: float) -> None:
    for seed in range(4):
        assert encode(clip(seed, hz)) @ encode(clip(seed, 15.0)) > 0.97


def test_time_base_and_dropped_frames_hardly_matter() -> None:
    whole = clip(2)
    hands, tracks, frame_s = whole
    assert encode((hands, tracks, frame_s + 100.0)) @ encode(whole) > 0.999
    kept = np.sort(np.random.default_rng(0).permutation(len(frame_s) - 2)[:30] + 1)
    assert encode(taken(whole, np.array([0, *kept, len(frame_s) - 1]))) @ encode(whole) > 0.95


def test_camera_motion_hardly_matters() -> None:
    names = range(6)
    still = np.stack([encode(clip(seed)) for seed in names])
    moved = np.stack([encode(clip(seed, pan=0.06)) for seed in names])
    alike = moved @ still.T
    assert np.diag(alike).min() > 0.97  # 0.84 to 0.89 without compensation
    assert (alike.argmax(1) == np.arange(6)).all()


def test_time_reversal_and_the_hand_are_told_apart() -> None:
    for seed in range(4):
        forward = encode(clip(seed))
        assert forward @ encode(clip(seed, backwards=True)) < 0.97
        assert encode(clip(seed, hands=[0])) @ encode(clip(seed, hands=[1])) < 0.97, "the points move alike"
        assert forward @ encode(clip(seed), mirrored=True) < 0.8


def test_a_hand_at_rest_says_little() -> None:
    for seed in range(3):
        (both, tracks, frame_s), (alone, _, _) = clip(seed), clip(seed, hands=[1])
        none = Tracks.of_grid(tracks.points_px[:, :0], tracks.visible[:, :0])
        one = encode((alone, none, frame_s))
        two = encode((both, none, frame_s)) @ one
        for array in (both.keypoints_px, both.keypoints_cam_m):
            array[:, 0] = array[0, 0]
        assert encode((both, none, frame_s)) @ one > max(0.9, two + 0.1)


def test_where_in_the_image_hands_move_hardly_matters() -> None:
    for seed in range(3):
        hands, tracks, frame_s = clip(seed)
        none = Tracks.of_grid(tracks.points_px[:, :0], tracks.visible[:, :0])
        near = encode((hands, none, frame_s))
        hands.keypoints_px[..., 0] += 150
        assert encode((hands, none, frame_s)) @ near > 0.97


def test_one_hand_no_hands_few_tracks_no_tracks() -> None:
    hands, tracks, frame_s = clip(3, hands=[])
    encode((hands, tracks, frame_s))
    for num in (1, 3, 5, 10, 30):
        encode((hands, Tracks.of_grid(tracks.points_px[:, :num], tracks.visible[:, :num]), frame_s))
    seen, _, _ = clip(3, hands=[1])
    encode((seen, Tracks.of_grid(tracks.points_px[:, :0], tracks.visible[:, :0]), frame_s))
    encode((seen, Tracks.of_grid(tracks.points_px, np.zeros_like(tracks.visible)), frame_s))


def test_nothing_moves_still_has_an_embedding() -> None:
    hands, tracks, frame_s = clip(4)
    frozen = taken((hands, tracks, frame_s), np.zeros(len(frame_s), int))
    encode((*frozen[:2], frame_s))
    none, tracks, frame_s = clip(4, hands=[])
    still = Tracks.of_grid(np.repeat(tracks.points_px[:1], len(frame_s), 0), tracks.visible)
    encode((none, still, frame_s))


def test_nothing_to_describe_is_none() -> None:
    hands, tracks, frame_s = clip(5)
    assert encode_motion(*taken((hands, tracks, frame_s), [0]), info_of()) is None
    assert encode_motion(*taken((hands, tracks, frame_s), slice(0, 0)), info_of()) is None
    assert encode_motion(*taken((hands, tracks, frame_s), [3, 3, 3])[:2], np.full(3, 0.2), info_of()) is None
    hands.visible[:] = False
    assert (
        encode_motion(hands, Tracks.of_grid(tracks.points_px, np.zeros_like(tracks.visible)), frame_s, info_of())
        is None
    )


def test_same_bytes_again_and_whatever_opencv_is_set_to() -> None:
    first = encode(clip(6, pan=0.05)).tobytes()
    threads = cv2.getNumThreads()
    try:
        cv2.setRNGSeed(1234)
        cv2.setNumThreads(3)
        assert encode(clip(6, pan=0.05)).tobytes() == first
    finally:
        cv2.setNumThreads(threads)
        cv2.setRNGSeed(0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(2, 20), st.sampled_from([np.nan, np.inf, -np.inf, 1e30]))
def test_unknown_values_never_reach_the_vector(seed: int, share: float, num_frames: int, poison: float) -> None:
    hands, tracks, frame_s = taken(clip(seed % 4), slice(0, num_frames))
    rng = np.random.default_rng(seed)
    for array in (hands.keypoints_px, hands.keypoints_cam_m, tracks.points_px, hands.confidence):
        array[rng.random(array.shape) < share * rng.random()] = poison
    for mask in (hands.visible, tracks.visible):
        mask[rng.random(mask.shape) < share * rng.random()] = False
    vector = encode_motion(hands, tracks, frame_s, info_of())
    assert vector is None or (np.isfinite(vector).all() and abs(np.linalg.norm(vector.astype(float)) - 1) < 1e-5)


def test_a_gap_of_hours_costs_no_memory() -> None:
    hands, tracks, frame_s = taken(clip(0), slice(0, 10))
    frame_s[5:] += 1e7
    encode((hands, tracks, frame_s))


def test_shapes_must_agree() -> None:
    hands, tracks, frame_s = clip(0)
    with pytest.raises(ShapeError, match="visible"):
        encode_motion(hands, tracks, frame_s[:-1], info_of())
    with pytest.raises(ShapeError, match="tracks"):
        encode_motion(hands, Tracks.of_grid(tracks.points_px, tracks.visible[:, :-1]), frame_s, info_of())


def test_what_moves_is_described_where_the_hand_is_lost() -> None:
    """A hand that the detector loses half way, or never finds, among points that move with it."""
    for seed in range(3):
        hands, tracks, frame_s = clip(seed, hands=[1])
        whole = encode((hands, tracks, frame_s))
        other = encode(clip(seed + 10, hands=[1]))
        for first in (len(frame_s) // 2, 0):
            lost, points, _ = clip(seed, hands=[1])
            lost.visible[first:] = False
            lost.keypoints_px[first:], lost.keypoints_cam_m[first:] = np.nan, np.nan
            assert encode((lost, points, frame_s)) @ whole > max(0.75, whole @ other + 0.1)


def test_steps_follow_the_clip_and_are_mirrored_with_it() -> None:
    hands, tracks, frame_s = clip(2, pan=0.05)
    seen = (tracks.points_px, tracks.visible, hands.keypoints_px, hands.visible)
    steps = flow_steps(*seen, frame_s, (640, 360))
    assert steps is not None
    assert (steps.shape, steps.dtype) == ((30, 10), np.float16)
    ends = step_ends(len(steps), frame_s)
    assert (ends[0], ends[-1], len(ends)) == (frame_s[0], frame_s[-1], 31)
    assert np.isfinite(steps).all()
    assert (steps[:, :8] >= 0).all()
    turned_hands, turned = mirror_clip(hands, tracks, info_of())
    turned_seen = (turned.points_px, turned.visible, turned_hands.keypoints_px, turned_hands.visible)
    mirrored = flow_steps(*turned_seen, frame_s, (640, 360))
    assert mirrored is not None
    assert np.abs(mirrored.astype(float) - mirrored_steps(steps.astype(float))).mean() < 0.01
    slow = flow_steps(*seen, 2 * frame_s, (640, 360))
    assert slow is not None
    assert len(slow) == 60
    assert np.median(np.abs(slow[::2, 8:].astype(float) - steps[:, 8:] / 2)) < 0.02
    assert flow_steps(*(one[:1] for one in seen), frame_s[:1], (640, 360)) is None
    assert flow_steps(seen[0], np.zeros_like(seen[1]), *seen[2:], frame_s, (640, 360)) is None


def test_courses_are_read_back_from_embeddings_and_aligned_in_time() -> None:
    """The same movement at an uneven pace is nearer by alignment than another; an equal one is at 0."""
    vectors = np.stack([encode(clip(seed)) for seed in range(5)])
    courses = courses_of(vectors)
    assert courses.shape == (5, 18, 10)
    assert np.allclose(np.sqrt((courses[..., :8] ** 2).sum((1, 2))), np.sqrt(18), rtol=0.1)
    apart = alignments(courses, courses, 5, 0.3)
    assert np.diag(apart).max() < 1e-2  # roots of rounded float32 differences
    assert np.allclose(apart, apart.T, atol=1e-6)
    assert apart[~np.eye(5, dtype=bool)].min() > 0.3
    mirrored = courses_of(np.stack([encode(clip(seed), mirrored=True) for seed in range(5)]))
    assert np.abs(mirrored - mirrored_steps(courses)).max() < 0.05
    for seed in range(5):
        hands, tracks, frame_s = clip(seed)
        uneven = frame_s + 0.25 * np.sin(2 * np.pi * frame_s / frame_s[-1])
        found = alignments(courses_of(encode((hands, tracks, uneven))[None]), courses, 5, 0.3)[0]
        assert found.argmin() == seed

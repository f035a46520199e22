"""The body's 33 keypoints, and when readings of a pose network are believed.

A pose network answers to hands, arms and things, too, with a body that is not there. A body is symmetrical, so a
mirrored image must give the mirrored body: readings of what is no body do not do so (measured: docs/bodies.md).

Keypoints: MediaPipe Pose (Bazarevsky et al., BlazePose, 2020), the person's own left and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SIDED = ("shoulder", "elbow", "wrist", "pinky", "index", "thumb", "hip", "knee", "ankle", "heel", "foot_index")
_EYES = tuple(f"{side}_eye{part}" for side in ("left", "right") for part in ("_inner", "", "_outer"))
BODY_KEYPOINTS = (
    *("nose", *_EYES, "left_ear", "right_ear", "mouth_left", "mouth_right"),
    *(f"{side}_{part}" for part in _SIDED for side in ("left", "right")),
)
"""In MediaPipe's order."""
NUM_BODY_KEYPOINTS = len(BODY_KEYPOINTS)


def _other_side(name: str) -> str:
    swapped = name.replace("left", "?").replace("right", "left").replace("?", "right")
    return swapped if swapped in BODY_KEYPOINTS else name


MIRROR = np.array([BODY_KEYPOINTS.index(_other_side(name)) for name in BODY_KEYPOINTS])
"""The keypoint of the other side, for each; the nose's is itself."""


def _bones(*pairs: tuple[str, str]) -> tuple[tuple[int, int], ...]:
    return tuple((BODY_KEYPOINTS.index(a), BODY_KEYPOINTS.index(b)) for a, b in pairs)


BODY_BONES = _bones(
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("mouth_left", "mouth_right"),
    ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear"),
    *((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (
        ("shoulder", "elbow"), ("elbow", "wrist"), ("wrist", "pinky"), ("wrist", "index"), ("wrist", "thumb"),
        ("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"), ("ankle", "heel"), ("heel", "foot_index"),
    )),
)  # fmt: skip
"""Pairs of keypoints to be drawn as lines."""
WRISTS = (BODY_KEYPOINTS.index("left_wrist"), BODY_KEYPOINTS.index("right_wrist"))
ELBOWS = (BODY_KEYPOINTS.index("left_elbow"), BODY_KEYPOINTS.index("right_elbow"))

# Chosen on 24 real clips at 256 px (docs/bodies.md), by hand.
MIN_DETECTION, MIN_PRESENCE = 0.5, 0.5  # of both readings, for a sure frame
LINKED_PRESENCE = 0.9  # for a frame beside a sure one
SURE_DIFFERENCE, LINKED_DIFFERENCE = 0.1, 0.15  # of both readings, as shares of the body's size in the image
KEYPOINT_DIFFERENCE = 0.1  # above it, one keypoint of a believed body is unknown
MIN_SURE = 3  # sure frames of a run, without which none of it is believed
RUN_GAP_S = 0.25  # a run's frames follow each other within this
SAME_PLACE = 0.5  # a linked frame's keypoints lie so near to the neighbour's, as a share of its size
SEEN_VISIBILITY = 0.5  # below it, the network guesses where a keypoint is
MIN_SEEN = 6  # keypoints by which a body's place is told
SAME_WRIST = 0.5  # a hand is the body's if its wrist lies so near to the body's, in forearms, median over the clip


@dataclass(frozen=True)
class BodyReading:
    """What a pose network finds in one image.

    points_px: (33, 2) in the image, (0, 0) the centre of its first pixel. hip_m: (33, 3) metres from the middle of the
    hips, x right, y down, z away, for a person of the network's usual size. visibility: (33,) 0 to 1. presence:
    probability that there is a body. detection: the detector's score.
    """

    points_px: Floats
    hip_m: Floats
    visibility: Floats
    presence: float
    detection: float


def mirrored(reading: BodyReading, width: int) -> BodyReading:
    """The reading as it would be of the mirrored image of this width: left and right change places."""
    points, hip = reading.points_px[MIRROR].copy(), reading.hip_m[MIRROR].copy()
    points[:, 0] = width - 1 - points[:, 0]
    hip[:, 0] = -hip[:, 0]
    return BodyReading(points, hip, reading.visibility[MIRROR], reading.presence, reading.detection)


def mean_of(one: BodyReading, other: BodyReading) -> BodyReading:
    """Both as one: means of positions and visibilities, the lower of the scores."""
    return BodyReading(
        (one.points_px + other.points_px) / 2,
        (one.hip_m + other.hip_m) / 2,
        (one.visibility + other.visibility) / 2,
        min(one.presence, other.presence),
        min(one.detection, other.detection),
    )


def size_px(points_px: Floats) -> float:
    """The longer side of the box around (33, 2) keypoints."""
    return float(np.ptp(points_px, axis=0).max())


def differences(one: BodyReading, other: BodyReading) -> Floats:
    """(33,) how far two readings of each keypoint lie apart, as a share of the body's size."""
    apart: Floats = np.linalg.norm(one.points_px - other.points_px, axis=1)
    return apart / max(size_px(one.points_px), 1e-9)


def believed(frame_s: Floats, readings: Sequence[BodyReading | None], apart: Floats) -> NDArray[np.bool_]:
    """(n,) whether each reading is believed.

    Sure are those whose two readings agree well. To a sure frame others are linked that agree less, follow each other
    within `RUN_GAP_S` and lie in nearly the same place. Of such a run at least `MIN_SURE` frames must be sure, or all
    of a clip that has fewer frames.

    Args:
        frame_s: (n,) rising. readings: means of the image's and the mirrored image's, None without both.
        apart: (n, 33) `differences` of the two; NaN without. Their upper quartile is how far the readings disagree.
    """
    num = len(readings)
    gap_s = max(RUN_GAP_S, 1.5 * float(np.median(np.diff(frame_s)))) if num > 1 else RUN_GAP_S
    sure, fair = np.zeros(num, bool), np.zeros(num, bool)
    disagreement = np.quantile(apart, 0.75, axis=1)
    for number, one in enumerate(readings):
        if one is not None:
            is_sure = one.detection >= MIN_DETECTION and one.presence >= MIN_PRESENCE
            sure[number] = is_sure and disagreement[number] < SURE_DIFFERENCE
            fair[number] = one.presence >= LINKED_PRESENCE and disagreement[number] < LINKED_DIFFERENCE
    run = np.full(num, -1)
    taken = np.flatnonzero(sure | fair).tolist()
    for last, number in zip([-1, *taken], taken, strict=False):
        follows = last >= 0 and frame_s[number] - frame_s[last] <= gap_s
        follows = follows and _in_place(readings[last], readings[number])
        run[number] = run[last] if follows else number
    out = np.zeros(num, bool)
    for start in np.unique(run[run >= 0]):
        members = run == start
        if sure[members].sum() >= min(MIN_SURE, num):
            out |= members
    return out


def _in_place(one: BodyReading | None, other: BodyReading | None) -> bool:
    if one is None or other is None:
        return False
    apart = np.median(np.linalg.norm(one.points_px - other.points_px, axis=1))
    return bool(apart <= SAME_PLACE * max(size_px(one.points_px), size_px(other.points_px)))


def hips_in_camera(slopes: NDArray[np.floating[Any]], hip_m: NDArray[np.floating[Any]]) -> Floats:
    """(T, 3) where the middle of the hips is, in the camera's frame, so that keypoints appear where they were seen.

    Metres of the same person as `hip_m`: one half as tall is seen twice as far away. NaN in frames with fewer than
    `MIN_SEEN` known keypoints, and where these would lie behind the camera.

    Args:
        slopes: (T, 33, 2) x/z and y/z of keypoints as they were seen, without distortion; NaN where unknown.
        hip_m: (T, 33, 3) keypoints from the middle of the hips, in the camera's axes.

    Source: the linear equations of Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 7.1, for a known
    rotation.
    """
    slopes, hip_m = np.asarray(slopes, np.float64), np.asarray(hip_m, np.float64)
    known = np.isfinite(slopes).all(axis=-1) & np.isfinite(hip_m).all(axis=-1)
    xy, points = (np.where(known[..., None], values, 0.0) for values in (slopes, hip_m))
    # Of the place (u, v, w): u - x w = x Z - X, and v - y w = y Z - Y.
    left = xy * points[..., 2:] - points[..., :2]
    num = known.sum(axis=1)
    normal = np.zeros((len(slopes), 3, 3))
    normal[:, 0, 0] = normal[:, 1, 1] = num
    normal[:, :2, 2] = normal[:, 2, :2] = -xy.sum(axis=1)
    normal[:, 2, 2] = (xy**2).sum(axis=(1, 2))
    right = np.concatenate([left.sum(axis=1), -(xy * left).sum(axis=(1, 2))[:, None]], axis=1)
    out = np.full((len(slopes), 3), np.nan)
    told = num >= MIN_SEEN
    told[told] = np.linalg.matrix_rank(normal[told]) == 3
    out[told] = np.linalg.solve(normal[told], right[told][..., None])[..., 0]
    nearest = np.where(known, hip_m[..., 2], np.inf).min(axis=1, initial=np.inf) + out[:, 2]
    out[~(nearest > 0)] = np.nan
    return out


def whose_body(
    bodies_px: Floats, hands_px: NDArray[np.floating[Any]], hand_visible: NDArray[np.bool_], view: str | None
) -> str | None:
    """Whose body it is: `other` in first-person footage, where a body in view is another person's; else `actor` if one
    of the clip's hands is at a wrist of it. None: no body, or no hand that tells.

    Args:
        bodies_px: (T, 33, 2), NaN where unknown. hands_px: (T, 2, 21, 2). hand_visible: (T, 2).
        view: as given for the clip, not as guessed from its hands: close-ups of a face are taken for first-person.
    """
    if not np.isfinite(bodies_px).any():
        return None
    if view == "ego":
        return "other"
    wrists, elbows = bodies_px[:, list(WRISTS)], bodies_px[:, list(ELBOWS)]
    forearm_px = np.linalg.norm(wrists - elbows, axis=-1)  # (T, 2)
    forearm_px[forearm_px == 0] = np.nan
    apart = np.linalg.norm(hands_px[:, :, None, 0] - wrists[:, None], axis=-1) / forearm_px[:, None]  # hand, body's arm
    nearest = np.where(np.isfinite(apart), apart, np.inf).min(axis=2)
    seen = hand_visible & np.isfinite(nearest)
    counted = [nearest[seen[:, hand], hand] for hand in range(seen.shape[1])]
    return "actor" if any(len(one) >= MIN_SURE and np.median(one) <= SAME_WRIST for one in counted) else None

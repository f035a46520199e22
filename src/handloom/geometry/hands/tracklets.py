"""Detections of hands: duplicates removed, and linked into tracklets of one and the same hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.hand_topology import PALM
from handloom.schemas.values import NUM_HANDS

# Two detections of one hand: palms closer than this share of the hand's size, or boxes that overlap more than this.
# On 25 clips duplicates lie at 0.02 to 0.27 (or overlap 0.45 to 0.94), two hands that work on one thing at 0.44 and
# more (overlap up to 0.12).
DUPLICATE_DISTANCE = 0.25
DUPLICATE_OVERLAP = 0.45
# Or palms closer than this, and so much of the smaller box in the other: one of the two took the forearm for the palm.
# Such doubles of rendered hands lie at 0.28 to 0.55 with 0.5 to 1.0; of 1,900 frames with two true hands (five EgoDex
# clips, rendered ones) none is nearer than 0.74, and none has more than 0.37.
INSIDE_DISTANCE, INSIDE_OVERLAP = 0.6, 0.45
CROWD_CONFIDENCE = 0.8  # of every hand of a frame that has more than two
# Chosen by hand on the same clips, not fitted.
LINK_DISTANCE = 0.75  # farthest mean step of the keypoints from frame to frame, in hand sizes
NEW_TRACK_DISTANCE = 0.35  # the same where the search did not follow one detection to the other
LINK_RATIO = 1.3  # a link is safe if the next best choice is this much farther


@dataclass(frozen=True)
class Detections:
    """All hands that a model found in a clip: D of them, ordered by frame.

    frame: (D,), index of the sampled frame. keypoints_px: (D, 21, 2), in square pixels. right_probability: (D,), by the
    model, that it is the person's own right hand. confidence: (D,), larger for the better of two detections of a hand.
    """

    frame: NDArray[np.int64]
    keypoints_px: NDArray[np.float64]
    right_probability: NDArray[np.float64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, index: NDArray[np.int64]) -> Detections:
        return Detections(
            self.frame[index], self.keypoints_px[index], self.right_probability[index], self.confidence[index]
        )

    def by_frame(self) -> list[NDArray[np.int64]]:
        """Indices of the detections of each frame that has any, in order of the frames."""
        return np.split(np.arange(len(self)), np.flatnonzero(np.diff(self.frame)) + 1) if len(self) else []


def hand_size(keypoints_px: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(..., 21, 2) to (...): diagonal of the keypoints' box, pixels, at least 1."""
    return np.maximum(np.linalg.norm(np.ptp(keypoints_px, axis=-2), axis=-1), 1.0)


def is_duplicate(first_px: NDArray[np.floating[Any]], second_px: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Whether two detections of one frame, (..., 21, 2) each, are one and the same hand."""
    size = np.maximum(hand_size(first_px), hand_size(second_px))
    apart = np.linalg.norm(first_px[..., PALM, :].mean(axis=-2) - second_px[..., PALM, :].mean(axis=-2), axis=-1) / size
    of_both, of_smaller = _box_overlap(first_px, second_px)
    inside = (apart < INSIDE_DISTANCE) & (of_smaller > INSIDE_OVERLAP)
    return (apart < DUPLICATE_DISTANCE) | (of_both > DUPLICATE_OVERLAP) | inside


def _box_overlap(
    first_px: NDArray[np.floating[Any]], second_px: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection of the two boxes over their union, and over the smaller one."""
    low = np.maximum(first_px.min(axis=-2), second_px.min(axis=-2))
    high = np.minimum(first_px.max(axis=-2), second_px.max(axis=-2))
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = np.stack([np.prod(np.ptp(each, axis=-2), axis=-1) for each in (first_px, second_px)])
    union = areas.sum(axis=0) - both
    return both / np.maximum(union, 1e-9), both / np.maximum(areas.min(axis=0), 1e-9)


def same_hand_pairs(detections: Detections) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """All pairs of detections of one frame, (P,) each: the indices of both, and whether they are one hand."""
    pairs = [pair for indices in detections.by_frame() for pair in itertools.combinations(indices.tolist(), 2)]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return first, second, is_duplicate(detections.keypoints_px[first], detections.keypoints_px[second])


def distinct_hands(detections: Detections) -> list[list[int]]:
    """Indices of the detections of each frame that has any, the surest first, of two detections of a hand the better
    one."""
    first, second, same = same_hand_pairs(detections)
    doubles = set(zip(first[same].tolist(), second[same].tolist(), strict=True))
    found: list[list[int]] = []
    for indices in detections.by_frame():
        hands: list[int] = []
        for i in sorted(indices.tolist(), key=lambda i: (-detections.confidence[i], i)):
            if not any((min(i, j), max(i, j)) in doubles for j in hands):
                hands.append(i)
        found.append(hands)
    return found


def keep_hands(
    detections: Detections, track: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Indices of the detections to keep: the better one of two detections of a hand, and at most two hands a frame.

    Of more than two hands those of the longest tracks are kept, so that the choice is the same in the next frame. A
    frame that has a detection keeps one.

    track: (D,), number of the track that each detection was followed in; None: unknown, the surest of each frame are
    kept.

    Returns:
        The indices, and for each whether its frame shows a third hand with certainty: somebody else's.
    """
    seen = detections.confidence
    if track is not None and len(detections):
        _, number = np.unique(track, return_inverse=True)
        seen = np.asarray(np.bincount(number, weights=detections.confidence)[number], np.float64)
    kept: list[int] = []
    crowded: list[bool] = []
    for hands in distinct_hands(detections):
        chosen = sorted(sorted(hands, key=lambda i: (-seen[i], i))[:NUM_HANDS])
        kept.extend(chosen)
        sure = sum(detections.confidence[i] >= CROWD_CONFIDENCE for i in hands) > NUM_HANDS
        crowded.extend([sure] * len(chosen))
    return np.array(kept, np.int64), np.array(crowded, bool)


def link(detections: Detections, track: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """(D,) tracklet number of each detection: a run of consecutive frames in which one hand moves a little.

    Only safe links are made: nearest neighbours in consecutive frames, clearly nearer than any other choice of either.
    `handedness.assign` decides about the rest. No two detections of a frame share a tracklet, and a tracklet has no
    gaps.

    track: (D,), number of the track that each detection was followed in; links from one track to another must be
    shorter. None: unknown.
    """
    before = _safe_predecessors(detections, np.zeros(len(detections), np.int64) if track is None else track)
    tracklet = np.empty(len(detections), np.int64)
    num_tracklets = 0
    for index in range(len(detections)):
        if index in before:
            tracklet[index] = tracklet[before[index]]
        else:
            tracklet[index] = num_tracklets
            num_tracklets += 1
    return tracklet


def _safe_predecessors(detections: Detections, track: NDArray[np.int64]) -> dict[int, int]:
    """The detection of the previous frame that is safely the same hand, by detection; those without one are left
    out."""
    frames = detections.by_frame()
    pairs = [
        pair
        for then, now in itertools.pairwise(frames)
        if detections.frame[now[0]] == detections.frame[then[0]] + 1
        for pair in itertools.product(then.tolist(), now.tolist())
    ]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    points = detections.keypoints_px
    size = np.maximum(hand_size(points[first]), hand_size(points[second]))
    steps = np.linalg.norm(points[first] - points[second], axis=-1).mean(axis=-1) / size
    longest = np.where(track[first] == track[second], LINK_DISTANCE, NEW_TRACK_DISTANCE)
    choices: dict[int, list[float]] = {}  # steps from a detection (negative keys) and to one
    for (i, j), step in zip(pairs, steps.tolist(), strict=True):
        choices.setdefault(-1 - i, []).append(step)
        choices.setdefault(j, []).append(step)
    return {
        j: i
        for (i, j), step, limit in zip(pairs, steps.tolist(), longest.tolist(), strict=True)
        if step < limit and _is_clear(step, choices[-1 - i]) and _is_clear(step, choices[j])
    }


def _is_clear(step: float, choices: list[float]) -> bool:
    """Whether all choices but one are clearly farther than `step`."""
    return sum(other <= LINK_RATIO * step for other in choices) <= 1

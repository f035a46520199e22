"""Detections of hands, frame by frame, cleaned of duplicates and linked into tracklets of one and the same hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.model import PALM
from handloom.schemas.values import NUM_HANDS

# Two detections of one hand: palms closer than this share of the hand's size, or boxes that overlap more than this.
# On 25 clips the doubles lie at 0.02 to 0.27 (or overlap 0.45 to 0.94), two hands at work on one thing at 0.44 and more
# (overlap up to 0.12).
DUPLICATE_DISTANCE = 0.25
DUPLICATE_OVERLAP = 0.45
CROWD_CONFIDENCE = 0.8  # of every hand of a frame that has more than two
# Chosen by hand on the same clips, not fitted.
LINK_DISTANCE = 0.75  # farthest mean step of the keypoints from frame to frame, in hand sizes
NEW_TRACK_DISTANCE = 0.35  # the same between detections that the search did not follow from one to the other
LINK_RATIO = 1.3  # a link is safe if the next best choice is this much farther


@dataclass(frozen=True)
class Detections:
    """All hands a model found in a clip: D of them, ordered by frame.

    frame: (D,) int, index of the sampled frame. keypoints_px: (D, 21, 2), one pixel unit for x and y.
    right_probability: (D,), the model's own belief that this is the person's own right hand.
    confidence: (D,), which of two detections of one hand is the better.
    """

    frame: NDArray[np.int64]
    keypoints_px: NDArray[np.float64]
    right_probability: NDArray[np.float64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, index: NDArray) -> Detections:
        return Detections(
            self.frame[index], self.keypoints_px[index], self.right_probability[index], self.confidence[index]
        )

    def by_frame(self) -> list[NDArray[np.int64]]:
        """Indices of the detections of each frame that has any, in order of the frames."""
        return np.split(np.arange(len(self)), np.flatnonzero(np.diff(self.frame)) + 1) if len(self) else []


def hand_size(keypoints_px: NDArray[np.floating]) -> NDArray[np.float64]:
    """(..., 21, 2) to (...): diagonal of the keypoints' box, at least one pixel."""
    return np.maximum(np.linalg.norm(np.ptp(keypoints_px, axis=-2), axis=-1), 1.0)


def is_duplicate(first_px: NDArray[np.floating], second_px: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether two detections of one frame, (..., 21, 2) each, are one and the same hand."""
    size = np.maximum(hand_size(first_px), hand_size(second_px))
    apart = np.linalg.norm(first_px[..., PALM, :].mean(axis=-2) - second_px[..., PALM, :].mean(axis=-2), axis=-1)
    return (apart < DUPLICATE_DISTANCE * size) | (_box_overlap(first_px, second_px) > DUPLICATE_OVERLAP)


def _box_overlap(first_px: NDArray[np.floating], second_px: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of the two boxes."""
    low = np.maximum(first_px.min(axis=-2), second_px.min(axis=-2))
    high = np.minimum(first_px.max(axis=-2), second_px.max(axis=-2))
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    union = np.prod(np.ptp(first_px, axis=-2), axis=-1) + np.prod(np.ptp(second_px, axis=-2), axis=-1) - both
    return both / np.maximum(union, 1e-9)


def keep_hands(
    detections: Detections, track: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Indices of the detections that stay: of two detections of one hand the better, and at most two hands a frame.

    Of more than two hands those of the tracks that were seen most stay, so that the choice is the same in the next
    frame. A frame that has a detection keeps one.

    track: (D,), which detections were followed from one another; None: unknown, the surest of each frame stay.

    Returns:
        The indices, and for each whether its frame has a third hand that is as sure as hands are: somebody else's.
    """
    seen = detections.confidence
    if track is not None and len(detections):
        _, number = np.unique(track, return_inverse=True)
        seen = np.bincount(number, weights=detections.confidence)[number]
    frames = detections.by_frame()
    pairs = [pair for indices in frames for pair in itertools.combinations(indices.tolist(), 2)]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    same = is_duplicate(detections.keypoints_px[first], detections.keypoints_px[second])
    doubles = {pair for pair, double in zip(pairs, same.tolist(), strict=True) if double}
    kept: list[int] = []
    crowded: list[bool] = []
    for indices in frames:
        hands: list[int] = []
        for i in sorted(indices.tolist(), key=lambda i: (-detections.confidence[i], i)):
            if not any((min(i, j), max(i, j)) in doubles for j in hands):
                hands.append(i)
        chosen = sorted(sorted(hands, key=lambda i: (-seen[i], i))[:NUM_HANDS])
        kept.extend(chosen)
        sure = sum(detections.confidence[i] >= CROWD_CONFIDENCE for i in hands) > NUM_HANDS
        crowded.extend([sure] * len(chosen))
    return np.array(kept, np.int64), np.array(crowded, bool)


def link(detections: Detections, track: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Tracklet number of each detection, (D,): a run of consecutive frames in which one hand moves a little.

    Only safe links are made: nearest neighbours in consecutive frames, clearly nearer than any other choice of either.
    What is not linked here is left to the assignment over the whole clip. No two detections of a frame share a
    tracklet, and a tracklet has no gaps.

    track: (D,), which detections were followed from one another, where that is known; links from one track to another
    have to be shorter.
    """
    before = _safe_predecessors(detections, np.zeros(len(detections)) if track is None else track)
    tracklet = np.empty(len(detections), np.int64)
    num_tracklets = 0
    for index in range(len(detections)):
        if index in before:
            tracklet[index] = tracklet[before[index]]
        else:
            tracklet[index] = num_tracklets
            num_tracklets += 1
    return tracklet


def _safe_predecessors(detections: Detections, track: NDArray) -> dict[int, int]:
    """For each detection that has one, the detection of the frame before that is safely the same hand."""
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
    choices: dict[int, list[float]] = {}  # all steps from (negative numbers) and to a detection
    for (i, j), step in zip(pairs, steps.tolist(), strict=True):
        choices.setdefault(-1 - i, []).append(step)
        choices.setdefault(j, []).append(step)
    return {
        j: i
        for (i, j), step, limit in zip(pairs, steps.tolist(), longest.tolist(), strict=True)
        if step < limit and _is_clear(step, choices[-1 - i]) and _is_clear(step, choices[j])
    }


def _is_clear(step: float, choices: list[float]) -> bool:
    """Whether all choices but this one are clearly farther."""
    return sum(other <= LINK_RATIO * step for other in choices) <= 1

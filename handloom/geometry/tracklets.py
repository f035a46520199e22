"""Detections of hands, frame by frame, cleaned of duplicates and linked into tracklets of one and the same hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import NUM_HANDS

PALM = (0, 5, 9, 13, 17)  # wrist and knuckles: the part of a hand that does not bend

# Two detections of one hand: palms closer than this share of the hand's size, or boxes that overlap more than this.
# On 25 clips the doubles lie at 0.02 to 0.27 (or overlap 0.45 to 0.94), two hands at work on one thing at 0.44 and more
# (overlap up to 0.12).
DUPLICATE_DISTANCE = 0.25
DUPLICATE_OVERLAP = 0.45
LINK_DISTANCE = 0.75  # farthest mean step of the keypoints from frame to frame, in hand sizes
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


def is_duplicate(first_px: NDArray[np.floating], second_px: NDArray[np.floating]) -> bool:
    """Whether two detections of one frame, (21, 2) each, are one and the same hand."""
    size = max(hand_size(first_px), hand_size(second_px))
    palms = np.linalg.norm(first_px[PALM, :].mean(0) - second_px[PALM, :].mean(0)) / size
    return bool(palms < DUPLICATE_DISTANCE or _box_overlap(first_px, second_px) > DUPLICATE_OVERLAP)


def _box_overlap(first_px: NDArray[np.floating], second_px: NDArray[np.floating]) -> float:
    """Intersection over union of the two boxes."""
    low = np.maximum(first_px.min(0), second_px.min(0))
    high = np.minimum(first_px.max(0), second_px.max(0))
    both = float(np.prod(np.maximum(high - low, 0)))
    union = float(np.prod(np.ptp(first_px, axis=0)) + np.prod(np.ptp(second_px, axis=0))) - both
    return both / union if union > 0 else 0.0


def keep_hands(detections: Detections) -> NDArray[np.int64]:
    """Indices of the detections that stay: of two detections of one hand the better, and at most two hands a frame.

    A frame that has a detection keeps one.
    """
    kept: list[int] = []
    for indices in detections.by_frame():
        best_first = sorted(indices, key=lambda i: (-detections.confidence[i], i))
        chosen: list[int] = []
        for i in best_first:
            points = detections.keypoints_px
            if len(chosen) < NUM_HANDS and not any(is_duplicate(points[i], points[j]) for j in chosen):
                chosen.append(i)
        kept.extend(sorted(chosen))
    return np.array(kept, np.int64)


def link(detections: Detections) -> NDArray[np.int64]:
    """Tracklet number of each detection, (D,): a run of consecutive frames in which one hand moves a little.

    Only safe links are made: mutual nearest neighbours in consecutive frames, clearly nearer than any other choice.
    What is not linked here is left to the assignment over the whole clip. No two detections of a frame share a
    tracklet, and a tracklet has no gaps.
    """
    tracklet = np.full(len(detections), -1, np.int64)
    num_tracklets = 0
    before: NDArray[np.int64] = np.empty(0, np.int64)
    for now in detections.by_frame():
        if len(before) and detections.frame[before[0]] == detections.frame[now[0]] - 1:
            for i, j in _safe_pairs(detections.keypoints_px[before], detections.keypoints_px[now]):
                tracklet[now[j]] = tracklet[before[i]]
        for index in now:
            if tracklet[index] < 0:
                tracklet[index] = num_tracklets
                num_tracklets += 1
        before = now
    return tracklet


def _safe_pairs(before_px: NDArray[np.float64], now_px: NDArray[np.float64]) -> list[tuple[int, int]]:
    size = np.maximum(hand_size(before_px)[:, None], hand_size(now_px)[None])
    step = np.linalg.norm(before_px[:, None] - now_px[None], axis=-1).mean(-1) / size
    pairs = []
    for i, j in np.ndindex(step.shape):
        others = np.concatenate([np.delete(step[i], j), np.delete(step[:, j], i)])
        if step[i, j] < LINK_DISTANCE and (not len(others) or others.min() > LINK_RATIO * step[i, j]):
            pairs.append((i, j))
    return pairs

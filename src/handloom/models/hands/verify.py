"""Check that each hand lies where its skeleton is: by the hand's colours, and where they doubt it by the network.

A skeleton that was interpolated, carried by flow or smoothed may have left its hand. The network, run at that place,
finds the hand beside it, or none: the detection is then corrected, dropped, or marked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.tracklets import hand_size, is_duplicate
from handloom.models.hands.colours import HandColours
from handloom.models.hands.detector import HandDetection, HandDetector, HandTrack
from handloom.schemas.hand_topology import PALM_DETECTION
from handloom.schemas.values import HandDoubts, HandPoints

# Scores of `colours.HandColours`; chosen by hand on 37 real clips and 16 rendered ones, not fitted.
DOUBTED_SHARE = 0.45  # below this share of the clip's usual score the network measures again
OFF_HAND = -0.25  # below this no hand is there, though the network finds one
DROP_BELOW = -0.5  # below this a detection is dropped if the network finds none
MIN_GAIN = 0.3  # a new detection replaces the old one if its score is better by this
MAX_MOVE = 0.75  # and if it is no farther away, in hand sizes
MAX_CHECKED_SHARE = 0.1  # of a clip's frames; those with the lowest scores
# A track is doubted if the palm detector finds next to nothing of it. On 37 real clips its scores in five frames of a
# hand sum to at least 0.55; to at most 0.4 on the back of a chair, which the hand network takes for a hand (presence
# 0.86) for seven seconds.
SURE_PRESENCE = 0.88  # a track of at least this mean presence is not checked
PALM_FRAMES = 5
MIN_PALM_SCORE = 0.15
MIN_PALM_SUM = 0.5  # over the frames
MAX_PALM_DISTANCE = 0.35  # mean distance of the palm's points from the track's, in hand sizes


@dataclass(frozen=True)
class VerifiedHands:
    """hands: corrected, with `doubts.unsupported`. checked, moved, dropped: (T, 2), what happened to which hand."""

    hands: HandPoints
    checked: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    dropped: NDArray[np.bool_]


def verify_hands(
    detector: HandDetector, hands: HandPoints, scale: NDArray[np.float64], min_presence: float
) -> VerifiedHands:
    """Check every visible hand; only interpolated ones if the colours of hands and surroundings are alike.

    Args:
        detector: of the clip.
        hands: with doubts, unsupported among them; source pixels.
        scale: (2,) source pixels per pixel of the clip's frames.
        min_presence: a detection with less is no hand.
    """
    points = (hands.keypoints_px.astype(np.float64) + 0.5) / scale  # the detector's (0, 0) is the corner of the image
    unsupported = _doubts_of(hands)[1]
    shown = hands.visible & ~hands.infilled & ~unsupported
    colours = HandColours.learn(detector.frames, points - 0.5, shown, hands.confidence)
    score = np.full(hands.visible.shape, np.nan)
    if colours is not None:
        frames = np.nonzero(hands.visible)[0]
        score[hands.visible] = colours.scores(detector.frames, frames, points[hands.visible] - 0.5)
    doubted = hands.visible & (hands.infilled if colours is None else score < DOUBTED_SHARE * colours.usual)
    worst = sorted(np.argwhere(doubted).tolist(), key=lambda at: (np.nan_to_num(score[tuple(at)]), at))
    checked = sorted((frame, hand) for frame, hand in worst[: max(4, round(MAX_CHECKED_SHARE * len(score)))])
    out = _copied(hands)
    off_hand = _doubts_of(out)[1]
    off_hand[score < OFF_HAND] = True
    moved, was_checked = np.zeros_like(doubted), np.zeros_like(doubted)
    found = detector.hands([(frame, points[frame, hand]) for frame, hand in checked])
    new_score = np.full(len(checked), np.nan)
    if colours is not None and checked:
        places = np.stack([detection.points for detection in found]) - 0.5
        new_score = colours.scores(detector.frames, np.array([frame for frame, _ in checked]), places)
    for at, detection, new in zip(checked, found, new_score.tolist(), strict=True):
        now, was_checked[at] = float(score[at]), True
        better = colours is None or new >= now + MIN_GAIN
        if better and detection.presence >= min_presence and _is_same_hand(detection, points, out.visible, at):
            _replace(out, at, detection, scale)
            points[at], now, moved[at] = detection.points, new, True
        if detection.presence < min_presence and (now < (OFF_HAND if hands.infilled[at] else DROP_BELOW)):
            _drop(out, at)
        else:
            off = detection.presence < min_presence or now < OFF_HAND
            off_hand[at] = off or unsupported[at]
    return VerifiedHands(out, was_checked, moved & out.visible, hands.visible & ~out.visible)


def tracks_without_palms(detector: HandDetector, tracks: list[HandTrack]) -> list[int]:
    """Numbers of the tracks on which no palm is found. Short tracks and those of high presence are left out."""
    left: dict[int, list[int]] = {}
    for number, track in enumerate(tracks):
        known = sorted(track.detections)
        presence = float(np.mean([track.detections[frame].presence for frame in known]))
        if len(known) >= 3 * PALM_FRAMES and presence < SURE_PRESENCE:
            at = ((np.arange(PALM_FRAMES) + 0.5) / PALM_FRAMES * len(known)).astype(int)
            left[number] = sorted((known[i] for i in at), key=lambda frame: (-track.detections[frame].presence, frame))
    total = dict.fromkeys(left, 0.0)
    for step in range(PALM_FRAMES):
        frames = sorted({where[step] for where in left.values()})
        found = dict(zip(frames, detector.palms(frames, MIN_PALM_SCORE), strict=True))
        for number, where in list(left.items()):
            palms, points = found[where[step]], tracks[number].detections[where[step]].points
            apart = np.linalg.norm(palms.points - points[PALM_DETECTION, :], axis=-1).mean(axis=-1)
            total[number] += float(palms.score[apart < MAX_PALM_DISTANCE * hand_size(points)].max(initial=0.0))
            if total[number] >= MIN_PALM_SUM:
                del left[number]
    return sorted(left)


def _is_same_hand(
    detection: HandDetection, points: NDArray[np.float64], visible: NDArray[np.bool_], at: tuple[int, int]
) -> bool:
    """Whether it is near the old place, and not the person's other hand."""
    frame, hand = at
    step = np.linalg.norm(detection.points - points[at], axis=-1).mean() / hand_size(points[at])
    other = visible[frame, 1 - hand] and bool(is_duplicate(detection.points, points[frame, 1 - hand]))
    return bool(step < MAX_MOVE) and not other


def _doubts_of(hands: HandPoints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The hands' doubts `side_unsure` and `unsupported`. Raises ValueError: they have none."""
    if hands.doubts is None or hands.doubts.unsupported is None:
        raise ValueError("the hands have no doubts: they are checked after those are known")
    return hands.doubts.side_unsure, hands.doubts.unsupported


def _copied(hands: HandPoints) -> HandPoints:
    names = ("visible", "infilled", "confidence", "keypoints_px", "model_m")
    doubts = HandDoubts(*(one.copy() for one in _doubts_of(hands)))
    return replace(hands, **{name: getattr(hands, name).copy() for name in names}, doubts=doubts)


def _replace(hands: HandPoints, at: tuple[int, int], detection: HandDetection, scale: NDArray[np.float64]) -> None:
    hands.keypoints_px[at] = detection.points * scale - 0.5
    hands.model_m[at] = detection.metric_m
    hands.confidence[at] = detection.presence
    hands.infilled[at] = False


def _drop(hands: HandPoints, at: tuple[int, int]) -> None:
    for what in (hands.visible, hands.infilled, *_doubts_of(hands)):
        what[at] = False
    hands.confidence[at] = np.nan
    hands.keypoints_px[at] = np.nan
    hands.model_m[at] = np.nan

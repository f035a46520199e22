"""Whether a hand lies where its skeleton is: colours first, and where they doubt it the network once more.

A skeleton that was interpolated, carried along or smoothed may have left its hand; the network, asked at that place,
finds the hand beside it, or none. Sightings are then put right, dropped, or marked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.tracklets import hand_size, is_duplicate
from handloom.models.hands.colours import HandColours
from handloom.models.hands.reader import HandDetection, HandReader, Track
from handloom.models.hands.search import PALM_POINTS
from handloom.schemas.values import HandDoubts, HandPoints

# Scores of `hand_colours`; chosen by hand on 37 real clips and 16 rendered ones, not fitted.
DOUBT = 0.45  # below this share of the usual score the network is asked
OFF = -0.25  # below this no hand is there, though the network sees one
NOWHERE = -0.5  # below this a sighting is dropped where the network sees none
BETTER = 0.3  # what a sighting must win to be replaced
NEAR = 0.75  # farthest that it may move, in hand sizes
ASKED_SHARE = 0.1  # of a clip's frames, at most; those of the lowest score
# A track is doubted where the palm detector sees next to nothing of it. On 37 real clips its scores in five frames of a
# hand add up to 0.55 and more; to 0.4 at most on the back of a chair, which the other network calls a hand (0.86) for
# seven seconds.
SURE_TRACK = 0.88  # mean presence from which a track is not asked about
PALM_LOOKS = 5
PALM_SCORE = 0.15  # below this a palm counts for nothing
PALM_SUM = 0.5  # of the scores of all looks
NEAR_PALM = 0.35  # mean distance of the palm's points, in hand sizes


@dataclass(frozen=True)
class Checked:
    """hands: put right, with `doubts.off_picture`. asked, moved, dropped: (T, 2), which sightings those are."""

    hands: HandPoints
    asked: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    dropped: NDArray[np.bool_]


def check_on_hands(reader: HandReader, hands: HandPoints, scale: NDArray[np.float64], least_presence: float) -> Checked:
    """Look at every visible hand once more.

    Args:
        reader: of the clip.
        hands: with doubts, off_picture among them; source pixels.
        scale: (2,) source pixels per pixel of the clip's frames.
        least_presence: less than this is no hand.

    Where the hands' colours are not told apart from what is around them, interpolated hands alone are looked at.
    """
    points = (hands.keypoints_px.astype(np.float64) + 0.5) / scale  # as the reader counts them
    shown = hands.visible & ~hands.infilled & ~hands.doubts.off_picture
    colours = HandColours.learn(reader.frames, points - 0.5, shown, hands.confidence)
    score = np.full(hands.visible.shape, np.nan)
    if colours is not None:
        score[hands.visible] = colours.scores(reader.frames, np.nonzero(hands.visible)[0], points[hands.visible] - 0.5)
    doubted = hands.visible & (hands.infilled if colours is None else score < DOUBT * colours.usual)
    worst = sorted(np.argwhere(doubted).tolist(), key=lambda at: (np.nan_to_num(score[tuple(at)]), at))
    asked = sorted((frame, hand) for frame, hand in worst[: max(4, round(ASKED_SHARE * len(score)))])
    out = _copied(hands)
    out.doubts.off_picture[score < OFF] = True
    moved, was_asked = np.zeros_like(doubted), np.zeros_like(doubted)
    found = reader.hands([(frame, points[frame, hand]) for frame, hand in asked])
    seen = np.full(len(asked), np.nan)
    if colours is not None and asked:
        places = np.stack([sighting.points for sighting in found]) - 0.5
        seen = colours.scores(reader.frames, np.array([frame for frame, _ in asked]), places)
    for at, sighting, new in zip(asked, found, seen.tolist(), strict=True):
        now, was_asked[at] = float(score[at]), True
        better = colours is None or new >= now + BETTER
        if better and sighting.presence >= least_presence and _is_same_hand(sighting, points, out.visible, at):
            _put(out, at, sighting, scale)
            points[at], now, moved[at] = sighting.points, new, True
        if sighting.presence < least_presence and (now < (OFF if hands.infilled[at] else NOWHERE)):
            _drop(out, at)
        else:
            off = sighting.presence < least_presence or now < OFF
            out.doubts.off_picture[at] = off or hands.doubts.off_picture[at]
    return Checked(out, was_asked, moved & out.visible, hands.visible & ~out.visible)


def tracks_without_palms(reader: HandReader, tracks: list[Track]) -> list[int]:
    """Numbers of the tracks on which no palm is seen; short ones and those that are sure are left out."""
    left: dict[int, list[int]] = {}
    for number, track in enumerate(tracks):
        known = sorted(track.seen)
        presence = float(np.mean([track.seen[frame].presence for frame in known]))
        if len(known) >= 3 * PALM_LOOKS and presence < SURE_TRACK:
            at = ((np.arange(PALM_LOOKS) + 0.5) / PALM_LOOKS * len(known)).astype(int)
            left[number] = sorted((known[i] for i in at), key=lambda frame: (-track.seen[frame].presence, frame))
    total = dict.fromkeys(left, 0.0)
    for look in range(PALM_LOOKS):
        frames = sorted({where[look] for where in left.values()})
        found = dict(zip(frames, reader.palms(frames, PALM_SCORE), strict=True))
        for number, where in list(left.items()):
            palms, points = found[where[look]], tracks[number].seen[where[look]].points
            apart = np.linalg.norm(palms.points - points[PALM_POINTS, :], axis=-1).mean(axis=-1)
            total[number] += float(palms.score[apart < NEAR_PALM * hand_size(points)].max(initial=0.0))
            if total[number] >= PALM_SUM:
                del left[number]
    return sorted(left)


def _is_same_hand(
    sighting: HandDetection, points: NDArray[np.float64], visible: NDArray[np.bool_], at: tuple[int, int]
) -> bool:
    """Near where it was, and not the person's other hand."""
    frame, hand = at
    step = np.linalg.norm(sighting.points - points[at], axis=-1).mean() / hand_size(points[at])
    other = visible[frame, 1 - hand] and bool(is_duplicate(sighting.points, points[frame, 1 - hand]))
    return bool(step < NEAR) and not other


def _copied(hands: HandPoints) -> HandPoints:
    names = ("visible", "infilled", "confidence", "keypoints_px", "model_m")
    doubts = HandDoubts(hands.doubts.side_unsure.copy(), hands.doubts.off_picture.copy())
    return replace(hands, **{name: getattr(hands, name).copy() for name in names}, doubts=doubts)


def _put(hands: HandPoints, at: tuple[int, int], sighting: HandDetection, scale: NDArray[np.float64]) -> None:
    hands.keypoints_px[at] = sighting.points * scale - 0.5
    hands.model_m[at] = sighting.metric_m
    hands.confidence[at] = sighting.presence
    hands.infilled[at] = False


def _drop(hands: HandPoints, at: tuple[int, int]) -> None:
    for what in (hands.visible, hands.infilled, hands.doubts.side_unsure, hands.doubts.off_picture):
        what[at] = False
    hands.confidence[at] = np.nan
    hands.keypoints_px[at] = np.nan
    hands.model_m[at] = np.nan

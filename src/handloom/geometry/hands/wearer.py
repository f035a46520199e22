"""Whose hands they are in a first-person view: the camera wearer's, or somebody else's.

Each hand that was followed gets log-odds that it is another person's, from

- *where the forearm comes from*: the line from the knuckles through the wrist, drawn on, leaves the image somewhere. A
  wearer's forearms come in through the lower border, or low at the sides; those of others from anywhere, most often
  from above. The shares are per detection, and a hand counts as one observation and one more a second (`handedness`);
- *how usual its place and direction are* for the wearer's left or right hand, whichever the networks call it;
- *how large it looks*: pixels per metre of the hand that the network gives, against what is usual within a wearer's
  reach, and against the hand of the clip that is most surely the wearer's: then the lens, which is not known here,
  cancels;
- *which are seen at once*: of three hands one is somebody else's, and a left and a right hand in their order are
  likelier one person's than two right ones.

Motion is not used.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.handedness import ego_log_ratio, num_observations
from handloom.geometry.hands.tracklets import (
    CROWD_CONFIDENCE,
    Detections,
    distinct_hands,
    hand_size,
    same_hand_pairs,
)
from handloom.schemas.hand_topology import KNUCKLES, WRIST
from handloom.schemas.values import LEFT, NUM_HANDS, RIGHT

Floats = NDArray[np.float64]

# Of 50 hands that are followed in first-person clips one is somebody else's: before the images are looked at.
PRIOR_LOG_ODDS = -4.0
# Log-odds of one detection by where its forearm comes in: through the lower border; through the sides in their lowest
# quarter, the next one, the next, the highest; through the upper border. From the shares of the wearer's (0.70, 0.13,
# 0.08, 0.06, 0.02, 0.01: between 11 real clips, 0.95, 0.02, 0.02, 0.01, 0.001, 0.001, and rendered scenes, whose camera
# is nearer to the table: 0.14, 0.37, 0.23, 0.20, 0.05, 0) and of others (0.08, 0.07, 0.13, 0.15, 0.22, 0.35: seats
# around a table), times 0.6, since place and direction say part of it, too.
ENTRY_LOG_RATIO = np.array([-1.3, -0.4, 0.3, 0.55, 1.4, 2.1])
LEAST_ENTRY = -1.5  # of a hand: the forearms of somebody beside the wearer come from below, too
USUAL_PLACE = 0.7  # of a wearer's hand: on average -0.04 to 1.6 in 11 real clips, in the middle 1.3
SIDE_FLOOR = 0.25  # the networks' left and right are believed so little: for some time, they are wrong in 4 of 11 clips
# Natural logarithm of pixels per metre at a hand over the image's longer side: focal length over distance. A wearer's:
# 11 real clips of seven kinds of camera (0.65 to 1.6 in the median of a hand, in the middle 0.98).
WEARER_SIZE, LENS_STD, REACH_STD = np.log(0.98), 0.33, 0.30
FARTHER, FARTHER_STD = 0.7, 0.3  # others are twice as far, give or take
SIZE_LIMIT = 3.0  # log-odds
SURE_WEARER = -2.0  # log-odds by entry and place of a hand with which others are compared
CROWD_FRAMES = 3  # three hands at once in so many frames are no accident
# Two hands, from left to right in the image, are called a left and a right one, alike, a right and a left one: chosen,
# not fitted.
OWN_PAIR, ANY_PAIR = (0.70, 0.22, 0.08), (0.25, 0.50, 0.25)
SAME_POSE = 0.3  # two detections of one hand are no farther apart, in hand sizes
CHAIN_GAP_S, CHAIN_STEP = 0.5, 0.5  # a hand found again so soon, so near (in hand sizes), is the same one


def others_log_odds(
    detections: Detections,
    metric_m: Floats,
    track: NDArray[np.int64],
    frame_s: Floats,
    size: tuple[int, int],
) -> tuple[Floats, NDArray[np.int64]]:
    """How likely each detection is somebody else's hand, if the camera is on the wearer's head or chest.

    Args:
        detections: of the clip, with duplicates, in pixels.
        metric_m: (D, 21, 3), the network's keypoints in metres, axes as the camera's, any origin.
        track: (D,), number of the track that each detection was followed in.
        frame_s: (T,), time of each frame.
        size: (width, height) of the image.

    Returns:
        (D,) log-odds of another person's hand, one value for each hand that was followed; and (D,) its number.
    """
    if not len(detections):
        return np.empty(0), np.empty(0, np.int64)
    hand = _chains(detections, track, frame_s)
    num = int(hand.max()) + 1
    entry = ENTRY_LOG_RATIO[_entry(detections.keypoints_px, size)]
    scale = np.log(px_per_m(detections.keypoints_px, metric_m) / max(size))
    members = [np.flatnonzero(hand == name) for name in range(num)]
    seen = np.array([num_observations(frame_s[detections.frame[each]]) for each in members])
    place = USUAL_PLACE - _usual(detections, size[0])
    by_entry, by_place = (seen * np.array([some[each].mean() for each in members]) for some in (entry, place))
    by_direction = np.maximum(by_entry, LEAST_ENTRY) + by_place
    log_scale = np.array([np.median(scale[each]) for each in members])
    log_odds = PRIOR_LOG_ODDS + by_direction + _by_size(log_scale, by_direction)
    return _together(detections, hand, log_odds)[hand], hand


def _usual(detections: Detections, width: int) -> Floats:
    """(D,) log of how much likelier place and direction are for the wearer's left or right hand, whichever the networks
    call it, than for any hand."""
    right = SIDE_FLOOR + (1 - 2 * SIDE_FLOOR) * detections.right_probability
    ratio = np.exp(ego_log_ratio(detections.keypoints_px, width))
    return np.asarray(np.log((1 - right) * ratio[:, LEFT] + right * ratio[:, RIGHT]), np.float64)


def px_per_m(keypoints_px: Floats, metric_m: Floats) -> Floats:
    """(D,) size of hands in the image over their size as seen along the optical axis: focal length over distance."""
    seen, known = (points[..., :2] - points[..., :2].mean(axis=1, keepdims=True) for points in (keypoints_px, metric_m))
    return np.sqrt((seen**2).sum(axis=(1, 2)) / np.maximum((known**2).sum(axis=(1, 2)), 1e-12))


def _entry(keypoints_px: Floats, size: tuple[int, int]) -> NDArray[np.int64]:
    """(D,) index into `ENTRY_LOG_RATIO`: where the line of each forearm leaves the image."""
    last = np.array(size, np.float64) - 1
    wrist = keypoints_px[:, WRIST]
    along = wrist - keypoints_px[:, KNUCKLES].mean(axis=1)
    along = np.where(np.abs(along) < 1e-6, 1e-6, along)
    inside = np.clip(wrist, 0.0, last)
    reach = np.where(along > 0, last - inside, -inside) / along  # to the border across, and to the one up or down
    share = (inside[:, 1] + reach.min(axis=1) * along[:, 1]) / last[1]
    at_side = np.select([share > 0.75, share > 0.5, share > 0.25], [1, 2, 3], 4)
    return np.where(reach[:, 0] < reach[:, 1], at_side, np.where(along[:, 1] > 0, 0, len(ENTRY_LOG_RATIO) - 1))


def _by_size(log_scale: Floats, by_direction: Floats) -> Floats:
    """(N,) log-odds by the size of N hands. With a hand that is surely the wearer's, the lens is known better."""
    nearest = int(by_direction.argmin())
    expected, spread = WEARER_SIZE, np.hypot(LENS_STD, REACH_STD)
    if by_direction[nearest] <= SURE_WEARER:
        known = LENS_STD**2 / (LENS_STD**2 + REACH_STD**2)
        expected += known * (log_scale[nearest] - WEARER_SIZE)
        spread = np.hypot(LENS_STD * np.sqrt(1 - known), REACH_STD)
    away = log_scale - expected
    other = np.hypot(spread, FARTHER_STD)
    log_odds = -0.5 * ((away + FARTHER) / other) ** 2 - np.log(other) + 0.5 * (away / spread) ** 2 + np.log(spread)
    if by_direction[nearest] <= SURE_WEARER:
        log_odds[nearest] = min(log_odds[nearest], 0.0)  # it was compared with itself
    return np.clip(log_odds, -SIZE_LIMIT, SIZE_LIMIT)


def _together(detections: Detections, hand: NDArray[np.int64], alone: Floats) -> Floats:
    """(N,) log-odds of N hands, given those of each `alone`, by which hands are seen at once.

    Two that are hardly one person's add to the doubt about the more doubtful one. Of three and more all but the most
    credible pair are somebody else's.
    """
    sets = _seen_at_once(detections, hand)
    own_pair = _own_pair(detections, hand, len(alone))
    out, longest = alone.copy(), np.zeros(len(alone), np.int64)
    for pair, count in sets.items():
        if len(pair) == NUM_HANDS:
            doubtful = max(pair, key=lambda name: (alone[name], name))
            if count > longest[doubtful]:
                out[doubtful], longest[doubtful] = alone[doubtful] - own_pair[pair], count
    given = out.copy()
    for crowd in (names for names in sets if len(names) > NUM_HANDS):
        pairs = list(itertools.combinations(crowd, NUM_HANDS))
        score = np.array([own_pair[pair] + sum(given[name] for name in crowd if name not in pair) for pair in pairs])
        share = np.exp(score - score.max())
        share /= share.sum()
        for name in crowd:
            other = share[[name not in pair for pair in pairs]].sum()
            out[name] = max(out[name], np.log(max(other, 1e-9) / max(1 - other, 1e-9)))
    return out


def _seen_at_once(detections: Detections, hand: NDArray[np.int64]) -> dict[tuple[int, ...], int]:
    """`{hands: number of frames}` that show exactly these with certainty, two and more, and in enough frames."""
    count: Counter[tuple[int, ...]] = Counter()
    for indices in distinct_hands(detections):
        count[tuple(sorted({int(hand[i]) for i in indices if detections.confidence[i] >= CROWD_CONFIDENCE}))] += 1
    return {names: num for names, num in count.items() if len(names) >= NUM_HANDS and num >= CROWD_FRAMES}


def _own_pair(detections: Detections, hand: NDArray[np.int64], num: int) -> Floats:
    """(N, N) log-likelihood ratio that two hands are a person's left and right one, over any two hands; by what the
    networks call them, from left to right in the image."""
    size = np.bincount(hand, minlength=num)
    right = np.bincount(hand, detections.right_probability, num) / size
    x = np.bincount(hand, detections.keypoints_px[:, WRIST, 0], num) / size
    first = np.where(x[:, None] <= x, right[:, None], right)
    second = np.where(x[:, None] <= x, right, right[:, None])
    in_order, swapped = (1 - first) * second, first * (1 - second)
    shares = np.stack([in_order, 1 - in_order - swapped, swapped])
    return np.asarray(np.log(np.tensordot(np.array(OWN_PAIR) / ANY_PAIR, shares, 1)), np.float64)


def _chains(detections: Detections, track: NDArray[np.int64], frame_s: Floats) -> NDArray[np.int64]:
    """(D,) number of the hand of each detection: tracks that follow one hand in most of the frames that they share, or
    of which one begins soon after and near another's end. Two hands of one frame stay two."""
    names, number = np.unique(track, return_inverse=True)
    first, second, same = same_hand_pairs(detections)
    points, seconds = detections.keypoints_px, frame_s[detections.frame]
    apart = np.linalg.norm(points[first] - points[second], axis=-1).mean(axis=-1)
    same &= apart <= SAME_POSE * hand_size(points[first])  # not a hand over another one
    shared, double = np.zeros((2, len(names), len(names)), np.int64)
    np.add.at(shared, (number[first], number[second]), 1)
    np.add.at(double, (number[first[same]], number[second[same]]), 1)
    shared, double = shared + shared.T, double + double.T
    begins, ends = (np.array([np.flatnonzero(number == each)[at] for each in range(len(names))]) for at in (0, -1))
    gap_s = seconds[begins][None] - seconds[ends][:, None]  # from the end of the row's track to the column's
    step = np.linalg.norm(points[begins][None] - points[ends][:, None], axis=-1).mean(axis=-1)
    step /= np.minimum(hand_size(points[begins])[None], hand_size(points[ends])[:, None])
    follows = (gap_s > 0) & (gap_s <= CHAIN_GAP_S) & (step <= CHAIN_STEP)
    root = np.arange(len(names))
    for before, after in sorted(
        zip(*np.nonzero(follows | (2 * double > shared)), strict=True), key=lambda at: step[at]
    ):
        one, other = root == root[before], root == root[after]
        if not ((shared > 0) & (2 * double <= shared))[np.ix_(one, other)].any():
            root[other] = root[before]
    return np.asarray(np.unique(root[number], return_inverse=True)[1], np.int64)

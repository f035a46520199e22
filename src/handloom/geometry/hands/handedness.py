"""Which detection is the person's own left hand and which the right: one decision for the whole clip.

Evidence is summed as log-likelihoods of two explanations of the clip:

- *exo*, a third-person view: only the model's handedness counts; hands lie and point anywhere.
- *ego*, a camera on the person's head or chest: forearms also enter from the person's side of the image, from below,
  and the left hand is to the left of the right one.

The explanation under which the clip is more likely is taken. A given view counts as strong evidence, and is overruled
where the images clearly contradict it: one hand that the model calls right with certainty, and that reaches up from
the lower left, stays a right hand seen from outside.

Two detections of one frame are always two hands, so tracklets that share a frame form a component with two possible
labellings, and every frame belongs to one component. Dynamic programming finds the best labelling of the sequence of
components (Viterbi; each path remembers where it last saw each hand): it favours a hand that continues where it was
last seen, and hardly lets one hand take the other's place. The same from the end of the clip gives how much worse the
best sequence is in which a component has the other labelling: how sure its sides are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.tracklets import Detections, hand_size
from handloom.schemas.hand_topology import KNUCKLES, WRIST
from handloom.schemas.values import LEFT, RIGHT

# The model's belief is kept away from 0 and 1, and counts for less than independent evidence would: its mistakes last
# as long as a hand keeps its pose (one EgoDex clip: the left hand called right for 30 frames on end, at 0.74 to 0.95).
MODEL_FLOOR = 0.03
MODEL_WEIGHT = 0.8
# Both chosen by hand on five EgoDex clips, not fitted.
# A tracklet's frames are not independent: it counts as 1 observation and 1 more per second, at most 3.
MAX_OBSERVATIONS = 3.0

# The ego explanation, fitted by eye to 547 detections with device truth in five EgoDex clips (wrist to knuckles: left
# 37 to 96 degrees, median 63; right 83 to 161, median 117; wrist 0.1 to 0.6 half widths to its own side) and widened.
# They are the clips of docs/benchmarks.md: its handedness is in-sample.
FOREARM_DEG = (62.0, 118.0)  # left, right; 0 points to the right of the image, 90 up
FOREARM_KAPPA = 2.5  # concentration of the von Mises distribution
WRIST_X = (-0.3, 0.3)  # in half widths of the image, from its middle
WRIST_X_STD = 0.4
OUTLIER_SHARE = 0.1  # of hands in an ego clip lie and point anywhere
ORDER_FLOOR = 0.04  # of pairs of hands have changed sides
ORDER_SLOPE = 4.0  # per hand size of distance


def side_evidence(detections: Detections, width: int, ego: bool) -> NDArray[np.float64]:
    """(D, 2) log-likelihood of each detection if it is the left, the right hand."""
    right = np.clip(detections.right_probability, MODEL_FLOOR, 1 - MODEL_FLOOR)
    evidence = MODEL_WEIGHT * np.log(np.stack([1 - right, right], axis=1))
    if ego:
        evidence = evidence + ego_log_ratio(detections.keypoints_px, width)
    return evidence


def ego_log_ratio(keypoints_px: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """(D, 2) log of how much likelier place and direction are for an ego camera's left, right hand than for any
    hand."""
    wrist = keypoints_px[:, WRIST]
    forearm = keypoints_px[:, KNUCKLES].mean(axis=1) - wrist
    angle = np.arctan2(-forearm[:, 1], np.ascontiguousarray(forearm[:, 0]))[:, None]
    x = (wrist[:, :1] + 0.5) / (width / 2) - 1
    # Both against a uniform distribution: over the circle, and over the two half widths.
    direction = np.exp(FOREARM_KAPPA * np.cos(angle - np.radians(FOREARM_DEG))) / np.i0(FOREARM_KAPPA)
    place = 2 * np.exp(-0.5 * ((x - np.array(WRIST_X)) / WRIST_X_STD) ** 2) / (WRIST_X_STD * np.sqrt(2 * np.pi))
    return np.log((1 - OUTLIER_SHARE) * direction * place + OUTLIER_SHARE)


def order_log_ratio(left_px: NDArray[np.float64], right_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 21, 2) each to (P,): log of how much likelier an ego camera shows the hands in this order than any camera."""
    gap = right_px[..., 0].mean(axis=-1) - left_px[..., 0].mean(axis=-1)
    gap = gap / np.maximum(hand_size(left_px), hand_size(right_px))
    in_order = 1 / (1 + np.exp(-ORDER_SLOPE * np.clip(gap, -5, 5)))
    return np.log(2 * (ORDER_FLOOR + (1 - 2 * ORDER_FLOOR) * in_order))


def num_observations(seconds: NDArray[np.float64]) -> float:
    return min(1.0 + float(seconds[-1] - seconds[0]), MAX_OBSERVATIONS)


# Log-odds of a given view. On real clips the images give 3 to 22 for the camera's true view where it is on the head, 6
# to 64 where it is not.
VIEW_PRIOR = 8.0

# Continuity: a hand that appears where it was last seen is the same hand, the more so the shorter the gap.
# Chosen by hand on the same clips, not fitted.
NEW_PLACE_COST = 4.0
FAR_PLACE = 1.25  # a hand far from where it was last seen costs this much more than one not seen before
CONTINUITY_S = 1.0  # the costs fall to 1/e after so long
STEP_SIZES = (0.25, 1.0)  # standard deviation of a step in hand sizes: at once, and more per second
# A hand that appears where the other one was, far from its own last place: more than all the evidence of a long
# tracklet (2 x 8), so that a wrong view cannot exchange two hands that continue.
TAKEOVER_COST = 20.0
TAKEOVER_S = 0.5


@dataclass(frozen=True)
class Assignment:
    """hand: (D,) 0 left, 1 right. margin: (D,) log-odds of its best labelling over the best with the other hand.

    ego: whether the first-person cues were used. ego_log_odds: of ego over exo, by the images alone.
    """

    hand: NDArray[np.int64]
    margin: NDArray[np.float64]
    ego: bool
    ego_log_odds: float


def assign(
    detections: Detections,
    tracklet: NDArray[np.int64],
    frame_s: NDArray[np.float64],
    width: int,
    view: str | None,
) -> Assignment:
    """Give every detection to the person's own left or right hand.

    Args:
        detections: without duplicates, at most two a frame (`tracklets.keep_hands`).
        tracklet: (D,), from `tracklets.link`.
        frame_s: (T,), time of each frame.
        width: of the image, in the pixels of the detections.
        view: `ego` or `exo` where it was given, else None.

    Returns:
        The assignment: tracklets keep one label, detections of one frame have two.
    """
    if not len(detections):
        return Assignment(np.empty(0, np.int64), np.empty(0), view == "ego", 0.0)
    components = _components(detections, tracklet)
    seconds = frame_s[detections.frame]
    chains: dict[bool, _Chain] = {}
    for ego in (False, True):
        evidence = side_evidence(detections, width, ego)
        scores = [_component_scores(detections, tracklet, each, evidence, seconds, ego) for each in components]
        chains[ego] = _best_chain(detections, tracklet, components, np.array(scores), seconds)
    log_odds = chains[True].score - chains[False].score
    with_prior = log_odds + {"ego": VIEW_PRIOR, "exo": -VIEW_PRIOR, None: 0.0}[view]
    ego = with_prior > 0
    chosen, other = chains[ego], chains[not ego]
    # Where the other view labels the hands the other way, the sides are no surer than the view.
    margin = np.where(chosen.flip == other.flip, chosen.margin, np.minimum(chosen.margin, abs(with_prior)))
    hand, sure = np.empty(len(detections), np.int64), np.empty(len(detections))
    for number, component in enumerate(components):
        for index in range(component.first, component.last):
            hand[index] = component.colour[int(tracklet[index])] ^ int(chosen.flip[number])
            sure[index] = margin[number]
    return Assignment(hand, sure, ego, log_odds)


@dataclass
class _Component:
    """Tracklets that share frames, and their colours: the colour, flipped or not, is the label."""

    first: int  # index of its first detection; a component's detections are contiguous
    last: int  # one past its last
    colour: dict[int, int] = field(default_factory=dict)
    pairs: list[tuple[int, int]] = field(default_factory=list)  # detections of one frame, colour 0 first


def _components(detections: Detections, tracklet: NDArray[np.int64]) -> list[_Component]:
    """Components in order of time. Tracklets are intervals, at most two at a time: two colours always do."""
    components: list[_Component] = []
    for indices in detections.by_frame():
        first, last = int(indices[0]), int(indices[-1]) + 1
        names = [int(tracklet[i]) for i in indices]
        current = components[-1] if components else None
        if current is None or not any(name in current.colour for name in names):
            current = _Component(first, last)
            components.append(current)
        current.last = last
        known = [name for name in names if name in current.colour]
        if not known:
            current.colour[names[0]] = 0
            known = names[:1]
        for name in names:
            current.colour.setdefault(name, 1 - current.colour[known[0]])
        if len(indices) == 2:
            pair = sorted((int(i) for i in indices), key=lambda i: current.colour[int(tracklet[i])])
            current.pairs.append((pair[0], pair[1]))
    return components


def _component_scores(
    detections: Detections,
    tracklet: NDArray[np.int64],
    component: _Component,
    evidence: NDArray[np.float64],
    seconds: NDArray[np.float64],
    ego: bool,
) -> NDArray[np.float64]:
    """(2,) log-likelihood of the component as coloured, and flipped."""
    members: dict[int, list[int]] = {}
    for index in range(component.first, component.last):
        members.setdefault(int(tracklet[index]), []).append(index)
    scores = np.zeros(2)
    for name, indices in members.items():
        colour = component.colour[name]
        mean = evidence[indices].mean(axis=0)
        scores += num_observations(seconds[indices]) * np.array([mean[colour], mean[1 - colour]])
    if ego and component.pairs:
        first, second = (detections.keypoints_px[list(side)] for side in zip(*component.pairs, strict=True))
        weight = num_observations(seconds[[i for i, _ in component.pairs]])
        scores += weight * np.array([order_log_ratio(*pair).mean() for pair in ((first, second), (second, first))])
    return scores


@dataclass(frozen=True)
class _Chain:
    """flip: (C,) of each component, in the best labelling. margin: (C,), over the best with the other flip there."""

    flip: NDArray[np.int64]
    margin: NDArray[np.float64]
    score: float


Ends = dict[int, tuple[int, int]]  # the detections of each colour of a component that a chain meets first and last


Flips = tuple["Flips | None", int]  # (flips before, flip): a linked list, so that paths share their past


@dataclass(frozen=True)
class _Path:
    """The best labelling so far that ends in one flip: its score, all flips, and each hand's last detection."""

    score: float
    flips: Flips | None
    last_seen: tuple[int | None, int | None]


def _best_chain(
    detections: Detections,
    tracklet: NDArray[np.int64],
    components: list[_Component],
    scores: NDArray[np.float64],
    seconds: NDArray[np.float64],
) -> _Chain:
    """scores: (C, 2)."""
    ends = [_ends(tracklet, component) for component in components]
    forward, best = _walk(detections, ends, scores, seconds)
    turned = [{colour: (last, first) for colour, (first, last) in each.items()} for each in ends]
    backward, _ = _walk(detections, turned[::-1], scores[::-1], seconds)
    flips: list[int] = []
    node = best.flips
    while node is not None:
        node, last = node
        flips.append(last)
    flip = np.array(flips[::-1], np.int64)
    through = forward + backward[::-1] - scores
    each = np.arange(len(flip))
    return _Chain(flip, np.maximum(through[each, flip] - through[each, 1 - flip], 0.0), best.score)


def _walk(
    detections: Detections, ends: list[Ends], scores: NDArray[np.float64], seconds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], _Path]:
    """(C, 2) score of the best labelling up to each component and flip of it; and the best path of all."""
    so_far = np.empty((len(ends), 2))
    paths = [_Path(0.0, None, (None, None))]
    for number, of_component in enumerate(ends):
        grown = []
        for flip in (0, 1):
            options = []
            for path in paths:
                going_on = _continuity(detections, of_component, path.last_seen, seconds, flip)
                options.append((path.score + going_on + float(scores[number, flip]), path))
            score, path = max(options, key=lambda option: option[0])
            last_seen = list(path.last_seen)
            for colour, (_, last) in of_component.items():
                last_seen[colour ^ flip] = last
            grown.append(_Path(score, (path.flips, flip), (last_seen[LEFT], last_seen[RIGHT])))
            so_far[number, flip] = score
        paths = grown
    return so_far, max(paths, key=lambda path: path.score)


def _ends(tracklet: NDArray[np.int64], component: _Component) -> Ends:
    """First and last detection of each colour of a component."""
    ends: Ends = {}
    for index in range(component.first, component.last):
        colour = component.colour[int(tracklet[index])]
        ends[colour] = (ends[colour][0] if colour in ends else index, index)
    return ends


def _continuity(
    detections: Detections,
    ends: Ends,
    last_seen: tuple[int | None, int | None],
    seconds: NDArray[np.float64],
    flip: int,
) -> float:
    """Log-likelihood of where the component's hands appear, given where the path last saw each hand."""
    seen = [index for index in last_seen if index is not None]
    if not seen:
        return 0.0
    points = detections.keypoints_px
    total = 0.0
    for colour, (first, _) in ends.items():
        before, other = last_seen[colour ^ flip], last_seen[1 - (colour ^ flip)]
        gap_s = min(abs(float(seconds[first] - seconds[i])) for i in (seen if before is None else [before]))
        new_place = NEW_PLACE_COST * np.exp(-gap_s / CONTINUITY_S)
        off = FAR_PLACE * new_place if before is None else 0.5 * _step(points[before], points[first], gap_s) ** 2
        total -= new_place if before is None else new_place * min(off, FAR_PLACE)
        if other is not None:
            since_s = abs(float(seconds[first] - seconds[other]))
            there = np.exp(-0.5 * _step(points[other], points[first], since_s) ** 2 - since_s / TAKEOVER_S)
            total -= TAKEOVER_COST * there * (1 - np.exp(-off))
    return float(total)


def _step(then_px: NDArray[np.float64], now_px: NDArray[np.float64], gap_s: float) -> float:
    """How far a hand, (21, 2), has moved, in standard deviations of a hand's motion in `gap_s`."""
    size = max(hand_size(then_px), hand_size(now_px)) * (STEP_SIZES[0] + STEP_SIZES[1] * gap_s)
    return float(np.linalg.norm(now_px.mean(axis=0) - then_px.mean(axis=0)) / size)

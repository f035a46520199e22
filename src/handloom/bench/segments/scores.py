"""How well found actions agree with true ones: boundaries, segments, contacts, poses of held things."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]

WITHIN_S = 0.2
IOU = (0.5, 0.75)
DURATIONS = {"under_1_s": (0.0, 1.0), "1_to_2_s": (1.0, 2.0), "2_to_4_s": (2.0, 4.0), "over_4_s": (4.0, np.inf)}
_SAME_S = 1e-3


@dataclass(frozen=True)
class Span:
    """An action in seconds. hand: `left`, `right`, or `any` where it is not known."""

    start_s: float
    end_s: float
    hand: str = "any"
    phase: str | None = None


@dataclass
class Counts:
    """Of true ones, of found ones, and how many of them belong together."""

    true: int = 0
    found: int = 0
    matched: int = 0

    def add(self, other: Counts) -> None:
        self.true += other.true
        self.found += other.found
        self.matched += other.matched

    def scores(self) -> dict[str, float]:
        """F1, precision and recall; NaN where nothing was asked for and nothing found."""
        precision = self.matched / self.found if self.found else float("nan")
        recall = self.matched / self.true if self.true else float("nan")
        both = self.true + self.found
        f1 = 2 * self.matched / both if both else float("nan")
        return {"f1": f1, "precision": precision, "recall": recall, "true": self.true, "found": self.found}


def boundary_counts(true: Sequence[Span], found: Sequence[Span], within_s: float = WITHIN_S) -> Counts:
    """Starts and ends, hand by hand; where one action ends and the next begins there is one boundary."""
    total = Counts()
    for hand in sorted({span.hand for span in (*true, *found)}):
        a, b = (boundaries([span for span in spans if span.hand == hand]) for spans in (true, found))
        total.add(Counts(len(a), len(b), matched_times(a, b, within_s)))
    return total


def boundaries(spans: Sequence[Span]) -> list[float]:
    """Starts and ends in order, without repetitions."""
    out: list[float] = []
    for at in sorted(time for span in spans for time in (span.start_s, span.end_s)):
        if not out or at - out[-1] > _SAME_S:
            out.append(at)
    return out


def matched_times(true: Sequence[float], found: Sequence[float], within_s: float) -> int:
    """The largest number of pairs of one true and one found time, both in order, that are `within_s` apart."""
    count = at = 0
    for time in true:
        while at < len(found) and found[at] < time - within_s:
            at += 1
        if at < len(found) and found[at] <= time + within_s:
            count, at = count + 1, at + 1
    return count


def iou(one: Span, other: Span) -> float:
    """Shared time over the time of both together; 0 for different hands."""
    if one.hand != other.hand:
        return 0.0
    shared = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    whole = max(one.end_s, other.end_s) - min(one.start_s, other.start_s)
    return max(shared, 0.0) / whole if whole > 0 else 0.0


def pairs(true: Sequence[Span], found: Sequence[Span], least: float) -> list[tuple[int, int]]:
    """Pairs (true, found) of the greatest IoU first, each span in one pair, of at least `least`."""
    table = [(iou(a, b), i, j) for i, a in enumerate(true) for j, b in enumerate(found)]
    used_true, used_found, out = set(), set(), []
    for value, i, j in sorted(table, key=lambda entry: (-entry[0], entry[1], entry[2])):
        if value >= least and i not in used_true and j not in used_found:
            used_true.add(i)
            used_found.add(j)
            out.append((i, j))
    return out


def segment_counts(true: Sequence[Span], found: Sequence[Span], least: float) -> Counts:
    return Counts(len(true), len(found), len(pairs(true, found, least)))


def recall_by_duration(true: Sequence[Span], found: Sequence[Span], least: float = IOU[0]) -> dict[str, Counts]:
    """How many of the true actions of each length are found."""
    hit = {i for i, _ in pairs(true, found, least)}
    out = {}
    for name, (low, high) in DURATIONS.items():
        of_length = [i for i, span in enumerate(true) if low <= span.end_s - span.start_s < high]
        out[name] = Counts(len(of_length), len(of_length), sum(i in hit for i in of_length))
    return out


def contact_counts(true: Sequence[Span], found: Sequence[Span], frame_s: Floats) -> Counts:
    """Frames in which a hand has contact, hand by hand."""
    total = Counts()
    for hand in ("left", "right"):
        a, b = (_covered([span for span in spans if span.hand == hand], frame_s) for spans in (true, found))
        total.add(Counts(int(a.sum()), int(b.sum()), int((a & b).sum())))
    return total


def _covered(spans: Sequence[Span], frame_s: Floats) -> NDArray[np.bool_]:
    out = np.zeros(len(frame_s), bool)
    for span in spans:
        out |= (frame_s >= span.start_s) & (frame_s < span.end_s)
    return out


def pose_errors(found: Floats, true: Floats) -> tuple[Floats, Floats]:
    """Metres and degrees (n,) by which a thing is elsewhere than it truly is, NaN where the pose is unknown.

    found, true: (n, 4, 4) over the same frames. The first frame says how the two frames of reference lie to each other:
    the found one has no given axes.
    """
    away, turned = np.full(len(found), np.nan), np.full(len(found), np.nan)
    known = np.flatnonzero(np.isfinite(found).all(axis=(1, 2)))
    if not len(known):
        return away, turned
    first = known[0]
    carried = found[known] @ np.linalg.inv(found[first]) @ true[first]
    away[known] = np.linalg.norm(carried[:, :3, 3] - true[known, :3, 3], axis=1)
    between = np.swapaxes(carried[:, :3, :3], 1, 2) @ true[known, :3, :3]
    turned[known] = np.degrees(Rotation.from_matrix(between).magnitude())
    return away, turned


def speed_minima(speed: Floats, frame_s: Floats, hand: str, window_s: float = 0.25) -> list[Span]:
    """The rule of speed minima alone: a boundary at each minimum of the wrist's speed within `window_s` on either side,
    and at the ends of what is known of the hand."""
    known = np.flatnonzero(np.isfinite(speed))
    if len(known) < 2:
        return []
    edges = [known[0]]
    for t in known[1:-1]:
        around = speed[np.abs(frame_s - frame_s[t]) <= window_s]
        if speed[t] <= np.nanmin(around) and frame_s[t] - frame_s[edges[-1]] > window_s:
            edges.append(t)
    edges.append(known[-1])
    times = frame_s[np.unique(edges)]
    return [Span(float(a), float(b), hand) for a, b in itertools.pairwise(times)]


def uniform(start_s: float, end_s: float, hand: str, length_s: float) -> list[Span]:
    """Cuts of one length."""
    edges = np.linspace(start_s, end_s, max(round((end_s - start_s) / length_s), 1) + 1)
    return [Span(float(a), float(b), hand) for a, b in itertools.pairwise(edges)]

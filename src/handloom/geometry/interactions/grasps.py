"""Grasps by the hand's shape alone: it comes, slows down, closes, moves, and opens again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.interactions.signals import HandMotion, way_m

Floats = NDArray[np.float64]

CLOSES_M = 0.03
"""The tips of thumb, index and middle finger come nearer to each other by this when a hand takes a thing, and part by
it when it lets go."""
CLOSING_S, MOST_UNKNOWN_S = 0.8, 0.5
COMES_M_S, SLOWS_TO, BEFORE_M, HELD_M = 0.25, 0.45, 0.12, 0.025
"""A hand that takes a thing was faster than the first, slows down to the second share of that while it closes, has come
from farther than the third, and then moves by more than the last."""
LEAST_S, MOST_S = 0.3, 4.0
"""A shorter one is none; a hand that is closed for longer may be at rest: nothing is concluded."""


@dataclass(frozen=True)
class Grasp:
    """Frames [start, end) in which a hand is closed on something."""

    start: int
    end: int


def find_grasps(hand: HandMotion, frame_s: Floats, shot: NDArray[np.int64]) -> list[Grasp]:
    """The grasps of a hand, in order: each has an approach, a closing, a movement and an opening."""
    pinch, found, t, num = hand.pinch_m, [], 1, len(frame_s)
    while t < num:
        low = int(np.searchsorted(frame_s, frame_s[t] - CLOSING_S))
        low = max(low, int(np.searchsorted(shot, shot[t])))
        before = pinch[low : t + 1]
        if not np.isfinite(pinch[t]) or np.nanmax(before) - pinch[t] < CLOSES_M:
            t += 1
            continue
        start = t
        while start + 1 < num and pinch[start + 1] < pinch[start] - 5e-4:
            start += 1
        end, opens = held_until(hand, frame_s, shot, start, float(pinch[start]))
        if opens and _takes(hand, frame_s, low, t, start, end):
            stop = last_stop(hand.speed, start, end)
            if frame_s[stop - 1] - frame_s[start] >= LEAST_S:
                found.append(Grasp(start, stop))
        t = max(end, start + 1)
    return found


def held_until(
    hand: HandMotion, frame_s: Floats, shot: NDArray[np.int64], start: int, closed_m: float, opens_m: float = CLOSES_M
) -> tuple[int, bool]:
    """The frame in which a hand that is closed at `start` opens, or is lost from sight; and whether it opens."""
    end = start + 1
    for t in range(start + 1, len(shot)):
        if shot[t] != shot[start] or frame_s[t] - frame_s[end - 1] > MOST_UNKNOWN_S:
            return end, False
        if np.isfinite(hand.pinch_m[t]):
            closed_m = min(closed_m, float(hand.pinch_m[t]))
            if hand.pinch_m[t] > closed_m + opens_m:
                return end, True
            end = t + 1
    return end, False


def last_stop(speed: Floats, low: int, high: int) -> int:
    """The last frame at which a hand stops or turns before `high`: there it lets go, then it opens and leaves."""
    at = high
    with np.errstate(invalid="ignore"):
        while at - 1 > low and speed[at - 1] < speed[min(at, len(speed) - 1)]:
            at -= 1
    return max(at, low)


def _takes(hand: HandMotion, frame_s: Floats, low: int, closing: int, start: int, end: int) -> bool:
    came = hand.speed[low : start + 1]
    closes = hand.speed[closing : start + 3]
    if not (np.isfinite(came).any() and np.isfinite(closes).any()) or frame_s[end - 1] - frame_s[start] > MOST_S:
        return False
    fast = np.nanmax(came) > COMES_M_S and np.nanmin(closes) < SLOWS_TO * np.nanmax(came)
    far = way_m(hand.pace, frame_s, max(start - 15, 0), start) > BEFORE_M
    return bool(fast and far and way_m(hand.pace, frame_s, start, end) > HELD_M)

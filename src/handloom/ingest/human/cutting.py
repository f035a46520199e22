"""Cutting a long video into clips, and leaving intervals out."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence

from handloom.errors import ConfigError

MIN_CLIP_SECONDS = 0.1
MIN_TAIL_SHARE = 0.1
MIN_TAIL_S = 0.5
MAX_VIDEO_S = 31 * 86_400.0  # a container that claims more than a month is wrong about its length

Interval = tuple[float, float]


def check_clip_seconds(clip_seconds: float | None) -> None:
    """Raises ConfigError if clips would be shorter than `MIN_CLIP_SECONDS`. None keeps videos whole."""
    if clip_seconds is not None and not (math.isfinite(clip_seconds) and clip_seconds >= MIN_CLIP_SECONDS):
        raise ConfigError(
            f"clip length {clip_seconds} s, expected seconds, at least {MIN_CLIP_SECONDS}",
            "`--clip-seconds 0` keeps videos whole (`clip_seconds=None` in Python)",
        )


def cut(start_s: float, end_s: float, clip_seconds: float | None) -> list[Interval]:
    """Half-open pieces that tile `[start_s, end_s)` without gap or overlap, in seconds.

    Every piece is `clip_seconds` long but the last. A tail shorter than a tenth of `clip_seconds`, or than half a
    second, joins the piece before it: no clip is too short to track points in, and the last may be a little longer.
    """
    if clip_seconds is None:
        return [(start_s, end_s)]
    length = end_s - start_s
    num_whole = math.floor(length / clip_seconds)
    tail = length - num_whole * clip_seconds
    num_pieces = num_whole + (num_whole == 0 or tail >= max(MIN_TAIL_SHARE * clip_seconds, MIN_TAIL_S))
    # multiplied, not added up: the boundaries of an hour of video do not drift
    bounds = [start_s + i * clip_seconds for i in range(num_pieces)] + [end_s]
    return list(itertools.pairwise(bounds))


def joined(intervals: Iterable[Interval]) -> list[Interval]:
    """The union of the intervals, as sorted intervals that do not touch."""
    disjoint: list[Interval] = []
    for start, end in sorted(intervals):
        if disjoint and start <= disjoint[-1][1]:
            disjoint[-1] = (disjoint[-1][0], max(disjoint[-1][1], end))
        else:
            disjoint.append((start, end))
    return disjoint


def overlaps(interval: Interval, disjoint: Sequence[Interval]) -> bool:
    """Whether `interval` overlaps one of `disjoint`, which come from `joined`."""
    after = bisect.bisect_right(disjoint, interval[0], key=lambda other: other[1])  # the first that ends later
    return after < len(disjoint) and disjoint[after][0] < interval[1]


def subtract(interval: Interval, disjoint: Sequence[Interval]) -> list[Interval]:
    """The parts of `interval` outside `disjoint`, in order."""
    left = []
    position = interval[0]
    for start, end in disjoint:
        if end <= position:
            continue
        if start >= interval[1]:
            break
        if start > position:
            left.append((position, start))
        position = end
    return [*left, (position, interval[1])] if position < interval[1] else left

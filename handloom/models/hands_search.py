"""Finding and following hands through a clip that can be read both ways.

Palms are looked for in few frames. Each hand found is followed forwards and backwards from there, every second frame
or so, until the network says that there is no hand, or until another track already covers it. Where fewer than two
hands are known, more frames are looked at, denser around places where a track was lost. Frames that were passed over
are interpolated where the motion around them is even, and measured where it is not. All that can be asked at one time
is asked in one batch, so that the order of questions, and with it the result, is the same on every device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracklets import hand_size, is_duplicate
from handloom.models.hand_crops import (
    HandReading,
    hand_picture,
    hand_regions,
    palm_picture,
    palm_regions,
    read_hands,
    read_palms,
)
from handloom.models.protocols import ClipFrames
from handloom.schemas.values import NUM_HANDS

FIRST_LOOK_S = 1.0  # palms are looked for this often at first,
LOOK_S = 0.25  # then in every frame with fewer than two hands that lies farther than this from all looked at,
LOOK_NEAR_LOSS_S = 0.1  # or this far, if a track was lost nearby:
NEAR_LOSS_S = 0.4
PALMS_PER_LOOK = 4
STEP_S = 0.134  # longest step of a track
CURVED = 0.02  # a frame passed over is measured if the motion's bend around it exceeds this share of the hand's size


class Nets(Protocol):
    batch: int

    def palms(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]: ...
    def hands(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]: ...


@dataclass(frozen=True)
class Sighting:
    """One hand in one frame, in pixels of the working picture. measured: by the network, not interpolated."""

    points: NDArray[np.float64]  # (21, 2)
    metric_m: NDArray[np.float64]  # (21, 3)
    presence: float
    right: float
    measured: bool = True


@dataclass
class Track:
    """One hand through consecutive frames. lost: frames at which it ended though the hand was well inside."""

    seen: dict[int, Sighting] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)


@dataclass
class _End:
    """A track's end that is still being followed: from `frame` in `direction`, the next step of `step` frames."""

    track: Track
    frame: int
    direction: int
    step: int


class HandSearch:
    """Searches one clip. `min_palm`, `min_presence`: MediaPipe's two thresholds."""

    def __init__(self, nets: Nets, frames: ClipFrames, min_palm: float, min_presence: float) -> None:
        self._nets, self._frames = nets, frames
        self._min_palm, self._min_presence = min_palm, min_presence
        self._height, self._width = frames.rgb(0).shape[:2]
        self._tracks: list[Track] = []
        self._looked: list[int] = []
        seconds = np.asarray(frames.frame_s, np.float64)
        self._seconds = seconds
        usual_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
        self._step = max(1, int(STEP_S / max(usual_s, 1e-3)))

    def run(self) -> list[Track]:
        """All tracks; two of them may have found one hand in one frame (`tracklets.keep_hands`)."""
        looks = self._first_looks()
        while looks:
            self._follow(self._look(looks))
            self._looked += looks
            looks = self._next_looks()
        self._fill_steps()
        return self._tracks

    def _first_looks(self) -> list[int]:
        start, end = self._seconds[0], self._seconds[-1]
        num = max(1, round((end - start) / FIRST_LOOK_S))
        at = start + (np.arange(num) + 0.5) / num * (end - start)
        return sorted(set(np.abs(self._seconds[None] - at[:, None]).argmin(axis=1).tolist()))

    def _next_looks(self) -> list[int]:
        """The middle of every stretch of frames that should be looked at."""
        count = self._count()
        known = np.union1d(np.array(self._looked, int), np.flatnonzero(count >= NUM_HANDS))
        gap = np.abs(self._seconds[:, None] - self._seconds[known][None]).min(axis=1)
        allowed = np.full(len(count), LOOK_S)
        for frame in (frame for track in self._tracks for frame in track.lost):
            allowed[np.abs(self._seconds - self._seconds[frame]) < NEAR_LOSS_S] = LOOK_NEAR_LOSS_S
        wanted = np.flatnonzero((count < NUM_HANDS) & (gap > allowed))
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1) if len(wanted) else []
        return [int(run[len(run) // 2]) for run in runs]

    def _count(self) -> NDArray[np.int64]:
        """Hands known in each frame, those passed over included."""
        count = np.zeros(len(self._seconds), np.int64)
        for track in self._tracks:
            count[min(track.seen) : max(track.seen) + 1] += 1
        return count

    def _look(self, looks: list[int]) -> list[_End]:
        """Palms of these frames that no track covers, as ends of new tracks, two each."""
        asked: list[tuple[int, NDArray[np.float64]]] = []
        for some in _batches(looks, self._nets.batch):
            outputs = self._nets.palms(np.stack([palm_picture(self._frames.rgb(frame)) for frame in some]))
            for frame, boxes, raw in zip(some, *outputs, strict=True):
                palms = read_palms(boxes, raw, self._width, self._height, self._min_palm)
                asked += [(frame, region) for region in palm_regions(palms)[:PALMS_PER_LOOK]]
        found = [(frame, each) for (frame, _), each in zip(asked, self._measure(asked), strict=True)]
        fresh: list[tuple[int, Sighting]] = []
        for frame, each in sorted(found, key=lambda item: -item[1].presence):
            others = self._in_frame(frame) + [other.points for at, other in fresh if at == frame]
            if each.presence >= self._min_presence and not any(is_duplicate(each.points, other) for other in others):
                fresh.append((frame, each))
        # The palm's region is a rough one: measure again where the hand turned out to be.
        again = self._measure([(frame, _region(each.points)) for frame, each in fresh])
        ends: list[_End] = []
        for (frame, first), second in zip(fresh, again, strict=True):
            track = Track({frame: second if second.presence >= self._min_presence else first})
            self._tracks.append(track)
            ends += [_End(track, frame, direction, self._step) for direction in (1, -1)]
        return ends

    def _follow(self, ends: list[_End]) -> None:
        while ends:
            ends = [end for end in map(self._shortened, ends) if end is not None]
            asked = [(end.frame + end.direction * end.step, self._predicted(end)) for end in ends]
            ends = [
                end
                for end, (frame, _), each in zip(ends, asked, self._measure(asked), strict=True)
                if self._goes_on(end, frame, each)
            ]

    def _shortened(self, end: _End) -> _End | None:
        """With a step that stays inside the clip; None at its border."""
        room = len(self._seconds) - 1 - end.frame if end.direction > 0 else end.frame
        end.step = min(end.step, room)
        return end if end.step else None

    def _goes_on(self, end: _End, frame: int, found: Sighting) -> bool:
        if found.presence < self._min_presence:
            if end.step > 1:
                end.step = end.step // 2
                return True
            if self._is_inside(end.track.seen[end.frame].points):
                end.track.lost.append(end.frame)
            return False
        if any(is_duplicate(found.points, points) for points in self._in_frame(frame, but=end.track)):
            return False
        end.track.seen[frame] = found
        end.frame, end.step = frame, self._step
        return True

    def _in_frame(self, frame: int, but: Track | None = None) -> list[NDArray[np.float64]]:
        """Points of the hands that are known in a frame, those passed over interpolated."""
        out = []
        for track in self._tracks:
            if track is not but and min(track.seen) <= frame <= max(track.seen):
                out.append(track.seen[frame].points if frame in track.seen else self._between(track, frame).points)
        return out

    def _is_inside(self, points: NDArray[np.float64]) -> bool:
        inside = (points >= 0) & (points < [self._width, self._height])
        return bool(inside.all(axis=1).mean() > 0.8)

    def _predicted(self, end: _End) -> NDArray[np.float64]:
        """The region for the next step: the last points, moved on as the hand moved last."""
        last = end.track.seen[end.frame].points
        moved = np.zeros(2)
        earlier = sorted(frame for frame in end.track.seen if (end.frame - frame) * end.direction > 0)
        if earlier:
            before = earlier[-1] if end.direction > 0 else earlier[0]
            span = self._seconds[end.frame] - self._seconds[before]
            ahead = self._seconds[end.frame + end.direction * end.step] - self._seconds[end.frame]
            moved = (last - end.track.seen[before].points).mean(axis=0) * (ahead / span)
            longest = 0.5 * hand_size(last)
            moved *= min(1.0, longest / max(float(np.linalg.norm(moved)), 1e-9))
        return _region(last + moved)

    def _measure(self, asked: list[tuple[int, NDArray[np.float64]]]) -> list[Sighting]:
        out: list[Sighting] = []
        for some in _batches(asked, self._nets.batch):
            crops = np.stack([hand_picture(self._frames.rgb(frame), region) for frame, region in some])
            out += _sightings(read_hands(self._nets.hands(crops), np.stack([region for _, region in some])))
        return out

    def _fill_steps(self) -> None:
        """Give every frame between a track's first and last a sighting."""
        while True:
            asked = [(track, frame) for track in self._tracks for frame in self._bends(track)]
            if not asked:
                break
            regions = [(frame, _region(self._between(track, frame).points)) for track, frame in asked]
            for (track, frame), found in zip(asked, self._measure(regions), strict=True):
                track.seen[frame] = found if found.presence >= self._min_presence else self._between(track, frame)
        for track in self._tracks:
            missing = [frame for frame in range(min(track.seen), max(track.seen) + 1) if frame not in track.seen]
            track.seen.update({frame: self._between(track, frame) for frame in missing})

    def _bends(self, track: Track) -> list[int]:
        """The middle frame of each step during which the motion is not even."""
        known = sorted(track.seen)
        out = []
        for at in range(len(known) - 1):
            first, last = known[at], known[at + 1]
            if last - first < 2:
                continue
            size = float(hand_size(track.seen[first].points))
            middle = (first + last) // 2
            if np.abs(self._bend(track, known, at, middle)).mean() > CURVED * size:
                out.append(middle)
        return out

    def _bend(self, track: Track, known: list[int], at: int, frame: int) -> NDArray[np.float64]:
        """(21, 2): how far a cubic through four sightings departs from the straight line at a frame between two."""
        around = known[max(at - 1, 0) : at + 3]
        first, last = known[at], known[at + 1]
        share = (self._seconds[frame] - self._seconds[first]) / (self._seconds[last] - self._seconds[first])
        straight = (1 - share) * track.seen[first].points + share * track.seen[last].points
        weights = _lagrange(self._seconds[around], self._seconds[frame])
        return np.einsum("i,ikj->kj", weights, np.stack([track.seen[each].points for each in around])) - straight

    def _between(self, track: Track, frame: int) -> Sighting:
        known = sorted(track.seen)
        at = int(np.searchsorted(known, frame)) - 1
        first, last = track.seen[known[at]], track.seen[known[at + 1]]
        span = self._seconds[known[at + 1]] - self._seconds[known[at]]
        share = float((self._seconds[frame] - self._seconds[known[at]]) / span)
        bend = self._bend(track, known, at, frame)
        longest = 2 * CURVED * hand_size(first.points)
        bend = bend * np.minimum(1, longest / np.maximum(np.linalg.norm(bend, axis=1, keepdims=True), 1e-9))
        return Sighting(
            (1 - share) * first.points + share * last.points + bend,
            (1 - share) * first.metric_m + share * last.metric_m,
            min(first.presence, last.presence),
            (1 - share) * first.right + share * last.right,
            measured=False,
        )


def _region(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return hand_regions(points[None])[0]


def _sightings(reading: HandReading) -> list[Sighting]:
    columns = (reading.points, reading.metric_m, reading.presence.tolist(), reading.right.tolist())
    return [Sighting(*row) for row in zip(*columns, strict=True)]


def _batches(items: list, size: int) -> list[list]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _lagrange(known: NDArray[np.float64], at: float) -> NDArray[np.float64]:
    """Weights of the polynomial through the known places."""
    weights = np.ones(len(known))
    for i in range(len(known)):
        for j in range(len(known)):
            if i != j:
                weights[i] *= (at - known[j]) / (known[i] - known[j])
    return weights

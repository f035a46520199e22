"""Finding and following hands through a clip that can be read both ways.

Palms are looked for in few frames. Each hand found is followed forwards and backwards from there, every second frame
or so, until the network says that there is no hand, or until another track already covers it. Where fewer than two
hands are known, more frames are looked at, denser around places where a track was lost. Frames that were passed over
are interpolated where the motion around them is even, and measured where it is not. All that can be asked at one time
is asked in one batch, so that the order of questions, and with it the result, is the same on every device.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
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
from handloom.models.hands_flow import carry
from handloom.models.protocols import ClipFrames
from handloom.schemas.values import NUM_HANDS

FIRST_LOOK_S = 4.0  # palms are looked for this often at first (each hand found there costs four measurements),
LOOK_S = 0.25  # then in every frame with fewer than two hands that lies farther than this from all looked at,
LOOK_NEAR_LOSS_S = 0.1  # or this far, if a track was lost nearby:
NEAR_LOSS_S = 0.4
PALMS_PER_LOOK = 4
PALM_POINTS = (0, 5, 9, 13, 17, 1, 2)  # the palm detector's seven points among a hand's keypoints
SAME_PALM = 0.2  # a palm nearer to a known hand, in hand sizes, is that hand's
SAME_HAND = 0.15  # a track expected nearer to another's hand is taken for the same
FAINT = 0.1  # a palm whose hand scores this much is measured again
KEEP = 0.6  # a hand that is followed may score this much of the threshold for new ones
STEP_S = 0.134  # longest step of a track
CURVED = 0.015  # motion is even if its bend in a step is less than this share of the hand's size


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
        for track in self._tracks:
            self._trim(track)
        self._fill_steps()
        return self._tracks

    def _trim(self, track: Track) -> None:
        """Drop weak sightings at both ends: they count only between strong ones."""
        strong = [frame for frame, each in track.seen.items() if each.presence >= self._min_presence]
        first, last = min(strong), max(strong)
        track.seen = {frame: each for frame, each in track.seen.items() if first <= frame <= last}

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
                fresh = ~self._is_known(frame, palms.points)
                asked += [(frame, region) for region in palm_regions(palms)[fresh][:PALMS_PER_LOOK]]
        found = [(frame, each) for (frame, _), each in zip(asked, self._measure(asked), strict=True)]
        # The palm's region is a rough one: measure again where the hand turned out to be, and believe that.
        again = self._measure([(frame, _region(each.points)) for frame, each in found if each.presence >= FAINT])
        frames = [frame for frame, each in found if each.presence >= FAINT]
        ends: list[_End] = []
        for frame, each in sorted(zip(frames, again, strict=True), key=lambda item: -item[1].presence):
            others = self._in_frame(frame)
            if each.presence >= self._min_presence and not any(is_duplicate(each.points, other) for other in others):
                self._tracks.append(Track({frame: each}))
                ends += [_End(self._tracks[-1], frame, direction, self._step) for direction in (1, -1)]
        return ends

    def _is_known(self, frame: int, palms: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) whether each palm, (n, 7, 2), is one of a hand that a track already has in this frame."""
        known = np.zeros(len(palms), bool)
        for points in self._in_frame(frame):
            apart = np.linalg.norm(palms - points[PALM_POINTS, :], axis=-1).mean(axis=1)
            known |= apart < SAME_PALM * hand_size(points)
        return known

    def _follow(self, ends: list[_End]) -> None:
        while ends:
            ends = [end for end in map(self._shortened, ends) if end is not None and not self._meets(end)]
            asked = [(end.frame + end.direction * end.step, _region(self._predicted(end))) for end in ends]
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
        if found.presence < KEEP * self._min_presence:
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

    def _meets(self, end: _End) -> bool:
        """Whether the next step would lead onto a hand that another track already has there."""
        others = self._in_frame(end.frame + end.direction * end.step, but=end.track)
        if not others:
            return False
        expected = self._predicted(end)
        apart = np.linalg.norm(np.stack(others) - expected, axis=-1).mean(axis=-1)
        return bool((apart < SAME_HAND * hand_size(expected)).any())

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
        """(21, 2) for the next step: the last points, moved on as the hand moved last."""
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
        return last + moved

    def _measure(self, asked: list[tuple[int, NDArray[np.float64]]]) -> list[Sighting]:
        out: list[Sighting] = []
        for some in _batches(asked, self._nets.batch):
            crops = np.stack([hand_picture(self._frames.rgb(frame), region) for frame, region in some])
            out += _sightings(read_hands(self._nets.hands(crops), np.stack([region for _, region in some])))
        return out

    def _fill_steps(self) -> None:
        """Give every frame between a track's first and last a sighting: carried there by optical flow, or measured."""
        while True:
            asked = [(track, frame) for track in self._tracks for frame in self._middles(track)]
            if not asked:
                return
            guesses = [self._between(track, frame) for track, frame in asked]
            carried = [self._carried(*question, guess) for question, guess in zip(asked, guesses, strict=True)]
            open_ = [at for at, sighting in enumerate(carried) if sighting is None]
            measured = self._measure([(asked[at][1], _region(guesses[at].points)) for at in open_])
            for at, found in zip(open_, measured, strict=True):
                carried[at] = found if found.presence >= KEEP * self._min_presence else guesses[at]
            for (track, frame), sighting in zip(asked, carried, strict=True):
                track.seen[frame] = sighting

    def _middles(self, track: Track) -> list[int]:
        """The middle frame of each step of a track."""
        known = sorted(track.seen)
        return [(first + last) // 2 for first, last in itertools.pairwise(known) if last - first > 1]

    def _carried(self, track: Track, frame: int, guess: Sighting) -> Sighting | None:
        known = sorted(track.seen)
        at = int(np.searchsorted(known, frame))
        sides = [(self._frames.rgb(each), track.seen[each].points) for each in (known[at - 1], known[at])]
        points = carry(*sides, self._frames.rgb(frame), guess.points)
        if points is not None:
            return replace(guess, points=points)
        return guess if self._is_even(track, known, at - 1, frame) else None

    def _is_even(self, track: Track, known: list[int], at: int, frame: int) -> bool:
        size = float(hand_size(track.seen[known[at]].points))
        return bool(np.abs(self._bend(track, known, at, frame)).mean() < CURVED * size)

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

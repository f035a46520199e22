"""Finding and following hands through a clip that can be read both ways.

Palms are looked for in few frames. Each hand found is followed forwards and backwards from there, in steps of two
frames or so, until the network says that there is no hand, or until another track already covers it. Where fewer than
two hands are known, more frames are looked at, denser around places where a track was lost. The frames that were passed
over come last (`hands_between`). All that can be asked at one time is asked in one batch, so that the order of
questions, and with it the result, is the same on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.tracklets import hand_size, is_duplicate
from handloom.models.hands.between import between, fill_steps
from handloom.models.hands.crops import palm_regions
from handloom.models.hands.reader import HandDetection, HandReader, Nets, Track
from handloom.models.protocols import ClipFrames
from handloom.schemas.values import NUM_HANDS

# All chosen by hand, not fitted, on two EgoDex clips and rendered scenes, and tried on three other EgoDex clips: with
# STILL at 0.12 a hand was lost there early (coverage 0.995 to 0.966).
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
WEAK, STRONGER = 0.8, 0.08  # a sighting below this is measured again if a neighbour is stronger by this
STILL = 0.08  # a hand that moved less than this share of its size in a step takes the next two at once
CAREFUL = 2  # steps that stay short once a longer one has failed
STEP_S = 0.134  # longest step of a track


@dataclass
class _End:
    """A track's end that is still being followed: from `frame` in `direction`, the next step of `step` frames.

    resting: the hand is expected where it was, not farther along its way; tried last. careful: how many more steps are
    kept short, after a longer one failed.
    """

    track: Track
    frame: int
    direction: int
    step: int
    resting: bool = False
    careful: int = 0

    def next(self) -> int:
        return self.frame + self.direction * self.step


class HandSearch:
    """Searches one clip. `min_palm`, `min_presence`: MediaPipe's two thresholds. reader: knows what was asked."""

    def __init__(self, nets: Nets, frames: ClipFrames, min_palm: float, min_presence: float) -> None:
        self.reader = HandReader(nets, frames)
        self._min_palm, self._min_presence = min_palm, min_presence
        self._tracks: list[Track] = []
        self._looked: list[int] = []
        self._tried: set[tuple[int, int, int, float]] = set()
        self._seconds = self.reader.seconds
        self._step = max(1, int(STEP_S / max(_usual_s(self._seconds), 1e-3) + 0.1))

    def run(self) -> list[Track]:
        """All tracks, without gaps; two of them may have found one hand in one frame (`tracklets.keep_hands`)."""
        looks = self._first_looks()
        while looks:
            self._follow(self._look(looks))
            self._polish()
            for track in self._tracks:
                self._trim(track)
            self._looked += looks
            looks = self._next_looks()
        fill_steps(self.reader, self._tracks, KEEP * self._min_presence)
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
            count[track.first : track.last + 1] += 1
        return count

    def _look(self, looks: list[int]) -> list[_End]:
        """Palms of these frames that no track covers, as ends of new tracks, two each."""
        asked: list[tuple[int, NDArray[np.float64]]] = []
        for frame, palms in zip(looks, self.reader.palms(looks, self._min_palm), strict=True):
            fresh = ~self._is_known(frame, palms.points)
            asked += [(frame, region) for region in palm_regions(palms)[fresh][:PALMS_PER_LOOK]]
        found = zip(asked, self.reader.regions(asked), strict=True)
        # The palm's region is a rough one: measure again where the hand turned out to be, and believe that.
        rough = [(frame, each.points) for (frame, _), each in found if each.presence >= FAINT]
        hands = [(frame, each) for (frame, _), each in zip(rough, self.reader.hands(rough), strict=True)]
        ends: list[_End] = []
        for frame, each in sorted(hands, key=lambda item: -item[1].presence):
            others = self._in_frame(frame)
            if each.presence >= self._min_presence and not any(is_duplicate(each.points, other) for other in others):
                self._tracks.append(Track(frame, each))
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
            found = self.reader.hands([(end.next(), self._predicted(end)) for end in ends])
            ends = [end for end, each in zip(ends, found, strict=True) if self._goes_on(end, each)]

    def _shortened(self, end: _End) -> _End | None:
        """With a step that stays inside the clip; None at its border."""
        room = len(self._seconds) - 1 - end.frame if end.direction > 0 else end.frame
        end.step = min(end.step, room)
        return end if end.step else None

    def _goes_on(self, end: _End, found: HandDetection) -> bool:
        frame = end.next()
        if found.presence < KEEP * self._min_presence:
            if end.step > 1:
                end.step, end.careful = end.step // 2, CAREFUL
                return True
            if not end.resting:
                end.resting = True
                return True
            if self._is_inside(end.track.seen[end.frame].points):
                end.track.lost.append(end.frame)
            return False
        if any(is_duplicate(found.points, points) for points in self._in_frame(frame, but=end.track)):
            return False
        before = end.track.seen[end.frame].points
        moved = np.linalg.norm(found.points - before, axis=1).mean() / hand_size(found.points)
        still = moved < STILL * abs(frame - end.frame) / self._step
        end.track.add(frame, found)
        end.frame, end.resting = frame, False
        if end.careful:
            end.careful -= 1
        else:
            end.step = self._step * (2 if still else 1)
        return True

    def _meets(self, end: _End) -> bool:
        """Whether the next step would lead onto a hand that another track already has there."""
        others = self._in_frame(end.next(), but=end.track)
        if not others:
            return False
        expected = self._predicted(end)
        apart = np.linalg.norm(np.stack(others) - expected, axis=-1).mean(axis=-1)
        return bool((apart < SAME_HAND * hand_size(expected)).any())

    def _in_frame(self, frame: int, but: Track | None = None) -> list[NDArray[np.float64]]:
        """Points of the hands that are known in a frame, those passed over interpolated."""
        out = []
        for track in self._tracks:
            if track is not but and track.first <= frame <= track.last:
                known = track.seen.get(frame)
                out.append((known or between(track, frame, self._seconds)).points)
        return out

    def _is_inside(self, points: NDArray[np.float64]) -> bool:
        inside = (points >= 0) & (points < self.reader.size)
        return bool(inside.all(axis=1).mean() > 0.8)

    def _predicted(self, end: _End) -> NDArray[np.float64]:
        """(21, 2) for the next step: the last points, moved on as the hand moved last."""
        last = end.track.seen[end.frame].points
        moved = np.zeros(2)
        earlier = sorted(frame for frame in end.track.seen if (end.frame - frame) * end.direction > 0)
        if earlier and not end.resting:
            before = earlier[-1] if end.direction > 0 else earlier[0]
            span = self._seconds[end.frame] - self._seconds[before]
            ahead = self._seconds[end.next()] - self._seconds[end.frame]
            moved = (last - end.track.seen[before].points).mean(axis=0) * (ahead / span)
            longest = 0.5 * hand_size(last)
            moved *= min(1.0, longest / max(float(np.linalg.norm(moved)), 1e-9))
        return last + moved

    def _polish(self) -> None:
        """Measure weak sightings again from the region of a stronger neighbour, as long as that helps.

        The network has stable wrong answers: a track that starts from a poor region stays poor for some frames.
        """
        while True:
            asked = [each for track in self._tracks for each in self._weak(track)]
            keys = [(self._tracks.index(track), frame, at, track.seen[at].presence) for track, frame, at in asked]
            asked = [each for each, key in zip(asked, keys, strict=True) if key not in self._tried]
            if not asked:
                return
            self._tried.update(keys)
            shapes = [(frame, _shape_of(track.seen[other], track.seen[frame])) for track, frame, other in asked]
            for (track, frame, _), found in zip(asked, self.reader.hands(shapes), strict=True):
                if found.presence > track.seen[frame].presence:
                    track.seen[frame] = found

    def _weak(self, track: Track) -> list[tuple[Track, int, int]]:
        """Weak sightings, each with the frame of its stronger neighbour."""
        known = sorted(track.seen)
        out = []
        for at, frame in enumerate(known):
            presence = track.seen[frame].presence
            near = [known[other] for other in (at - 1, at + 1) if 0 <= other < len(known)]
            if near and presence < WEAK:
                best = max(near, key=lambda other: track.seen[other].presence)
                if track.seen[best].presence > presence + STRONGER:
                    out.append((track, frame, best))
        return out

    def _trim(self, track: Track) -> None:
        """Drop weak sightings at both ends: they count only between strong ones."""
        strong = [frame for frame, each in track.seen.items() if each.presence >= self._min_presence]
        track.cut(min(strong), max(strong))


def _usual_s(seconds: NDArray[np.float64]) -> float:
    """From frame to frame: the mean, but of gaps.

    Of 25 frames a second every second one is left out, and then one less: 0.08, 0.08, 0.04 s. By their median steps
    were of one frame, and the network was asked twice as often as at 30 frames a second.
    """
    steps = np.diff(seconds)
    return float(steps[steps <= 2 * np.median(steps)].mean()) if len(steps) else 1.0


def _shape_of(other: HandDetection, own: HandDetection) -> NDArray[np.float64]:
    """(21, 2): the other sighting's points at the place of one's own."""
    return other.points + (own.points - other.points).mean(axis=0)

"""Find hands in a clip and follow them forwards and backwards.

Palms are searched in few frames. Each hand found is followed both ways from there, in steps of about two frames, until
the network finds no hand, not even in regions around the expected one and some frames later, or another track already
has it. Where fewer than two hands are known, more frames are
searched, more densely around places where a track was lost. The skipped frames come last (`skipped_frames`). Everything
that can be measured at one time is one batch, so that the order, and with it the result, is the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.tracklets import hand_size, is_duplicate
from handloom.models.hands.crops import hand_regions, palm_regions
from handloom.models.hands.detector import HandDetection, HandDetector, HandNetworks, HandTrack
from handloom.models.hands.skipped_frames import fill_skipped, interpolate
from handloom.models.protocols import ClipFrames
from handloom.schemas.hand_topology import PALM_DETECTION
from handloom.schemas.values import NUM_HANDS

# All chosen by hand, not fitted, on two EgoDex clips and rendered scenes, and tried on three other EgoDex clips: with
# RESTING at 0.12 a hand was lost there early (coverage 0.995 to 0.966).
FIRST_SEARCH_S = 4.0  # at first palms are searched this often (each hand found there costs four measurements),
SEARCH_S = 0.25  # then in every frame with fewer than two hands that is farther than this from all searched,
SEARCH_NEAR_LOSS_S = 0.1  # or farther than this within
NEAR_LOSS_S = 0.4  # of a frame where a track was lost
MAX_PALMS = 4  # of a frame
SAME_PALM = 0.2  # hand sizes; a palm nearer to a known hand belongs to it
SAME_HAND = 0.15  # hand sizes; a track expected nearer to another track's hand follows the same one
REMEASURE_PRESENCE = 0.1  # a palm's hand of at least this presence is measured again
FOLLOW_SHARE = 0.6  # a followed hand needs this share of the presence of a new one
WEAK, STRONGER = 0.8, 0.08  # a detection of less presence is measured again if a neighbour has so much more
RESTING = 0.08  # a hand that moved less than this share of its size in a step takes a step twice as long next
NUM_SHORT_STEPS = 2  # after a step that failed
STEP_S = 0.134  # usual step of a track
# A hand that was lost is searched in regions around the expected one, so many frames ahead, one after another.
REACH = range(1, 5)
AROUND_PALM_PRESENCE = 0.6  # a hand that is found around a palm, and not at it, needs this presence


@dataclass
class _TrackEnd:
    """A track's end that is being followed: from `frame` in `direction`, by a next step of `step` frames.

    resting: the hand is expected where it was, not where its motion leads; tried last. short_steps: how many more steps
    stay short, after a longer one failed. reach: of a lost hand, how many entries of `REACH` were tried, and one.
    """

    track: HandTrack
    frame: int
    direction: int
    step: int
    resting: bool = False
    short_steps: int = 0
    reach: int = 0

    def next(self) -> int:
        return self.frame + self.direction * self.step


class HandTracker:
    """Tracks the hands of one clip. min_palm, min_presence: MediaPipe's thresholds of palm score and hand presence.
    others: tells the numbers of the tracks that are other people's hands; the person's own are then searched where
    fewer than two besides them are known.
    """

    def __init__(
        self,
        networks: HandNetworks,
        frames: ClipFrames,
        min_palm: float,
        min_presence: float,
        others: Callable[[list[HandTrack]], Collection[int]] = lambda tracks: (),
    ) -> None:
        self._others = others
        self.detector = HandDetector(networks, frames)
        self._min_palm, self._min_presence = min_palm, min_presence
        self._tracks: list[HandTrack] = []
        self._searched: list[int] = []
        self._tried: set[tuple[int, int, int, float]] = set()
        self._frame_s = self.detector.frame_s
        self._step = max(1, int(STEP_S / max(_typical_step_s(self._frame_s), 1e-3) + 0.1))

    def run(self) -> list[HandTrack]:
        """All tracks, without gaps. Two of them may have the same hand in a frame: `tracklets.keep_hands` decides."""
        frames = self._first_frames()
        while frames:
            self._follow(self._search(frames))
            self._remeasure_weak()
            for track in self._tracks:
                self._trim(track)
            self._searched += frames
            frames = self._next_frames()
        fill_skipped(self.detector, self._tracks, FOLLOW_SHARE * self._min_presence)
        return self._tracks

    def _first_frames(self) -> list[int]:
        start, end = self._frame_s[0], self._frame_s[-1]
        num = max(1, round((end - start) / FIRST_SEARCH_S))
        at = start + (np.arange(num) + 0.5) / num * (end - start)
        return sorted(set(np.abs(self._frame_s[None] - at[:, None]).argmin(axis=1).tolist()))

    def _next_frames(self) -> list[int]:
        """The middle of every stretch of frames that should be searched."""
        count = self._num_hands()
        known = np.union1d(np.array(self._searched, int), np.flatnonzero(count >= NUM_HANDS))
        gap = np.abs(self._frame_s[:, None] - self._frame_s[known][None]).min(axis=1)
        allowed = np.full(len(count), SEARCH_S)
        for frame in (frame for track in self._tracks for frame in track.lost):
            allowed[np.abs(self._frame_s - self._frame_s[frame]) < NEAR_LOSS_S] = SEARCH_NEAR_LOSS_S
        wanted = np.flatnonzero((count < NUM_HANDS) & (gap > allowed))
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1) if len(wanted) else []
        return [int(run[len(run) // 2]) for run in runs]

    def _num_hands(self) -> NDArray[np.int64]:
        """(T,) hands of the person known in each frame, skipped frames included."""
        count = np.zeros(len(self._frame_s), np.int64)
        others = self._others(self._tracks)
        for number, track in enumerate(self._tracks):
            count[track.first : track.last + 1] += number not in others
        return count

    def _search(self, frames: list[int]) -> list[_TrackEnd]:
        """Start tracks at the palms in these frames that no track has; returns two ends each."""
        queries: list[tuple[int, NDArray[np.float64]]] = []
        for frame, palms in zip(frames, self.detector.palms(frames, self._min_palm), strict=True):
            fresh = ~self._is_known(frame, palms.points)
            queries += [(frame, region) for region in palm_regions(palms)[fresh][:MAX_PALMS]]
        found = zip(queries, self.detector.regions(queries), strict=True)
        # A palm gives a rough region: the hand found in it gives a better one, in which it is measured again.
        rough = [(frame, each.points) for (frame, _), each in found if each.presence >= REMEASURE_PRESENCE]
        hands = [(frame, each) for (frame, _), each in zip(rough, self.detector.hands(rough), strict=True)]
        hands += self._around_palms(queries, hands)
        ends: list[_TrackEnd] = []
        for frame, each in sorted(hands, key=lambda item: -item[1].presence):
            others = self._hands_in(frame)
            if each.presence >= self._min_presence and not any(is_duplicate(each.points, other) for other in others):
                self._tracks.append(HandTrack(frame, each))
                ends += [_TrackEnd(self._tracks[-1], frame, direction, self._step) for direction in (1, -1)]
        return ends

    def _around_palms(
        self, queries: list[tuple[int, NDArray[np.float64]]], hands: list[tuple[int, HandDetection]]
    ) -> list[tuple[int, HandDetection]]:
        """Hands around the palms, (frame, (4,) region) each, at which no sure hand is among `hands`."""
        sure = [(frame, each.points) for frame, each in hands if each.presence >= self._min_presence]
        left = [
            (frame, region)
            for frame, region in queries
            if not any(
                at == frame and np.linalg.norm(points.mean(axis=0) - region[:2]) < region[2] / 4 for at, points in sure
            )
        ]
        found = zip(left, self.detector.around(left), strict=True)
        return [(frame, each) for (frame, _), each in found if each.presence >= AROUND_PALM_PRESENCE]

    def _is_known(self, frame: int, palms: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) whether each palm, (n, 7, 2), belongs to a hand that a track already has in this frame."""
        known = np.zeros(len(palms), bool)
        for points in self._hands_in(frame):
            apart = np.linalg.norm(palms - points[PALM_DETECTION, :], axis=-1).mean(axis=1)
            known |= apart < SAME_PALM * hand_size(points)
        return known

    def _follow(self, ends: list[_TrackEnd]) -> None:
        while ends:
            ends = [end for end in map(self._clamped, ends) if end is not None and not self._meets_other_track(end)]
            places = [(end.next(), hand_regions(self._predict(end)[None])[0]) for end in ends]
            usual = [at for at, end in enumerate(ends) if not end.reach]
            lost = [at for at, end in enumerate(ends) if end.reach]
            found = dict(zip(usual, self.detector.regions([places[at] for at in usual]), strict=True))
            found |= zip(lost, self.detector.around([places[at] for at in lost]), strict=True)
            ends = [end for at, end in enumerate(ends) if self._advance(end, found[at])]

    def _clamped(self, end: _TrackEnd) -> _TrackEnd | None:
        """With its step shortened to stay inside the clip; None at the clip's border."""
        left = len(self._frame_s) - 1 - end.frame if end.direction > 0 else end.frame
        end.step = min(end.step, left)
        return end if end.step else None

    def _advance(self, end: _TrackEnd, found: HandDetection) -> bool:
        frame = end.next()
        if found.presence < (1.0 if end.reach else FOLLOW_SHARE) * self._min_presence:
            return self._retry(end)
        if any(is_duplicate(found.points, points) for points in self._hands_in(frame, except_track=end.track)):
            return False
        before = end.track.detections[end.frame].points
        moved = np.linalg.norm(found.points - before, axis=1).mean() / hand_size(found.points)
        still = moved < RESTING * abs(frame - end.frame) / self._step
        end.track.add(frame, found)
        end.frame, end.resting = frame, False
        if end.reach:
            end.reach, end.step, end.short_steps = 0, 1, NUM_SHORT_STEPS
        if end.short_steps:
            end.short_steps -= 1
        else:
            end.step = self._step * (2 if still else 1)
        return True

    def _retry(self, end: _TrackEnd) -> bool:
        """Choose the next try after a step on which no hand was found; whether there is one."""
        if not end.reach and end.step > 1:
            end.step, end.short_steps = end.step // 2, NUM_SHORT_STEPS
            return True
        if not end.reach and not end.resting:
            end.resting = True
            return True
        if not self._is_inside(end.track.detections[end.frame].points):
            return False
        if end.reach == len(REACH):
            end.track.lost.append(end.frame)
            return False
        end.step, end.resting = REACH[end.reach], False
        end.reach += 1
        return True

    def _meets_other_track(self, end: _TrackEnd) -> bool:
        """Whether the next step leads to a hand that another track already has."""
        others = self._hands_in(end.next(), except_track=end.track)
        if not others:
            return False
        expected = self._predict(end)
        apart = np.linalg.norm(np.stack(others) - expected, axis=-1).mean(axis=-1)
        return bool((apart < SAME_HAND * hand_size(expected)).any())

    def _hands_in(self, frame: int, except_track: HandTrack | None = None) -> list[NDArray[np.float64]]:
        """Points of the hands that are known in a frame, interpolated where a track skipped it."""
        out = []
        for track in self._tracks:
            if track is not except_track and track.first <= frame <= track.last:
                known = track.detections.get(frame)
                out.append((known or interpolate(track, frame, self._frame_s)).points)
        return out

    def _is_inside(self, points: NDArray[np.float64]) -> bool:
        inside = (points >= 0) & (points < self.detector.size)
        return bool(inside.all(axis=1).mean() > 0.8)

    def _predict(self, end: _TrackEnd) -> NDArray[np.float64]:
        """(21, 2) expected after the next step: the last points, moved with the hand's last velocity."""
        last = end.track.detections[end.frame].points
        moved = np.zeros(2)
        earlier = sorted(frame for frame in end.track.detections if (end.frame - frame) * end.direction > 0)
        if earlier and not end.resting:
            before = earlier[-1] if end.direction > 0 else earlier[0]
            span = self._frame_s[end.frame] - self._frame_s[before]
            ahead = self._frame_s[end.next()] - self._frame_s[end.frame]
            moved = (last - end.track.detections[before].points).mean(axis=0) * (ahead / span)
            longest = 0.5 * hand_size(last)
            moved *= min(1.0, longest / max(float(np.linalg.norm(moved)), 1e-9))
        return last + moved

    def _remeasure_weak(self) -> None:
        """Measure weak detections again with the pose of a stronger neighbour, as long as that helps.

        The network's errors can be stable: a track that starts from a poor region stays poor for some frames.
        """
        while True:
            queries = [each for track in self._tracks for each in self._weak(track)]
            keys = [
                (self._tracks.index(track), frame, at, track.detections[at].presence) for track, frame, at in queries
            ]
            queries = [each for each, key in zip(queries, keys, strict=True) if key not in self._tried]
            if not queries:
                return
            self._tried.update(keys)
            shapes = [
                (frame, _placed_at(track.detections[other], track.detections[frame])) for track, frame, other in queries
            ]
            for (track, frame, _), found in zip(queries, self.detector.hands(shapes), strict=True):
                if found.presence > track.detections[frame].presence:
                    track.detections[frame] = found

    def _weak(self, track: HandTrack) -> list[tuple[HandTrack, int, int]]:
        """Weak detections, each with the frame of its stronger neighbour."""
        known = sorted(track.detections)
        out = []
        for at, frame in enumerate(known):
            presence = track.detections[frame].presence
            near = [known[other] for other in (at - 1, at + 1) if 0 <= other < len(known)]
            if near and presence < WEAK:
                best = max(near, key=lambda other: track.detections[other].presence)
                if track.detections[best].presence > presence + STRONGER:
                    out.append((track, frame, best))
        return out

    def _trim(self, track: HandTrack) -> None:
        """Drop weak detections at both ends: they count only between strong ones."""
        strong = [frame for frame, each in track.detections.items() if each.presence >= self._min_presence]
        track.cut(min(strong), max(strong))


def _typical_step_s(frame_s: NDArray[np.float64]) -> float:
    """Seconds from frame to frame: the mean without gaps.

    Of 25 frames a second every second one is skipped, but sometimes none: 0.08, 0.08, 0.04 s. With their median, steps
    were one frame long, and the network ran twice as often as at 30 frames a second.
    """
    steps = np.diff(frame_s)
    return float(steps[steps <= 2 * np.median(steps)].mean()) if len(steps) else 1.0


def _placed_at(other: HandDetection, own: HandDetection) -> NDArray[np.float64]:
    """(21, 2): the other detection's points, moved to the centre of this one."""
    return other.points + (own.points - other.points).mean(axis=0)

"""The hand networks over one clip: palms of a frame, hands of regions, in pixels of the working picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.models.hands.crops import (
    HandReading,
    Palms,
    hand_picture,
    hand_regions,
    palm_picture,
    read_hands,
    read_palms,
)
from handloom.models.protocols import ClipFrames

ROUND_TURN = 64  # regions are turned in steps of one over this, radians


class Nets(Protocol):
    """batch: how many pictures a call takes at best. Pictures and outputs as in `hands_litert.LiteRtNets`."""

    batch: int

    def palms(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]: ...
    def hands(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]: ...


@dataclass(frozen=True)
class HandDetection:
    """One hand in one frame. points: (21, 2). metric_m: (21, 3). presence, right: as in `HandReading`."""

    points: NDArray[np.float64]
    metric_m: NDArray[np.float64]
    presence: float
    right: float


class Track:
    """One hand, by frame. first, last: its ends. lost: frames at which it ended though the hand was well inside the
    picture.
    """

    def __init__(self, frame: int, sighting: HandDetection) -> None:
        self.seen: dict[int, HandDetection] = {frame: sighting}
        self.first = self.last = frame
        self.lost: list[int] = []

    def add(self, frame: int, sighting: HandDetection) -> None:
        self.seen[frame] = sighting
        self.first, self.last = min(self.first, frame), max(self.last, frame)

    def cut(self, first: int, last: int) -> None:
        """Keep the frames from first to last, both of which are there."""
        self.seen = {frame: each for frame, each in self.seen.items() if first <= frame <= last}
        self.first, self.last = first, last


class HandReader:
    """Asks the networks, in batches of their size, about no region twice. seconds: (T,). size: (width, height)."""

    def __init__(self, nets: Nets, frames: ClipFrames) -> None:
        self._nets, self.frames = nets, frames
        self._known: dict[tuple[int, tuple[float, ...]], HandDetection] = {}
        self.seconds = np.asarray(frames.frame_s, np.float64)
        self.size = np.array(frames.rgb(0).shape[1::-1])

    def palms(self, looks: list[int], min_score: float) -> list[Palms]:
        """The palms of each frame."""
        out: list[Palms] = []
        for some in _batches(looks, self._nets.batch):
            outputs = self._nets.palms(np.stack([palm_picture(self.frames.rgb(frame)) for frame in some]))
            out += [read_palms(boxes, raw, *self.size, min_score) for boxes, raw in zip(*outputs, strict=True)]
        return out

    def regions(self, asked: list[tuple[int, NDArray[np.float64]]]) -> list[HandDetection]:
        """What is in these regions, (4,) each, of these frames."""
        keys = [(frame, tuple(_rounded(region).tolist())) for frame, region in asked]
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        for some in _batches(new, self._nets.batch):
            crops = np.stack([hand_picture(self.frames.rgb(frame), np.array(region)) for frame, region in some])
            found = read_hands(self._nets.hands(crops), np.array([region for _, region in some]))
            self._known.update(zip(some, _sightings(found), strict=True))
        return [self._known[key] for key in keys]

    def hands(self, asked: list[tuple[int, NDArray[np.float64]]]) -> list[HandDetection]:
        """The hands that are expected at these points, (21, 2) each, of these frames."""
        return self.regions([(frame, hand_regions(points[None])[0]) for frame, points in asked])


def _rounded(region: NDArray[np.float64]) -> NDArray[np.float64]:
    """To whole pixels and about a degree. Where a hand is followed, each region comes from the last answer; devices
    differ in the fifth digit, and would grow apart by many pixels if that reached the next crop.
    """
    return np.append(np.round(region[:3]), np.round(region[3] * ROUND_TURN) / ROUND_TURN)


def _sightings(reading: HandReading) -> list[HandDetection]:
    columns = (reading.points, reading.metric_m, reading.presence.tolist(), reading.right.tolist())
    return [HandDetection(*row) for row in zip(*columns, strict=True)]


def _batches(items: list, size: int) -> list[list]:
    return [items[at : at + size] for at in range(0, len(items), size)]

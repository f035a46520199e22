"""The hand networks on one clip: palms of whole frames, hands of regions, in pixels of the working image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.models.hands.crops import (
    HandReading,
    Palms,
    hand_image,
    hand_regions,
    palm_image,
    read_hands,
    read_palms,
)
from handloom.models.protocols import ClipFrames

# Regions around an expected one: shifts along its axes and its size, both in its sides, and turns in radians.
AROUND = (
    (0.0, 0.0, 1.0, 0.0),
    *((0.0, 0.0, size, 0.0) for size in (0.8, 1.25)),
    *((0.0, 0.0, 1.0, turn) for turn in (-0.8, -0.4, 0.4, 0.8)),
    *((x, y, 1.0, 0.0) for x, y in ((-0.2, 0.0), (0.2, 0.0), (0.0, -0.2), (0.0, 0.2))),
)
TURNS_PER_RAD = 64  # the rotation of a region is rounded to steps of one over this


class HandNetworks(Protocol):
    """batch: the best number of images per call. Images and outputs are those of `litert.LiteRtHandNetworks`."""

    batch: int

    def palms(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]: ...
    def hands(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]: ...


@dataclass(frozen=True)
class HandDetection:
    """One hand in one frame. points: (21, 2). metric_m: (21, 3). presence, right: as in `HandReading`."""

    points: NDArray[np.float64]
    metric_m: NDArray[np.float64]
    presence: float
    right: float


class HandTrack:
    """One hand over a stretch of frames.

    detections: by frame. first, last: the first and the last of these frames. lost: those of its ends at which the hand
    was well inside the image.
    """

    def __init__(self, frame: int, detection: HandDetection) -> None:
        self.detections: dict[int, HandDetection] = {frame: detection}
        self.first = self.last = frame
        self.lost: list[int] = []

    def add(self, frame: int, detection: HandDetection) -> None:
        self.detections[frame] = detection
        self.first, self.last = min(self.first, frame), max(self.last, frame)

    def cut(self, first: int, last: int) -> None:
        """Keep the frames from first to last; both have a detection."""
        self.detections = {frame: each for frame, each in self.detections.items() if first <= frame <= last}
        self.first, self.last = first, last


class HandDetector:
    """Runs the networks on a clip's frames in batches, on each region once.

    frame_s: (T,) times. size: (width, height) of the frames.
    """

    def __init__(self, networks: HandNetworks, frames: ClipFrames) -> None:
        self._networks, self.frames = networks, frames
        self._known: dict[tuple[int, tuple[float, ...]], HandDetection] = {}
        self.frame_s = np.asarray(frames.frame_s, np.float64)
        self.size = np.array(frames.rgb(0).shape[1::-1])

    def palms(self, frame_numbers: list[int], min_score: float) -> list[Palms]:
        """The palms in each of these frames."""
        out: list[Palms] = []
        for some in _batches(frame_numbers, self._networks.batch):
            outputs = self._networks.palms(np.stack([palm_image(self.frames.rgb(frame)) for frame in some]))
            out += [
                read_palms(boxes, raw, self.size[0], self.size[1], min_score)
                for boxes, raw in zip(*outputs, strict=True)
            ]
        return out

    def regions(self, queries: list[tuple[int, NDArray[np.float64]]]) -> list[HandDetection]:
        """What the hand network finds in each region, given as (frame, (4,) region)."""
        keys = [(frame, tuple(_rounded(region).tolist())) for frame, region in queries]
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        for some in _batches(new, self._networks.batch):
            crops = np.stack([hand_image(self.frames.rgb(frame), np.array(region)) for frame, region in some])
            found = read_hands(self._networks.hands(crops), np.array([region for _, region in some]))
            self._known.update(zip(some, _detections_of(found), strict=True))
        return [self._known[key] for key in keys]

    def hands(self, queries: list[tuple[int, NDArray[np.float64]]]) -> list[HandDetection]:
        """What the hand network finds around expected hands, given as (frame, (21, 2) points)."""
        return self.regions([(frame, hand_regions(points[None])[0]) for frame, points in queries])

    def around(
        self, queries: list[tuple[int, NDArray[np.float64]]], right: list[bool] | None = None
    ) -> list[HandDetection]:
        """The surest hand that the network finds in each region, given as (frame, (4,) region), or in regions a little
        beside it, turned, larger or smaller. A hand that has just closed around a thing is often missed where it is
        expected, and found there.

        right: for each query, whether a right hand is looked for: one of the other side is taken only if there is none.
        """
        sides: list[bool] | list[None] = [None] * len(queries) if right is None else right
        found = self.regions([(frame, each) for frame, region in queries for each in _around(region)])
        rough = [
            max(found[at * len(AROUND) : (at + 1) * len(AROUND)], key=partial(_worth, right=side))
            for at, side in enumerate(sides)
        ]
        again = self.hands([(frame, each.points) for (frame, _), each in zip(queries, rough, strict=True)])
        pairs = zip(again, rough, sides, strict=True)
        return [max(one, other, key=partial(_worth, right=side)) for one, other, side in pairs]


def _around(region: NDArray[np.float64]) -> NDArray[np.float64]:
    """(len(AROUND), 4)."""
    x, y, size, turn = np.array(AROUND).T
    cos, sin = np.cos(region[3]), np.sin(region[3])
    shift = np.stack([x * cos - y * sin, x * sin + y * cos], axis=1) * region[2]
    return np.column_stack([region[:2] + shift, region[2] * size, region[3] + turn])


def _worth(detection: HandDetection, right: bool | None) -> tuple[bool, float]:
    return right is None or (detection.right > 0.5) == right, detection.presence


def _rounded(region: NDArray[np.float64]) -> NDArray[np.float64]:
    """To whole pixels and about a degree. When a hand is followed, each region comes from the last output. Devices
    differ in its fifth digit, and would drift apart by many pixels if that reached the next crop.
    """
    return np.append(np.round(region[:3]), np.round(region[3] * TURNS_PER_RAD) / TURNS_PER_RAD)


def _detections_of(reading: HandReading) -> list[HandDetection]:
    columns = (reading.points, reading.metric_m, reading.presence.tolist(), reading.right.tolist())
    return [HandDetection(*row) for row in zip(*columns, strict=True)]


def _batches(items: list, size: int) -> list[list]:
    return [items[at : at + size] for at in range(0, len(items), size)]

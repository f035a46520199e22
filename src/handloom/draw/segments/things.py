"""The things that hands move: their points on the image, their poses and boxes in the world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

THING_COLORS = ((255, 60, 200), (0, 255, 160), (120, 120, 255), (255, 220, 0))
"""Of the first thing, the second, ...; then again."""
_OBJECT, _SCENE = "object_", "scene"


def draw_things(canvas: NDArray[np.uint8], row: dict[str, Any], index: int, scale: Floats) -> None:
    """Mark, on the image, the points of the things that hands come to or move in a frame, a colour a thing."""
    import cv2  # poses of things are read without it

    radius = max(2, round(min(canvas.shape[:2]) / 150))
    for color, tracks in marked_tracks(row, index):
        for n in tracks.tolist():
            x, y = np.round((row["track_points_px"][index, n].astype(float) + 0.5) * scale - 0.5).astype(int).tolist()
            cv2.circle(canvas, (x, y), radius, color, cv2.FILLED, cv2.LINE_AA)


def marked_tracks(row: dict[str, Any], index: int) -> Iterator[tuple[tuple[int, int, int], NDArray[np.int64]]]:
    """(colour, (n,) visible tracks) of each thing that a hand comes to or moves in a frame."""
    visible = row.get("track_visible")
    if row.get("track_points_px") is None or visible is None:
        return
    for one in row.get("segments") or ():
        tracks = np.asarray(one["object_tracks"] or (), np.int64)
        if one["start_frame"] <= index < one["end_frame"] and len(tracks):
            yield color_of(_acted(one)), tracks[visible[index, tracks]]


def color_of(thing: str) -> tuple[int, int, int]:
    """The colour of `object_1`, `object_2`, ..."""
    return THING_COLORS[(int(thing.removeprefix(_OBJECT)) - 1) % len(THING_COLORS)]


@dataclass(frozen=True)
class MovedThing:
    """name: `object_K`. box_m: (6,) least and largest x, y, z in its frame. poses: (T, 4, 4) world_from_object in
    metres, NaN unknown."""

    name: str
    box_m: Floats
    poses: Floats


def moved_things(row: dict[str, Any]) -> list[MovedThing]:
    """The things of a row with their poses over all of its frames: of a segment, as its trajectory says; a thing rests
    before, between and after them where its pose at their ends is known."""
    num = len(row["frame_s"])
    paths: dict[str, Floats] = {}
    boxes: dict[str, Floats] = {}
    spans: dict[str, list[tuple[int, int]]] = {}
    for one in row.get("segments") or ():
        name, master = one["slave"], one["master"]
        if not name.startswith(_OBJECT) or one["object_box_m"] is None:
            continue
        boxes[name] = np.asarray(one["object_box_m"], float)
        some = slice(one["start_frame"], one["end_frame"])
        path = np.asarray(one["trajectory"], float).reshape(-1, 4, 4)
        if master != _SCENE:
            if master not in paths:
                continue
            path = _with_rests(paths[master], spans[master])[some] @ path
        paths.setdefault(name, np.full((num, 4, 4), np.nan))[some] = path
        spans.setdefault(name, []).append((some.start, some.stop))
    return [MovedThing(name, boxes[name], _with_rests(path, spans[name])) for name, path in sorted(paths.items())]


def _with_rests(path: Floats, spans: list[tuple[int, int]]) -> Floats:
    """Poses (T, 4, 4) with the frames outside of all segments [start, end) filled."""
    out = path.copy()
    out[: spans[0][0]] = path[spans[0][0]]
    ends = [*(start for start, _ in spans[1:]), len(path)]
    for (_, last), until in zip(spans, ends, strict=True):
        out[last : max(until, last)] = path[last - 1]
    return out


def _acted(segment: dict[str, Any]) -> str:
    """The thing of a segment: what moves, or what the hand comes to."""
    return segment["slave"] if segment["slave"].startswith(_OBJECT) else segment["master"]

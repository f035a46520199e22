"""What the colours of a contact sheet mean, and in which scale its world is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.certainty import lens_text, scale_text, trust_text
from handloom.draw.frame import BACKGROUND
from handloom.draw.overlay import EDGE, HAND_COLORS, WHITE, is_doubted, track_colors
from handloom.draw.text import fit_text, line_height, put_text, text_width
from handloom.draw.world import POINT_COLORS
from handloom.schemas.values import LEFT, RIGHT, TrackKind

TEXT_PX = 14
MARGIN_PX = 8
MARK_PX = 22  # width of a mark; its text begins behind it
BETWEEN_PX = 14

Color = tuple[int, int, int]


class LegendEntry(NamedTuple):
    """mark: `line`, `dot`, `ring` or `dots`; empty for text alone. colors: of the mark."""

    mark: str
    colors: Sequence[Color]
    text: str


def draw_legend(row: dict[str, Any], width: int, with_world: bool) -> NDArray[np.uint8]:
    """(h, width, 3) RGB: lines of marks and words; what the clip does not have is not explained.

    with_world: the sheet shows the clip's world.
    """
    lines = [_wrapped(entries, width) for entries in (_of_frames(row), _of_world(row, with_world)) if entries]
    placed = [line for wrapped in lines for line in wrapped]
    panel = np.full((len(placed) * line_height(TEXT_PX) + MARGIN_PX, width, 3), BACKGROUND, np.uint8)
    for number, line in enumerate(placed):
        y = number * line_height(TEXT_PX) + MARGIN_PX // 2
        for x, entry in line:
            _draw_mark(panel, entry, x, y + line_height(TEXT_PX) // 2)
            text = fit_text(entry.text, TEXT_PX, max(width - MARGIN_PX - x - _mark_width(entry), TEXT_PX))
            put_text(panel, text, (x + _mark_width(entry), y), TEXT_PX, WHITE)
    return panel


def _of_frames(row: dict[str, Any]) -> list[LegendEntry]:
    entries = []
    if row.get("hand_keypoints_px") is not None:
        entries = [
            LegendEntry("line", [HAND_COLORS[LEFT]], "L: the person's left hand"),
            LegendEntry("line", [HAND_COLORS[RIGHT]], "R: right hand"),
        ]
        infilled = row.get("hand_infilled")
        if infilled is not None and np.any(infilled):
            entries.append(LegendEntry("", [], "dark keypoints: filled in, not seen"))
        if any(is_doubted(row, t, hand) for t in range(len(row["frame_s"])) for hand in (LEFT, RIGHT)):
            entries.append(LegendEntry("", [], "?: which hand it is, or that it lies there, is doubted (frame_flags)"))
    points = row.get("track_points_px")
    if points is not None and points.shape[1]:
        across = np.array([[0.0, 0.5], [0.5, 0.5], [1.0, 0.5]])
        colors = [tuple(color) for color in track_colors(across, 1, 1).tolist()]
        entries.append(
            LegendEntry("dots", colors, "tracked points, coloured by where they were first; tail: path so far")
        )
    return entries


def _of_world(row: dict[str, Any], with_world: bool) -> list[LegendEntry]:
    words = [LegendEntry("", [], text) for text in (scale_text(row), lens_text(row), trust_text(row)) if text]
    if not with_world:
        return words
    entries = [LegendEntry("ring", [WHITE], "camera's path, ring: its start")]
    if row.get("hand_keypoints_world_m") is not None:
        entries.append(LegendEntry("line", [HAND_COLORS[LEFT], HAND_COLORS[RIGHT]], "wrists"))
    if row.get("track_points_world_m") is not None:
        shown = ((TrackKind.GRID, "scene"), (TrackKind.MOVING, "moving"))
        entries += [LegendEntry("dot", [POINT_COLORS[kind]], f"{word} points") for kind, word in shown]
    return [*entries, *words]


def _wrapped(entries: Sequence[LegendEntry], width: int) -> list[list[tuple[int, LegendEntry]]]:
    """Lines of (x, entry)."""
    lines: list[list[tuple[int, LegendEntry]]] = [[]]
    x = MARGIN_PX
    for entry in entries:
        needed = _mark_width(entry) + text_width(entry.text, TEXT_PX)
        if lines[-1] and x + needed > width - MARGIN_PX:
            lines.append([])
            x = MARGIN_PX
        lines[-1].append((x, entry))
        x += needed + BETWEEN_PX
    return lines


def _mark_width(entry: LegendEntry) -> int:
    return MARK_PX if entry.mark else 0


def _draw_mark(panel: NDArray[np.uint8], entry: LegendEntry, x: int, y: int) -> None:
    length = MARK_PX - 4
    if entry.mark == "line":
        for number, color in enumerate(entry.colors):
            at = y + 5 * number - 5 * (len(entry.colors) - 1) // 2
            cv2.line(panel, (x, at), (x + length, at), EDGE, 5, cv2.LINE_AA)
            cv2.line(panel, (x, at), (x + length, at), color, 3, cv2.LINE_AA)
    elif entry.mark == "ring":
        cv2.circle(panel, (x + 5, y), 4, entry.colors[0], 1, cv2.LINE_AA)
        cv2.line(panel, (x + 5, y), (x + length, y), entry.colors[0], 2, cv2.LINE_AA)
    elif entry.mark in ("dot", "dots"):
        step = length // len(entry.colors)
        for number, color in enumerate(entry.colors):
            cv2.circle(panel, (x + step // 2 + step * number, y), 3, color, cv2.FILLED, cv2.LINE_AA)

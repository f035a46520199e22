"""A contact sheet: frames of one clip side by side with their overlays, its world and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.certainty import lens_text, scale_text, trust_text
from handloom.draw.frame import BACKGROUND, draw_header, enlarge
from handloom.draw.frames import Frames, match_frames, other_video
from handloom.draw.overlay import (
    BODY_COLOR,
    EDGE,
    HAND_COLORS,
    OTHER_COLOR,
    WHITE,
    draw_overlay,
    is_doubted,
    track_colors,
)
from handloom.draw.segments.strip import draw_segments, segment_legend
from handloom.draw.text import fit_text, line_height, put_text, text_width
from handloom.draw.world import POINT_COLORS, draw_world
from handloom.io.atomic import atomic_file
from handloom.plural import plural
from handloom.schemas.values import LEFT, RIGHT, TrackKind
from handloom.video.stored_frames import strip_indices

TILE_SHORT_SIDE_PX = 270
TILE_GAP_PX = 6
HEADER_TEXT_PX = 17
WORLD_HEIGHT_PX = 360
LEGEND_TEXT_PX = 14
MARGIN_PX = 8
MARK_PX = 22  # width of a mark; its text starts after it
BETWEEN_PX = 14

Color = tuple[int, int, int]


def write_contact_sheet(
    frames: Frames, row: dict[str, Any], path: str | Path, columns: int | None = None, num_frames: int = 12
) -> None:
    """A PNG of `num_frames` frames, evenly spaced over the clip, each with its hands, tracks and time; below them the
    clip's segments, its world, if the camera's path is known, and a legend.

    frames: the row's frames, in order of time; read no further than the last one shown; only tiles stay in memory.
    columns: tiles in a line; by default the number that brings the sheet closest to 4:3.
    Raises ConfigError if no frame is one of the row's, StoreError if the file cannot be written.
    """
    wanted = set(strip_indices(len(row["frame_s"]), num_frames).tolist())
    tiles = []
    for index, image in match_frames(frames, row):
        if index in wanted:
            tiles.append(draw_tile(image, row, index))
            wanted.discard(index)
        if not wanted:
            break
    if not tiles:
        raise other_video(row, 0)
    grid = _grid(tiles, columns or _default_columns(len(tiles), *tiles[0].shape[:2]))
    header = draw_header(row, grid.shape[1], HEADER_TEXT_PX, plural(len(row["frame_s"]), "frame"))
    world = draw_world(row, grid.shape[1], WORLD_HEIGHT_PX)
    legend = draw_legend(row, grid.shape[1], world is not None)
    segments = draw_segments(row, grid.shape[1])
    parts = [part for part in (header, grid, segments, world, legend) if part is not None]
    _, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(parts), cv2.COLOR_RGB2BGR))
    with atomic_file(path) as draft:
        draft.write_bytes(data.tobytes())


def draw_tile(image: NDArray[np.uint8], row: dict[str, Any], index: int, time: bool = True) -> NDArray[np.uint8]:
    """One tile: the overlay is drawn at twice the tile's size and shrunk, which makes thin lines smooth.

    time: whether the frame's time is written into it.
    """
    big = enlarge(_shrink(image, 2 * TILE_SHORT_SIDE_PX), 2 * TILE_SHORT_SIDE_PX)
    tile = _shrink(draw_overlay(big, row, index, label_px=32, letters_only=True), TILE_SHORT_SIDE_PX)
    if time:
        put_text(tile, f"{float(row['frame_s'][index]):.2f} s", (2, 2), 14, WHITE, EDGE)
    return tile


def _shrink(image: NDArray[np.uint8], short_side_px: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = short_side_px / min(height, width)
    if scale >= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _default_columns(num_tiles: int, height: int, width: int) -> int:
    """Number of columns that leaves few gaps in the last line and brings the sheet closest to 4:3."""

    def badness(columns: int) -> float:
        lines = -(-num_tiles // columns)
        num_empty = lines * columns - num_tiles
        return abs(np.log(columns * width / (lines * height) / (4 / 3))) + num_empty / num_tiles

    return min(range(1, num_tiles + 1), key=badness)


def _grid(tiles: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    columns = min(columns, len(tiles))
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    lines = -(-len(tiles) // columns)
    shape = (lines * (height + TILE_GAP_PX), columns * (width + TILE_GAP_PX) + TILE_GAP_PX, 3)
    grid = np.full(shape, BACKGROUND, np.uint8)
    for number, tile in enumerate(tiles):
        y = (number // columns) * (height + TILE_GAP_PX)
        x = (number % columns) * (width + TILE_GAP_PX) + TILE_GAP_PX
        grid[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return grid


class LegendEntry(NamedTuple):
    """mark: `line`, `dot`, `ring` or `dots`; empty for text alone. colors: of the mark."""

    mark: str
    colors: Sequence[Color]
    text: str


def draw_legend(row: dict[str, Any], width: int, with_world: bool) -> NDArray[np.uint8]:
    """(h, width, 3) RGB: lines of marks and words, for what the clip has.

    with_world: whether the sheet shows the clip's world.
    """
    of_segments = [LegendEntry("line", [color], words) for color, words in segment_legend(row)]
    groups = (_of_frames(row), of_segments, _of_world(row, with_world))
    lines = [_wrapped(entries, width) for entries in groups if entries]
    placed = [line for wrapped in lines for line in wrapped]
    panel = np.full((len(placed) * line_height(LEGEND_TEXT_PX) + MARGIN_PX, width, 3), BACKGROUND, np.uint8)
    for number, line in enumerate(placed):
        y = number * line_height(LEGEND_TEXT_PX) + MARGIN_PX // 2
        for x, entry in line:
            _draw_mark(panel, entry, x, y + line_height(LEGEND_TEXT_PX) // 2)
            text = fit_text(entry.text, LEGEND_TEXT_PX, max(width - MARGIN_PX - x - _mark_width(entry), LEGEND_TEXT_PX))
            put_text(panel, text, (x + _mark_width(entry), y), LEGEND_TEXT_PX, WHITE)
    return panel


def _of_frames(row: dict[str, Any]) -> list[LegendEntry]:
    entries = []
    if row.get("hand_keypoints_px") is not None:
        entries = [
            LegendEntry("line", [HAND_COLORS[LEFT]], "L: the person's left hand"),
            LegendEntry("line", [HAND_COLORS[RIGHT]], "R: right hand"),
        ]
        others = row.get("other_hand_frame")
        if others is not None and len(others):
            entries.append(LegendEntry("line", [OTHER_COLOR], "somebody else's hand"))
        infilled = row.get("hand_infilled")
        if infilled is not None and np.any(infilled):
            entries.append(LegendEntry("", [], "dark keypoints: filled in, not seen"))
        if any(is_doubted(row, t, hand) for t in range(len(row["frame_s"])) for hand in (LEFT, RIGHT)):
            entries.append(LegendEntry("", [], "?: unsure which hand it is, or whether it is one (frame_flags)"))
    if row.get("body_visible") is not None and np.any(row["body_visible"]):
        whose = {"actor": ": of the person whose hands these are", "other": ": of another person"}
        words = f"body{whose.get(row.get('body_person') or '', '')}"
        entries.append(LegendEntry("line", [BODY_COLOR], words))
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
        needed = _mark_width(entry) + text_width(entry.text, LEGEND_TEXT_PX)
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

"""A contact sheet: frames of one clip side by side, with everything drawn over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.frame import BACKGROUND, draw_header, enlarge
from handloom.draw.frames import Frames, match_frames, other_video, whole_file
from handloom.draw.legend import draw_legend
from handloom.draw.overlay import EDGE, WHITE, draw_overlay
from handloom.draw.text import put_text
from handloom.draw.thumbnail import strip_indices
from handloom.draw.world import draw_world
from handloom.plural import plural

TILE_SHORT_SIDE_PX = 270
TILE_GAP_PX = 6
HEADER_TEXT_PX = 17
WORLD_HEIGHT_PX = 360


def write_contact_sheet(
    frames: Frames, row: dict[str, Any], path: str | Path, columns: int | None = None, num_frames: int = 12
) -> None:
    """A PNG of `num_frames` frames, evenly spaced over the clip, each with its hands, tracks and time.

    Below them the clip's world, where the camera's path is known, and what the colours mean.

    frames: the row's frames, in order of time; read no further than the last one shown, and only tiles are kept.
    columns: tiles in a line; by default as many as bring the sheet nearest to 4:3.
    Raises ConfigError if no frame is one of the row's, StoreError if the file cannot be written.
    """
    wanted = set(strip_indices(len(row["frame_s"]), num_frames).tolist())
    tiles = []
    for index, image in match_frames(frames, row):
        if index in wanted:
            tiles.append(_tile(image, row, index))
            wanted.discard(index)
        if not wanted:
            break
    if not tiles:
        raise other_video(row, 0)
    grid = _grid(tiles, columns or _default_columns(len(tiles), *tiles[0].shape[:2]))
    header = draw_header(row, grid.shape[1], HEADER_TEXT_PX, plural(len(row["frame_s"]), "frame"))
    world = draw_world(row, grid.shape[1], WORLD_HEIGHT_PX)
    legend = draw_legend(row, grid.shape[1], world is not None)
    parts = [header, grid, legend] if world is None else [header, grid, world, legend]
    _, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(parts), cv2.COLOR_RGB2BGR))
    with whole_file(path) as draft:
        draft.write_bytes(data.tobytes())


def _tile(image: NDArray[np.uint8], row: dict[str, Any], index: int) -> NDArray[np.uint8]:
    """One tile: the overlay is drawn at twice the tile's size and shrunk, which keeps thin lines clean."""
    big = enlarge(_shrink(image, 2 * TILE_SHORT_SIDE_PX), 2 * TILE_SHORT_SIDE_PX)
    tile = _shrink(draw_overlay(big, row, index, label_px=32, letters_only=True), TILE_SHORT_SIDE_PX)
    put_text(tile, f"{float(row['frame_s'][index]):.2f} s", (2, 2), 14, WHITE, EDGE)
    return tile


def _shrink(image: NDArray[np.uint8], short_side_px: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = short_side_px / min(height, width)
    if scale >= 1:
        return image
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def _default_columns(num_tiles: int, height: int, width: int) -> int:
    """Columns that leave few gaps in the last line and bring the sheet nearest to 4:3."""

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

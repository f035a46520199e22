"""Results of a search as one image: a row of frames for each hit, with its scores and matching times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.draw.frame import BACKGROUND, GREY
from handloom.draw.overlay import WHITE
from handloom.draw.sheet import draw_tile
from handloom.draw.text import fit_text, line_height, put_text
from handloom.errors import StoreError
from handloom.io.atomic import atomic_file
from handloom.schemas.clip import words_of
from handloom.schemas.tables.row import row_arrays
from handloom.store.search.results import Hit, Hits
from handloom.video.stored_frames import decode_jpeg, strip_indices

FRAMES = 6
TILE_HEIGHT_PX = 150
GAP_PX = 4
TEXT_PX = 15
WIDTH_PX = 1300
YELLOW = (240, 228, 66)
READ = (
    *("clip_id", "narration", "verb", "noun", "width", "height", "frame_s", "frame_flags", "frame_jpeg", "thumbnail"),
    *("hand_visible", "hand_infilled", "hand_confidence", "hand_keypoints_px"),
)


def write_hits(
    db: Database,
    hits: Hits,
    path: str | Path,
    query_clip: str | None = None,
    span: tuple[float | None, float | None] = (None, None),
    query_image: NDArray[np.uint8] | None = None,
) -> None:
    """A PNG with a row of frames for each hit: those of the matching times, where the search gives times.

    query_clip, span, query_image: what was searched with, drawn first. Frames are the stored ones, with
    hands; of a clip that stores none the strip of its thumbnail is drawn.

    Raises:
        StoreError: a row is gone, or the file cannot be written.
    """
    bands = []
    if query_clip is not None:
        asked = _band(_row(db, query_clip, hits.version), span, f"asked: {query_clip}", YELLOW)
        bands.append(asked)
    if query_image is not None:
        bands += [_lines([("asked: this image", YELLOW)]), _strip([query_image])]
    bands += [np.full((3, WIDTH_PX, 3), GREY, np.uint8)] if bands else []
    for number, hit in enumerate(hits, start=1):
        row = _row(db, hit.clip_id, hits.version)
        bands.append(_band(row, (hit.match_start_s, hit.match_end_s), f"{number}.  {_title(hit)}", WHITE))
    _, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(bands), cv2.COLOR_RGB2BGR))
    with atomic_file(path) as draft:
        draft.write_bytes(data.tobytes())


def _row(db: Database, clip_id: str, version: int) -> dict[str, Any]:
    names = db.existing_table("clips", version).schema.names
    return row_arrays(db.row(clip_id, [name for name in READ if name in names], version))


def _title(hit: Hit) -> str:
    parts = "   ".join(f"{name} {part.score:.3f}{_rank(part.rank)}" for name, part in hit.parts.items())
    times = "" if hit.match_start_s is None else f"   at {hit.match_start_s:.2f} to {hit.match_end_s:.2f} s"
    return f"{hit.score:.4f}   {hit.clip_id}{times}   {parts}"


def _rank(rank: int | None) -> str:
    return f" (#{rank})" if rank is not None else ""


def _band(
    row: dict[str, Any], span: tuple[float | None, float | None], title: str, color: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """A line of text, a line of the clip's words if it has some, and frames."""
    words = words_of(row.get("narration"), row.get("verb"), row.get("noun"))
    return np.concatenate([_lines([(title, color), *([(words, GREY)] if words else [])]), _strip(_images(row, span))])


def _lines(lines: Sequence[tuple[str, tuple[int, int, int]]]) -> NDArray[np.uint8]:
    """Texts in their colours, one below the other."""
    panel = np.full((len(lines) * line_height(TEXT_PX) + GAP_PX, WIDTH_PX, 3), BACKGROUND, np.uint8)
    for number, (text, color) in enumerate(lines):
        line = fit_text(text, TEXT_PX, WIDTH_PX - 2 * GAP_PX)
        put_text(panel, line, (GAP_PX, number * line_height(TEXT_PX)), TEXT_PX, color)
    return panel


def _images(row: dict[str, Any], span: tuple[float | None, float | None]) -> list[NDArray[np.uint8]]:
    jpegs = row.get("frame_jpeg")
    if jpegs is None:
        strip = cv2.imdecode(np.frombuffer(row.get("thumbnail") or b"\0", np.uint8), cv2.IMREAD_COLOR)
        return [] if strip is None else [np.asarray(cv2.cvtColor(strip, cv2.COLOR_BGR2RGB), np.uint8)]
    times = np.asarray(row["frame_s"])
    low, high = (times[0] if span[0] is None else span[0]), (times[-1] if span[1] is None else span[1])
    inside = np.flatnonzero((times >= low - 1e-3) & (times <= high + 1e-3))
    picked = inside[strip_indices(len(inside), FRAMES)] if len(inside) else inside
    return [draw_tile(_decoded(row, int(index)), row, int(index)) for index in picked]


def _decoded(row: dict[str, Any], index: int) -> NDArray[np.uint8]:
    data = row["frame_jpeg"][index]
    if not data:
        hint = "`handloom run --recompute frames` makes it again"
        raise StoreError(f"stored frame {index} of clip {row['clip_id']} is empty", hint)
    return decode_jpeg(data)


def _strip(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images of one height side by side, made smaller where they do not fit into the sheet's width."""
    widths = np.array([image.shape[1] / image.shape[0] for image in images])
    room = WIDTH_PX - GAP_PX * (len(images) + 1)
    height = max(1, min(TILE_HEIGHT_PX, int(room / max(widths.sum(), 1e-6))))
    line = np.full((height + 2 * GAP_PX, WIDTH_PX, 3), BACKGROUND, np.uint8)
    x = GAP_PX
    for image, width in zip(images, np.floor(widths * height).astype(int).clip(1).tolist(), strict=True):
        line[GAP_PX : GAP_PX + height, x : x + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        x += width + GAP_PX
    return line

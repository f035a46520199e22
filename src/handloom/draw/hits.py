"""Results of a search as one image: a row of frames for each hit, with its scores and matching times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.draw.frame import BACKGROUND, GREY
from handloom.draw.overlay import EDGE, WHITE
from handloom.draw.sheet import draw_tile
from handloom.draw.text import fit_text, line_height, put_text
from handloom.errors import StoreError
from handloom.io.atomic import atomic_file
from handloom.schemas.clip import words_of
from handloom.schemas.tables.row import row_arrays
from handloom.store.search.results import Hit, Hits
from handloom.video.stored_frames import decode_jpeg, strip_indices

FRAMES = 6
TILE_HEIGHT_PX = 170  # six frames of 4:3 fill the width
GAP_PX = 4
TEXT_PX = 15
TIME_PX = 13
WIDTH_PX = 1300
YELLOW = (240, 228, 66)
READ = (
    *("clip_id", "narration", "verb", "noun", "width", "height", "frame_s", "frame_flags", "frame_jpeg", "thumbnail"),
    *("hand_visible", "hand_infilled", "hand_confidence", "hand_keypoints_px"),
)


Span = tuple[float | None, float | None]
Image = tuple[str, NDArray[np.uint8]]  # what is written into it, (h, w, 3) RGB


class Shown(NamedTuple):
    """A part of the query as words, and as images that stand below them."""

    words: str
    images: Sequence[Image] = ()


def write_hits(
    db: Database,
    hits: Hits,
    path: str | Path,
    query_clip: str | None = None,
    span: Span = (None, None),
    query: Sequence[Shown] = (),
) -> None:
    """A PNG with a row of frames for each hit: those of the matching times, where the search gives times.

    query_clip, span, query: what was searched with, drawn first: a clip, its piece, and the other parts. Frames are the
    stored ones, with hands; of a clip that stores none the strip of its thumbnail is drawn.

    Raises:
        StoreError: a row is gone, or the file cannot be written.
    """
    bands = []
    for part in query:
        bands += [_lines([(f"asked: {part.words}", YELLOW)]), *([_strip(part.images)] if part.images else [])]
    if query_clip is not None:
        title = f"asked: {query_clip}{span_text(span)}"
        bands.append(_band(_row(db, query_clip, hits.version), span, title, YELLOW))
    bands += [np.full((3, WIDTH_PX, 3), GREY, np.uint8)] if bands else []
    for number, hit in enumerate(hits, start=1):
        row = _row(db, hit.clip_id, hits.version)
        bands.append(_band(row, (hit.match_start_s, hit.match_end_s), f"{number}.  {_title(hit)}", WHITE))
    _, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(bands), cv2.COLOR_RGB2BGR))
    with atomic_file(path) as draft:
        draft.write_bytes(data.tobytes())


def span_text(span: Span) -> str:
    """The times of a piece; empty for a whole clip."""
    begin, end = (None if value is None else f"{value:.2f}" for value in span)
    if begin and end:
        return f", {begin} to {end} s"
    return f", from {begin} s" if begin else f", to {end} s" if end else ""


def _row(db: Database, clip_id: str, version: int) -> dict[str, Any]:
    names = db.existing_table("clips", version).schema.names
    return row_arrays(db.row(clip_id, [name for name in READ if name in names], version))


def _title(hit: Hit) -> str:
    parts = "   ".join(f"{name} {part.score:.3f}{_rank(part.rank)}" for name, part in hit.parts.items())
    times = "" if hit.match_start_s is None else f"   at {hit.match_start_s:.2f} to {hit.match_end_s:.2f} s"
    score = "" if math.isnan(hit.score) else f"{hit.score:.4f}   "
    return f"{score}{hit.clip_id}{times}   {parts}"


def _rank(rank: int | None) -> str:
    return f" (#{rank})" if rank is not None else ""


def _band(row: dict[str, Any], span: Span, title: str, color: tuple[int, int, int]) -> NDArray[np.uint8]:
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


def _images(row: dict[str, Any], span: Span) -> list[Image]:
    jpegs = row.get("frame_jpeg")
    if jpegs is None:
        strip = cv2.imdecode(np.frombuffer(row.get("thumbnail") or b"\0", np.uint8), cv2.IMREAD_COLOR)
        return [] if strip is None else [("", np.asarray(cv2.cvtColor(strip, cv2.COLOR_BGR2RGB), np.uint8))]
    times = np.asarray(row["frame_s"])
    low, high = (times[0] if span[0] is None else span[0]), (times[-1] if span[1] is None else span[1])
    inside = np.flatnonzero((times >= low - 1e-3) & (times <= high + 1e-3))
    picked = inside[strip_indices(len(inside), FRAMES)] if len(inside) else inside
    return [(f"{times[i]:.2f} s", draw_tile(_decoded(row, i), row, i, time=False)) for i in picked.tolist()]


def _decoded(row: dict[str, Any], index: int) -> NDArray[np.uint8]:
    data = row["frame_jpeg"][index]
    if not data:
        hint = "`handloom run --recompute frames` makes it again"
        raise StoreError(f"stored frame {index} of clip {row['clip_id']} is empty", hint)
    return decode_jpeg(data)


def _strip(images: Sequence[Image]) -> NDArray[np.uint8]:
    """Images of one height side by side, made smaller where they do not fit into the sheet's width, each with its
    label."""
    widths = np.array([image.shape[1] / image.shape[0] for _, image in images])
    room = WIDTH_PX - GAP_PX * (len(images) + 1)
    height = max(1, min(TILE_HEIGHT_PX, round(room / max(widths.sum(), 1e-6))))
    line = np.full((height + 2 * GAP_PX, WIDTH_PX, 3), BACKGROUND, np.uint8)
    scale = min(height, room / max(widths.sum(), 1e-6))  # not rounded: the strip ends at the sheet's margin
    ends = np.round(np.cumsum(widths) * scale).astype(int)
    for number, (label, image) in enumerate(images):
        begin, end = int(ends[number - 1]) if number else 0, int(ends[number])
        x, width = begin + GAP_PX * (number + 1), max(1, end - begin)
        tile = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if label:
            put_text(tile, label, (2, 1), TIME_PX, WHITE, EDGE)
        line[GAP_PX : GAP_PX + height, x : x + width] = tile[:, : WIDTH_PX - x]
    return line

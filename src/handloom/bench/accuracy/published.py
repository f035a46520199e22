"""How far our tracks agree with published ones of the same video. Neither is the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handloom.bench.footage.clips import begin, row_of
from handloom.bench.metrics.agreement import agreement
from handloom.bench.metrics.tracks import mean_scores
from handloom.bench.truth.spatracker import read_published
from handloom.bench.watch import Watch
from handloom.pipelines.process_pool import process_pool
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.values import TrackKind
from handloom.video.container.packets import read_packet_index

NOTE = "Neither is truth: theirs are SpatialTracker's. Compared where ours are visible and theirs are in the image."


def published_scores(pairs: Sequence[tuple[Path, Path]], watch: Watch) -> dict[str, Any]:
    """Agreement over all videos, and of each.

    Raises:
        ConfigError: a file of tracks cannot be read. ClipError: a video cannot.
    """
    theirs = [read_published(path) for _, path in pairs]
    watch.expect(watch.num_done + len(pairs))
    watch.part("published tracks")
    found = {}
    with process_pool(1, begin) as pool:
        for (video, _), tracks in zip(pairs, theirs, strict=True):
            found[video.stem] = pool.submit(compared, video, tracks).result()
            watch.did(video.stem)
    clips = [{"clip": name, **scores} for name, scores in found.items()]
    return {"note": NOTE, **mean_scores(list(found.values())), "clips": clips}


def compared(video: Path, theirs: np.ndarray) -> dict[str, float]:
    """Agreement of one video, in a process where `footage.clips.begin` was called."""
    clip = Clip(make_clip_id("published", video.stem, 0.0, None), "published", video.stem, str(video), 0.0, None)
    row, frames, _ = row_of(clip)
    frames.store.close()
    times = read_packet_index(str(video)).times_s
    index = np.abs(times[:, None] - row["frame_s"][None]).argmin(axis=0)
    known = index < len(theirs)
    grid = row["track_kind"] == TrackKind.GRID
    depth = row["track_depth_m"]
    depth = np.full(row["track_visible"].shape, np.nan) if depth is None else depth
    ours = (row["track_points_px"][known][:, grid], row["track_visible"][known][:, grid], depth[known][:, grid])
    taken = theirs[index[known]]
    return agreement(*ours, taken[..., :2], taken[..., 2], (row["width"], row["height"]))


def markdown(results: dict[str, Any]) -> str:
    """One line per video."""
    lines = [
        "| Ours and published tracks, neither is truth | median, px of 640 | within 4 px | 8 px | 16 px | compared "
        "| depth, correlation | depth, median difference |",
        "|---" + "|---:" * 7 + "|",
    ]
    keys = ("within_4_px", "within_8_px", "within_16_px", "compared", "depth_correlation", "depth_error")
    for clip in results["clips"]:
        cells = [_cell(clip[key]) for key in ("median_px", *keys)]
        lines.append(f"| {clip['clip']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"

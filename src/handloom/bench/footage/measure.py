"""`bench accuracy --footage`: metrics of real clips without truth, clip by clip and together.

The rows come from a database, also one of an older version, or are made from a folder of videos, with their CPU time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from handloom.api import Database
from handloom.bench.extract.clips import readable
from handloom.bench.footage.clips import COLUMNS, FootageClip, begin, measured, processed
from handloom.bench.metrics.tracks import mean_scores
from handloom.bench.report import goal
from handloom.bench.watch import Watch
from handloom.errors import ClipError, ConfigError
from handloom.pipelines.process_pool import process_pool
from handloom.schemas.clip import Clip
from handloom.schemas.tables.row import row_arrays
from handloom.video.container.packets import NotAVideoError
from handloom.video.decode.readers import DecodeFailedError, ImageSizeError

TOO_SHORT = "too_short"  # reason of a clip too short for a path
CLIP_S = 10.0  # longer videos are cut into clips of this length, as `ingest folder` does
QUICK_CLIPS = 2
NAN = float("nan")


def read_held(path: Path | None) -> frozenset[str]:
    """Names of videos, without suffixes, from a file with one per line.

    Raises:
        ConfigError: the file cannot be read, or is empty.
    """
    if path is None:
        return frozenset()
    try:
        names = frozenset(Path(line.strip()).stem for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--held {path} cannot be read: {error}", "expected a text file, one video per line"
        ) from error
    if not names:
        raise ConfigError(f"--held {path} names no video", "expected a text file, one video per line")
    return names


def footage_clips(source: Path, sheets: Path | None, watch: Watch, backwards: bool = False) -> Iterator[FootageClip]:
    """The metrics of every clip of a database, a folder of databases, or a folder of videos, as each finishes.

    sheets: a folder for a contact sheet of every clip. backwards: videos are also followed from their end.

    Raises:
        ConfigError: no video of the folder can be read, or `backwards` with a database. StoreError: the database cannot
        be
            read, or a sheet not written.
    """
    if sheets is not None:
        sheets.mkdir(parents=True, exist_ok=True)
    databases = databases_in(source)
    if databases:
        if backwards:
            raise ConfigError(f"{source} is a database: --backwards wants its videos", "give their folder to --footage")
        for database in databases:
            yield from _of_rows(Database.open(database), sheets, watch)
    else:
        clips = readable(source, CLIP_S)
        yield from _of_videos(clips[:QUICK_CLIPS] if watch.quick else clips, sheets, watch, backwards)


def databases_in(source: Path) -> list[Path]:
    """The folder itself if it is a database, else the databases in it, up to two levels down."""
    for where in ("", "*/", "*/*/"):
        found = sorted(path.parent for path in source.glob(f"{where}clip_list.lance"))
        if found:
            return found
    return []


def _of_rows(database: Database, sheets: Path | None, watch: Watch) -> Iterator[FootageClip]:
    cv2.setNumThreads(1)
    table = database.table("clips")
    there = None if table is None else table.schema.names
    columns = there if sheets is not None or there is None else [name for name in COLUMNS if name in there]
    watch.expect(watch.num_done + database.count("clips"))
    watch.part(f"rows of {database.uri}")
    for batch in database.batches(columns, batch_size=1):
        found = measured(row_arrays(batch), sheets)
        watch.did(found.name)
        yield found
    for reject in database.rejects().to_pylist():
        name = reject["clip_id"].split(":")[1]
        yield FootageClip(name, name, reject=reject["reason"])


def _of_videos(clips: Sequence[Clip], sheets: Path | None, watch: Watch, backwards: bool) -> Iterator[FootageClip]:
    watch.expect(watch.num_done + len(clips))
    watch.part("real clips")
    workers = max(min(os.cpu_count() or 1, len(clips)), 1)
    with process_pool(workers, partial(begin, backwards)) as pool:
        jobs = {pool.submit(processed, clip, sheets): clip for clip in clips}
        for job in as_completed(jobs):
            name = jobs[job].video_id
            try:
                yield job.result()
            except (ClipError, NotAVideoError, DecodeFailedError, ImageSizeError) as error:
                yield FootageClip(name, name, reject=getattr(error, "reason", type(error).__name__))
            watch.did(name)


def results_of(clips: Sequence[FootageClip], held: frozenset[str]) -> dict[str, Any]:
    """Metrics of all clips, of those used for tuning and of those held out, and of each clip."""
    clips = sorted(clips, key=lambda clip: clip.name)
    out = {"all": pooled(clips)}
    if held:
        out["tuned"] = pooled([clip for clip in clips if clip.video not in held])
        out["held_out"] = pooled([clip for clip in clips if clip.video in held])
    return out | {"clips": [_one(clip, held) for clip in clips]}


def pooled(clips: Sequence[FootageClip]) -> dict[str, Any]:
    """Shares over clips; the grid's points at the end and the windows are summed over clips first."""
    rows = [clip for clip in clips if clip.reject is None]
    asked = [clip for clip in rows if clip.reason != TOO_SHORT]
    kept = [clip.survival for clip in rows if clip.survival is not None]
    seen, missing, unknown = (sum(getattr(one, name) for one in kept) for name in ("seen", "missing", "unknown"))
    frames = sum(clip.num_frames for clip in rows)
    timed = [clip for clip in rows if clip.cpu_ms]
    ended = [clip.survival.share for clip in rows if clip.survival is not None and clip.survival.share >= 0]
    return {
        "clips": len(clips),
        "rejected": len(clips) - len(rows),
        "frames": frames,
        "path_share": _share(sum(clip.has_path for clip in asked), len(asked)),
        "metric_share": _share(sum(clip.scale == "metric" for clip in asked), len(asked)),
        "posed_frames": _share(sum(clip.pose_share * clip.num_frames for clip in rows), frames),
        "reasons": dict(Counter(clip.reason or ("moving" if clip.has_path else "none") for clip in rows)),
        "intrinsics": dict(Counter(clip.intrinsics for clip in rows)),
        "kept_at_end": _share(seen, seen + missing),
        "kept_at_end_mean": _share(sum(ended), len(ended)),
        "unjudged_at_end": _share(unknown, seen + missing + unknown),
        "collapsed": sum(clip.collapsed for clip in rows),
        "collapsed_unflagged": sum(clip.collapsed and not clip.loss_flagged for clip in rows),
        "dense_windows": _share(*(sum(clip.windows[i] for clip in rows) for i in (0, 1))),
        "dense_windows_mean": _share(
            sum(clip.windows[0] / clip.windows[1] for clip in rows if clip.windows[1]),
            sum(clip.windows[1] > 0 for clip in rows),
        ),
        "backwards": mean_scores([dict(clip.backwards) for clip in rows if clip.backwards is not None]),
        "cpu_ms_per_frame": _cpu(timed),
    }


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals of real footage, over all clips and over those held out, if any."""
    out = []
    for part, words in (("all", "real clips"), ("held_out", "held-out clips")):
        if part in results:
            one = results[part]
            cpu = one["cpu_ms_per_frame"].get("all")
            out += [
                goal(f"{words}: with a camera path", one["path_share"], "share, too short ones aside", 0.9),
                goal(f"{words}: grid points visible at the end", one["kept_at_end"], "of those that should be", 0.9),
                goal(
                    f"{words}: over a third of the grid lost in one step, not flagged",
                    float(one["collapsed_unflagged"]),
                    "clips",
                    0.0,
                    at_least=False,
                ),
                goal(f"{words}: windows of 17 with 600 points", one["dense_windows"], "share of windows", 0.92),
                goal(f"{words}: CPU time", cpu, "ms a frame", 60.0, at_least=False),
            ]
    return out


def _one(clip: FootageClip, held: frozenset[str]) -> dict[str, Any]:
    kept = clip.survival
    values = asdict(clip) | {
        "held_out": clip.video in held,
        "survival": None if kept is None else asdict(kept) | {"share": kept.share},
        "collapsed": clip.collapsed,
        "dense_windows": _share(*clip.windows),
        "cpu_ms": dict(clip.cpu_ms) | ({"all": sum(clip.cpu_ms.values())} if clip.cpu_ms else {}),
    }
    return json.loads(json.dumps(values))  # plain values


def _cpu(clips: Sequence[FootageClip]) -> dict[str, float]:
    """CPU milliseconds per frame by stage, all frames weighted alike; {} if nothing was timed."""
    frames = sum(clip.num_frames for clip in clips)
    sums: dict[str, float] = {}
    for clip in clips:
        for stage, spent in clip.cpu_ms.items():
            sums[stage] = sums.get(stage, 0.0) + spent * clip.num_frames / frames
    return sums | ({"all": sum(sums.values())} if clips else {})


def _share(part: float, whole: float) -> float:
    return part / whole if whole else NAN


LINES = (
    ("clips, rejected", ("clips", "rejected"), "{} / {}"),
    ("with a camera path, too short ones aside", ("path_share",), "{:.2f}"),
    ("with one in metres", ("metric_share",), "{:.2f}"),
    ("frames with a pose", ("posed_frames",), "{:.2f}"),
    ("grid points visible at the end, of those that should be", ("kept_at_end",), "{:.2f}"),
    ("the same, mean over clips", ("kept_at_end_mean",), "{:.2f}"),
    ("over a third of the grid lost in one step: clips, not flagged", ("collapsed", "collapsed_unflagged"), "{} / {}"),
    ("windows of 17 samples with 600 points visible throughout", ("dense_windows",), "{:.2f}"),
    ("the same, mean over clips", ("dense_windows_mean",), "{:.2f}"),
)
HEADS = {"all": "all", "tuned": "tuned on", "held_out": "held out"}


def markdown(results: dict[str, Any]) -> str:
    """Two tables: all clips together, and clip by clip; a dash for unknown numbers."""
    parts = [part for part in HEADS if part in results]
    lines = ["| Real clips without truth | " + " | ".join(HEADS[part] for part in parts) + " |"]
    lines.append("|---" + "|---:" * len(parts) + "|")
    for words, keys, form in LINES:
        lines.append(f"| {words} | " + " | ".join(_cell(results[part], keys, form) for part in parts) + " |")
    if results["all"]["backwards"]:
        for key, words in (
            ("median_px", "median, px of 640"),
            ("within_4_px", "within 4 px"),
            ("compared", "compared"),
        ):
            cells = [_number(results[part]["backwards"].get(key)) for part in parts]
            lines.append(f"| tracks of the clip followed from its end: {words} | " + " | ".join(cells) + " |")
    timed = [results[part]["cpu_ms_per_frame"].get("all") for part in parts]
    if any(timed):
        cells = ["-" if spent is None else f"{spent:.0f}" for spent in timed]
        lines.append("| CPU time, ms a frame | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| clip | frames | path | kept at the end | largest loss | dense windows |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for clip in results["clips"]:
        kept, loss = clip["survival"] or {"share": None}, clip["loss"] or {"share": None}
        kind = clip["reject"] or f"{clip['scale']}, {clip['reason'] or 'moving'}"
        shown = (_number(value) for value in (kept["share"], loss["share"], clip["dense_windows"]))
        name = clip["name"] + (" (held out)" if clip["held_out"] else "")
        lines.append(f"| {name} | {clip['num_frames']} | {kind} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _cell(values: dict[str, Any], keys: tuple[str, ...], form: str) -> str:
    found = [values[key] for key in keys]
    return "-" if any(value is None or value != value for value in found) else form.format(*found)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"

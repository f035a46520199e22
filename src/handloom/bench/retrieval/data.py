"""Renders the clips and extracts their rows, in one process per core; both are kept in a folder and made once.

A row is that of `handloom run` with its default settings: the same stages, in a plain process. Rows are kept by run
key, so that other code or settings make new ones of the same videos.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from handloom.api import Database
from handloom.bench.retrieval.copies import COPIES, write_copy
from handloom.bench.retrieval.scenes import SEARCHED, Filmed
from handloom.bench.stages.rows import Maker
from handloom.bench.watch import Watch
from handloom.io.atomic import atomic_file
from handloom.kernels import one_thread_each
from handloom.machine import cores_allowed
from handloom.pipelines.process_pool import process_pool
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import end_run, start_run
from handloom.store.search.index import ensure_text_indexes
from handloom.synth.render.render import render_clip
from handloom.video.write import write_video

DATASET = "rendered"
ROWS_IN_A_FRAGMENT = 512


@dataclass(frozen=True)
class Copy:
    """A copy of a rendered clip, under a name of its own."""

    name: str
    how: str
    of: Filmed


@dataclass(frozen=True)
class Made:
    """One row of `clips` per name, in order; CPU seconds of rendering and of the stages, without those of rows that
    were there already."""

    rows: dict[str, pa.RecordBatch]
    render_cpu_s: float
    extract_cpu_s: float
    num_new: int


def copies_of(clips: Sequence[Filmed], num: int) -> list[Copy]:
    """All kinds of copies of the first `num` searched clips, which are of different actions."""
    chosen = [one for one in clips if one.role == SEARCHED][:num]
    return [Copy(f"copy_{number}_of_{one.name}", how, one) for one in chosen for number, how in enumerate(COPIES)]


def make_rows(
    clips: Sequence[Filmed], copies: Sequence[Copy], folder: Path, watch: Watch, settings: Settings | None = None
) -> Made:
    """Render and extract what the folder lacks. Raises ClipError for a clip that cannot be processed."""
    settings = settings or Settings()
    rows = folder / "rows" / settings.run_key(model_versions(settings))
    for place in (folder / "videos", rows):
        place.mkdir(parents=True, exist_ok=True)
    lacking: list[list[Filmed | Copy]] = [
        [one for one in some if not _row_of(rows, one.name).exists()] for some in (clips, copies)
    ]
    num = sum(map(len, lacking))
    render_s = extract_s = 0.0
    if num:
        watch.part(f"rendering and extracting {num} clips")
        watch.expect(watch.num_done + num)
        with one_thread_each(), process_pool(min(cores_allowed(), num), partial(_start, settings)) as pool:
            for some in lacking:  # a copy is made from the video of its clip
                jobs = {pool.submit(_make, one, folder / "videos", rows): one.name for one in some}
                for job in as_completed(jobs):
                    spent = job.result()
                    render_s, extract_s = render_s + spent[0], extract_s + spent[1]
                    watch.did(jobs[job])
    every: list[Filmed | Copy] = [*clips, *copies]
    return Made({one.name: _read(_row_of(rows, one.name)) for one in every}, render_s, extract_s, num)


def new_database(
    folder: Path,
    clips: Sequence[Filmed],
    copies: Sequence[Copy],
    made: Made,
    videos: Path,
    settings: Settings | None = None,
) -> Database:
    """A database of the clips, the way a run leaves it. The column `split` has the clip's role, `copy` for a copy."""
    db, settings = Database.open(folder, create=True), settings or Settings()
    versions, graph = model_versions(settings), stage_graph(settings)
    run_key = settings.run_key(versions)
    every: list[Filmed | Copy] = [*clips, *copies]
    listed = [clip_of(one, videos) for one in every]
    add_clips(db, listed)
    recorded = {"settings": settings.model_dump(mode="json"), "resources": {}, "versions": versions}
    begun = start_run(db, run_key, **recorded, stage_keys=graph.keys(versions))
    rows = [made.rows[one.name] for one in every]
    groups = [rows[start : start + ROWS_IN_A_FRAGMENT] for start in range(0, len(rows), ROWS_IN_A_FRAGMENT)]
    Committer(db, run_key, graph.schema()).commit([write_fragment(db.uri, some, graph.schema()) for some in groups])
    num_frames = sum(row.column("num_frames")[0].as_py() for row in rows)
    end_run(db, begun, "done", num_clips=len(rows), num_rejects=0, num_frames=num_frames, stage_s={})
    ensure_text_indexes(db)
    return db


def clip_of(one: Filmed | Copy, videos: Path) -> Clip:
    """The clip of the clip list: a whole video, with the words of its action."""
    filmed, role = (one.of, "copy") if isinstance(one, Copy) else (one, one.role)
    words: dict[str, Any] = {"narration": filmed.narration, "verb": filmed.verb, "noun": filmed.noun}
    uri, end_s = str(videos / f"{one.name}.mp4"), _length_s(one)
    return Clip(clip_id(one.name), DATASET, one.name, uri, 0.0, end_s, **words, participant=filmed.person, split=role)


def clip_id(name: str) -> str:
    """The id of a clip by its name in the benchmark."""
    return f"{DATASET}:{name}"


def _length_s(one: Filmed | Copy) -> float:
    """Of the video: its last frame is shown as long as the one before."""
    if isinstance(one, Filmed):
        return one.length_s
    num = round(one.of.length_s * one.of.spec.fps)
    num = {"half as fast": 2 * num, "cut by a third": num - num // 3}.get(one.how, num)
    return round(num / one.of.spec.fps, 3)


_maker: Maker | None = None


def _start(settings: Settings) -> None:
    global _maker
    cv2.setNumThreads(1)
    _maker = Maker(settings)


def _make(one: Filmed | Copy, videos: Path, rows: Path) -> tuple[float, float]:
    """Write the video, if it is not there, and the row; CPU seconds of both."""
    if _maker is None:
        raise RuntimeError("the process was not started with its settings")
    maker = _maker
    video, began = videos / f"{one.name}.mp4", time.process_time()
    if not video.exists():
        with atomic_file(video) as draft:
            _write_video(one, videos, draft)
    rendered_s = time.process_time() - began
    made = maker.fresh([clip_of(one, videos)])
    with atomic_file(_row_of(rows, one.name)) as draft, pa.ipc.new_file(draft, made.rows[0].schema) as file:
        file.write(made.rows[0])
    return rendered_s, made.seconds


def _write_video(one: Filmed | Copy, videos: Path, path: Path) -> None:
    if isinstance(one, Copy):
        write_copy(videos / f"{one.of.name}.mp4", path, one.how)
        return
    clip, first = render_clip(one.spec), round(one.start_s * one.spec.fps)
    write_video(path, clip.images(first), clip.truth.frame_s[first:] - clip.truth.frame_s[first])


def _row_of(rows: Path, name: str) -> Path:
    return rows / f"{name}.arrow"


def _read(path: Path) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(0)

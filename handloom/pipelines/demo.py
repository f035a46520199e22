"""`handloom demo`: the main job on clips that are rendered here, from videos to search."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from handloom.errors import ConfigError
from handloom.pipelines import ingest
from handloom.pipelines.run import run
from handloom.pipelines.show import show
from handloom.pipelines.similar import search_clips
from handloom.pipelines.status import status, status_text
from handloom.schemas.settings import RunConfig
from handloom.store.clip_list import add_clips, read_clips
from handloom.store.database import Database
from handloom.store.index import build_indexes
from handloom.synth import SceneSpec, demo_specs, write_clip

DATASET = "demo"
SEED = 0


def demo(out: Path, num_clips: int, say: Callable[[str], None]) -> str:
    """Render clips into `out`/videos, run every step on them, and return what was found and where to look.

    Running it again goes on with what is there.

    Raises:
        ConfigError: `out` cannot be written.
    """
    videos, db_path = out / "videos", out / "db"
    try:
        videos.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be made: {error.strerror}", "name a folder that can be written") from error
    specs = {f"scene_{i:02d}_{spec.verb}": spec for i, spec in enumerate(demo_specs(num_clips, SEED))}
    _render({videos / f"{name}.mp4": spec for name, spec in specs.items()}, say)
    db = Database.open(db_path, create=True)
    say("ingest: the folder into the clip list, with the narrations of the rendered scenes")
    ingest.folder(db, str(videos), dataset=DATASET, view="ego", licence="CC0-1.0")
    add_clips(db, [_narrated(clip, specs) for clip in read_clips(db) if clip.video_id in specs])
    say("run: decode, hands, tracks, embeddings, through Ray into Lance")
    summary = run(db, RunConfig())
    build_indexes(db)
    say("show: a contact sheet and an overlay video of every clip")
    clip_ids = sorted(db.clips(["clip_id"]).column("clip_id").to_pylist())
    pictures = []
    for clip_id in clip_ids:
        stem = out / clip_id.split(":")[1]
        pictures += [stem.with_suffix(".png"), stem.with_suffix(".mp4")]
        for picture in pictures[-2:]:
            show(db, clip_id, picture)
    lines = [status_text(status(db)), ""]
    by_motion = search_clips(db, clip=clip_ids[0], k=3)
    lines += [f"clips that move like {clip_ids[0]}:", *(f"  {h.score:.3f}  {h.clip_id}  {h.narration}" for h in by_motion)]
    word = specs[clip_ids[0].split(":")[1]].verb
    lines += [f"clips about {word!r}:", *(f"  {h.score:.3f}  {h.clip_id}  {h.narration}" for h in search_clips(db, text=word, k=3))]
    lines += ["", "where to look:", f"  {pictures[0]}  hands and tracks drawn over a clip (and {len(pictures) - 1} more beside it)"]
    lines += [f"  {db_path}  the database: handloom status --db {db_path}"]
    lines += [f"  handloom search --db {db_path} --text {word}"]
    lines += [f"{summary.num_clips} clips processed in {summary.wall_s:.1f} s in this call"]
    return "\n".join(lines)


def _render(specs: dict[Path, SceneSpec], say: Callable[[str], None]) -> None:
    """Every scene that is not there yet, on all cores. The truth is written last: a clip without it was cut off."""
    missing = {path: spec for path, spec in specs.items() if not path.with_suffix(".truth.npz").exists()}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(write_clip, spec, path): spec for path, spec in missing.items()}
        for number, job in enumerate(as_completed(jobs), 1):
            job.result()
            say(f"rendered {number}/{len(jobs)}: {jobs[job].narration}")


def _narrated(clip, specs):
    spec = specs[clip.video_id]
    return replace(clip, narration=spec.narration, verb=spec.verb, noun=spec.object_noun)

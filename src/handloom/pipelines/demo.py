"""`handloom demo`: renders clips and runs the main job on them, from videos to search."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from handloom.api import Database
from handloom.io.folder import local_folder
from handloom.pipelines.ingest import human
from handloom.pipelines.run.driver import RunParts
from handloom.pipelines.run.run import run
from handloom.pipelines.run.todo.recompute import ALL
from handloom.pipelines.search import search_clips
from handloom.pipelines.show import show
from handloom.pipelines.status.status import status, status_text
from handloom.pipelines.synth import write_labels
from handloom.plural import plural
from handloom.schemas.settings import RunConfig
from handloom.skills.execution import MANIPULATION
from handloom.store.search.index import build_indexes
from handloom.store.search.results import Hits
from handloom.synth.clip import write_clip
from handloom.synth.script.demo import demo_specs
from handloom.synth.script.scene import SceneSpec
from handloom.synth.truth import TRUTH_SUFFIX

DATASET = "demo"
SEED = 0


def demo(out: Path, num_clips: int, say: Callable[[str], None], parts: RunParts | None = None) -> str:
    """Render clips into `out`/videos, run every step on them, and return what was found and where to look.

    A second call continues with the files of the first; rows of another version of handloom, or of other settings, are
    computed again. parts: of the run (tests).

    Raises:
        ConfigError: `out` cannot be written.
    """
    videos, db_path = out / "videos", out / "db"
    local_folder(out, "--out")
    videos.mkdir(exist_ok=True)
    specs = {f"scene_{i:02d}_{spec.verb}": spec for i, spec in enumerate(demo_specs(num_clips, SEED))}
    _render({videos / f"{name}.mp4": spec for name, spec in specs.items()}, say)
    db = Database.open(db_path, create=True)
    write_labels(videos, specs)
    say("ingest: the folder into the clip list, with the narrations of the rendered scenes")
    human.folder(db, str(videos), dataset=DATASET, view="ego", licence="CC0-1.0")
    say("run: decode, hands, tracks, embeddings, through Ray into Lance")
    summary = run(db, RunConfig(), recompute=(ALL,), parts=parts)
    build_indexes(db)
    say("show: a contact sheet and an overlay video of every clip")
    clip_ids = sorted(db.clips(["clip_id"]).column("clip_id").to_pylist())
    images = []
    for clip_id in clip_ids:
        stem = out / clip_id.split(":")[1]
        images += [stem.with_suffix(".png"), stem.with_suffix(".mp4")]
        for image in images[-2:]:
            show(db, clip_id, image)
    word = specs[clip_ids[0].split(":")[1]].verb
    lines = [status_text(status(db)), "", f"clips that move like {clip_ids[0]}:"]
    lines += _found(search_clips(db, clip=clip_ids[0], k=3))
    lines += [f"clips about {word!r}:", *_found(search_clips(db, text=word, k=3))]
    if summary.num_updates:
        lines += ["", f"{plural(summary.num_updates, 'row')} of an older version or of other settings computed again"]
    if summary.num_clips:
        lines += ["", f"{summary.num_clips} clips processed in {summary.wall_s:.1f} s, the start of Ray included"]
    lines += ["", "where to look:", f"  {images[0]}  hands and tracks over a clip (and {len(images) - 1} more)"]
    lines += [f"  {db_path}  the database", "what to try:"]
    one = clip_ids[min(1, len(clip_ids) - 1)]
    tries = {
        "serve --judge": "the gallery: search, watch, compare and judge in a browser",
        "status": "what is there, and how good it is",
        f"search --text shove --sheet {out}/shove.png": "by meaning: no clip has the word; results as pictures",
        f"search --clip {one} --from-s 0.5 --to-s 1.5": "who else moves as in this second, and when",
        f"search --clip {one} --by appearance": "what looks alike",
        f"show {one} --out {out}/one.png": "segments: a strip below the frames",
        "duplicates": "copies and overlapping cuts",
    }
    tries |= {f"skill learn --name first --clips {id_}": "its steps, for a robot" for id_ in _teaching(db)[:1]}
    lines += [f"  {_command()} {words} --db {db_path}    # {what}" for words, what in tries.items()]
    lines += [f"  {_command()} ingest folder YOUR-VIDEOS --db my-db, then {_command()} run --db my-db"]
    return "\n".join(lines)


def _teaching(db: Database) -> list[str]:
    """Clips in which it is known how a hand moves a thing: a skill can be learned from each."""
    rows = db.clips(["clip_id", "segments"]).to_pylist()
    done = {row["clip_id"]: [one for one in row["segments"] or () if one["phase"] == MANIPULATION] for row in rows}
    return sorted(clip_id for clip_id, found in done.items() if any(one["text"] for one in found))


def _found(hits: Hits) -> list[str]:
    """Each hit with its place: scores of different searches are on different scales."""
    return [f"  {place}. {hit.clip_id}  {hit.narration}" for place, hit in enumerate(hits, 1)]


def _command() -> str:
    """The command as it can be typed here: `make demo` installs into an environment that is not on the path."""
    if shutil.which("handloom"):
        return "handloom"
    path = Path(sys.argv[0])
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _render(specs: dict[Path, SceneSpec], say: Callable[[str], None]) -> None:
    """Render every scene without a truth file, on all cores. A clip is whole once its truth is there."""
    missing = {path: spec for path, spec in specs.items() if not path.with_suffix(TRUTH_SUFFIX).exists()}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(write_clip, spec, path): spec for path, spec in missing.items()}
        for number, job in enumerate(as_completed(jobs), 1):
            job.result()
            say(f"rendered {number}/{len(jobs)}: {jobs[job].narration}")

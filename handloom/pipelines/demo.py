"""`handloom demo`: the main job on clips that are rendered here, from videos to search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from handloom.synth import demo_specs, write_clip

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
    for i, (name, spec) in enumerate(specs.items(), 1):
        if not (videos / f"{name}.truth.npz").exists():
            say(f"rendering {i}/{num_clips}: {spec.narration}")
            write_clip(spec, videos / f"{name}.mp4")
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


def _narrated(clip, specs):
    spec = specs[clip.video_id]
    return replace(clip, narration=spec.narration, verb=spec.verb, noun=spec.object_noun)

"""`handloom ingest`: files and annotations into the clip list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from handloom.ingest.ego4d import Choice, ingest_ego4d
from handloom.ingest.ego4d_narrations import NarrationWindow
from handloom.ingest.epic import ingest_epic
from handloom.ingest.folder import ingest_folder
from handloom.ingest.result import IngestResult
from handloom.store.clip_list import add_clips
from handloom.store.database import Database
from handloom.store.embodiment import check_of_people
from handloom.video.probe import Prober
from handloom.video.source import VideoSource, usual_cache_dir


@dataclass(frozen=True)
class IngestSummary:
    """What one ingest did: the source's own counts, what changed in the clip list, what was wrong with the input.

    left_out: how much of the input could not be used; each is named in `problems`.
    """

    counts: dict[str, int]
    added: int
    changed: int
    already_there: int
    num_clips: int
    left_out: int
    problems: tuple[str, ...]


def folder(db: Database, directory: str, **options: Any) -> IngestSummary:
    """Every video below a directory: see `handloom.ingest.folder.ingest_folder`."""
    cache_dir = usual_cache_dir()
    with Prober(VideoSource(cache_dir, storage_options=options.get("storage_options"))) as probe:
        return _store(db, ingest_folder(directory, probe=probe, **options))


def epic(db: Database, annotations: list[str], videos: str, **options: Any) -> IngestSummary:
    """EPIC-KITCHENS actions: see `handloom.ingest.epic.ingest_epic`."""
    return _store(db, ingest_epic(annotations, videos, **options))


def ego4d(
    db: Database,
    manifest: str,
    videos: str,
    *,
    window: str = "fixed",
    before_s: float = 1.0,
    after_s: float = 2.0,
    others: bool = True,
    **options: Any,
) -> IngestSummary:
    """Ego4D narrations and actions: see `handloom.ingest.ego4d.ingest_ego4d`."""
    options["window"] = NarrationWindow(mode=window, before_s=before_s, after_s=after_s)
    return _store(db, ingest_ego4d(manifest, videos, choice=Choice(others=others), **options))


def _store(db: Database, result: IngestResult) -> IngestSummary:
    check_of_people(db, {clip.dataset for clip in result.clips})
    done = add_clips(db, result.clips)
    return IngestSummary(
        counts=result.counts,
        added=done.added,
        changed=done.changed,
        already_there=done.already_there,
        num_clips=db.count("clip_list"),
        left_out=result.num_left_out,
        problems=tuple(result.problems),
    )

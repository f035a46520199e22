"""Makes rows without Ray, and databases to compare them with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from support.rows import digests

from handloom.api import Database
from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.stages.extract import Extractor
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import end_run, start_run
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource

LIGHT = {"tracks": {"grid": 6, "extra": 0}}
"""Settings with which the tracks of a second take little time."""


def new_extractor(settings: Settings) -> Extractor:
    """As a run makes it: rows hold its run key and the keys of its stages."""
    versions = model_versions(settings)
    return Extractor(settings, settings.run_key(versions), keys=stage_graph(settings).keys(versions))


def rows_of(clips: Iterable[Clip], settings: Settings | None = None) -> Iterator[pa.RecordBatch]:
    """The clips' rows in their order, by one Extractor in this process."""
    settings = settings or Settings()
    clips = list(clips)
    extractor = new_extractor(settings)
    source = VideoSource()
    decoder = Decoder(settings.video.sample_hz, settings.video.short_side_px, DecodeLimits(), source)
    try:
        for item in decoder.stream(clips):
            if isinstance(item, ClipError):
                raise item
            yield extractor.row(item)
    finally:
        decoder.close()


def new_database(path: Path, clips: Iterable[Clip]) -> Database:
    db = Database.open(path, create=True)
    add_clips(db, list(clips))
    return db


def extracted(
    path: Path, clips: Iterable[Clip], settings: Settings, rows: Iterable[pa.RecordBatch] | None = None
) -> Database:
    """A database with the rows of these clips, each in a fragment of its own, as a run of before has made it.

    rows: those that are known already.
    """
    clips = list(clips)
    db, versions, graph = new_database(path, clips), model_versions(settings), stage_graph(settings)
    run_key = settings.run_key(versions)
    recorded = {"settings": settings.model_dump(mode="json"), "resources": {}, "versions": versions}
    begun = start_run(db, run_key, **recorded, stage_keys=graph.keys(versions))
    committer = Committer(db, run_key, graph.schema())
    for row in rows_of(clips, settings) if rows is None else rows:
        committer.commit([write_fragment(db.uri, [row], graph.schema())])
    counts = {"num_clips": len(clips), "num_rejects": 0, "num_frames": 10, "stage_s": {"hands_2d": 1.0}}
    end_run(db, begun, "done", **counts)
    return db


def row_digests(db: Database) -> dict[str, str]:
    """The digest of every clip's row; fails on a clip with two rows."""
    return digests(db.clips()) if db.count("clips") else {}


def outcome(db: Database) -> dict[str, str]:
    """`row`, or the reason of the reject, of every clip of the list; fails unless each has exactly one of them."""
    found = dict.fromkeys(row_digests(db), "row")
    rejects = db.read("rejects", ["clip_id", "reason"]).to_pylist()
    for reject in rejects:
        if reject["clip_id"] in found:
            raise AssertionError(f"{reject['clip_id']} is {found[reject['clip_id']]} and {reject['reason']}")
        found[reject["clip_id"]] = reject["reason"]
    listed = set(db.read("clip_list", ["clip_id"]).column("clip_id").to_pylist())
    if listed != set(found):
        raise AssertionError(f"not finished: {sorted(listed - set(found))}; not listed: {sorted(set(found) - listed)}")
    return found

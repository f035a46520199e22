"""Rows without Ray, and the databases they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from support.rows import digests

from handloom.api import Database
from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.store.clips.clip_list import add_clips
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.source import VideoSource
from handloom.workers.extraction.extract import Extractor
from handloom.workers.extraction.versions import model_versions


def rows_of(clips: Iterable[Clip], settings: Settings | None = None) -> Iterator[pa.RecordBatch]:
    """The clips' rows in their order, by one Extractor in this process."""
    settings = settings or Settings()
    clips = list(clips)
    extractor = Extractor(settings, settings.run_key(model_versions(settings)))
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


def row_digests(db: Database) -> dict[str, str]:
    """Every clip's content; fails on a clip that is there twice."""
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

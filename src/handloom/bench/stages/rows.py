"""Rows for `bench stages`: real ones of a few clips, extracted in this process, and many copies of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from handloom.api import Database
from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import row_arrays
from handloom.stages.extract import Extractor
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource

FRAGMENT_ROWS = 50


@dataclass
class Made:
    """What was computed. seconds: CPU time of this process, which has one thread; decoding is another process. rows:
    whole ones, or new columns. stages: which stages began, by clip."""

    seconds: float
    rows: list[pa.RecordBatch]
    stages: dict[str, list[str]] = field(default_factory=dict)


class Maker:
    """Holds the models for some settings, loaded. Computes rows, or new columns of rows, with decoding."""

    def __init__(self, settings: Settings) -> None:
        versions = model_versions(settings)
        self.settings, self.run_key = settings, settings.run_key(versions)
        self.graph = stage_graph(settings)
        self.keys = self.graph.keys(versions)
        self._began: list[str] = []
        self._extractor = Extractor(settings, self.run_key, None, self._note, self.keys)

    def _note(self, stage: str, num_frames: int) -> None:
        if stage in self.graph and stage not in self._began:
            self._began.append(stage)

    def fresh(self, clips: Sequence[Clip]) -> Made:
        """Whole rows. Raises ClipError for a clip that cannot be processed."""
        rows, stages = [], {}
        began = time.process_time()
        for frames in _frames(clips, self.settings):
            self._began = []
            rows.append(self._extractor.row(frames))
            stages[frames.clip.clip_id] = self._began
        return Made(time.process_time() - began, rows, stages)

    def updated(self, clips: Sequence[Clip], rows: Sequence[pa.RecordBatch]) -> Made:
        """New columns of rows that other settings have made. Raises ClipError as `fresh`."""
        found, stages = [], {}
        stored = {clip.clip_id: row_arrays(row) for clip, row in zip(clips, rows, strict=True)}
        plans = {clip_id: self._extractor.plan(row, self._outdated(row)) for clip_id, row in stored.items()}
        began = time.process_time()
        decoded = {id_ for id_, plan in plans.items() if plan.reads_frames}
        whole = [clip for clip in clips if clip.clip_id in decoded]
        for clip, frames in self._in_turn(clips, whole):
            self._began = []
            update = self._extractor.update(clip, stored[clip.clip_id], plans[clip.clip_id], frames)
            for error in update.errors.values():
                raise error
            cells = {"clip_id": pa.array([clip.clip_id], pa.string())} | update.cells
            found.append(pa.RecordBatch.from_arrays(list(cells.values()), names=list(cells)))
            stages[clip.clip_id] = self._began
        return Made(time.process_time() - began, found, stages)

    def _in_turn(self, clips: Sequence[Clip], decoded: Sequence[Clip]) -> Iterator[tuple[Clip, Any]]:
        ids = {clip.clip_id for clip in decoded}
        yield from ((clip, None) for clip in clips if clip.clip_id not in ids)
        yield from ((frames.clip, frames) for frames in _frames(decoded, self.settings))

    def _outdated(self, row: Mapping[str, Any]) -> list[str]:
        return [name for name in self.graph.names if row[f"stage_key_{name}"] != self.keys[name]]


def write_copies(folder: Path, maker: Maker, rows: Sequence[pa.RecordBatch], num: int) -> Database:
    """A database of `num` rows: the given ones in turn, under new ids."""
    db = Database.open(folder, create=True)
    schema = maker.graph.schema()
    committer = Committer(db, maker.run_key, schema)
    for start in range(0, num, FRAGMENT_ROWS):
        numbers = range(start, min(start + FRAGMENT_ROWS, num))
        committer.commit([write_fragment(db.uri, [_renamed(rows[n % len(rows)], n) for n in numbers], schema)])
    return db


def _renamed(row: pa.RecordBatch, number: int) -> pa.RecordBatch:
    at = row.schema.get_field_index("clip_id")
    return row.set_column(at, row.schema.field(at), pa.array([f"bench:{number:06d}"], pa.string()))


def _frames(clips: Sequence[Clip], settings: Settings) -> Iterator[Any]:
    video = settings.video
    decoder = Decoder(video.sample_hz, video.short_side_px, DecodeLimits(), VideoSource())
    try:
        for item in decoder.stream(clips) if clips else ():
            if isinstance(item, ClipError):
                raise item
            yield item
    finally:
        decoder.close()

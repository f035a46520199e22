"""`handloom run --verify SHARE`: rows of a sample are computed again and compared with what is stored.

A stage whose output changed though its key is the same has changed without saying so: code without a new `version`,
weights without a digest in `identity()`, numbers that depend on the machine or on the clips before.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handloom.api import Database
from handloom.errors import ClipError, ConfigError
from handloom.plural import plural
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.tables.stage_columns import key_column
from handloom.stages.extract import Extractor, Frames
from handloom.stages.graph import StageGraph
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.changed_inputs import changed_inputs
from handloom.store.clips.clip_list import read_clips
from handloom.store.stages.rows import StoredRows
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource

log = logging.getLogger(__name__)

MAX_CLIPS = 5  # named in a message
INPUT_CHANGED, VIDEO = "another view, camera or hand size in the clip list", "the video cannot be decoded"


@dataclass(frozen=True)
class ChangedStage:
    """A stage whose output is not what rows of the same key have.

    clips: of each, the columns that differ. failed: clips on which it fails now, and why. follows: stages that it reads
    and that changed, too; if there are any, they are the likely cause.
    """

    stage: str
    clips: dict[str, tuple[str, ...]]
    failed: dict[str, str] = field(default_factory=dict)
    follows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verified:
    """num_rows: that pass the filter. num_sampled: of the sample. stages: clips compared, by stage. skipped: clips of
    the sample that could not be compared, by reason. changed: in the order of the stages. left_out: stages with an
    environment of their own, which this process does not have.
    """

    num_rows: int
    num_sampled: int
    stages: dict[str, int]
    skipped: dict[str, int]
    changed: tuple[ChangedStage, ...]
    left_out: tuple[str, ...] = ()


def verify(
    db: Database,
    config: RunConfig,
    share: float,
    *,
    where: str | None = None,
    source_options: dict[str, Any] | None = None,
    on_clip: Callable[[int, int | None], None] = lambda done, total: None,
) -> Verified:
    """Compute the stages of some rows again, in this process, and compare. Nothing is written.

    Args:
        share: of the rows, above 0 and at most 1: the same clips each time, by a hash of their ids; at least one.
        where: SQL filter on the clip list.
        on_clip: called with the clips done and their number.

    Raises:
        ConfigError: the settings cannot be used; no row has a stage with their keys.
    """
    settings = config.settings()
    versions = model_versions(settings)
    graph = stage_graph(settings)
    keys = graph.keys(versions)
    left_out = tuple(name for name in graph.own if graph[name].config.env)
    loaded = [name for name in graph.names if name not in left_out]
    rows = _current_rows(db, loaded, keys)
    clips = [clip for clip in read_clips(db, where=where) if clip.clip_id in rows]
    if not clips:
        problem = f"no row of {db.uri} has a stage with the keys of these settings and versions: nothing to compare"
        raise ConfigError(problem, f"`handloom stages --db {db.uri}` shows what the rows have")
    chosen = sample(clips, share)
    log.info("rows are computed again rows=%d of=%d", len(chosen), len(clips))
    extractor = Extractor(settings, settings.run_key(versions), keys=keys, stages=loaded)
    work = _Comparison(db, extractor, graph)
    outdated = set(changed_inputs(db, [clip.clip_id for clip in chosen]))
    fit = [clip for clip in chosen if clip.clip_id not in outdated]
    work.skipped[INPUT_CHANGED] += len(chosen) - len(fit)
    decoder = _decoder(config, source_options)
    try:
        for number, (clip, frames) in enumerate(_with_frames(fit, decoder)):
            on_clip(number, len(chosen))
            work.compare(clip, rows[clip.clip_id], frames)
    finally:
        decoder.close()
    on_clip(len(chosen), len(chosen))
    skipped = {reason: num for reason, num in work.skipped.items() if num}
    return Verified(len(clips), len(chosen), dict(work.compared), skipped, tuple(work.changed()), left_out)


def sample(clips: Sequence[Clip], share: float) -> list[Clip]:
    """A share of the clips by a hash of their ids, whatever else is in the list; the lowest one if that is none."""
    rank = {clip.clip_id: int(hashlib.sha256(clip.clip_id.encode()).hexdigest()[:12], 16) / 16**12 for clip in clips}
    chosen = [clip for clip in clips if rank[clip.clip_id] < share]
    return chosen or sorted(clips, key=lambda clip: rank[clip.clip_id])[:1]


def verified_text(found: Verified, db: str) -> str:
    """The result of `verify` as text."""
    lines = [f"{plural(found.num_sampled, 'row')} of {found.num_rows} computed again"]
    lines += [f"  not compared: {plural(num, 'row')}, {reason}" for reason, num in found.skipped.items()]
    if found.left_out:
        lines.append(f"  not compared: {', '.join(found.left_out)}, which have environments of their own")
    if not found.changed:
        lines.append(
            f"all is as it was: {plural(len(found.stages), 'stage')} of {max(found.stages.values() or [0])} rows"
        )
        return "\n".join(lines)
    for one in found.changed:
        lines += _changed_lines(one, found.stages[one.stage])
    first = [one.stage for one in found.changed if not one.follows]
    lines += [
        "these stages changed what they write without another key: rows of before and after cannot be told apart",
        f"in your class: a new `version`, or what changed in identity(); then handloom run --db {db} --recompute "
        f"{','.join(first)}",
        "if nothing was changed: does it depend on chance, on the time, on the clips before, on this machine?",
    ]
    return "\n".join(lines)


def same_cells(one: pa.Array, other: pa.Array) -> bool:
    """Whether two arrays hold equal bits, NaN included."""
    if one.type != other.type or len(one) != len(other) or not one.is_valid().equals(other.is_valid()):
        return False
    kind = one.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = (pc.list_value_length(array) for array in (one, other))
        return next(lengths).equals(next(lengths)) and same_cells(one.flatten(), other.flatten())
    if pa.types.is_struct(kind):
        pairs = zip(one.flatten(), other.flatten(), strict=True)
        return all(same_cells(left, right) for left, right in pairs)
    if pa.types.is_floating(kind):
        left, right = (array.drop_null().to_numpy(zero_copy_only=False) for array in (one, other))
        return np.ascontiguousarray(left).tobytes() == np.ascontiguousarray(right).tobytes()
    return one.equals(other)


class _Comparison:
    """Computes clips again and keeps what differs."""

    def __init__(self, db: Database, extractor: Extractor, graph: StageGraph) -> None:
        self._extractor, self._graph = extractor, graph
        self._rows = StoredRows(db.uri, db.storage_options)
        self.compared: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._clips: dict[str, dict[str, tuple[str, ...]]] = {}
        self._failed: dict[str, dict[str, str]] = {}

    def compare(self, clip: Clip, stages: Sequence[str], frames: Frames | ClipError) -> None:
        """stages: those whose columns the row has with today's key."""
        stored = self._rows.row(clip.clip_id, self._extractor.schema.names)
        if stored is None:
            return
        row = row_arrays(stored)
        if isinstance(frames, ClipError):
            self.skipped[f"{VIDEO} ({frames.reason})"] += 1
            stages = [name for name in stages if not self._extractor.plan(row, [name]).reads_frames]
        if not stages:
            return
        # Without keys: a stage that fails then leaves the new columns of the stages before it, which are compared.
        row |= {key_column(name): None for name in stages}
        plan = self._extractor.plan(row, stages)
        update = self._extractor.update(clip, row, plan, None if isinstance(frames, ClipError) else frames)
        self.compared.update(stages)
        for name in stages:
            if name in update.errors:
                self._failed.setdefault(name, {})[clip.clip_id] = f"{update.errors[name].reason}"
        for name in update.done:
            columns = [column for column in self._graph[name].columns if column in update.cells]
            differing = tuple(
                column
                for column in columns
                if not same_cells(stored.column(column).combine_chunks(), update.cells[column])
            )
            if differing:
                self._clips.setdefault(name, {})[clip.clip_id] = differing

    def changed(self) -> Iterator[ChangedStage]:
        differing = [name for name in self._graph.names if name in self._clips or name in self._failed]
        for name in differing:
            before = set(self._graph.ancestors([name])) - {name}
            follows = tuple(other for other in differing if other in before)
            yield ChangedStage(name, self._clips.get(name, {}), self._failed.get(name, {}), follows)


def _current_rows(db: Database, stages: Sequence[str], keys: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Of each row, those of the stages that it has with these keys; rows without any are left out."""
    table = db.table("clips")
    there = [] if table is None else [name for name in stages if key_column(name) in table.schema.names]
    found: dict[str, tuple[str, ...]] = {}
    for batch in db.batches(["clip_id", *map(key_column, there)], batch_size=8192) if there else ():
        columns = [batch.column(key_column(name)).to_pylist() for name in there]
        for clip_id, *of_row in zip(batch.column("clip_id").to_pylist(), *columns, strict=True):
            stages = tuple(name for name, key in zip(there, of_row, strict=True) if key == keys[name])
            if stages:
                found[clip_id] = stages
    return found


def _decoder(config: RunConfig, source_options: dict[str, Any] | None) -> Decoder:
    r, video = config.resources, config.settings().video
    limits = DecodeLimits(r.decode_timeout_s, r.decode_memory_mb, r.decode_ahead_mb, r.decode_sandbox)
    return Decoder(video.sample_hz, video.short_side_px, limits, VideoSource(storage_options=source_options))


def _with_frames(clips: Sequence[Clip], decoder: Decoder) -> Iterator[tuple[Clip, Frames | ClipError]]:
    items = decoder.stream(clips)
    by_id = {clip.clip_id: clip for clip in clips}
    for item in items:
        yield by_id[item.clip_id if isinstance(item, ClipError) else item.clip.clip_id], item


def _changed_lines(one: ChangedStage, num: int) -> Iterator[str]:
    after = f", as do {', '.join(one.follows)}, which it reads" if one.follows else ""
    if one.clips:
        columns = ", ".join(dict.fromkeys(column for found in one.clips.values() for column in found))
        yield f"{one.stage}: {len(one.clips)} of {plural(num, 'row')} differ in {columns}{after}"
        yield f"  {_named(list(one.clips))}"
    if one.failed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(one.failed.values()).items())
        yield f"{one.stage}: {len(one.failed)} of {plural(num, 'row')} fail now ({reasons})"
        yield f"  {_named(list(one.failed))}"


def _named(clip_ids: Sequence[str]) -> str:
    more = f" and {len(clip_ids) - MAX_CLIPS} more" if len(clip_ids) > MAX_CLIPS else ""
    return ", ".join(clip_ids[:MAX_CLIPS]) + more

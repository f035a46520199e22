"""Shards of clips and their results: small values that travel through Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

from handloom.errors import ConfigError, StoreError
from handloom.io.addresses import is_remote
from handloom.schemas.clip import Clip
from handloom.schemas.tables.reject import Reject
from handloom.store.fragments import FragmentRecord
from handloom.store.stages.rejects import StageReject
from handloom.store.stages.staged import ColumnUpdate
from handloom.workers.place import Place

TAIL_SHARDS = 2  # a shard takes at most half of the clips that are left per worker
LEAST_CLIPS, LEAST_SHARE = 4, 0.25  # a shard has no fewer clips, unless they are a quarter of the longest shard


@dataclass(frozen=True)
class Shard:
    """Clips that one task processes in order; what a crash loses at most.

    targets: the stages to compute for clips that have a row; () for clips without one, which get all. fragments: of
    the table `clips`, that held the row of each clip when the shard was planned; None: unknown.
    """

    clips: tuple[Clip, ...]
    targets: tuple[str, ...] = ()
    fragments: tuple[int | None, ...] = ()

    @property
    def video_uri(self) -> str:
        """The video of its first clip; usually of all."""
        return self.clips[0].video_uri

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Shard:
        values = json.loads(text)
        clips = tuple(Clip(**clip) for clip in values["clips"])
        return Shard(clips, tuple(values["targets"]), tuple(values["fragments"]))


@dataclass(frozen=True)
class ShardResult:
    """A shard's rows, in uncommitted fragments, and rejects. Every clip is in one of them; or in neither, where the
    worker had to stop before it, or where it comes again in the next round.

    failure: `problem` and `hint` of an error that ends the run; there are no rows then. A value, not an exception: Ray
        Data wraps exceptions of its workers so that they look like bugs.
    refused: likewise, why this worker must make no rows: its versions differ from the driver's, or it lacks what the
        settings need. Ends the run as well.
    given_back: no clip was begun.
    alone: clips that come again, each in a shard of its own.
    host, node_id: where it was processed. decoded_on: the node that decoded it, where that was another worker.
    elsewhere: clips that failed perhaps because of the node, and come again on another one.
    targets: of the shard; `rejects` are then of clips that have a row. updates: their new columns, staged. updated:
        clips of which all targets are in `updates` or `stage_rejects`. stage_rejects: stages that failed on clips with
        a row.
    moved: clips that come again on another node, as a stage of theirs has hung on the one in the reject.
    interrupted: KeyboardInterrupt was raised in the worker, at this stage: the run ends as after Ctrl-C.
    """

    record: FragmentRecord | None
    rejects: tuple[Reject, ...]
    num_frames: int
    stage_s: dict[str, float] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    given_back: bool = False
    alone: tuple[str, ...] = ()
    host: str | None = None
    node_id: str | None = None
    decoded_on: str | None = None
    elsewhere: tuple[str, ...] = ()
    refused: tuple[str, str] | None = None
    targets: tuple[str, ...] = ()
    updates: tuple[ColumnUpdate, ...] = ()
    updated: tuple[str, ...] = ()
    stage_rejects: tuple[StageReject, ...] = ()
    moved: tuple[Reject, ...] = ()
    interrupted: str | None = None

    def clip_ids(self) -> tuple[str, ...]:
        """The finished clips: rows, new columns and rejects. The others were given back."""
        rows = self.record.clip_ids if self.record else ()
        return (*rows, *self.updated, *(reject.clip_id for reject in self.rejects))

    def at(self, place: Place) -> ShardResult:
        """The same result with `place` as the node, in its rejects too."""
        rejects = tuple(replace(reject, host=place.host, node_id=place.node_id) for reject in self.rejects)
        stage_rejects = tuple(replace(reject, host=reject.host or place.host) for reject in self.stage_rejects)
        return replace(self, rejects=rejects, stage_rejects=stage_rejects, host=place.host, node_id=place.node_id)

    def check(self) -> None:
        """Raise the worker's StoreError, if it met one; ConfigError where it was refused."""
        if self.refused is not None:
            raise ConfigError(*self.refused)
        if self.failure is not None:
            raise StoreError(*self.failure)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> ShardResult:
        values = json.loads(text)
        record = values["record"]
        if record is not None:
            record = FragmentRecord(tuple(record["fragments"]), tuple(record["clip_ids"]))
        rejects = tuple(Reject(**reject) for reject in values["rejects"])
        failure = values["failure"] and tuple(values["failure"])
        lists = {name: tuple(values[name]) for name in ("alone", "elsewhere", "targets", "updated")}
        lists["updates"] = tuple(ColumnUpdate.from_json(json.dumps(update)) for update in values["updates"])
        lists["stage_rejects"] = tuple(StageReject(**reject) for reject in values["stage_rejects"])
        lists["moved"] = tuple(Reject(**reject) for reject in values["moved"])
        lists["refused"] = values["refused"] and tuple(values["refused"])
        return ShardResult(**(values | {"record": record, "rejects": rejects, "failure": failure} | lists))


def plan_update_shards(
    clips: Iterable[Clip],
    targets: Mapping[str, tuple[str, ...]],
    fragment_of: Callable[[str], int | None],
    shard_clips: int,
    shard_s: float,
    num_workers: int = 1,
    batch_clips: Mapping[str, int] | None = None,
) -> Iterator[Shard]:
    """Divide clips that have a row into shards: each of one fragment and one set of targets, so that a fragment's clips
    come together; in a shard in the order of the videos.

    batch_clips: {stage: clips that it takes at once}. Where a target takes several, shards are of several fragments:
    fragments of a few rows would make batches of a few clips.
    """
    groups: dict[tuple[int | None, tuple[str, ...]], list[Clip]] = {}
    for clip in clips:
        groups.setdefault((fragment_of(clip.clip_id), targets[clip.clip_id]), []).append(clip)
    batched: dict[tuple[str, ...], list[Clip]] = {}
    for (fragment, stages), group in sorted(groups.items(), key=lambda item: (item[0][0] is None, item[0])):
        if _batch(stages, batch_clips or {}) > 1:
            batched.setdefault(stages, []).extend(clip for video in _by_video(group) for clip in video)
            continue
        for shard in plan_shards(group, shard_clips, shard_s, 1):
            yield replace(shard, targets=stages, fragments=(fragment,) * len(shard.clips))
    for stages, group in batched.items():
        for some in _in_batches(group, _batch(stages, batch_clips or {}), shard_clips, shard_s, num_workers):
            yield Shard(some, stages, tuple(fragment_of(clip.clip_id) for clip in some))


def _batch(stages: Iterable[str], batch_clips: Mapping[str, int]) -> int:
    return max((batch_clips.get(stage, 1) for stage in stages), default=1)


def _in_batches(
    clips: list[Clip], batch: int, shard_clips: int, shard_s: float, num_workers: int
) -> Iterator[tuple[Clip, ...]]:
    """Shards of whole batches, the last one but; as in `plan_shards`, with fewer batches towards the end."""
    at = 0
    while at < len(clips):
        guided = min(shard_clips, (len(clips) - at) // (TAIL_SHARDS * num_workers))
        end = at + batch
        while end + batch <= at + guided and sum(_seconds(clip, shard_s) for clip in clips[at:end]) < shard_s:
            end += batch
        yield tuple(clips[at:end])
        at = end


def plan_shards(clips: Iterable[Clip], shard_clips: int, shard_s: float, num_workers: int) -> Iterator[Shard]:
    """Divide the clips into shards: clips of a video together, in order of time.

    A shard ends at `shard_clips` clips or `shard_s` seconds, and after a clip of unknown length. Towards the end of the
    list shards become smaller, so that all workers finish together (guided self-scheduling, Polychronopoulos and Kuck,
    1987), but where there are many workers not smaller than `LEAST_CLIPS` or `LEAST_SHARE` of `shard_s`: each shard is
    a file, and an entry that every commit writes. (Down to one clip, 100,000 clips for 1,600 workers were 27,000
    shards; they are 11,000.) Where there are few clips for so many workers, a quarter of a worker's share is the least.
    The order of shards follows the clip list. A remote video that does not fit into the rest of a shard has shards of
    its own: each worker with a part of it must fetch it.
    """
    videos = _by_video(clips)
    num_left = sum(map(len, videos))
    least = min(LEAST_CLIPS, num_workers // 8, num_left // (4 * num_workers))
    shard: list[Clip] = []
    seconds, max_clips, guided = 0.0, shard_clips, shard_clips
    for video in videos:
        fits = len(shard) + len(video) <= max_clips and seconds + sum(_seconds(c, shard_s) for c in video) <= shard_s
        if shard and not fits and is_remote(video[0].video_uri):
            yield Shard(tuple(shard))
            shard, seconds = [], 0.0
        begun_in = shard
        for clip in video:
            if not shard:
                guided = max(1, num_left // (TAIL_SHARDS * num_workers))
                max_clips = min(shard_clips, max(guided, least))
            shard.append(clip)
            num_left -= 1
            seconds += _seconds(clip, shard_s)
            enough = len(shard) >= guided and seconds >= LEAST_SHARE * shard_s
            if len(shard) >= max_clips or seconds >= shard_s or enough:
                yield Shard(tuple(shard))
                shard, seconds = [], 0.0
        if shard and shard is not begun_in and is_remote(video[0].video_uri):  # the rest of a divided video
            yield Shard(tuple(shard))
            shard, seconds = [], 0.0
    if shard:
        yield Shard(tuple(shard))


def _seconds(clip: Clip, unknown_s: float) -> float:
    return unknown_s if clip.end_s is None else max(0.0, clip.end_s - clip.start_s)


def _by_video(clips: Iterable[Clip]) -> list[list[Clip]]:
    videos: dict[str, list[Clip]] = {}
    for clip in clips:
        videos.setdefault(clip.video_uri, []).append(clip)
    return [sorted(video, key=lambda c: (c.start_s, c.clip_id)) for video in videos.values()]

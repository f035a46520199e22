"""Shards of clips, and what a worker says of one: small values that travel through Ray."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace

from handloom.errors import ConfigError, StoreError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.reject import Reject
from handloom.store.fragments import FragmentRecord
from handloom.video.fetch.schemes import is_remote
from handloom.workers.place import Place

TAIL_SHARDS = 4  # a shard takes at most a quarter of what each worker still has before it


@dataclass(frozen=True)
class Shard:
    """Clips that one task processes in order: the unit of work and of loss."""

    clips: tuple[Clip, ...]

    @property
    def video_uri(self) -> str:
        """Of its clips, or of the first of them."""
        return self.clips[0].video_uri

    def to_json(self) -> str:
        return json.dumps([asdict(clip) for clip in self.clips])

    @staticmethod
    def from_json(text: str) -> Shard:
        return Shard(tuple(Clip(**values) for values in json.loads(text)))


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard: rows in uncommitted fragments, and rejects. Every clip is in exactly one of them; or in
    neither, where the worker was told to stop before it, or where it is to come again in the next round.

    failure: why there is nothing instead (`problem`, `hint` of an error that ends the run). A value, not an exception:
        Ray Data wraps what its workers raise until nobody can tell it from a bug.
    refused: why this worker may make no rows at all, likewise: it has other versions than the driver, or not what the
        settings need. That ends the run as well.
    given_back: no clip of it was looked at.
    alone: clips that are to come again as shards of one.
    host, node_id: where it was worked on. decoded_on: the node that decoded it, where that was another worker's work.
    elsewhere: clips that failed with what may be the node's fault, and come again on another one.
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

    def clip_ids(self) -> tuple[str, ...]:
        """The clips that are finished, as rows or rejects. Others of the shard were given back."""
        return (*(self.record.clip_ids if self.record else ()), *(reject.clip_id for reject in self.rejects))

    def at(self, place: Place) -> ShardResult:
        """The same, worked on at `place`, which its rejects name too."""
        rejects = tuple(replace(reject, host=place.host, node_id=place.node_id) for reject in self.rejects)
        return replace(self, rejects=rejects, host=place.host, node_id=place.node_id)

    def check(self) -> None:
        """Raise the StoreError that the worker met, if it met one; ConfigError where it was refused."""
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
        lists = {name: tuple(values[name]) for name in ("alone", "elsewhere")}
        lists["refused"] = values["refused"] and tuple(values["refused"])
        return ShardResult(**(values | {"record": record, "rejects": rejects, "failure": failure} | lists))


def plan_shards(clips: Iterable[Clip], shard_clips: int, shard_s: float, num_workers: int) -> Iterator[Shard]:
    """Cut the clips into shards: videos kept together, each video's clips in order of time.

    A shard is closed at `shard_clips` clips or `shard_s` seconds, and at a clip of unknown length. Towards the end of
    the list shards shrink, so that all workers finish together (guided self-scheduling, Polychronopoulos and Kuck,
    1987). The order of shards follows the clip list. A remote video that does not fit whole into what is left of a
    shard has shards of its own: whoever takes up a part of it fetches it.
    """
    videos = _by_video(clips)
    num_left = sum(map(len, videos))
    shard: list[Clip] = []
    seconds, room = 0.0, shard_clips
    for video in videos:
        fits = len(shard) + len(video) <= room and seconds + sum(_seconds(c, shard_s) for c in video) <= shard_s
        if shard and not fits and is_remote(video[0].video_uri):
            yield Shard(tuple(shard))
            shard, seconds = [], 0.0
        begun_in = shard
        for clip in video:
            if not shard:
                room = min(shard_clips, max(1, num_left // (TAIL_SHARDS * num_workers)))
            shard.append(clip)
            num_left -= 1
            seconds += _seconds(clip, shard_s)
            if len(shard) >= room or seconds >= shard_s:
                yield Shard(tuple(shard))
                shard, seconds = [], 0.0
        if shard and shard is not begun_in and is_remote(video[0].video_uri):  # the end of a video that was cut
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

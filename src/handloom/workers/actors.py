"""The callables in Ray Data's actor pools.

A row of the input is a shard (`shard`: JSON, or the number of a ticket); a row of the output is a shard's result
(`result`: JSON). In split mode a row between the two holds the shard's frames (`frames`: a pickled
`DecodedShard`, or a `ShardResult` where the decode worker makes none). Between two groups of stages it holds the clips
(`clips`: a pickled `PassedShard`).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.reject import RETRIABLE, Reject
from handloom.stages.pools.travel import Frames, SentFrames
from handloom.store.runs.runs import DECODE, LOAD
from handloom.video.decode.decoder import DecodedClip
from handloom.workers.bugs import for_each
from handloom.workers.groups.passed import PassedShard, Stream
from handloom.workers.groups.processor import GroupProcessor
from handloom.workers.ledger import MAX_CRASHES
from handloom.workers.place import Place
from handloom.workers.setup import WorkerSetup, refusal
from handloom.workers.shard import Shard, ShardResult
from handloom.workers.stage_report import Work

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class InlineFrames:
    """A decoded clip that travels through the object store.

    frames: None where they exceed `inline_frames_mb` (or decoding them crashed workers): the actor with the models
        then decodes the clip itself.
    error: why the clip could not be decoded, or None.
    place: the node that decoded it, or tried to.
    """

    clip: Clip
    frames: SentFrames | None
    error: ClipError | None = None
    place: Place | None = None

    @staticmethod
    def of(item: DecodedClip, came: Callable[[], object]) -> InlineFrames:
        """All frames of a clip. came: called with each chunk that arrives. Raises ClipError: it cannot be decoded."""
        chunks: list[NDArray[np.uint8]] = []
        for chunk in item.chunks(chunks.clear):
            chunks.append(chunk)
            came()
        frames = SentFrames(item.clip, item.header, np.concatenate(chunks)) if chunks else None
        return InlineFrames(item.clip, frames)


@dataclass(frozen=True)
class DecodedShard:
    """A shard on its way between decoding and models. frames: of each clip."""

    frames: list[InlineFrames]
    shard: Shard


class DecodeWorker:
    """Split mode, first half: a shard in, its frames out."""

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle) -> None:
        self._ledger = ledger
        self._work = Work(ledger, setup.resources)
        self._max_bytes = setup.resources.inline_frames_mb << 20
        self._decoder, place = setup.decoder(self._work.still_fetching), self._work.place
        self._refused: ShardResult | None = None
        with self._work.on((), LOAD):
            try:
                setup.check_versions(place.host)
            except ConfigError as error:
                self._refused = ShardResult(None, (), 0, refused=refusal(error, place.host)).at(place)

    def __call__(self, batch: Batch) -> Batch:
        shards = [shard_of(text, self._ledger) for text in batch["shard"]]
        rows = [pickle.dumps(self._refused or self._decode(shard), protocol=5) for shard in shards]
        return {"frames": np.array(rows, dtype=object)}

    def _decode(self, shard: Shard) -> DecodedShard:
        """The shard's frames; None for clips that have hung, and for all where workers have crashed on the shard (the
        model actor finds out on which clip), where it is to be given back (the ledger tells the model actor too), and
        of clips with a row: only the model actor knows whether their frames are needed.
        """
        clip_ids = [clip.clip_id for clip in shard.clips]
        with self._work.on(clip_ids, DECODE):
            entry = ray.get(self._ledger.decode.remote(clip_ids))
            if entry is None or entry.num_crashes >= MAX_CRASHES or shard.targets:
                return DecodedShard([InlineFrames(clip, None) for clip in shard.clips], shard)
            found = self._decoded([clip for clip in shard.clips if clip.clip_id not in entry.hung])
            return DecodedShard([found.get(clip.clip_id, InlineFrames(clip, None)) for clip in shard.clips], shard)

    def _decoded(self, clips: Sequence[Clip]) -> dict[str, InlineFrames]:
        work = for_each(clips, self._stream, self._collected, begin=self._begin, stage=lambda: DECODE)
        try:
            found = (InlineFrames(c, None, end) if isinstance(end, ClipError) else end for c, end in work)
            return {frames.clip.clip_id: replace(frames, place=self._work.place) for frames in found}
        except ConfigError:  # no decoding on this node: the model actor decodes, or returns the same error
            return {}

    def _begin(self, clip: Clip) -> bool:
        self._work.clip(clip.clip_id, DECODE)
        return True

    def _collected(self, item: DecodedClip) -> InlineFrames:
        return InlineFrames.of(item, partial(self._work.begin, DECODE))

    def _stream(self, clips: Sequence[Clip]) -> Generator[DecodedClip | ClipError, None, None]:
        return self._decoder.stream(clips, self._max_bytes)


class GroupWorker:
    """One group of stages: all of them where none has a pool of its own. The first group gets shards, or their frames;
    the last one makes results.
    """

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle, number: int = 0) -> None:
        self._ledger, self._is_last = ledger, number == len(setup.groups) - 1
        self._processor = GroupProcessor(setup, ledger, number)

    def __call__(self, batch: Batch) -> Batch:
        if "clips" in batch:
            done = self._processor.process([pickle.loads(row) for row in batch["clips"]])
        elif "shard" in batch:
            done = [self._processor.first(shard_of(text, self._ledger)) for text in batch["shard"]]
        else:
            done = [self._of_frames(pickle.loads(row)) for row in batch["frames"]]
        if self._is_last:
            return {"result": np.array([shard.result.to_json() for shard in done], dtype=object)}
        return {"clips": np.array([pickle.dumps(shard, protocol=5) for shard in done], dtype=object)}

    def _of_frames(self, decoded: DecodedShard | ShardResult) -> PassedShard:
        if isinstance(decoded, ShardResult):
            return PassedShard((), decoded)
        done = self._processor.first(decoded.shard, stream_of(decoded.frames, self._processor.stream))
        return replace(done, result=where_decoded(done.result, decoded.frames))


def stream_of(decoded: Sequence[InlineFrames], decode: Stream) -> Stream:
    """Clips with the frames that came, or decoded here."""
    by_id = {frames.clip.clip_id: frames for frames in decoded}

    def stream(clips: Iterable[Clip]) -> Generator[Frames | ClipError, None, None]:
        for clip in clips:
            frames = by_id[clip.clip_id]
            if frames.error is not None:
                yield frames.error
            elif frames.frames is None:
                yield from decode([clip])
            else:
                yield frames.frames

    return stream


def where_decoded(result: ShardResult, decoded: Sequence[InlineFrames]) -> ShardResult:
    """The result with the node that has decoded the shard, in rejects of clips that it failed to decode, too."""
    by_id = {frames.clip.clip_id: frames for frames in decoded}
    rejects = tuple(_where_decoded(reject, by_id[reject.clip_id]) for reject in result.rejects)
    places = (frames.place for frames in decoded if frames.frames is not None and frames.place is not None)
    return replace(result, rejects=rejects, decoded_on=next((place.node_id for place in places), None))


def _where_decoded(reject: Reject, frames: InlineFrames) -> Reject:
    """The reject with the node that failed to decode the clip; for retriable reasons it was tried again on this one."""
    if frames.error is None or frames.place is None or reject.reason in RETRIABLE:
        return reject
    return replace(reject, host=frames.place.host, node_id=frames.place.node_id)


def shard_of(text: str, ledger: ray.actor.ActorHandle) -> Shard:
    """The shard of an input row; for a ticket, the one that the ledger hands out to this worker."""
    if text.isdigit():
        context = ray.get_runtime_context()
        text = ray.get(ledger.take.remote(int(text), context.get_node_id(), context.get_actor_id()))
    return Shard.from_json(text)

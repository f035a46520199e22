"""The callables that Ray Data holds in its actor pools.

A row of the input is one shard (`shard`: JSON, or the number of a ticket); a row of the output is one shard's result
(`result`: JSON). In split mode a row between the two holds the shard's frames (`frames`: pickled list of
`InlineFrames`, or why there are none).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.reject import RETRIABLE, Reject
from handloom.video.decode.decoder import DecodedClip, DecoderSwitched, Header
from handloom.workers.bugs import for_each
from handloom.workers.ledger import MAX_DEATHS
from handloom.workers.place import Place
from handloom.workers.process import ShardProcessor, WorkerSetup, refusal
from handloom.workers.shard import Shard, ShardResult
from handloom.workers.work import DECODE, LOAD, Work

Batch = dict[str, NDArray[Any]]
CHUNK_FRAMES = 16


@dataclass(frozen=True)
class InlineFrames:
    """A decoded clip that travels through the object store.

    frames: (T, h, w, 3) uint8, or None where they exceed `inline_frames_mb` (or decoding them killed workers): the
        model actor then decodes the clip itself.
    error: why the clip could not be decoded, or None.
    place: where it was decoded, or was tried to be.
    """

    clip: Clip
    header: Header | None
    frames: NDArray[np.uint8] | None
    error: ClipError | None = None
    place: Place | None = None

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        for at in range(0, len(self.frames), CHUNK_FRAMES):
            yield self.frames[at : at + CHUNK_FRAMES]


class FusedWorker:
    """Decode and models in one actor: a shard in, its result out."""

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle) -> None:
        self._ledger = ledger
        self._processor = ShardProcessor(setup, ledger)

    def __call__(self, batch: Batch) -> Batch:
        shards = [taken(text, self._ledger) for text in batch["shard"]]
        results = [self._processor.process(shard.clips) for shard in shards]
        return {"result": np.array([result.to_json() for result in results], dtype=object)}


class DecodeWorker:
    """Split mode, first half: a shard in, its frames out."""

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle) -> None:
        self._ledger = ledger
        self._work = Work(ledger, setup.resources)
        self._max_bytes = setup.resources.inline_frames_mb << 20
        self._decoder, place = setup.decoder(self._work.video_comes), self._work.place
        self._refused: ShardResult | None = None
        with self._work.on((), LOAD):
            try:
                setup.check_versions(place.host)
            except ConfigError as error:
                self._refused = ShardResult(None, (), 0, refused=refusal(error, place.host)).at(place)

    def __call__(self, batch: Batch) -> Batch:
        shards = [taken(text, self._ledger) for text in batch["shard"]]
        rows = [pickle.dumps(self._refused or self._decode(shard), protocol=5) for shard in shards]
        return {"frames": np.array(rows, dtype=object)}

    def _decode(self, shard: Shard) -> list[InlineFrames]:
        """The shard's frames; none where workers have died on them (the model actor finds out at which clip), of clips
        that have hung, or where the shard is to be given back (the model actor is told so too).
        """
        clip_ids = [clip.clip_id for clip in shard.clips]
        with self._work.on(clip_ids, DECODE):
            entry = ray.get(self._ledger.decode.remote(clip_ids))
            if entry is None or entry.num_deaths >= MAX_DEATHS:
                return [InlineFrames(clip, None, None) for clip in shard.clips]
            found = self._decoded([clip for clip in shard.clips if clip.clip_id not in entry.hung])
            return [found.get(clip.clip_id, InlineFrames(clip, None, None)) for clip in shard.clips]

    def _decoded(self, clips: Sequence[Clip]) -> dict[str, InlineFrames]:
        work = for_each(clips, self._stream, self._collected, begin=self._begin, stage=lambda: DECODE)
        try:
            found = (InlineFrames(c, None, None, end) if isinstance(end, ClipError) else end for c, end in work)
            return {frames.clip.clip_id: replace(frames, place=self._work.place) for frames in found}
        except ConfigError:  # no decoding on this node; the model actor decodes, or meets the same and says so
            return {}

    def _begin(self, clip: Clip) -> bool:
        self._work.clip(clip.clip_id, DECODE)
        return True

    def _collected(self, item: DecodedClip) -> InlineFrames:
        while True:
            chunks = []
            try:
                for chunk in item.chunks():
                    chunks.append(chunk)
                    self._work.begin(DECODE)
                return InlineFrames(item.clip, item.header, np.concatenate(chunks) if chunks else None)
            except DecoderSwitched:
                continue

    def _stream(self, clips: Sequence[Clip]) -> Iterator[DecodedClip | ClipError]:
        return self._decoder.stream(clips, self._max_bytes)


class ModelWorker:
    """Split mode, second half: a shard's frames in, its result out."""

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle) -> None:
        self._processor = ShardProcessor(setup, ledger)

    def __call__(self, batch: Batch) -> Batch:
        results = [self._result(pickle.loads(row)) for row in batch["frames"]]
        return {"result": np.array([result.to_json() for result in results], dtype=object)}

    def _result(self, decoded: list[InlineFrames] | ShardResult) -> ShardResult:
        """A result: that of a decode worker that makes no frames."""
        return decoded if isinstance(decoded, ShardResult) else self._process(decoded)

    def _process(self, decoded: list[InlineFrames]) -> ShardResult:
        by_id = {frames.clip.clip_id: frames for frames in decoded}

        def stream(clips: Iterable[Clip]) -> Iterator[InlineFrames | DecodedClip | ClipError]:
            for clip in clips:
                frames = by_id[clip.clip_id]
                if frames.error is not None:
                    yield frames.error
                elif frames.frames is None:
                    yield from self._processor.stream([clip])
                else:
                    yield frames

        result = self._processor.process([frames.clip for frames in decoded], stream)
        rejects = tuple(_where_decoded(reject, by_id[reject.clip_id]) for reject in result.rejects)
        places = (frames.place for frames in decoded if frames.frames is not None and frames.place is not None)
        return replace(result, rejects=rejects, decoded_on=next((place.node_id for place in places), None))


def _where_decoded(reject: Reject, frames: InlineFrames) -> Reject:
    """The reject, at the place that decoded the clip, if it failed there; what can be tried again was tried here."""
    if frames.error is None or frames.place is None or reject.reason in RETRIABLE:
        return reject
    return replace(reject, host=frames.place.host, node_id=frames.place.node_id)


def taken(text: str, ledger: ray.actor.ActorHandle) -> Shard:
    """The shard of an input row, or, where that is a ticket, what the ledger gives for it here."""
    if text.isdigit():
        context = ray.get_runtime_context()
        text = ray.get(ledger.take.remote(int(text), context.get_node_id(), context.get_actor_id()))
    return Shard.from_json(text)

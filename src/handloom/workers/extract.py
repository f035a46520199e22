"""A clip's frames to its row: stage after stage, fed chunk by chunk so that memory does not grow with the clip."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.draw.thumbnail import FrameKeeper
from handloom.geometry.picture_stats import PictureStats
from handloom.models.appearance import GistHogHsv
from handloom.models.motion import encode_motion
from handloom.schemas.clip import Clip
from handloom.schemas.row import build_row
from handloom.schemas.settings import Settings
from handloom.video.decoder import DecoderSwitched, Header
from handloom.video.frame_store import FrameStore
from handloom.workers.settled import settled
from handloom.workers.stages import Stages


class Frames(Protocol):
    """A clip's decoded frames, from the decode child or from the object store."""

    clip: Clip
    header: Header

    def chunks(self) -> Iterator[NDArray[np.uint8]]: ...


class Extractor:
    """Holds the models; turns one clip's frames into its row. `stage_s` sums the seconds spent per stage.

    host: what rows say of where they were made.
    """

    def __init__(self, settings: Settings, run_key: str, host: str | None = None) -> None:
        self._run_key, self._host = run_key, host
        self._stages = Stages(settings)
        self._appearance = GistHogHsv()
        self._keeper = FrameKeeper(settings.frames)
        self._pictures = PictureStats()
        self.stage_s: dict[str, float] = defaultdict(float)

    def row(self, frames: Frames) -> pa.RecordBatch:
        """The clip's row of `clips`.

        Raises:
            ClipError: the clip cannot be decoded or processed.
        """
        while True:
            store = FrameStore(frames.header.frame_s)
            try:
                with settled():
                    self._feed(frames, store)
                    return self._finish(frames.clip, frames.header, store)
            except DecoderSwitched:
                continue  # all frames come again, from the other decoder
            finally:
                store.close()

    def _feed(self, frames: Frames, store: FrameStore) -> None:
        clip, info = frames.clip, frames.header.info
        self._appearance.begin(clip, info)
        self._keeper.begin(len(frames.header.frame_s))
        self._pictures.begin()
        at, clock = 0, Clock(self.stage_s)
        for chunk in frames.chunks():
            clock.lap("decode_wait")
            frame_s = frames.header.frame_s[at : at + len(chunk)]
            at += len(chunk)
            store.append(chunk)
            self._appearance.feed(chunk, frame_s)
            clock.lap("embeddings")
            self._keeper.feed(chunk, frame_s)
            self._pictures.feed(chunk)
            clock.lap("pictures")
        clock.lap("decode_wait")

    def _finish(self, clip: Clip, header: Header, store: FrameStore) -> pa.RecordBatch:
        clock = Clock(self.stage_s)
        found = self._stages.understand(clip, header.info, store, self._pictures.finish(), clock.lap)
        embeddings = {
            "motion": encode_motion(found.hands, found.tracks, header.frame_s, header.info),
            "appearance": self._appearance.finish(found.hands),
        }
        clock.lap("embeddings")
        frame_jpeg, thumbnail = self._keeper.finish()
        clock.lap("pictures")
        row = build_row(
            clip,
            info=header.info,
            decoder=header.decoder,
            frame_s=header.frame_s,
            camera=found.camera,
            path=found.path,
            hands=found.hands,
            hands_world_m=found.hands_world_m,
            tracks=found.tracks,
            lifted=found.lifted,
            depth_source=found.depth_source,
            embeddings=embeddings,
            quality=found.quality,
            frame_flags=found.flags,
            frame_jpeg=frame_jpeg,
            thumbnail=thumbnail,
            run_key=self._run_key,
            host=self._host,
        )
        clock.lap("row")
        return row


class Clock:
    """Adds the seconds since the last lap to a stage's sum."""

    def __init__(self, sums: dict[str, float]) -> None:
        self._sums = sums
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._sums[stage] += now - self._last
        self._last = now

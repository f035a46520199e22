"""A clip's frames to its row: stage after stage, fed chunk by chunk so that memory does not grow with the clip."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from handloom.draw.thumbnail import FrameKeeper
from handloom.geometry.picture_stats import PictureStats
from handloom.models.embeddings.appearance import GistHogHsv
from handloom.models.embeddings.motion import encode_motion
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import build_row
from handloom.video.decode.decoder import DecoderSwitched, Header
from handloom.video.decode.frame_store import FrameStore
from handloom.workers.extraction.choose import heavy_stages
from handloom.workers.extraction.stages import Stages

_LIBRARIES: list[tuple[int, ThreadpoolController]] = []  # the last scan, and how many modules were imported then


@contextmanager
def settled() -> Iterator[None]:
    """One thread in every library, no code that depends on addresses, random numbers from the start.

    The processes that handloom starts have one thread from the beginning (`kernels.PINNED`); this is for all others, in
    which numpy was imported long before. BLAS and OpenMP get their threads back at the end.
    """
    cv2.setNumThreads(1)
    # Intel's primitives inside OpenCV choose their code by processor and by address. Of this thread only, as the seed.
    cv2.ipp.setUseIPP(False)
    cv2.setRNGSeed(0)
    with _libraries().limit(limits=1):
        yield


def _libraries() -> ThreadpoolController:
    """Those that are loaded now. A scan takes milliseconds, and only an import can have loaded another."""
    num_modules = len(sys.modules)
    if not _LIBRARIES or _LIBRARIES[0][0] != num_modules:
        _LIBRARIES[:] = [(num_modules, ThreadpoolController())]
    return _LIBRARIES[0][1]


class Frames(Protocol):
    """A clip's decoded frames, from the decode child or from the object store."""

    clip: Clip
    header: Header

    def chunks(self) -> Iterator[NDArray[np.uint8]]: ...


def nobody(stage: str, num_frames: int) -> None:
    """Nobody wants to know what an Extractor is doing."""


class Extractor:
    """Holds the models; turns one clip's frames into its row. `stage_s` sums the seconds spent per stage.

    host: what rows say of where they were made. tell: called with each stage's name when it begins, and the number of
    frames it is about to work on, more for heavy networks: what it may take is in proportion to it.
    """

    def __init__(
        self, settings: Settings, run_key: str, host: str | None = None, tell: Callable[[str, int], None] = nobody
    ) -> None:
        self._run_key, self._host, self._tell = run_key, host, tell
        self._stages = Stages(settings, partial(tell, num_frames=0))
        self._num_grid = settings.num_grid()
        self._heavy = heavy_stages(settings)
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
        at, clock = 0, Clock(self.stage_s, self._tell)
        clock.begin("decode_wait")
        for chunk in frames.chunks():
            clock.begin("embeddings", len(chunk))
            frame_s = frames.header.frame_s[at : at + len(chunk)]
            at += len(chunk)
            store.append(chunk)
            self._appearance.feed(chunk, frame_s)
            clock.begin("pictures", len(chunk))
            self._keeper.feed(chunk, frame_s)
            self._pictures.feed(chunk)
            clock.begin("decode_wait")
        clock.end()

    def _finish(self, clip: Clip, header: Header, store: FrameStore) -> pa.RecordBatch:
        clock = Clock(self.stage_s, self._tell)

        def begin(stage: str) -> None:
            clock.begin(stage, round(len(store) * self._heavy.get(stage, 1.0)))

        begin("pictures")
        found = self._stages.understand(clip, header.info, store, self._pictures.finish(), begin)
        begin("embeddings")
        embeddings = {
            "motion": encode_motion(found.hands, found.tracks, header.frame_s, header.info),
            "appearance": self._appearance.finish(found.hands),
        }
        begin("pictures")
        frame_jpeg, thumbnail = self._keeper.finish()
        begin("row")
        row = build_row(
            clip,
            info=header.info,
            decoder=header.decoder,
            frame_s=header.frame_s,
            found=found,
            embeddings=embeddings,
            frame_jpeg=frame_jpeg,
            thumbnail=thumbnail,
            run_key=self._run_key,
            host=self._host,
            num_grid=self._num_grid,
        )
        clock.end()
        return row


class Clock:
    """Adds the seconds of each stage to its sum, and tells who wants to know which one has begun."""

    def __init__(self, sums: dict[str, float], tell: Callable[[str, int], None]) -> None:
        self._sums, self._tell = sums, tell
        self._stage, self._last = "", 0.0

    def begin(self, stage: str, num_frames: int = 0) -> None:
        """A stage ends, where one has begun, and `stage` begins."""
        self.end()
        self._stage = stage
        self._tell(stage, num_frames)

    def end(self) -> None:
        now = time.perf_counter()
        if self._stage:
            self._sums[self._stage] += now - self._last
        self._stage, self._last = "", now

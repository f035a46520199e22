"""Stages of the images themselves: the video's facts and times, stored images, image numbers and cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.image_stats import ImageNumbers, ImageStats
from handloom.models.cuts import find_cuts
from handloom.models.faces import FaceBlur
from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import probe_cells
from handloom.schemas.values import VideoInfo
from handloom.stages.state import pack, unpack
from handloom.stages.work import EVERY_STEP, MISSING, BuiltinStage, Work
from handloom.video.decode.wire import Header
from handloom.video.stored_frames import FrameKeeper

FACE_VERSIONS = ("faces", "ai-edge-litert", "mediapipe")
Pictures = tuple[list[bytes] | None, bytes, list[int] | None]
"""JPEGs, the strip, and the number of blurred faces of each frame; None: not stored, not asked for."""


class Probe(BuiltinStage):
    """What the file says of the video, and the sampling grid. Its value is the decoder's `Header`."""

    name = "probe"
    reads_frames = True
    versions = ("decord", "pyav", "decode", "numpy")

    def key_settings(self) -> dict[str, Any]:
        return self.config.video.model_dump(mode="json")

    def cells(self, value: Header, work: Work) -> dict[str, Any]:
        return probe_cells(work.clip, value.info, value.decoder, value.frame_s)

    def state(self, value: Header) -> bytes:
        return pack((value.info, value.size), (VideoInfo,))

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        if state is None or row.get("frame_s") is None:
            return MISSING
        info, size = unpack(state, (VideoInfo,))
        return Header(info, row["decoder"], row["frame_s"], size)


class StoredFrames(BuiltinStage):
    """JPEGs of the sampled frames and the thumbnail strip, with faces or blurred ones."""

    name = "frames"
    after = ("probe",)
    reads_frames = True
    versions = (*EVERY_STEP, "row")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._keeper = FrameKeeper(settings.frames)
        self._faces: FaceBlur | None = None

    def key_settings(self) -> dict[str, Any]:
        """Those of before 0.4 where faces are not blurred: its rows keep their key."""
        return self.config.frames.model_dump(mode="json", exclude=None if self._blurs else {"blur_faces"})

    def key_identity(self, versions: Mapping[str, str]) -> dict[str, str]:
        names = (*self.versions, *(FACE_VERSIONS if self._blurs else ()))
        return {name: versions[name] for name in names if name in versions}

    def load(self) -> None:
        self._faces = FaceBlur() if self._blurs else None

    def begin(self, work: Work) -> None:
        self._keeper.begin(len(work.frame_s))
        if self._faces is not None:
            self._faces.begin()

    def feed(self, chunk: NDArray[np.uint8], frame_s: NDArray[np.float64]) -> None:
        for frames in [chunk] if self._faces is None else (frame[None] for frame in self._faces.feed(chunk)):
            self._keeper.feed(frames)

    def run(self, work: Work) -> Pictures:
        if self._faces is None:
            return *self._keeper.finish(), None
        for frame in self._faces.finish():
            self._keeper.feed(frame[None])
        return *self._keeper.finish(), self._faces.counts

    def cells(self, value: Pictures, work: Work) -> dict[str, Any]:
        return {"frame_jpeg": value[0], "thumbnail": value[1], "faces_blurred": value[2]}

    @property
    def _blurs(self) -> bool:
        return self.config.frames.blur_faces


@dataclass(frozen=True)
class Seen:
    """numbers: of each image. cuts: first frames of the second and later shots."""

    numbers: ImageNumbers
    cuts: NDArray[np.int64]


class Images(BuiltinStage):
    """Sharpness, brightness, repeats, and cuts. The column `quality` has what users read of it."""

    name = "images"
    after = ("probe",)
    reads_frames = True
    versions = (*EVERY_STEP, "row", "cuts")
    _CLASSES = (Seen, ImageNumbers)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._stats = ImageStats()

    def begin(self, work: Work) -> None:
        self._stats.begin()

    def feed(self, chunk: NDArray[np.uint8], frame_s: NDArray[np.float64]) -> None:
        self._stats.feed(chunk)

    def run(self, work: Work) -> Seen:
        return Seen(self._stats.finish(), find_cuts(work.frames))

    def state(self, value: Seen) -> bytes:
        return pack(value, self._CLASSES)

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        return MISSING if state is None else unpack(state, self._CLASSES)

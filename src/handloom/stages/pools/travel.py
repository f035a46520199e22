"""A clip between two stages: what is computed of it, and what of that later groups of stages need."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ClipError
from handloom.models.protocols import ClipFrames
from handloom.schemas.clip import Clip
from handloom.schemas.tables.stage_columns import KEY_PREFIX
from handloom.stages.graph import StageGraph
from handloom.stages.own import OwnStage
from handloom.stages.stage import FrameRequest
from handloom.video.decode.frame_store import FrameStore
from handloom.video.decode.wire import Header
from handloom.video.stored_frames import shrink_to_short_side

CHUNK_FRAMES = 16
KEPT = ("clip_id", "frame_s", "view", "camera", "hand")  # of a row: what its new columns are compared with


class Frames(Protocol):
    """A clip's decoded frames: a `DecodedClip`, or one that came through the object store."""

    @property
    def clip(self) -> Clip: ...

    @property
    def header(self) -> Header: ...

    def chunks(self, begin: Callable[[], object]) -> Iterator[NDArray[np.uint8]]:
        """As `DecodedClip.chunks`."""
        ...


@dataclass(frozen=True)
class Plan:
    """What a clip needs. compute: the stages to compute, in order: the targets, and others whose values its row does
    not hold. reads_frames: whether its video must be decoded."""

    targets: tuple[str, ...]
    compute: tuple[str, ...]
    reads_frames: bool


@dataclass(frozen=True)
class Update:
    """New columns of a row. cells: arrays of length 1 by column, those of the stages `done`. errors: why others have
    none, by stage."""

    cells: dict[str, pa.Array]
    done: tuple[str, ...]
    errors: dict[str, ClipError]


@dataclass(frozen=True)
class SentFrames:
    """All frames of a clip, (T, h, w, 3) uint8 RGB, from another process."""

    clip: Clip
    header: Header
    frames: NDArray[np.uint8]

    def chunks(self, begin: Callable[[], object]) -> Iterator[NDArray[np.uint8]]:
        """As `DecodedClip.chunks`; can be read again."""
        begin()
        for at in range(0, len(self.frames), CHUNK_FRAMES):
            yield self.frames[at : at + CHUNK_FRAMES]


@dataclass(frozen=True)
class PickedFrames:
    """The frames that one stage asks for, shrunk to what it asks for. index: (n,) which of the clip's frames."""

    index: NDArray[np.int64]
    images: NDArray[np.uint8]

    @staticmethod
    def of(request: FrameRequest, frames: ClipFrames, frame_s: NDArray[np.float64]) -> PickedFrames:
        """Those of a request, from all of the clip's."""
        index = request.indices(frame_s)
        images = [frames.rgb(at) for at in index.tolist()]
        if request.short_side_px is not None:
            images = [shrink_to_short_side(image, request.short_side_px) for image in images]
        return PickedFrames(index, np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8))

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """(h, w, 3): a frame of the clip. IndexError where it was not asked for."""
        at = int(np.searchsorted(self.index, index))
        if at == len(self.index) or self.index[at] != index:
            raise IndexError(f"frame {index} was not asked for")
        return self.images[at]


@dataclass
class UnderWay:
    """A clip some of whose stages are computed.

    row: of the table, by column; None for a new clip. values: of the stages that handloom brings. cells: arrays of
    length 1, by stage and column. errors: of the stages that have failed, or are left out. source: where its frames
    come from, until they are read; then they are in `store`. picked: frames by stage of one's own. decodes_again: its
    frames were too many to be sent. num_frames: that were decoded.
    """

    clip: Clip
    plan: Plan
    row: Mapping[str, Any] | None = None
    values: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, dict[str, pa.Array]] = field(default_factory=dict)
    errors: dict[str, ClipError] = field(default_factory=dict)
    source: Frames | None = None
    store: FrameStore | None = None
    picked: dict[str, PickedFrames] = field(default_factory=dict)
    decodes_again: bool = False
    num_frames: int = 0

    def frames_for(self, own: OwnStage) -> ClipFrames | PickedFrames | None:
        """The frames of a stage of one's own; None where it reads none, or stored ones."""
        if not own.reads_frames:
            return None
        return self.picked.get(own.name, self.store)

    def for_later(self, graph: StageGraph, later: Collection[str], max_bytes: float = math.inf) -> UnderWay:
        """The same clip with what the stages `later` and its row need, to be sent to another process.

        max_bytes: of frames. Where there are more, the video is decoded again.
        """
        stages = [graph[name] for name in self.plan.compute if name in later and name not in self.errors]
        own = [stage for stage in stages if isinstance(stage, OwnStage)]
        brought = [stage for stage in stages if not isinstance(stage, OwnStage)]
        read = {"probe", *(name for stage in brought for name in stage.after)}
        values = {name: value for name, value in self.values.items() if name in read}
        given: dict[str, Any] = {
            "row": self._row_for(own),
            "values": values,
            "source": None,
            "store": None,
            "picked": {},
        }
        if any(stage.reads_frames for stage in brought):
            given |= self._all_frames(max_bytes)
        elif not (self.decodes_again and self.store is None):
            given["picked"] = {stage.name: self._picked(stage) for stage in own if stage.reads_frames}
            if sum(frames.images.nbytes for frames in given["picked"].values()) > max_bytes:
                given |= {"picked": {}, "decodes_again": True}
        return replace(self, **given)

    def _picked(self, own: OwnStage) -> PickedFrames:
        if own.name in self.picked:
            return self.picked[own.name]
        store = cast("FrameStore", self.store)  # its frames have been read, as others want them
        return PickedFrames.of(cast("FrameRequest", own.request), store, store.frame_s)

    def _all_frames(self, max_bytes: float) -> dict[str, Any]:
        header: Header = self.values["probe"]
        if self.store is None and isinstance(self.source, SentFrames):  # nobody has read them
            return {"source": self.source}
        if self.store is None or header.num_bytes > max_bytes:
            return {"decodes_again": True}
        frames = np.stack([self.store.rgb(at) for at in range(len(self.store))])
        return {"source": SentFrames(self.clip, header, frames)}

    def _row_for(self, own: Collection[OwnStage]) -> dict[str, Any] | None:
        """The columns of the row that these stages read, and the keys. The stages that handloom brings read values."""
        if self.row is None:
            return None
        read = {*KEPT, *(column for stage in own for column in stage.reads_columns)}
        return {name: value for name, value in self.row.items() if name in read or name.startswith(KEY_PREFIX)}

    def close(self) -> None:
        """Forget the frames."""
        if self.store is not None:
            self.store.close()

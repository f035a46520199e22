"""One clip on its way through the stages that handloom brings, and the base class of these stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.tables.stage_columns import COLUMNS_OF
from handloom.schemas.values import VideoInfo
from handloom.video.decode.frame_store import FrameStore

MISSING: Any = object()
"""A stage's value that a row does not hold."""
EVERY_STEP = ("numpy", "scipy", "opencv", "arithmetic")
"""Versions that count for every stage that computes."""


class Work:
    """One clip: its frames, the values of the stages so far, and the row that exists already, if there is one.

    info, frame_s: of its video, and of its T sampled frames. frames: at the working size; None if none are needed.
    decoder: the one that read it. row: of the table, by column (`row_arrays`); None for a new clip. num_grid: G.
    """

    def __init__(
        self,
        clip: Clip,
        settings: Settings,
        values: dict[str, Any],
        frames: FrameStore | None,
        row: Mapping[str, Any] | None = None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self.clip, self.settings, self.values, self.row = clip, settings, values, row
        self.on_step = on_step
        self._frames = frames

    def __getitem__(self, stage: str) -> Any:
        """The value of a stage that was computed or restored before."""
        return self.values[stage]

    @property
    def info(self) -> VideoInfo:
        return self.values["probe"].info

    @property
    def frame_s(self) -> NDArray[np.float64]:
        return self.values["probe"].frame_s

    @property
    def frames(self) -> FrameStore:
        if self._frames is None:
            raise RuntimeError(f"a stage of {self.clip.clip_id} reads frames without having said so")
        return self._frames


class BuiltinStage:
    """A stage that handloom brings. Between such stages go values (`schemas.values`), not columns: they keep their
    precision. What a row's columns do not hold of a value is kept in the state column.

    name: a key of `COLUMNS_OF`. after: stages whose values it reads. reads_frames: it reads frames at the working size.
    clip_fields: fields of the clip list that decide its output. versions: names in `stages.versions`.
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    reads_frames: ClassVar[bool] = False
    clip_fields: ClassVar[tuple[str, ...]] = ()
    versions: ClassVar[tuple[str, ...]] = EVERY_STEP

    def __init__(self, settings: Settings) -> None:
        self.config = settings

    @property
    def reads_stages(self) -> tuple[str, ...]:
        """The stages whose keys are part of its key."""
        return self.after

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it writes."""
        return COLUMNS_OF[self.name]

    def key_settings(self) -> dict[str, Any]:
        """The settings that decide its output."""
        return {}

    def key_identity(self, versions: Mapping[str, str]) -> dict[str, str]:
        """Its part of the versions."""
        return {name: versions[name] for name in self.versions if name in versions}

    def load(self) -> None:
        """Load models."""

    def begin(self, work: Work) -> None:
        """A clip begins, or begins again."""

    def feed(self, chunk: NDArray[np.uint8], frame_s: NDArray[np.float64]) -> None:
        """The next frames, (n, h, w, 3) RGB, as they are decoded; only if `reads_frames`."""

    def run(self, work: Work) -> Any:
        """The stage's value. Raises ClipError."""
        raise NotImplementedError

    def cells(self, value: Any, work: Work) -> dict[str, Any]:
        """The values of its columns."""
        return {}

    def state(self, value: Any) -> bytes | None:
        """What its columns do not hold of the value; None without a state column."""
        return None

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        """The value from a row and its state; `MISSING` where the row does not hold all of it."""
        return MISSING

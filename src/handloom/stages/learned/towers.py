"""Embeddings of clips by published image and video networks: SigLIP 2, DINOv3 and v2, CLIP, V-JEPA 2, VideoMAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from handloom.errors import ClipError
from handloom.models.embeddings.learned.plan import VERSION, plan_tower
from handloom.models.embeddings.learned.tower import Tower as Network
from handloom.schemas.towers import TowerSettings
from handloom.stages.stage import ClipInput, FrameRequest, Stage, StageSettings, embedding_field


class TowerStageSettings(TowerSettings, StageSettings):
    """What can change the embedding, but for the weights' bytes."""

    source: Literal["stored", "video"] = "stored"
    """`stored`: the frames of the column `frame_jpeg`, 256 px high by default: no video is decoded for a table that
    exists. `video`: frames of the video at the working size, for networks that see more than the stored ones hold."""


class Tower(Stage):
    """The column `embedding_NAME` of `[stages.NAME]`: a network's unit vector of each clip.

    Raises:
        ConfigError: the model is not there or of an unknown kind, or the settings do not fit it.
    """

    version = VERSION
    Settings = TowerStageSettings
    settings: TowerStageSettings

    def __init__(self, name: str, settings: TowerStageSettings) -> None:
        super().__init__(name, settings)
        self._plan = plan_tower(settings, f"stages.{name}.settings.")
        is_stored = settings.source == "stored"
        side = None if is_stored else self._plan.preprocessing.short_side_px
        self.frames = FrameRequest(stored=is_stored, short_side_px=side, count=self._plan.num_frames)

    def fields(self) -> Sequence[pa.Field]:
        plan = self._plan
        model = (
            plan.settings.model if plan.files.revision else Path(plan.settings.model).name
        )  # no folder of one machine
        told: dict[str, Any] = {"model": model, "version": plan.files.weights(), "licence": plan.licence}
        return [embedding_field(self.name, plan.dim, **told)]

    def identity(self) -> Mapping[str, str]:
        return self._plan.identity()

    def load(self) -> None:
        self._network = Network(self._plan)

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any] | ClipError]:
        found = self._network.embed([one.frames for one in clips if one.frames is not None])
        return [self._checked(one, vector) for one, vector in zip(clips, found, strict=True)]

    def close(self) -> None:
        del self._network

    def _checked(self, one: ClipInput, vector: np.ndarray) -> Mapping[str, Any] | ClipError:
        if np.isfinite(vector).all():
            return {f"embedding_{self.name}": vector}
        problem = f"{self.settings.model} gave numbers that are not finite, with dtype = {self.settings.dtype}"
        hint = "set dtype to float32" if self.settings.dtype != "float32" else "look at the clip's frames"
        return ClipError(one.clip.clip_id, self.name, "model_failed", problem, hint)

"""The stages of the two embeddings that need no learned weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.appearance import GistHogHsv
from handloom.models.embeddings.motion import encode_motion
from handloom.schemas.settings import Settings
from handloom.stages.work import EVERY_STEP, BuiltinStage, Work


class Motion(BuiltinStage):
    """What hands and points do."""

    name = "motion"
    after = ("probe", "hands_3d", "tracks")
    versions = (*EVERY_STEP, "embedding_motion")

    def run(self, work: Work) -> NDArray[np.float32] | None:
        return encode_motion(work["hands_3d"].hands, work["tracks"], work.frame_s, work.info)

    def cells(self, value: NDArray[np.float32] | None, work: Work) -> dict[str, Any]:
        return {"embedding_motion": value}


class Appearance(BuiltinStage):
    """What the scene and the hands look like."""

    name = "appearance"
    after = ("probe", "hands_2d")
    reads_frames = True
    versions = (*EVERY_STEP, "embedding_appearance")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._encoder = GistHogHsv()

    def begin(self, work: Work) -> None:
        self._encoder.begin(work.clip, work.info)

    def feed(self, chunk: NDArray[np.uint8], frame_s: NDArray[np.float64]) -> None:
        self._encoder.feed(chunk, frame_s)

    def run(self, work: Work) -> NDArray[np.float32]:
        return self._encoder.finish(work["hands_2d"])

    def cells(self, value: NDArray[np.float32], work: Work) -> dict[str, Any]:
        return {"embedding_appearance": value}

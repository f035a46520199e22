"""The stage of a clip's fingerprint, by which copies of a recording are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import PIL
import pyarrow as pa

from handloom.schemas.tables.duplicates import COURSE, PICTURES
from handloom.schemas.version_policy import counted
from handloom.stages.stage import ClipInput, FrameRequest, Stage
from handloom.video.fingerprint import course
from handloom.video.fingerprint.pictures import RATE_HZ, VERSION, Fingerprint, fingerprint


class Fingerprints(Stage):
    """`fingerprint` and `fingerprint_course`; null where the row stores no frames."""

    version = VERSION
    frames = FrameRequest(stored=True, hz=RATE_HZ, optional=True)

    def fields(self) -> Sequence[pa.Field]:
        return [pa.field(PICTURES, pa.binary()), pa.field(COURSE, pa.list_(pa.int8(), course.DIM))]

    def identity(self) -> Mapping[str, str]:
        return counted({"opencv": cv2.__version__, "numpy": np.__version__, "pillow": PIL.__version__})

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        return [self._one(clip) for clip in clips]

    @staticmethod
    def _one(clip: ClipInput) -> dict[str, Any]:
        if clip.frames is None or not len(clip.frames):
            return {PICTURES: None, COURSE: None}
        data = fingerprint(clip.frames)
        return {PICTURES: data, COURSE: course.course(Fingerprint(data))}

"""Stages of one's own for tests. Workers import this module, too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from handloom.stages import ClipInput, FrameRequest, Stage, StageSettings


class Brightness(Stage):
    """The mean brightness of a few small frames."""

    frames = FrameRequest(short_side_px=64, count=4)

    class Settings(StageSettings):
        log: str = ""
        """File to which the number of clips of each call is appended."""

    def fields(self) -> Sequence[pa.Field]:
        return [pa.field(self.name, pa.list_(pa.float32())), pa.field(f"{self.name}_frame", pa.list_(pa.int64()))]

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        if self.settings.log:
            with open(self.settings.log, "a") as file:
                file.write(f"{len(clips)}\n")
        return [
            {
                self.name: one.frames.reshape(len(one.frames), -1).mean(1, dtype=np.float64),
                f"{self.name}_frame": one.frame_index,
            }
            for one in clips
        ]


class Ratio(Stage):
    """Reads columns of other stages and stored images; decodes nothing."""

    columns = ("bright", "hand_confidence")
    frames = FrameRequest(stored=True, hz=2.0)

    def fields(self) -> Sequence[pa.Field]:
        return [pa.field("ratio", pa.float64())]

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        self.count("clips", len(clips))
        return [{"ratio": self._ratio(one)} for one in clips]

    def _ratio(self, one: ClipInput) -> float | None:
        if one.row["bright"] is None:
            return None
        seen = float(np.isfinite(one.row["hand_confidence"]).mean())
        return float(one.frames.mean(dtype=np.float64)) / (1.0 + float(one.row["bright"][0])) + seen


class Faulty(Stage):
    """Fails on some clips: raises, gives too few values, hangs, dies, or takes memory without end."""

    columns = ("clip_id", "num_frames")

    class Settings(StageSettings):
        faults: tuple[tuple[str, str], ...] = ()
        """`(part of a clip's id, what happens there)`."""
        once: str = ""
        """Folder in which a file says that a fault `dies once` has happened; it then happens no more."""

    def fields(self) -> Sequence[pa.Field]:
        return [pa.field(self.name, pa.int64())]

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        found = []
        for one in clips:
            kind = next((fault for part, fault in self.settings.faults if part in one.clip.clip_id), "")
            if kind == "few":
                return []
            if kind != "dies once" or self._is_due(one.clip.clip_id):
                _fail(kind)
            found.append({self.name: int(one.row["num_frames"])})
        return found

    def _is_due(self, clip_id: str) -> bool:
        mark = Path(self.settings.once) / clip_id.replace("/", "_").replace(":", "_")
        if mark.exists():
            return False
        mark.touch()
        return True


def _fail(kind: str) -> None:
    if kind == "raises":
        raise RuntimeError("this stage does not like the clip")
    if kind == "hangs":
        time.sleep(3600)
    if kind.startswith("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "leaks":
        raise MemoryError("no memory is left")


class Packaged(Stage):
    """Needs a package of its own environment."""

    class Settings(StageSettings):
        package: str = "tinypkg"

    columns = ("clip_id",)

    def fields(self) -> Sequence[pa.Field]:
        return [pa.field("packaged", pa.string())]

    def load(self) -> None:
        import importlib

        self._package = importlib.import_module(self.settings.package)

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        return [{"packaged": f"{self._package.WORD} {one.row['clip_id']}"} for one in clips]


class Device(Stage):
    """Writes which GPUs its process may use."""

    columns = ("clip_id",)

    def fields(self) -> Sequence[pa.Field]:
        return [pa.field("device", pa.string())]

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        return [{"device": os.environ.get("CUDA_VISIBLE_DEVICES", "none")} for _ in clips]

"""Stages of one's own for tests: good ones, and ones with every kind of fault."""

from __future__ import annotations

import itertools
import sys
from typing import ClassVar

import numpy as np
import pyarrow as pa

from handloom.errors import ClipError
from handloom.stages.stage import FrameRequest, Stage, StageSettings, embedding_field

HERE = __name__
MEGABYTE = 1 << 20
_counter = itertools.count()


class Brightness(Stage):
    """Mean brightness of a few stored frames, and an embedding of it."""

    columns = ("hand_visible",)
    frames = FrameRequest(stored=True, count=4, short_side_px=32)

    class Settings(StageSettings):
        scale: float = 1.0

    def fields(self):
        dim = 2
        return [
            pa.field("brightness", pa.list_(pa.float32())),
            pa.field("num_hands", pa.int32()),
            embedding_field("brightness", dim, model="mean", version="1"),
        ]

    def compute(self, clips):
        return [self.one(clip) for clip in clips]

    def one(self, clip):
        means = clip.frames.reshape(len(clip.frames), -1).mean(1) * self.settings.scale
        num = int(clip.row["hand_visible"].any(0).sum())
        return {"brightness": means, "num_hands": num, "embedding_brightness": np.array([0.6, 0.8])}


class Words(Stage):
    """Length of what is told of a clip."""

    columns = ("narration",)

    def fields(self):
        return [pa.field("num_letters", pa.int32())]

    def compute(self, clips):
        return [{"num_letters": len(clip.row["narration"] or "")} for clip in clips]


class LooksAtCamera(Stage):
    """Length of the camera's JSON."""

    columns = ("camera",)

    def fields(self):
        return [pa.field("camera_letters", pa.int32())]

    def compute(self, clips):
        return [{"camera_letters": len(clip.row["camera"] or "")} for clip in clips]


class Reads(Stage):
    """Reads and writes the columns of its settings."""

    class Settings(StageSettings):
        reads: tuple[str, ...] = ()
        writes: tuple[str, ...] = ("mine",)

    def __init__(self, name, settings):
        super().__init__(name, settings)
        self.columns = settings.reads

    def fields(self):
        return [pa.field(name, pa.float32()) for name in self.settings.writes]

    def compute(self, clips):
        return [dict.fromkeys(self.settings.writes, 1.0) for _ in clips]


class ReadsSets(Reads):
    class Settings(Reads.Settings):
        verbs: frozenset[str] = frozenset()
        by_hand: dict[str, set[str]] | None = None
        groups: tuple[frozenset[str], ...] = ()


class Typed(Stage):
    """One column of any field; `give` makes its values."""

    field: ClassVar[pa.Field] = pa.field("typed", pa.list_(pa.float32()))
    give: ClassVar = None

    def fields(self):
        return [self.field]

    def compute(self, clips):
        return [{self.field.name: type(self).give()} for _ in clips]


class NoStage:
    """No subclass of Stage."""


class NeedsMore(Stage):
    def __init__(self, name, settings, more):
        super().__init__(name, settings)


class RaisesWhenMade(Reads):
    def __init__(self, name, settings):
        raise KeyError("weights")


class NoFields(Stage):
    def compute(self, clips):
        return []


class TextColumns(Reads):
    def __init__(self, name, settings):
        super().__init__(name, settings)
        self.columns = "hand_visible"


class NoRequest(Reads):
    frames = 8


class NumberedVersion(Reads):
    version = 2


class PlainSettings(Reads):
    Settings = dict


class Unstable(Reads):
    def identity(self):
        return {"weights": "a", "made": str(next(_counter))}


class CannotTell(Reads):
    def identity(self):
        raise FileNotFoundError("weights.bin")


class Writes(Stage):
    """Changes what it gets."""

    columns = ("hand_visible", "frame_s", "video_notes")
    frames = FrameRequest(stored=True, count=1)

    class Settings(StageSettings):
        what: str = "hand_visible"

    def fields(self):
        return [pa.field("mine", pa.float32())]

    def compute(self, clips):
        (clip,) = clips
        if self.settings.what == "frames":
            clip.frames[:] = 0
        elif self.settings.what == "row":
            clip.row["mine"] = 1
        elif self.settings.what == "video_notes":
            clip.row["video_notes"].append("mine")
        else:
            clip.row[self.settings.what][:] = 0
        return [{"mine": 1.0}]


class Prints(Reads):
    def compute(self, clips):
        print("x" * MEGABYTE)
        print("y" * MEGABYTE, file=sys.stderr)
        return super().compute(clips)


class Exits(Reads):
    def compute(self, clips):
        sys.exit("no licence")


class Panic(BaseException):
    """As PyO3's, which libraries in Rust raise."""


class Panics(Reads):
    def compute(self, clips):
        raise Panic("index out of bounds")


class ExitsWhenLoaded(Reads):
    def load(self):
        sys.exit("no GPU")


class Fails(Reads):
    """Fails on the clips that are not the first of their video."""

    def compute(self, clips):
        for clip in clips:
            if clip.clip.start_s > 0:
                raise ValueError(f"no idea of {clip.clip.clip_id}")
        return super().compute(clips)


class Interrupted(Reads):
    """As Ctrl-C in its code."""

    def compute(self, clips):
        raise KeyboardInterrupt


class Says(Reads):
    """Gives an error of its own, for another clip and with a reason that nobody knows."""

    def compute(self, clips):
        return [ClipError("another", "other", "gripper_lost", "no gripper in the image", "look") for _ in clips]


class OneArray(Stage):
    """Writes the values of all clips into one array."""

    def fields(self):
        return [pa.field("mine", pa.list_(pa.float32()))]

    def compute(self, clips):
        values, found = np.zeros(2, np.float32), []
        for number, _ in enumerate(clips):
            values[:] = number
            found.append({"mine": values})
        return found


class OneDict(Reads):
    def compute(self, clips):
        return [{"mine": 1.0}] * len(clips)


class Constant(Stage):
    """The same array for every clip, which nobody can write to."""

    VALUES = np.zeros(2, np.float32)
    VALUES.flags.writeable = False

    def fields(self):
        return [pa.field("mine", pa.list_(pa.float32()))]

    def compute(self, clips):
        return [{"mine": self.VALUES} for _ in clips]


class Drifts(Stage):
    """Its output follows something that its identity does not tell."""

    columns = ("hand_visible",)
    drift: ClassVar[float] = 0.0

    def fields(self):
        return [pa.field("drift", pa.float32())]

    def compute(self, clips):
        return [{"drift": self.drift} for _ in clips]


class ReadsDrift(Stage):
    """Fails where the other one has drifted."""

    columns = ("drift",)

    def fields(self):
        return [pa.field("no_drift", pa.bool_())]

    def compute(self, clips):
        for clip in clips:
            if clip.row["drift"]:
                raise ValueError("drifted")
        return [{"no_drift": True} for _ in clips]

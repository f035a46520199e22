"""What a stage is: one declared step from frames and columns to columns. Users write subclasses of `Stage`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Frozen
from handloom.schemas.tables.stage_columns import OWNER, PER_FRAME, READS


@dataclass(frozen=True)
class FrameRequest:
    """The frames of a clip that a stage wants.

    stored: those of the column `frame_jpeg`, so that a stage added later decodes no video; else frames of the video at
        the working size (`video.short_side_px`), for which it is decoded again. The two differ by a JPEG coding, so the
        stage gets the same ones in a first run and when it is added later.
    short_side_px: they are shrunk to this short side, never enlarged; None: as they are.
    hz: at most so many a second, evenly; None: all sampled ones.
    count: so many, the middles of equal parts of the clip (all, where it has fewer); None: no limit. Not with `hz`.
    optional: a row that stores no frames gives None in place of them; else the stage has a reject `no_frames` there.
    """

    stored: bool = False
    short_side_px: int | None = None
    hz: float | None = None
    count: int | None = None
    optional: bool = field(default=False, repr=False)  # keys have the repr of before

    def __post_init__(self) -> None:
        bad = [name for name in ("short_side_px", "hz", "count") if getattr(self, name) is not None]
        bad = [name for name in bad if not getattr(self, name) > 0]
        if bad or (self.hz is not None and self.count is not None):
            problem = f"frames are asked for with {self}: hz, count and short_side_px are above 0, hz or count is given"
            raise ConfigError(problem, "mend the stage's FrameRequest")

    def indices(self, frame_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which of the T sampled frames are wanted, rising; the same for the same times."""
        num = len(frame_s)
        if self.count is not None:
            kept = min(self.count, num)
            return ((2 * np.arange(kept, dtype=np.int64) + 1) * num) // (2 * max(kept, 1))
        if self.hz is None or num == 0:
            return np.arange(num)
        interval = np.floor((frame_s - frame_s[0]) * self.hz + 1e-6)
        return np.flatnonzero(np.diff(interval, prepend=-1) > 0)


@dataclass(frozen=True)
class ClipInput:
    """What a stage gets of one clip.

    clip: its entry in the clip list. row: the columns that the stage reads, as `schemas.tables.row.row_arrays` gives
    them: arrays (T, ...) with NaN for unknown, None for null. frames: (n, h, w, 3) uint8 RGB, None if the stage reads
    none, or `optional` ones that are not stored; frame_index: (n,) which of the clip's T sampled frames they are;
    frame_s: (n,) their times in seconds.
    """

    clip: Clip
    row: Mapping[str, Any]
    frames: NDArray[np.uint8] | None = None
    frame_index: NDArray[np.int64] | None = None
    frame_s: NDArray[np.float64] | None = None


class StageSettings(Frozen):
    """Base of a stage's settings: immutable, unknown names are refused."""


CountIn = Callable[[str, str, float, float | None], bool]
"""Of a run, `(stage, name, amount, most)`: see `Stage.count`."""


_COUNTING = threading.Lock()


class Stage:
    """A step that computes columns of a clip's row. Subclass it, and name the class in `[stages.NAME]` (docs/stages).

    version: change it whenever the code's output changes: it is part of the stage's key.
    columns: columns of the row that it reads, of the clip list or of other stages. frames: those it reads, or None.
    Settings: its settings; an instance is `self.settings`. `columns`, `frames` may be set in `__init__` where they
    depend on settings.
    """

    version: ClassVar[str] = "1"
    columns: Sequence[str] = ()
    frames: FrameRequest | None = None
    Settings: ClassVar[type[StageSettings]] = StageSettings

    def __init__(self, name: str, settings: StageSettings) -> None:
        """name: as in the settings: `gripper` of `[stages.gripper]`."""
        self.name = name
        self.settings: Any = settings  # of the class's own `Settings`, whose names a type checker cannot know here
        self.counted: Counter[str] = Counter()
        self.count_in: CountIn | None = None

    def fields(self) -> Sequence[pa.Field]:
        """The columns that it writes: nullable Arrow fields, at least one. `embedding_field` makes an embedding's."""
        raise NotImplementedError

    def identity(self) -> Mapping[str, str]:
        """All that can change its output besides settings and `version`: digests of weights, versions of libraries.
        Called on the driver and on every worker before the stage is loaded; they must agree. No weights are loaded."""
        return {}

    def load(self) -> None:
        """Load models. Called once in each worker."""

    def count(self, name: str, amount: float = 1, most: float | None = None) -> bool:
        """Add to a number of the run, for all workers together, which the run record keeps (`stage_counts`).

        most: False, and nothing is added, where the sum would be above it: a bound for the whole run, which also holds
        when workers crash. May be called in threads of the stage's own.
        """
        if self.count_in is not None:
            return self.count_in(self.name, name, amount, most)
        with _COUNTING:
            if most is not None and self.counted[name] + amount > most:
                return False
            self.counted[name] += amount  # type: ignore[assignment]  # seconds, euros: no whole numbers
        return True

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any] | ClipError]:
        """The values of its columns, for each clip: numbers, text, lists, arrays, or None for unknown.

        It gets `batch_clips` clips at most, and must give equal bytes whatever clips are together. A handloom.errors.
        ClipError costs that stage of that clip; so does any other exception, as a `bug`.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give back what `load` took."""


def embedding_field(name: str, dim: int, *, model: str, version: str, licence: str | None = None) -> pa.Field:
    """The column `embedding_NAME`: (dim,) float32 of unit norm, which `handloom search --by NAME` uses.

    model, version: of the encoder, for the field's metadata. licence: of its weights; None: unknown.
    """
    if not name or not isinstance(dim, int) or dim < 1:
        raise ConfigError(f"embedding_field({name!r}, {dim!r}): an embedding has a name, and a width of 1 or more")
    metadata = {"encoder": name, "model": model, "version": version, "dim": str(dim)}
    metadata |= {} if licence is None else {"licence": licence}
    return pa.field(f"embedding_{name}", pa.list_(pa.float32(), dim), metadata=metadata)


def frame_field(name: str, kind: pa.DataType, width: int | None = None) -> pa.Field:
    """A column with a value for each of the clip's T sampled frames: (T,), or (T, width). Windows cut it as they cut
    the hands.

    kind: of a number: `pa.float32()`, `pa.bool_()`, ... NaN says that a value is unknown.
    """
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if not is_number or (width is not None and width < 1):
        raise ConfigError(
            f"frame_field({name!r}, {kind}, {width}): expected a kind of number, and a width of 1 or more"
        )
    inner = kind if width is None else pa.list_(kind, width)
    return pa.field(name, pa.list_(inner), metadata={PER_FRAME: b"true"})


def owned(field: pa.Field, stage: str, reads: Sequence[str]) -> pa.Field:
    """The field with its stage's name in the metadata, and the columns of the clip list that the stage reads, itself
    or through another: if their words change, the row needs the stage again."""
    told = {OWNER: stage.encode(), READS: ",".join(reads).encode()}
    return field.with_metadata({**(field.metadata or {}), **told})

"""A map-style dataset over windows of a pinned version of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from handloom.windows.neighbours import Finder, Neighbours
from handloom.windows.plan import Plan, now_of
from handloom.windows.rows.images import ImageCache
from handloom.windows.rows.reader import RowReader, TableRow
from handloom.windows.sample import Sample, cut_window
from handloom.windows.spec import WindowSpec
from handloom.windows.split import why_empty

if TYPE_CHECKING:
    from handloom.store.tables import Tables

Transform = Callable[[Sample], Sample]


@dataclass(frozen=True)
class Memory:
    """Memory of one process in MiB. rows_mb: rows kept for random access. block_mb: rows of one block of a loader,
    which holds up to three. pictures_mb: decoded images. The processes of a loader share its blocks and `pictures_mb`.
    """

    rows_mb: int = 256
    block_mb: int = 128
    pictures_mb: int = 512


class WindowDataset:
    """Windows of one version of a table, by number: `len(windows)`, `windows[i]`.

    Opens nothing before the first read, and can be pickled.
    """

    def __init__(
        self,
        db: Tables,
        spec: WindowSpec,
        version: int,
        plan: Plan,
        *,
        transform: Transform | None = None,
        neighbours: Neighbours | Mapping[str, Sequence[str]] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.db = db
        self.spec = spec
        self.version = version
        self.plan = plan
        self.transform = transform
        self.neighbours = neighbours
        self.memory = memory or Memory()
        self._reader = RowReader(db.location, spec, version, self.memory.rows_mb << 20)
        self._finder = None if neighbours is None else Finder(db, spec, version, neighbours, self.memory.rows_mb << 20)
        self._images = ImageCache(self.memory.pictures_mb << 20)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_images"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._images = ImageCache(self.memory.pictures_mb << 20)

    def __len__(self) -> int:
        return self.plan.num_windows

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples at once, as torch's loaders ask for them. Raises IndexError for a number out of range."""
        wanted = np.asarray(indices, np.int64)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"window {indices}: there are {len(self)}")
        clips, numbers = self.plan.locate(wanted)
        return [self.sample(self._row(int(c)), int(n)) for c, n in zip(clips, numbers, strict=True)]

    def _row(self, clip: int) -> TableRow:
        return self._reader.row(int(self.plan.rows[clip]))

    def sample(self, row: TableRow, number: int) -> Sample:
        """The sample of a clip's window `number`, with neighbours and transform."""
        return self.finish(self.cut(row, number))

    def cut(self, row: TableRow, number: int, copy: bool = True) -> Sample:
        """A clip's window `number` without neighbours and transform. Any thread may call it.

        copy: False may give views of the row, for a caller that copies them into a batch. With a transform the arrays
            are always copies.
        """
        copy = copy or self.transform is not None
        return cut_window(row, now_of(number, self.spec), self.spec, self._images, copy)

    def finish(self, sample: Sample) -> Sample:
        """Add neighbours and apply the transform, in the thread that trains: it may draw random numbers."""
        id_ = sample[self.spec.id_column]
        if self._finder is not None:
            sample["neighbours"] = self._finder.samples(id_)
        if self.transform is None:
            return sample
        with _noting(f"in the transform of the window of {id_} at {sample['now_s']:g} s"):
            return self.transform(sample)

    def keep_images(self, max_bytes: int) -> None:
        """Set the memory for decoded images; those kept so far are dropped."""
        self._images = ImageCache(max_bytes)

    def read_rows(self, clips: Sequence[int]) -> list[TableRow]:
        """Rows of clips of the plan, read in one request and not kept."""
        return self._reader.read([int(self.plan.rows[clip]) for clip in clips])

    def check_neighbours(self) -> None:
        """Raises ConfigError if the neighbours cannot be found for these clips."""
        if self._finder is not None:
            self._finder.check(self.plan)

    @property
    def key(self) -> str:
        """Hash of the spec and the neighbours. With `version` it identifies the samples of a training job."""
        key = self.spec.key()
        return key if self._finder is None else f"{key}-{self._finder.key()}"

    @property
    def counts(self) -> dict[str, int]:
        """`Plan.counts`: rows, rows left out (filtered, other_stage_key, other_embodiment, other_split, too_short,
        null_COLUMN), clips, windows."""
        return dict(self.plan.counts)

    @property
    def stage_keys(self) -> dict[str, dict[str | None, int]]:
        """Of each stage whose columns are read, how many of the clips have which key; None: not computed."""
        return {stage: dict(counts) for stage, counts in self.plan.stage_keys.items()}

    def why_empty(self) -> str:
        """Why this side of a split has no windows, and what to do; empty if it has some."""
        return "" if len(self) else why_empty(self.spec, self.plan.num_videos)

    @property
    def clip_ids(self) -> list[str]:
        """Ids of the clips (or episodes) that have windows, in stored order."""
        return self.plan.ids.to_pylist()

    def describe(self) -> dict[str, Any]:
        """Spec, version, key and counts as JSON values, for reports."""
        spec = self.spec
        kept = ("table", "embodiment", "past", "future", "rate_hz", "stride", "pad", "where", "split", "held_out_share")
        facts = {name: getattr(spec, name) for name in kept}
        facts |= {"fields": list(spec.fields), "version": self.version, "key": self.key, "counts": self.counts}
        keys = {stage: {key or "": num for key, num in counts.items()} for stage, counts in self.stage_keys.items()}
        return facts | {"stage_keys": keys}


@contextmanager
def _noting(where: str) -> Iterator[None]:
    """Add a note with the place to every error that is raised in the block."""
    try:
        yield
    except Exception as error:
        error.add_note(where)
        raise

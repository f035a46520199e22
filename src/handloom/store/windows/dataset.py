"""`Windows`: a map-style dataset over windows of a pinned version of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from handloom.errors import ConfigError, StoreError, with_extra
from handloom.store.embodiment import robot_datasets
from handloom.store.windows.neighbours import Finder, Neighbours
from handloom.store.windows.pictures import PictureCache
from handloom.store.windows.plan import Plan, check_pictures, make_plan, now_of
from handloom.store.windows.rows import Row, RowReader
from handloom.store.windows.sample import Sample, cut_window
from handloom.store.windows.spec import WindowSpec, check_columns, make_spec
from handloom.store.windows.split import why_empty

if TYPE_CHECKING:
    from handloom.store.database import Database
    from handloom.store.windows.loader import WindowLoader

Transform = Callable[[Sample], Sample]


@dataclass(frozen=True)
class Memory:
    """What one process may hold, MiB: rows kept for random access, rows of one block of a loader (which holds up to
    three), decoded pictures. The processes of one loader share its blocks and its pictures' memory."""

    rows_mb: int = 256
    block_mb: int = 128
    pictures_mb: int = 512


class Windows:
    """Windows of one version of a table, by number: `len(windows)`, `windows[i]`, and loaders over them.

    Opens nothing before it reads, and may be pickled. Made by `Database.windows`, which explains samples.
    """

    def __init__(
        self,
        db: Database,
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
        self._pictures = PictureCache(self.memory.pictures_mb << 20)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pictures"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pictures = PictureCache(self.memory.pictures_mb << 20)

    def __len__(self) -> int:
        return self.plan.num_windows

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples at once, as torch's loaders ask. Raises IndexError for a window that there is not."""
        wanted = np.asarray(indices, np.int64)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"window {indices}: there are {len(self)}")
        clips, numbers = self.plan.locate(wanted)
        return [self.sample(self._row(int(c)), int(n)) for c, n in zip(clips, numbers, strict=True)]

    def _row(self, clip: int) -> Row:
        return self._reader.row(int(self.plan.rows[clip]))

    def sample(self, row: Row, number: int) -> Sample:
        """The sample of a clip's window `number`, neighbours and transform included."""
        return self.finish(self.cut(row, number))

    def cut(self, row: Row, number: int, copy: bool = True) -> Sample:
        """A clip's window `number` as it is in the table; any thread may cut.

        copy: False may give views of the row, for whoever copies them into a batch; a transform gets its own arrays.
        """
        copy = copy or self.transform is not None
        return cut_window(row, now_of(number, self.spec), self.spec, self._pictures, copy)

    def finish(self, sample: Sample) -> Sample:
        """Neighbours and the transform, which may draw random numbers and belongs into the thread that trains."""
        id_ = sample[self.spec.id_column]
        if self._finder is not None:
            sample["neighbours"] = self._finder.samples(id_)
        if self.transform is None:
            return sample
        with _noting(f"in the transform of the window of {id_} at {sample['now_s']:g} s"):
            return self.transform(sample)

    def keep_pictures(self, max_bytes: int) -> None:
        """Keep decoded pictures up to so many bytes from now on; those kept so far go."""
        self._pictures = PictureCache(max_bytes)

    def read_rows(self, clips: Sequence[int]) -> list[Row]:
        """Rows of the plan's clips in one request, not kept."""
        return self._reader.read([int(self.plan.rows[clip]) for clip in clips])

    @property
    def key(self) -> str:
        """Hash of what the windows are: their spec and neighbours. With `version` it says which samples a job saw."""
        key = self.spec.key()
        return key if self._finder is None else f"{key}-{self._finder.key()}"

    @property
    def counts(self) -> dict[str, int]:
        """`Plan.counts`: rows, those left out (filtered, other_embodiment, other_split, too_short, null_COLUMN), clips,
        windows."""
        return dict(self.plan.counts)

    def why_empty(self) -> str:
        """Why this side of a split has no windows, and what gives it some; empty where it has."""
        return "" if len(self) else why_empty(self.spec, self.plan.num_videos)

    @property
    def clip_ids(self) -> list[str]:
        """Ids of the clips (or episodes) that have windows, in stored order."""
        return self.plan.ids.to_pylist()

    def at(self, version: int | None = None) -> Windows:
        """The same windows of another version, by default the newest. Raises as `Database.windows`."""
        spec = self.spec
        return open_windows(self.db, spec, version, self.transform, self.neighbours, self.memory)

    def describe(self) -> dict[str, Any]:
        """What a report says of them; JSON values."""
        spec = self.spec
        kept = ("table", "embodiment", "past", "future", "rate_hz", "stride", "pad", "where", "split", "held_out_share")
        facts = {name: getattr(spec, name) for name in kept}
        return facts | {"fields": list(spec.fields), "version": self.version, "key": self.key, "counts": self.counts}

    def statistics(self, fields: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Per element of each per-frame field: see `handloom.store.windows.statistics.statistics`."""
        from handloom.store.windows.statistics import statistics

        return statistics(self, fields)

    def loader(self, batch_size: int, **options: Any) -> WindowLoader:
        """Batches as torch tensors, resumable: see `handloom.store.windows.loader.WindowLoader`."""
        _need_torch()
        from handloom.store.windows.loader import WindowLoader

        return WindowLoader(self, batch_size, **options)

    def stream(self, **options: Any):
        """A torch IterableDataset of samples: see `handloom.store.windows.stream.WindowStream`."""
        _need_torch()
        from handloom.store.windows.stream import WindowStream

        return WindowStream(self, **options)


def open_windows(
    db: Database,
    spec: WindowSpec,
    version: int | None,
    transform: Transform | None = None,
    neighbours: Neighbours | Mapping[str, Sequence[str]] | None = None,
    memory: Memory | None = None,
) -> Windows:
    """The windows of `spec` in a version, by default the newest. Raises as `Database.windows`."""
    table = db.table(spec.table, version)
    if table is None:
        what = "`handloom run`" if spec.table == "clips" else "`handloom ingest lerobot` or `calvin`"
        raise StoreError(f"{db.uri} has no table {spec.table}", f"fill it with {what}")
    check_columns(spec, table.schema)
    plan = make_plan(table, spec, robot_datasets(db) if spec.table == "clips" else ())
    check_pictures(table, spec, plan)
    made = Windows(db, spec, table.version, plan, transform=transform, neighbours=neighbours, memory=memory)
    if made._finder is not None:
        made._finder.check(plan)
    return made


def windows_of(db: Database, **asked: Any) -> Windows:
    """`Database.windows`: the parameters of the spec, and how they are read."""
    reading = {name: asked.pop(name) for name in ("transform", "neighbours", "memory")}
    version = asked.pop("version")
    return open_windows(db, make_spec(**asked), version, **reading)


@contextmanager
def _noting(where: str) -> Iterator[None]:
    """Whatever error passes, of whatever type, says where it was raised."""
    try:
        yield
    except Exception as error:
        error.add_note(where)
        raise


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"loaders give torch tensors, and torch is not installed ({error})", with_extra("train")
        ) from error

"""Copies of what a search reads of single rows, vectors and ids and words, in files that are mapped into memory.

Through Lance a candidate of a search costs 0.1 ms, because candidates lie in many fragments; from here some
microseconds. A copy belongs to one data file of the table. Lance never changes a data file: new values are in a new
one. So a copy is right for every version that has its data file, and rows without one (new rows, new values, rows that
were deleted when it was made) are read through Lance. Which rows a version has, the index says. A file appears under
its name only when it is whole and on the disk.

`clips.lance/_search/NAME.arrow` is of the data file NAME.lance: an Arrow file with the columns named by Lance's field
ids, which no other column of the table ever has, and `row`, the row's place in its fragment, rising.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import StoreError
from handloom.io.atomic import draft_of
from handloom.store.lance_faults import fault_of
from handloom.store.location import lance_errors
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

HIT_COLUMNS = ("clip_id", "dataset", "video_id", "video_uri", "start_s", "end_s", "narration", "verb", "noun")
"""What every hit shows. Copied beside the embeddings."""
FOLDER = "_search"
ROW = "row"
BATCH_ROWS = 8192
MAX_LISTED_ROWS = 2000  # row ids in one filter
DRAFT_S = 3600.0  # another process may write a younger one
NOT_COPIED = -1  # lists and structs, which have fields of their own
RowIds = Sequence[int] | NDArray[np.uint64]
ROW_ID = pa.field("_rowid", pa.uint64())
_NONE = np.empty(0, np.uint64)
_opened: WeakKeyDictionary[lance.LanceDataset, Copies] = WeakKeyDictionary()


@dataclass(frozen=True)
class Copied:
    """Copies of a table. num_rows: of the newest version that have one. num_bytes: on disk, those of older versions
    too."""

    num_rows: int
    num_bytes: int


class Copies:
    """The copies that one version of a table can use; a column is mapped when it is first asked for."""

    def __init__(self, table: lance.LanceDataset, folder: Path) -> None:
        self._table, self._folder, self._schema = ref(table), folder, table.schema  # `_opened` shall not keep it
        self._field_ids = _field_ids(table)
        self._columns: dict[str, _Column] = {}

    def take(self, row_ids: RowIds, columns: Sequence[str]) -> tuple[pa.Table, list[int]]:
        """The rows that have copies of all these columns, with `_rowid`, as they were asked for; and the ids of the
        others. 1000 rows of words cost 0.2 ms of CPU time, of vectors of 512 numbers 3 ms."""
        ids = np.asarray(row_ids, np.uint64)
        used = [self._column(name) for name in columns]
        there = np.ones(len(ids), np.bool_)
        places: dict[int, NDArray[np.intp]] = {}
        for one in used:
            if id(one.ids) not in places:
                places[id(one.ids)] = at = one.places(ids)
                there &= at >= 0
        schema = pa.schema([self._schema.field(name) for name in columns])
        values = [one.take(places[id(one.ids)][there]) for one in used]
        rows = pa.Table.from_arrays([*values, pa.array(ids[there])], schema=schema.append(ROW_ID))
        return rows, ids[~there].tolist()

    def _column(self, name: str) -> _Column:
        if name not in self._columns:
            self._columns[name] = self._mapped(self._field_ids.get(name, NOT_COPIED), self._schema.field(name).type)
        return self._columns[name]

    def _mapped(self, field_id: int, kind: pa.DataType) -> _Column:
        """The copies of a field in all fragments that have one."""
        files = self._files.get(field_id, [])
        known = next((one.ids for one in self._columns.values() if one.files == files), None)
        if known is None:
            starts = [np.uint64(fragment << 32) for fragment, _ in files]
            known = np.concatenate(
                [_NONE, *(start + file.rows for start, (_, file) in zip(starts, files, strict=True))]
            )
        chunks = [chunk for _, file in files for chunk in file.chunks(field_id)]
        return _Column(files, known, pa.chunked_array(chunks, kind))

    @cached_property
    def _files(self) -> dict[int, list[tuple[int, _File]]]:
        """Of each field the fragments that have a copy of it, by rising number, and their files."""
        table = self._table()
        found: dict[int, list[tuple[int, _File]]] = {}
        fragments = [] if table is None else table.get_fragments()
        for fragment in sorted(fragments, key=lambda one: one.fragment_id):
            for name, field_ids in _fields_by_file(fragment, self._field_ids.values()).items():
                file = _open_file(_path_of(self._folder, name))
                for field_id in field_ids if file is not None else ():
                    if file is not None and field_id in file.field_ids:
                        found.setdefault(field_id, []).append((fragment.fragment_id, file))
        return found


class _Column:
    """A column of all rows that have a copy of it, in the order of their ids. ids: shared by columns of the same
    files."""

    def __init__(self, files: list[tuple[int, _File]], ids: NDArray[np.uint64], values: pa.ChunkedArray) -> None:
        self.files, self.ids, self._values = files, ids, values
        self._starts = np.cumsum([0, *map(len, values.chunks)])

    def places(self, ids: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Where rows are; -1: not copied."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        places = np.minimum(self.ids.searchsorted(ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, places, -1)

    def take(self, places: NDArray[np.intp]) -> pa.ChunkedArray | pa.Array:
        """The values at some places."""
        kind = self._values.type
        if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type) or not len(places):
            return self._values.take(pa.array(places))
        # Of lists Arrow 25 joins all chunks first, which takes longer than a search: so one chunk after another.
        found = np.empty((len(places), kind.list_size), kind.value_type.to_pandas_dtype())
        is_null = np.zeros(len(places), np.bool_)
        order = np.argsort(places, kind="stable")
        chunks = self._starts.searchsorted(places[order], side="right") - 1
        for some in np.split(np.arange(len(order)), np.flatnonzero(np.diff(chunks)) + 1):
            number, at = int(chunks[some[0]]), order[some]
            rows = places[at] - self._starts[number]
            found[at] = self._numbers[number][rows]
            if self._values.chunk(number).null_count:
                is_null[at] = self._values.chunk(number).is_null().to_numpy(zero_copy_only=False)[rows]
        mask = pa.array(is_null) if is_null.any() else None
        return pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), type=kind, mask=mask)

    @cached_property
    def _numbers(self) -> list[NDArray[Any]]:
        """(rows, numbers) of each chunk of a fixed-size list, mapped: Arrow would copy those with nulls."""
        kind, found = self._values.type, []
        for chunk in self._values.chunks:
            child = chunk.values
            numbers = np.frombuffer(child.buffers()[1], kind.value_type.to_pandas_dtype())[child.offset :]
            rows = numbers[chunk.offset * kind.list_size : (chunk.offset + len(chunk)) * kind.list_size]
            found.append(rows.reshape(len(chunk), kind.list_size))
        return found


class _File:
    """One mapped file. rows: places in the fragment, rising. field_ids: of its columns."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = batches
        names = batches[0].schema.names if batches else []
        self.field_ids = {int(name): index for index, name in enumerate(names) if name != ROW}
        self.rows = np.concatenate([_NONE, *(batch.column(ROW).to_numpy() for batch in batches)])

    def chunks(self, field_id: int) -> list[pa.Array]:
        """A field, batch by batch."""
        return [batch.column(self.field_ids[field_id]) for batch in self._batches if batch.num_rows]


def copies_of(table: lance.LanceDataset) -> Copies | None:
    """The copies of a table on a local disk; None if it has none."""
    if table not in _opened:
        folder = _folder_of(table)
        if folder is None or not folder.is_dir():
            return None
        _opened[table] = Copies(table, folder)
    return _opened[table]


def stored_rows(table: lance.LanceDataset, row_ids: RowIds, columns: Sequence[str]) -> pa.Table:
    """These rows with their `_rowid`, in any order: from copies where there are any, else through Lance."""
    copies = copies_of(table)
    if copies is None:
        return _through_lance(table, row_ids, columns)
    found, others = copies.take(row_ids, columns)
    return pa.concat_tables([found, _through_lance(table, others, columns)]) if len(others) else found


def rows_at(table: lance.LanceDataset, row_ids: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    """`stored_rows` as dicts."""
    return stored_rows(table, row_ids, columns).to_pylist() if len(row_ids) else []


def values_at(table: lance.LanceDataset, row_ids: Sequence[int], column: str) -> dict[int, Any]:
    """A column's values of these rows by row id."""
    if not len(row_ids):
        return {}
    rows = stored_rows(table, row_ids, [column])
    return dict(zip(rows.column("_rowid").to_pylist(), rows.column(column).to_pylist(), strict=True))


def _through_lance(table: lance.LanceDataset, row_ids: RowIds, columns: Sequence[str]) -> pa.Table:
    parts = []
    for start in range(0, max(len(row_ids), 1), MAX_LISTED_ROWS):
        listed = ", ".join(map(str, row_ids[start : start + MAX_LISTED_ROWS]))
        wanted = f"_rowid IN ({listed})" if listed else "false"
        parts.append(table.to_table(columns=list(columns), filter=wanted, with_row_id=True))
    return pa.concat_tables(parts)


def bring_copies(db: Tables, columns: Iterable[str]) -> Copied | None:
    """Copy these columns of all rows of the newest version that lack it, and remove copies whose data files are gone.

    None: the table is in an object store, whose files cannot be mapped. Raises StoreError if the disk is full.
    """
    table = db.existing_table("clips")
    folder = _folder_of(table)
    if folder is None:
        return None
    field_ids = _field_ids(table)
    names = {field_ids[name]: name for name in columns if name in field_ids}
    num_rows = 0
    with lance_errors("copy what searches read", table.uri):
        for fragment in table.get_fragments():
            by_file = _fields_by_file(fragment, names)
            for file, fields in by_file.items():
                _copy(fragment, _path_of(folder, file), {field: names[field] for field in fields})
            num_rows += fragment.metadata.num_rows if by_file else 0
    _opened.pop(table, None)
    sweep_copies(table)
    sizes = [there.st_size for path in folder.glob("*.arrow") if (there := _stat(path)) is not None]
    return Copied(num_rows, sum(sizes))


def sweep_copies(table: lance.LanceDataset) -> None:
    """Remove copies whose data files are gone, as those of removed rows are in the end, and what killed processes have
    left."""
    folder = _folder_of(table)
    if folder is None or not folder.is_dir():
        return
    for path in folder.iterdir():
        there = _stat(path)
        if there is None:
            continue
        if path.name.startswith("."):
            is_old = time.time() - there.st_mtime > DRAFT_S
        else:
            is_old = not (folder.parent / "data" / f"{path.stem}.lance").exists()
        if is_old:
            path.unlink(missing_ok=True)


def _stat(path: Path) -> os.stat_result | None:
    """None: it is gone. Another process has renamed or removed it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _copy(fragment: lance.LanceFragment, path: Path, names: Mapping[int, str]) -> None:
    """Write the copy of one data file, unless there is one with all these columns ({field id: name})."""
    there = _open_file(path)
    if there is not None and there.field_ids.keys() >= names.keys():
        return
    kinds = {field.name: field.type for field in fragment.schema}
    schema = pa.schema([(ROW, pa.uint32()), *((str(field_id), kinds[name]) for field_id, name in names.items())])
    scanner = fragment.scanner(
        columns=list(names.values()), batch_size=BATCH_ROWS, batch_readahead=2, with_row_address=True
    )
    try:
        path.parent.mkdir(exist_ok=True)
        with draft_of(path) as draft, open(draft, "wb") as sink:
            with pa.ipc.new_file(sink, schema) as writer:
                for batch in scanner.to_batches():
                    rows = (batch.column("_rowaddr").to_numpy() & np.uint64(0xFFFFFFFF)).astype(np.uint32)
                    arrays = [batch.column(name) for name in names.values()]
                    writer.write_batch(pa.RecordBatch.from_arrays([pa.array(rows), *arrays], schema=schema))
            sink.flush()
            os.fsync(sink.fileno())
    except OSError as error:
        if error.errno is None:  # Lance's
            raise
        problem = f"could not copy what searches read to {path.parent}: {error.strerror}"
        fault = fault_of(error)
        hint = "" if fault is None else f"{fault.value}; "
        raise StoreError(problem, f"{hint}searches find the same rows without copies, more slowly") from error


def _open_file(path: Path) -> _File | None:
    """A copy, mapped; None if there is none, or it cannot be read: then `handloom index` makes it anew."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return _File([reader.get_batch(number) for number in range(reader.num_record_batches)])
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowInvalid) as error:
        log.warning("%s cannot be read (%s), so the table is read instead", path, error)
        return None


def _fields_by_file(fragment: lance.LanceFragment, field_ids: Iterable[int]) -> dict[str, list[int]]:
    """`{data file: field ids}`, of those fields whose values are in one data file of the fragment, and only there."""
    metadata: Any = fragment.metadata
    if getattr(metadata, "overlays", None):
        return {}
    num_files = Counter(field_id for file in metadata.files for field_id in file.fields)
    wanted = {field_id for field_id in field_ids if num_files[field_id] == 1}
    found = {file.path: [field_id for field_id in file.fields if field_id in wanted] for file in metadata.files}
    return {path: there for path, there in found.items() if there}


def _path_of(folder: Path, data_file: str) -> Path:
    return folder / f"{Path(data_file).stem}.arrow"


def _field_ids(table: lance.LanceDataset) -> dict[str, int]:
    """Of columns that are no lists or structs, which have fields of their own."""
    kinds = {field.name: field.type for field in table.schema}
    plain = {name for name, kind in kinds.items() if not pa.types.is_nested(kind) or pa.types.is_fixed_size_list(kind)}
    return {field.name(): field.id() for field in table.lance_schema.fields() if field.name() in plain}


def _folder_of(table: lance.LanceDataset) -> Path | None:
    """None: in an object store; or row ids are no addresses."""
    if "://" in table.uri or table.has_stable_row_ids:
        return None
    return Path(table.uri) / FOLDER

"""Rows of the table as arrays, read by place: whole blocks for loaders, single ones for random access."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.geometry.tracks.later_grids import StoredGrids
from handloom.store.lance_faults import LANCE_ERRORS, first_words
from handloom.store.location import Location
from handloom.store.tables import Tables, versions_there
from handloom.windows.rows.decode import Cells, cells_of
from handloom.windows.spec import FRAMED, WindowSpec


@dataclass(frozen=True, eq=False)
class TableRow:
    """One row; its arrays are views of Arrow's memory and cannot be written.

    place: in the table. id: of the clip or episode. frame_s: (T,). framed: (T, ...) per-frame columns; a null column is
    NaN (False, 0) in every frame, or None where its width is not known. single: one value per row. jpegs: per camera
    asked for, its T pictures, or None. grids: those that began after the first frame, where the windows take them, and
    track_visible: (T, N), which says how much the first one shows.
    """

    place: int
    id: str
    frame_s: NDArray[np.float64]
    framed: dict[str, NDArray[Any] | None]
    single: dict[str, Any]
    jpegs: dict[str | None, pa.Array | None]
    num_bytes: int
    grids: StoredGrids | None = None
    track_visible: NDArray[np.bool_] | None = None


class RowReader:
    """Reads rows of one version. Holds no handle across processes: Lance does not survive a fork, nor a pickle."""

    def __init__(self, location: Location, spec: WindowSpec, version: int, max_bytes: int) -> None:
        self._location = location
        self._spec = spec
        self._version = version
        self._max_bytes = max_bytes
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_location", "_spec", "_version", "_max_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._table: lance.LanceDataset | None = None
        self._columns: list[str] = []
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[int, TableRow] = OrderedDict()
        self._num_bytes = 0

    def read(self, places: Sequence[int]) -> list[TableRow]:
        """The rows at these places, in this order, in one request.

        Raises StoreError where the version has gone or cannot be read.
        """
        table = self._open()
        try:
            rows = table.take([int(place) for place in places], columns=self._columns)
        except LANCE_ERRORS as error:
            raise self._gone(error) from error
        columns = {name: cells_of(rows.column(name), name, self._spec.table) for name in rows.column_names}
        return [self._row(columns, i, int(place)) for i, place in enumerate(places)]

    def row(self, place: int) -> TableRow:
        """One row, kept for the next call while memory allows."""
        with self._lock:
            if place in self._held:
                self._held.move_to_end(place)
                return self._held[place]
        (row,) = self.read([place])
        with self._lock:
            if place not in self._held:
                self._held[place] = row
                self._num_bytes += row.num_bytes
            while self._num_bytes > self._max_bytes and len(self._held) > 1:
                self._num_bytes -= self._held.popitem(last=False)[1].num_bytes
        return row

    def _open(self) -> lance.LanceDataset:
        if self._pid != os.getpid():
            self._forget()
        if self._table is None:
            uri = self._location.table_uri(self._spec.table)
            options = dict(self._location.storage_options) or None
            try:
                self._table = lance.dataset(uri, version=self._version, storage_options=options)
                there = set(self._table.schema.names)
            except LANCE_ERRORS as error:
                raise self._gone(error) from error
            grids = (name for name in self._spec.grid_columns() if name in there)
            self._columns = list(dict.fromkeys([*self._spec.columns(), *grids]))
        return self._table

    def _gone(self, error: Exception) -> StoreError:
        uri = self._location.table_uri(self._spec.table)
        newest = Tables(self._location).table(self._spec.table)
        there = "the table is gone" if newest is None else versions_there(newest)
        return StoreError(
            f"cannot read version {self._version} of {uri}: {first_words(error)}",
            f"was it cleaned up? {there}; `windows.at()` takes the newest",
        )

    def _row(self, columns: dict[str, Cells], index: int, place: int) -> TableRow:
        spec = self._spec
        values = {name: cells.value(index) for name, cells in columns.items() if name != "frame_jpeg"}
        grids, visible = self._grids(values)
        values = {name: values[name] for name in self._spec.columns() if name in values}
        framed = {name: values.pop(name) for name in list(values) if name in FRAMED[spec.table]}
        id_, frame_s = values.pop(spec.id_column), values.pop("frame_s")
        for name, array in framed.items():
            if array is None:
                framed[name] = columns[name].absent(len(frame_s))
        cameras = values.get("cameras")
        pictures = columns["frame_jpeg"].value(index) if spec.cameras else None
        jpegs = {camera: _jpegs(pictures, camera, cameras, id_) for camera in spec.cameras}
        if "cameras" not in spec.fields:
            values.pop("cameras", None)
        num_bytes = sum(cells.num_bytes(index) for cells in columns.values())
        return TableRow(place, id_, frame_s, framed, values, jpegs, num_bytes, grids, visible)

    def _grids(self, values: dict[str, Any]) -> tuple[StoredGrids | None, NDArray[np.bool_] | None]:
        wanted = self._spec.grid_columns()
        grids = StoredGrids.of(values) if wanted else None
        return grids, None if grids is None else values["track_visible"]


def _jpegs(pictures: pa.Array | None, camera: str | None, cameras: list[str] | None, id_: str) -> pa.Array | None:
    """One camera's pictures. `cameras` None: the row has but one, and `pictures` are its."""
    if pictures is None or cameras is None:
        return pictures
    if camera is not None and camera not in cameras:
        raise ConfigError(f"{id_} has no camera {camera!r}", f"it has: {', '.join(cameras) or 'none'}")
    if not cameras:
        return None
    chosen = pictures[cameras.index(camera) if camera else 0]
    return chosen.values if chosen.is_valid else None

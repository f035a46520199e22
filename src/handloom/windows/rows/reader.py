"""Reads rows as arrays by their place in the table: blocks for loaders, single rows for random access."""

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
from handloom.geometry.tracks.stored_grids import StoredGrids
from handloom.schemas.tables.stage_columns import is_per_frame
from handloom.store.lance_faults import LANCE_ERRORS, first_words
from handloom.store.location import Location
from handloom.store.tables import Tables, versions_there
from handloom.windows.rows.decode import Cells, cells_of
from handloom.windows.spec import FRAMED, WindowSpec


@dataclass(frozen=True, eq=False)
class TableRow:
    """One row; its arrays are views of Arrow's memory and cannot be written.

    place: in the table. id: of the clip or episode. frame_s: (T,). framed: (T, ...) per-frame columns; a null column is
    NaN (False, 0) in every frame, or None if its width is unknown. single: columns with one value per row. jpegs: the T
    images of each camera asked for, or None. grids: the later grids, if the windows need them; None otherwise.
    track_visible: (T, N), only with `grids`: how much the first grid shows.
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
    """Reads rows of one version. It opens the table anew in every process: Lance survives neither fork nor pickle."""

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
        self._framed: frozenset[str] = frozenset()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[int, TableRow] = OrderedDict()
        self._num_bytes = 0

    def read(self, places: Sequence[int]) -> list[TableRow]:
        """The rows at these places, in this order, in one request.

        Raises StoreError if the version is gone or cannot be read.
        """
        table = self._open()
        try:
            rows = table.take([int(place) for place in places], columns=self._columns)
        except LANCE_ERRORS as error:
            raise self._gone(error) from error
        columns = {field.name: cells_of(rows.column(field.name), field, self._spec.table) for field in rows.schema}
        return [self._row(columns, i, int(place)) for i, place in enumerate(places)]

    def row(self, place: int) -> TableRow:
        """One row; it is kept for later calls as long as `max_bytes` allow."""
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
            own = {field.name for field in self._table.schema if is_per_frame(field)}
            self._framed = FRAMED[self._spec.table] | own
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
        framed = {name: values.pop(name) for name in list(values) if name in self._framed}
        id_, frame_s = values.pop(spec.id_column), values.pop("frame_s")
        for name, array in framed.items():
            if array is None:
                framed[name] = columns[name].absent(len(frame_s))
            elif len(array) != len(frame_s):
                raise StoreError(
                    f"column {name} of {id_} has {len(array)} values for {len(frame_s)} frames",
                    "its stage must give one for each: change its version, and `handloom run --recompute`",
                )
        cameras = values.get("cameras")
        images = columns["frame_jpeg"].value(index) if spec.cameras else None
        jpegs = {camera: _jpegs(images, camera, cameras, id_) for camera in spec.cameras}
        if "cameras" not in spec.fields:
            values.pop("cameras", None)
        num_bytes = sum(cells.num_bytes(index) for cells in columns.values())
        return TableRow(place, id_, frame_s, framed, values, jpegs, num_bytes, grids, visible)

    def _grids(self, values: dict[str, Any]) -> tuple[StoredGrids | None, NDArray[np.bool_] | None]:
        wanted = self._spec.grid_columns()
        grids = StoredGrids.of(values) if wanted else None
        return grids, None if grids is None else values["track_visible"]


def _jpegs(images: pa.Array | None, camera: str | None, cameras: list[str] | None, id_: str) -> pa.Array | None:
    """The images of one camera. cameras: None if the row has only one, whose images `images` are."""
    if images is None or cameras is None:
        return images
    if camera is not None and camera not in cameras:
        raise ConfigError(f"{id_} has no camera {camera!r}", f"it has: {', '.join(cameras) or 'none'}")
    if not cameras:
        return None
    chosen = images[cameras.index(camera) if camera else 0]
    return chosen.values if chosen.is_valid else None

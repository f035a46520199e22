"""What all pages share: the database, the catalogue of its newest version, and caches of rows, images and verdicts."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import pyarrow as pa

from handloom.api import Database
from handloom.errors import HandloomError, StoreError
from handloom.schemas.tables.embeddings import PREFIX as EMBEDDING
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.tables.stage_columns import is_private, key_column
from handloom.store.location import lance_errors
from handloom.store.search.copies import stored_rows
from handloom.store.search.opened import open_clips
from handloom.store.tables import NoVersionError
from handloom.web.answers import NotThere
from handloom.web.catalogue import Catalogue, Known

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""How often a new version of `clips` is looked for; the old one is served while it is read."""
LOAD_SHARE = 5.0  # a table that changes all the time is read again for a fifth of the time
IDLE_S, WAIT_S = 60.0, 5.0
"""Who asks after a pause waits so long for a newer version: clips of the old one may have been removed since."""
FRAMES, STRIP = "frame_jpeg", "thumbnail"
ROW_BYTES, FRAME_BYTES, STRIP_BYTES, MAP_BYTES = 256 << 20, 256 << 20, 128 << 20, 64 << 20
Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The values used last, up to some bytes. For several threads; a value may be made twice."""

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._max_bytes, self._size_of = max_bytes, size_of
        self._lock = threading.Lock()
        self._values: OrderedDict[Any, tuple[Value, int]] = OrderedDict()
        self._num_bytes = 0

    def get(self, key: Any) -> Value | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Any, value: Value) -> Value:
        """Keep a value; a value that is larger than all the room is not kept."""
        size = self._size_of(value)
        with self._lock:
            if key in self._values:
                self._num_bytes -= self._values.pop(key)[1]
            if size <= self._max_bytes:
                self._values[key] = (value, size)
                self._num_bytes += size
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= self._values.popitem(last=False)[1][1]
        return value

    def clear(self) -> None:
        with self._lock:
            self._values.clear()
            self._num_bytes = 0

    def of(self, key: Any, make: Callable[[], Value]) -> Value:
        """The value, made if it is not there."""
        found = self.get(key)
        return self.put(key, make()) if found is None else found


class Gallery:
    """One database as the pages see it.

    judging: whether verdicts may be written. source_options: of the filesystem of remote videos. look_every_s: how
    often a new version of `clips`, and what stands beside it, is looked for. reports: folders below which the reports
    of trainings are shown.
    """

    def __init__(
        self,
        db: Database,
        judging: bool = False,
        source_options: dict[str, Any] | None = None,
        look_every_s: float = LOOK_EVERY_S,
        reports: Sequence[Path] = (),
    ) -> None:
        self.db, self.judging, self.source_options = db, judging, source_options
        self.reports = tuple(reports)
        self._look_every_s = look_every_s
        self.started = time.time()
        self._lock, self._load_lock = threading.Lock(), threading.Lock()
        self._strip_lock = threading.Lock()
        self._newest: Catalogue | None = None
        self._pinned: OrderedDict[tuple[int, int], Catalogue] = OrderedDict()  # by the version, and the newest one
        self._looked_at, self._load_s, self._wait_until = 0.0, 0.0, 0.0
        self._looked = threading.Event()
        self._looked.set()
        self._short: dict[str, tuple[float, Any]] = {}
        self._all_kept: list[Kept[Any]] = []
        self._rows: Kept[pa.Table] = self.keeping(ROW_BYTES, lambda row: row.nbytes)
        self._frames: Kept[tuple[bytes, ...]] = self.keeping(FRAME_BYTES, lambda frames: 64 + sum(map(len, frames)))
        self._strips: Kept[bytes] = self.keeping(STRIP_BYTES, len)
        self.maps: Kept[dict[str, Any]] = self.keeping(MAP_BYTES, lambda found: 300 * len(found["ids"]))
        self._has_frames: dict[tuple[int | None, str | None], bool] = {}
        self._folder: TemporaryDirectory[str] | None = None

    def keeping(self, max_bytes: int, size_of: Callable[[Any], int]) -> Kept[Any]:
        """Room for what is made of rows: it is emptied when there is a newer version, which may lack some of them."""
        self._all_kept.append(Kept(max_bytes, size_of))
        return self._all_kept[-1]

    @property
    def folder(self) -> Path:
        """A folder for uploads and downloads, which ends with the server."""
        with self._lock:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="handloom-gallery-")
            return Path(self._folder.name)

    def close(self) -> None:
        """Remove the folder."""
        with self._lock:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    # Versions

    def catalogue(self, version: int | None = None) -> Catalogue:
        """The clips of a version; without one those of the newest, or of the one before while that is read. Of older
        versions the clips that the newest one has, too: what was removed must not be seen.

        Raises NotThere for a version that is gone, StoreError if the table cannot be read.
        """
        newest = self._current()
        if version is None or version == newest.version:
            return newest
        with self._lock:
            kept = self._pinned.get((version, newest.version or 0))
        if kept is not None:
            return kept
        try:
            table = self.db.table("clips", version)
        except NoVersionError as error:
            raise NotThere(error.problem, error.hint) from error
        if table is None:
            raise NotThere(f"there is no version {version} of clips: nothing is processed yet", "leave v out")
        if version > (newest.version or 0):  # it was committed a moment ago
            with self._load_lock:
                newest = self._load()
            return newest if newest.version == version else self.catalogue(version)
        found = Catalogue(self.db, table, newest)
        with self._lock:
            self._pinned[version, newest.version or 0] = found
            while len(self._pinned) > 2:
                self._pinned.popitem(last=False)
        return found

    def _current(self) -> Catalogue:
        kept, now = self._newest, time.monotonic()
        if kept is None:
            with self._load_lock:
                return self._newest or self._load()
        if now - self._looked_at > max(self._look_every_s, LOAD_SHARE * self._load_s) and self._load_lock.acquire(
            False
        ):
            if now - self._looked_at > IDLE_S:
                self._wait_until = now + WAIT_S
                self._looked.clear()
            self._looked_at = now
            threading.Thread(target=self._look, args=(kept,), daemon=True).start()
        if not self._looked.is_set():
            self._looked.wait(max(0.0, self._wait_until - time.monotonic()))
        return self._newest or kept

    def _look(self, kept: Catalogue) -> None:
        """Read the newest version, if it is another one. The lock is held already."""
        try:
            table = open_clips(self.db)
            if (None if table is None else table.version) != kept.version:
                self._load(warm=True)
        except HandloomError as error:  # the old one stays: a store may be out of reach for a while
            log.warning("the newest version of clips cannot be read: %s", error.problem)
        finally:
            self._looked.set()
            self._load_lock.release()

    def _load(self, warm: bool = False) -> Catalogue:
        begun = time.monotonic()
        found = Catalogue(self.db, open_clips(self.db))
        self._newest = found.warm() if warm else found
        for kept in self._all_kept:
            kept.clear()
        self._looked_at = time.monotonic()
        self._load_s = self._looked_at - begun
        return found

    def short(self, name: str, make: Callable[[], Value], times: float = 1.0) -> Value:
        """What `make` gives, for some seconds the same: `times` those after which a new version is looked for, or five
        times as long as it took: counts of a million rows must not fill a processor while a page is open."""
        with self._lock:
            kept = self._short.get(name)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        begun = time.monotonic()
        found = make()
        now = time.monotonic()
        kept_s = max(times * self._look_every_s, LOAD_SHARE * (now - begun)) if self._look_every_s else 0.0
        with self._lock:
            self._short[name] = (now + kept_s, found)
        return found

    def forget(self, name: str) -> None:
        """Make what `short` keeps under a name again when it is next asked for."""
        with self._lock:
            self._short.pop(name, None)

    # What stands beside the clips

    def known(self) -> Known:
        """What filters need beside `clips`."""
        return Known(self.verdicts(), self.keys, self.rejected)

    def verdicts(self) -> Mapping[str, str]:
        """`good` or `bad` by clip; `forget("verdicts")` after a change. The same object while nothing has changed."""

        def read() -> Mapping[str, str]:
            rows = self.db.read("judgements", ["clip_id", "verdict"])
            found = zip(*(rows.column(n).to_pylist() for n in ("clip_id", "verdict")), strict=True) if len(rows) else ()
            verdicts = {clip_id: verdict for clip_id, verdict in found if verdict}
            with self._lock:
                before = self._short.get("verdicts")
            return before[1] if before is not None and before[1] == verdicts else verdicts

        return self.short("verdicts", read)

    def stage_states(self) -> Any:
        """`handloom.pipelines.stages.stage_states`, for half a minute the same: it counts rows."""
        from handloom.pipelines.stages import stage_states

        return self.short("stages", lambda: stage_states(self.db), 15.0)

    def keys(self) -> Mapping[str, str | None]:
        """Today's key of each stage."""
        return {stage.name: stage.key for stage in self.stage_states().stages}

    def rejected(self, stage: str) -> frozenset[str]:
        """The clips with a row on which a stage failed."""

        def read() -> dict[str, frozenset[str]]:
            rows = self.db.read("stage_rejects", ["clip_id", "stage"])
            pairs = rows.to_pylist()
            return {
                name: frozenset(pair["clip_id"] for pair in pairs if pair["stage"] == name)
                for name in {pair["stage"] for pair in pairs}
            }

        return self.short("rejected", read).get(stage, frozenset())

    # Rows

    def row(self, clip_id: str, version: int | None = None) -> dict[str, Any]:
        """A row without its images and embeddings, as `row_arrays` gives it. Raises NotThere."""
        catalogue = self.catalogue(version)
        place = catalogue.place(clip_id)
        left_out = (FRAMES, STRIP)
        columns = [
            name
            for name in catalogue.schema.names
            if name not in left_out and not is_private(name) and not name.startswith(EMBEDDING)
        ]
        return row_arrays(self._rows.of(catalogue.key(place), lambda: self._take(catalogue, [place], columns)), 0)

    def _take(self, catalogue: Catalogue, places: list[int], columns: list[str]) -> pa.Table:
        """Some rows, in any order, with `_rowid`. Raises StoreError where they cannot be read."""
        row_ids = [int(catalogue.row_ids[place]) for place in places]
        try:
            with lance_errors("read table clips", catalogue.table.uri):
                found = stored_rows(catalogue.table, row_ids, columns)
        except StoreError as error:
            raise self.lost(catalogue, error) from error
        if found.num_rows < len(places):
            raise NotThere(f"version {catalogue.version} of clips has lost a row", "load the page again")
        return found

    def lost(self, catalogue: Catalogue, error: StoreError) -> StoreError:
        """Why rows of a version cannot be read: NotThere if it is gone (a newer one is looked for at once), else the
        error."""
        try:
            self.db.table("clips", catalogue.version)
        except NoVersionError as gone:
            self._looked_at = 0.0
            with self._lock:
                for key in [key for key in self._pinned if key[0] == catalogue.version]:
                    del self._pinned[key]
            return NotThere(gone.problem, "load the page again: it was removed while it was open")
        except StoreError:  # out of reach: so is the version
            pass
        return error

    def frames(self, clip_id: str, version: int | None = None) -> tuple[bytes, ...]:
        """The stored frames, JPEG; none where the row keeps none."""
        catalogue = self.catalogue(version)
        place = catalogue.place(clip_id)

        def read() -> tuple[bytes, ...]:
            if FRAMES not in catalogue.schema.names:
                return ()
            cell = self._take(catalogue, [place], [FRAMES]).column(FRAMES)[0]
            return tuple(one.as_py() or b"" for one in cell.values) if cell.is_valid else ()

        return self._frames.of(catalogue.key(place), read)

    def has_frames(self, catalogue: Catalogue, places: list[int]) -> list[bool]:
        """Whether clips have stored frames. One row of each key of the stage `frames` is looked at: `frames.store` is a
        part of the key."""
        column = key_column("frames")
        keys = catalogue.column(column if column in catalogue.schema.names else "run_key")
        told = []
        for place in places:
            key = (catalogue.version, keys[place].as_py())
            if key not in self._has_frames:
                there = FRAMES in catalogue.schema.names
                row = self._take(catalogue, [place], [FRAMES]) if there else None
                self._has_frames[key] = row is not None and row.column(FRAMES)[0].is_valid
            told.append(self._has_frames[key])
        return told

    def strip(self, clip_id: str, version: int | None = None) -> bytes:
        """The strip of a few frames, JPEG. Raises NotThere where the row has none."""
        catalogue = self.catalogue(version)
        place = catalogue.place(clip_id)
        found = self._strips.get(catalogue.key(place))
        if found is None:
            self.bring_strips(catalogue, [place])
            found = self._strips.get(catalogue.key(place))
        if not found:
            raise NotThere(f"clip {clip_id} has no thumbnail", "it was extracted without frames")
        return found

    def bring_strips(self, catalogue: Catalogue, places: list[int]) -> None:
        """Read the strips of some clips at once, so that their thumbnails are there when they are asked for."""
        if STRIP not in catalogue.schema.names:
            return
        with self._strip_lock:  # who asks for one of them meanwhile waits, and does not read it again
            wanted = [place for place in places if self._strips.get(catalogue.key(place)) is None]
            by_id = {int(catalogue.row_ids[place]): place for place in wanted}
            rows = self._take(catalogue, wanted, [STRIP]) if wanted else pa.table({"_rowid": [], STRIP: []})
            for row_id, strip in zip(rows.column("_rowid").to_pylist(), rows.column(STRIP).to_pylist(), strict=True):
                self._strips.put(catalogue.key(by_id[row_id]), strip or b"")

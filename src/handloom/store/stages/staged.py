"""New columns of clips that have a row, as files that only the committer reads.

A worker writes the columns of its clips into `clips.lance/_staged/RUN/NAME.lance`, in the table's folder, so that one
address is enough on disks and in S3. No version of the table names the file, and Lance's clean-up leaves that folder
alone (tested). The driver copies the values into data files of the table (`store.stages.update`) and deletes the file.
What a killed run leaves is deleted when the next one begins: its clips' keys are still the old ones, so they are
computed again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from lance.file import LanceFileReader, LanceFileSession, LanceFileWriter

from handloom.errors import ShapeError
from handloom.schemas.tables.stage_columns import KEY_PREFIX
from handloom.store.fragments import check_there
from handloom.store.lance_faults import LANCE_ERRORS, first_words
from handloom.store.location import Location, lance_errors
from handloom.store.runs.lease import living_runs
from handloom.store.tables import Tables

FOLDER = "_staged"
KEY = "clip_id"
Options = Mapping[str, str] | None
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ColumnUpdate:
    """New values of some columns of some clips, all of the columns for each of the clips.

    file: `RUN/NAME.lance` below the folder of staged files. clip_ids: in the order of the file's rows. num_bytes: of
    the values in memory.
    """

    file: str
    clip_ids: tuple[str, ...]
    columns: tuple[str, ...]
    num_bytes: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages whose keys are among the columns."""
        return tuple(name.removeprefix(KEY_PREFIX) for name in self.columns if name.startswith(KEY_PREFIX))

    @staticmethod
    def from_json(text: str) -> ColumnUpdate:
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("clip_ids", "columns")}
        return ColumnUpdate(**{**values, **lists})


def write_update(uri: str, rows: pa.Table, run_id: str, storage_options: Options = None) -> ColumnUpdate:
    """Write new columns of clips that have a row; they become visible when the driver commits them.

    Args:
        uri: the database. Its table `clips` exists.
        rows: `clip_id`, each once, and the columns, with the types that the table has. A stage whose key column is
            among them has succeeded for all of these clips: a clip for which it failed is left out, or comes in
            another update without the stage's columns.
        run_id: of the run, which holds its lease: a run that is not active any more loses its staged files.

    Raises:
        ShapeError: `rows` has no rows or no column besides `clip_id`, a clip twice, or null as a key.
        StoreError: it cannot be written (for example a full disk).
    """
    clip_ids = tuple(rows.column(KEY).to_pylist())
    columns = tuple(name for name in rows.schema.names if name != KEY)
    if not clip_ids or not columns or len(set(clip_ids)) < len(clip_ids) or None in clip_ids:
        problem = f"an update has {len(clip_ids)} rows of {len(set(clip_ids))} clips and {len(columns)} columns"
        raise ShapeError(f"{problem}, expected each clip once and at least one of both")
    if without := [name for name in columns if name.startswith(KEY_PREFIX) and rows.column(name).null_count]:
        raise ShapeError(f"{', '.join(without)} holds null, expected the keys of stages that have succeeded")
    check_there(Location.parse(uri))
    file = f"{run_id}/{uuid.uuid4().hex}.lance"
    path = f"{folder_of(uri)}/{file}"
    doing = f"write {len(columns)} columns of {len(clip_ids)} clips"
    with (
        lance_errors(doing, path),
        LanceFileWriter(path, rows.schema, storage_options=_given(storage_options)) as file_,
    ):
        for batch in rows.to_batches():
            file_.write_batch(batch)
    return ColumnUpdate(file, clip_ids, columns, rows.nbytes)


class StagedRows:
    """Reads single rows of one staged file. Raises Lance's own errors."""

    def __init__(self, folder: str, update: ColumnUpdate, columns: Sequence[str], options: Options = None) -> None:
        """columns: those of `update` that are wanted."""
        path = f"{folder}/{update.file}"
        self._reader = LanceFileReader(path, storage_options=_given(options), columns=list(columns))
        self.schema = pa.schema([self._reader.metadata().schema.field(name) for name in columns])

    def take(self, numbers: Sequence[int]) -> pa.Table:
        """Rows of these numbers, which rise."""
        table = self._reader.take_rows(list(numbers), batch_size=len(numbers)).to_table()
        return table.select(self.schema.names)


def folder_of(uri: str) -> str:
    """Address of the folder of all staged files of a database."""
    return f"{Location.parse(uri).table_uri('clips')}/{FOLDER}"


def unseen_updates(uri: str, updates: Iterable[ColumnUpdate]) -> list[str]:
    """Staged files that do not exist on this machine: they were written to another folder. In S3 always none."""
    if not Location.parse(uri).is_local:
        return []
    return [update.file for update in updates if not (Path(folder_of(uri)) / update.file).exists()]


def remove_staged(db: Tables, files: Iterable[str]) -> None:
    """Delete staged files. One that cannot be deleted stays until the next run begins."""
    session = LanceFileSession(folder_of(db.uri), storage_options=_given(db.storage_options))
    for file in files:
        try:
            session.delete_file(file)
        except LANCE_ERRORS as error:
            if session.contains(file):
                log.warning("staged file %s stays: %s", file, first_words(error))


def remove_leftovers(db: Tables, keep: Collection[str] = ()) -> int:
    """Delete the staged files of runs that are not active. Returns how many there were.

    keep: ids of runs whose files stay in any case. A run on another machine that may be active keeps its files. Raises
    StoreError if the files cannot be listed.
    """
    living = {run.run_id for run in living_runs(db)}.union(keep)
    left = [file for file in staged_files(db) if file.partition("/")[0] not in living]
    remove_staged(db, left)
    if db.location.is_local:
        _remove_empty(Path(folder_of(db.uri)), living)
    if left:
        log.info("deleted staged files of runs that have ended num_files=%d", len(left))
    return len(left)


def _remove_empty(folder: Path, living: Collection[str]) -> None:
    """Remove the folders of runs that have ended: each run leaves one."""
    for run in folder.iterdir() if folder.is_dir() else ():
        if run.name not in living:
            with contextlib.suppress(OSError):  # a file is in it that could not be deleted
                run.rmdir()


def staged_files(db: Tables) -> list[str]:
    """Every staged file, as `ColumnUpdate.file`. Raises StoreError."""
    folder = folder_of(db.uri)
    with lance_errors("list the staged files", folder):
        found = LanceFileSession(folder, storage_options=_given(db.storage_options)).list()
    return sorted(path for path in found if path.endswith(".lance"))


def _given(options: Options) -> dict[str, str] | None:
    return dict(options) if options else None

"""In which fragment of `clips` each clip's row lies, as of one version."""

from __future__ import annotations

import lance
from lance import LanceOperation

from handloom.errors import CommitConflict
from handloom.store.lance_faults import LANCE_ERRORS
from handloom.store.location import lance_errors
from handloom.store.stages.staged import KEY

STILL = (LanceOperation.CreateIndex, LanceOperation.Merge, LanceOperation.Project, LanceOperation.UpdateConfig)
"""Operations that leave every row in its fragment."""
REPLACED = (LanceOperation.Overwrite, LanceOperation.Restore, LanceOperation.Clone)


class Places:
    """of: {clip id: fragment id}; of a repeated clip the first row. version: that was read.

    Only appended fragments are read, unless rows were removed or moved.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._last = -1  # the greatest fragment id
        self.of: dict[str, int] = {}
        self.version = 0

    def catch_up(self, table: lance.LanceDataset) -> None:
        """Read what others have committed. Raises CommitConflict if the table was replaced, StoreError."""
        if table.version < self.version:
            raise self._conflict(f"version {table.version} follows version {self.version}")
        if self.version == 0:
            self._read(table)
        else:
            self._follow(table)
        self.version = table.version

    def skip(self, version: int) -> None:
        """The caller made this version, the next one, and moved no row."""
        self.version = version

    def _follow(self, table: lance.LanceDataset) -> None:
        appended = 0
        for version in range(self.version + 1, table.version + 1):
            operation = _operation(table, version)
            if isinstance(operation, REPLACED):
                raise self._conflict(f"version {version} is of {type(operation).__name__}")
            if isinstance(operation, LanceOperation.Append):
                appended += len(list(operation.fragments))
            elif not _leaves_rows(operation):
                self._read(table)
                return
        if not appended:
            return
        found = [table.get_fragment(self._last + 1 + number) for number in range(appended)]
        added = [fragment for fragment in found if fragment is not None]
        self._read(table, added if len(added) == appended else None)  # fewer: ids were reserved in between

    def _read(self, table: lance.LanceDataset, fragments: list[lance.LanceFragment] | None = None) -> None:
        """Read the ids of some fragments, or of all."""
        if fragments is None:
            self.of = {}
        with lance_errors("read the ids of clips", self._uri):
            scanner = table.scanner(columns=[KEY], fragments=fragments, with_row_address=True)
            for batch in scanner.to_batches():
                places = (batch.column("_rowaddr").to_numpy() >> 32).tolist()
                for clip_id, fragment in zip(batch.column(KEY).to_pylist(), places, strict=True):
                    self.of.setdefault(clip_id, fragment)
            self._last = max((fragment.fragment_id for fragment in fragments or table.get_fragments()), default=-1)

    def _conflict(self, found: str) -> CommitConflict:
        return CommitConflict(
            f"table {self._uri} was replaced by another one during this run: {found}",
            "run again to go on with the new table; what this run has committed is in the old versions",
        )


def _operation(table: lance.LanceDataset, version: int) -> LanceOperation.BaseOperation | None:
    """The operation that made a version; None if it cannot be read: pylance 14.0.2 cannot read that of a compaction
    which remapped indexes, or the version was dropped meanwhile."""
    try:
        transaction = table.read_transaction(version)
    except (TypeError, *LANCE_ERRORS):
        return None
    return None if transaction is None else transaction.operation


def _leaves_rows(operation: LanceOperation.BaseOperation | None) -> bool:
    """Whether every row is where it was. A bare BaseOperation: reserved fragment ids, table settings."""
    still = isinstance(operation, STILL) or type(operation) is LanceOperation.BaseOperation
    return still or changes_columns_only(operation)


def changes_columns_only(operation: LanceOperation.BaseOperation | None) -> bool:
    """Whether an operation neither added, removed nor moved rows, but changed columns of them, as `ColumnCommitter`."""
    return (
        isinstance(operation, LanceOperation.Update)
        and bool(operation.fields_modified)
        and not operation.new_fragments
        and not operation.removed_fragment_ids
    )

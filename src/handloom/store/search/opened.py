"""`clips` as searches open it: the newest version is looked up each time, what was read of it stays in memory.

Opening a table anew costs a search five times what the search itself does: Lance keeps the index, the files' footers
and open files with the object (100,000 rows of 512 numbers: 5 ms in place of 19 ms, busy machine). In S3 they are kept
by a session that all searches of a process share.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

import lance

from handloom.store.location import Location
from handloom.store.tables import Tables

MAX_KEPT = 4  # tables
INDEX_BYTES, METADATA_BYTES = 4 << 30, 512 << 20  # at most, of the session; an index of a million rows takes 0.4 GiB

_lock = threading.Lock()
_kept: OrderedDict[tuple[object, ...], lance.LanceDataset] = OrderedDict()
_sessions: list[lance.Session] = []


def open_clips(db: Tables, version: int | None = None) -> lance.LanceDataset | None:
    """The table `clips`, at its newest version or at `version`; None if it does not exist.

    Raises StoreError as `Tables.table` does.
    """
    key = _key(db.location, version)
    if key is None:
        return db.table("clips", version, session=_session())
    with _lock:
        table = _kept.get(key)
    if table is None or (version is None and table.latest_version != table.version):
        table = db.table("clips", version, session=_session())
    if table is not None:
        _keep(key, table)
    return table


def _key(location: Location, version: int | None) -> tuple[object, ...] | None:
    """What a kept table is known by: a folder that was removed and made again is another table. None: not a folder."""
    if not location.is_local:
        return None
    try:
        folder = os.stat(f"{location.table_uri('clips')}/_versions")
    except OSError:
        return None
    return location.uri, version, folder.st_dev, folder.st_ino, folder.st_mtime_ns


def _keep(key: tuple[object, ...], table: lance.LanceDataset) -> None:
    with _lock:
        for old in [one for one in _kept if one[:2] == key[:2]]:
            del _kept[old]
        _kept[key] = table
        while len(_kept) > MAX_KEPT:
            _kept.popitem(last=False)


def _session() -> lance.Session:
    with _lock:
        if not _sessions:
            _sessions.append(lance.Session(INDEX_BYTES, METADATA_BYTES))
        return _sessions[0]

"""Removes clips: their rows, their rejects and their entries in the clip list.

Each table has commits of its own, so a kill may fall between two of them. The table in which the clips were found
changes last, so the same removal, started again, finds them there and goes on. Normally that is the clip list: after a
kill the clips are listed and pending. Older versions of the tables keep the removed rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from handloom.schemas.tables.robot import TABLE as EPISODES
from handloom.schemas.tables.segments import TABLE as SEGMENTS
from handloom.store.clip_features import TABLE as FEATURES
from handloom.store.clips.reconcile import IDS_PER_DELETE
from handloom.store.filters import in_list
from handloom.store.location import lance_errors
from handloom.store.stages.rejects import TABLE as STAGE_REJECTS
from handloom.store.tables import Tables


@dataclass(frozen=True)
class Removed:
    """How many rows were removed from each table: `clip_list`, `clips`, `rejects`, `robot_episodes`."""

    listed: int = 0
    rows: int = 0
    rejects: int = 0
    episodes: int = 0


def remove_rows(db: Tables, clip_ids: Iterable[str]) -> Removed:
    """Remove the rows and rejects of these clips; clips of the clip list are pending again. Judgements
    stay: they say which version was seen.

    The caller must be the only writer of `clips`: the driver of a run, or a command while no run works. Raises
    StoreError.
    """
    ids = sorted(set(clip_ids))
    remove_features(db, ids)
    _delete(db, STAGE_REJECTS, "clip_id", ids)
    _delete(db, SEGMENTS, "clip_id", ids)
    return Removed(rows=_delete(db, "clips", "clip_id", ids), rejects=_delete(db, "rejects", "clip_id", ids))


def remove_clips(db: Tables, clip_ids: Iterable[str], *, episodes: bool = True, found_in: str = "clip_list") -> Removed:
    """Remove these clips from all tables; unknown ids are ignored. Safe to start again after a kill.

    Args:
        episodes: also remove the robot episodes whose clips, of all cameras, are removed. Otherwise episodes stay: they
            hold images of their own, and need no video.
        found_in: the table in which the clips were found; it changes last.

    Raises StoreError.
    """
    ids = sorted(set(clip_ids))
    gone = episodes_of(db, ids) if episodes else []
    remove_features(db, [*ids, *gone])
    _delete(db, STAGE_REJECTS, "clip_id", ids)
    _delete(db, SEGMENTS, "clip_id", ids)
    _delete(db, "judgements", "clip_id", ids)
    num_episodes = _delete(db, EPISODES, "episode_id", gone)
    names = sorted(("clips", "rejects", "clip_list"), key=lambda name: name == found_in)
    counts = {name: _delete(db, name, "clip_id", ids) for name in names}
    return Removed(counts["clip_list"], counts["clips"], counts["rejects"], num_episodes)


def remove_features(db: Tables, row_ids: Iterable[str]) -> None:
    """Remove the features that were computed from rows (`clip_features`): rows that are made anew have the same ids."""
    _delete(db, FEATURES, "row_id", sorted(set(row_ids)))


def episodes_of(db: Tables, clip_ids: Collection[str]) -> list[str]:
    """The robot episodes that have clips and whose clips are all in `clip_ids`."""
    rows = db.read(EPISODES, ["episode_id", "clip_ids"])
    if not rows.num_columns:
        return []
    wanted = set(clip_ids)
    pairs = zip(rows.column("episode_id").to_pylist(), rows.column("clip_ids").to_pylist(), strict=True)
    named = ((episode_id, {clip_id for clip_id in clips if clip_id is not None}) for episode_id, clips in pairs)
    return [episode_id for episode_id, clips in named if clips and clips <= wanted]


def _delete(db: Tables, name: str, column: str, ids: list[str]) -> int:
    """Delete the rows of these ids. Returns how many there were; without any the table is not written."""
    table = db.table(name)
    if table is None:
        return 0
    if len(ids) > IDS_PER_DELETE:  # one read instead of many searches: often none of them is in the table
        there = set(db.read(name, [column]).column(column).to_pylist())
        ids = [id_ for id_ in ids if id_ in there]
    deleted = 0
    for start in range(0, len(ids), IDS_PER_DELETE):
        condition = in_list(column, ids[start : start + IDS_PER_DELETE])
        with lance_errors(f"remove rows of {name}", db.location.table_uri(name)):
            found = table.count_rows(filter=condition)
            if found:
                table.delete(condition)
        deleted += found
    return deleted

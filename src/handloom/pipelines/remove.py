"""`handloom remove`: removes clips from the clip list, the rows and the rejects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.io.presence import presence
from handloom.store.clips.clip_list import read_clips
from handloom.store.clips.removal import episodes_of, remove_clips, remove_rows
from handloom.store.filters import forms_of, in_list
from handloom.store.runs.lease import alone
from handloom.store.skills.bank import taught_by

TABLES = ("clip_list", "clips", "rejects")  # in which a filter's columns are looked for, in this order


@dataclass(frozen=True)
class RemoveSummary:
    """What was removed, or with `dry_run` would be: `listed` clips, `rows`, `rejects` and robot `episodes`.

    clip_ids: sorted. num_clips: those left in the list. unknown_videos: URIs that could not be checked; with `missing`
    their clips stay. kept_rows: clips that `missing` keeps because they have a row. skills: names of those that some of
    the clips have taught; they stay.
    """

    dry_run: bool
    listed: int
    rows: int
    rejects: int
    episodes: int
    num_clips: int
    clip_ids: tuple[str, ...]
    unknown_videos: tuple[str, ...] = ()
    kept_rows: int = 0
    rows_only: bool = False
    skills: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Chosen:
    clip_ids: set[str]
    unknown_videos: tuple[str, ...] = ()
    kept_rows: int = 0


def remove(
    db: Database,
    *,
    where: str | None = None,
    clips: Sequence[str] = (),
    videos: Sequence[str] = (),
    missing: bool = False,
    rows_only: bool = False,
    dry_run: bool = False,
    source_options: dict[str, Any] | None = None,
) -> RemoveSummary:
    """Remove clips from the clip list, with their rows and rejects. After a kill the same call finishes the work.

    Args:
        where: an SQL filter on columns of the clip list; or, if it names others, of `clips` or of `rejects`. It narrows
            the other choices if one is given.
        clips: ids. videos: ids of videos. Each must exist.
        missing: clips without a row whose video is missing. Rows whose video has gone are kept.
        rows_only: keep the clips in the list: they are pending again, and the next run makes their rows anew.
        dry_run: only report what would be removed.
        source_options: fsspec's, for s3:// videos.

    Raises:
        ConfigError: nothing or too much was chosen, an id is not known, a filter cannot be read, or no video is there.
        StoreError: a run works on the database; it cannot be read or written.
    """
    _check_choice(len([way for way in (clips, videos, missing) if way]), where)
    chosen = _chosen(db, clips, videos, missing, source_options)
    ids = chosen.clip_ids if chosen is not None else set()
    found_in = "clip_list"
    if where is not None:
        passing, found_in = _passing(db, where)
        ids = passing if chosen is None else ids & passing
    unknown, kept = (chosen.unknown_videos, chosen.kept_rows) if chosen is not None else ((), 0)
    skills = tuple(taught_by(db, ids))
    if dry_run:
        in_list, rows, rejects = (_count(db, name, ids) for name in TABLES)
        num_episodes = 0 if rows_only or missing else len(episodes_of(db, ids))
        listed = 0 if rows_only else in_list
        left = db.count("clip_list") - listed
        return RemoveSummary(
            True, listed, rows, rejects, num_episodes, left, tuple(sorted(ids)), unknown, kept, rows_only, skills
        )
    with alone(db, "remove"):
        done = remove_rows(db, ids) if rows_only else remove_clips(db, ids, episodes=not missing, found_in=found_in)
    left, sorted_ids = db.count("clip_list"), tuple(sorted(ids))
    return RemoveSummary(
        False, done.listed, done.rows, done.rejects, done.episodes, left, sorted_ids, unknown, kept, rows_only, skills
    )


def _check_choice(num_ways: int, where: str | None) -> None:
    if num_ways > 1 or (num_ways == 0 and where is None):
        problem = "clips are chosen in more than one way" if num_ways else "no clips are chosen"
        hint = "give one of --clip, --video and --missing, or --where, which narrows these; --dry-run lists the clips"
        raise ConfigError(problem, hint)


def _chosen(
    db: Database, clips: Sequence[str], videos: Sequence[str], missing: bool, options: dict[str, Any] | None
) -> _Chosen | None:
    """What --clip, --video or --missing chooses; None if none of them is given."""
    if clips:
        return _Chosen(_known(db, "clip_id", clips, "clip"))
    if videos:
        return _Chosen(_known(db, "video_id", videos, "video"))
    return _missing(db, options) if missing else None


def _known(db: Database, column: str, names: Sequence[str], what: str) -> set[str]:
    """Ids of the clips with these names, in any table. Raises ConfigError for a name that is in no table."""
    found: set[str] = set()
    for name in names:
        condition = in_list(column, forms_of(name))
        tables = [table for table in TABLES if (there := db.table(table)) is not None and column in there.schema.names]
        ids = {i for table in tables for i in _ids(db, table, condition)}
        if not ids:
            raise ConfigError(f"no {what} {name!r} is in {db.uri}{_near(db, column, name)}", "nothing was removed")
        found |= ids
    return found


def _near(db: Database, column: str, name: str) -> str:
    import difflib

    listed = db.read("clip_list", [column])
    known = sorted(set(listed.column(column).to_pylist())) if listed.num_rows else []
    close = difflib.get_close_matches(name, known[:5000], 3, 0.6)
    return f"; near: {', '.join(close)}" if close else ""


def _passing(db: Database, where: str) -> tuple[set[str], str]:
    """Ids of the clips that pass the filter in the first table that has its columns, and which table that is."""
    refused: ConfigError | None = None
    for name in TABLES:
        if db.table(name) is None:
            continue
        try:
            return _ids(db, name, where), name
        except ConfigError as error:
            refused = refused or error
    raise refused if refused is not None else ConfigError(f"{db.uri} holds no clips", "nothing was removed")


def _ids(db: Database, table: str, where: str | None) -> set[str]:
    rows = db.read(table, ["clip_id"], where)
    return set(rows.column("clip_id").to_pylist()) if rows.num_columns else set()


def _missing(db: Database, options: dict[str, Any] | None) -> _Chosen:
    clips = read_clips(db)
    there = presence((clip.video_uri for clip in clips), options)
    if there and not any(found is not False for found in there.values()):
        raise ConfigError(
            f"none of the {len(there)} videos of the list is there, {clips[0].video_uri} for one: nothing is removed",
            "look whether the disk is mounted; to remove them all the same, name them with --where",
        )
    absent = {clip.clip_id for clip in clips if there[clip.video_uri] is False}
    done = absent & _ids(db, "clips", None)
    unknown = tuple(uri for uri, found in there.items() if found is None)
    return _Chosen(absent - done, unknown, len(done))


def _count(db: Database, name: str, clip_ids: set[str]) -> int:
    rows = db.read(name, ["clip_id"])
    return sum(clip_id in clip_ids for clip_id in rows.column("clip_id").to_pylist()) if rows.num_columns else 0

"""The clip list: adding clips, reading them, and finding those that are not processed yet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa

from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import CLIP_LIST
from handloom.store.clips.known_clips import Addition, KnownClips, read_known, video_of
from handloom.store.clips.removal import remove_clips, remove_rows
from handloom.store.location import lance_errors
from handloom.store.repeated import drop_repeated
from handloom.store.tables import Tables
from handloom.video.fetch.version import UNKNOWN, VideoVersion

_FIELDS = CLIP_LIST.names[: CLIP_LIST.names.index("camera_digest")]  # of `Clip`, in their order
_FILE = ("video_bytes", "video_version", "video_digest")


@dataclass(frozen=True)
class AddResult:
    """What `add_clips` did.

    added: new clips. changed: listed clips whose values were replaced. already_there: listed clips with equal values.
    repeated: given more than once in this call. changed_videos: videos whose file is another than before. dropped:
    clips of these videos that were removed from the list. redone: rows and rejects of their old files that were
    removed.
    """

    added: int
    changed: int
    already_there: int
    repeated: int
    changed_videos: int = 0
    dropped: int = 0
    redone: int = 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.already_there


class ClipListWriter:
    """Adds clips to the clip list in batches. The list is read once, and again if others have changed it.

    Raises StoreError if the list cannot be read or written.
    """

    def __init__(self, db: Tables) -> None:
        self._db = db
        self._known = KnownClips({}, defaultdict(dict), {})
        self._version: int | None = None  # of the list when `_known` was read

    def plan(self, clips: Iterable[Clip]) -> Addition:
        """What `add` would do; nothing is written."""
        table = self._db.table("clip_list")
        self._know(None if table is None else table.version)
        return self._known.addition(clips)

    @property
    def listed(self) -> Collection[str]:
        """Ids of the clips that the last `plan` or `add` found in the list."""
        return self._known.clips.keys()

    def _know(self, version: int | None) -> None:
        if version is None or version != self._version:
            self._known, self._version = read_known(self._db), version

    def _table(self) -> lance.LanceDataset:
        return lance.dataset(_uri(self._db), storage_options=self._db.storage_options or None)

    def add(self, clips: Iterable[Clip], *, whole_videos: bool = False, batch_clips: int = 50_000) -> AddResult:
        """As `add_clips`."""
        db, version = self._db, self._db.ensure_table("clip_list", CLIP_LIST).version
        self._know(version)
        known = self._known
        if db.count("clip_list") > len(known.clips):  # after two ingests at once, one of which was killed
            drop_repeated(db, "clip_list", keep_last=True)
        plan = known.addition(clips)
        redone = remove_rows(db, plan.stale)
        dropped = remove_clips(db, plan.others, episodes=False).listed if whole_videos else 0
        touched = plan.touched
        if not whole_videos:
            touched = [*touched, *(plan.renewed[video_of(clip)].on(clip) for clip in read_clips(db, plan.others))]
        new = plan.new
        alone = not dropped and version == self._table().version
        with lance_errors("write the clip list", _uri(db)):
            before = version  # of the list that `new` was compared with: what others have added since counts as a race
            for start in range(0, len(new), batch_clips):  # appended: `merge_insert` does not keep the order
                rows = _to_table(new[start : start + batch_clips])
                after = lance.write_dataset(rows, _uri(db), mode="append", storage_options=db.storage_options or None)
                raced, before = after.version != before + 1, after.version
                if raced:
                    alone = False
                    drop_repeated(db, "clip_list", keep_last=True)
        updates = {c.clip_id: c for c in (*plan.changed, *touched)}
        update_clips(db, updates.values(), batch_clips=batch_clips)
        if alone and not updates:  # `_known` is right as long as the version stays
            known.add(new)
            self._version = before
        else:
            self._version = None
        counts = (len(new), len(plan.changed), plan.num_same, plan.num_repeated)
        return AddResult(*counts, len(plan.renewed), dropped, redone.rows + redone.rejects)


def add_clips(db: Tables, clips: Iterable[Clip], *, whole_videos: bool = False, batch_clips: int = 50_000) -> AddResult:
    """Add clips to the clip list; a clip that is in the list is not added twice.

    A listed `clip_id` with other values (the video was moved, a narration was corrected) takes the new values: a moved
    video gets its new URI by ingesting it again. Of several clips with one id the last wins. Rows of `clips` keep the
    values that they were made with. An id that is listed in another Unicode form (ids before 0.4 have the form that
    their machine used) is the same clip, and keeps its form. Several processes may add clips at once: of several values
    for one clip the last committed stay.

    If a video's file is another than the listed one, its rows and rejects are removed first, so that after a kill its
    clips are either pending or still have the old file. Other listed clips of the video stay, with the new file. A file
    of which only the time has changed counts as unchanged.

    Args:
        whole_videos: the clips are all clips of their videos: if a file has changed, other listed clips of its video
            are removed.

    Raises StoreError if the list cannot be written.
    """
    return ClipListWriter(db).add(clips, whole_videos=whole_videos, batch_clips=batch_clips)


def renew_videos(db: Tables, found: Mapping[str, VideoVersion]) -> AddResult:
    """Compare the listed files with those that exist now, and do as `add_clips` does for files that have changed.

    found: {URI: version of its file}. Files whose version is unknown, now or in the list, are left out. Clips of one
    file may have different versions: its folder is in two datasets, and one was ingested again. The caller must be the
    only writer of `clips`.
    """
    listed = _listed_versions(db)
    touched = {uri for uri, new in found.items() if any(_other(new, old) for old in listed.get(uri, ()))}
    if not touched:
        return AddResult(0, 0, 0, 0)
    listed_clips = (clip for clip in read_clips(db) if clip.video_uri in touched)
    clips = [clip for clip in listed_clips if _other(found[clip.video_uri], VideoVersion.of_clip(clip))]
    renewed = [clip for clip in clips if found[clip.video_uri].differs(VideoVersion.of_clip(clip))]
    redone = remove_rows(db, [clip.clip_id for clip in renewed])
    update_clips(db, [found[clip.video_uri].on(clip) for clip in clips])
    num_videos = len({clip.video_uri for clip in renewed})
    return AddResult(0, 0, 0, 0, num_videos, 0, redone.rows + redone.rejects)


def update_clips(db: Tables, clips: Iterable[Clip], *, batch_clips: int = 50_000) -> None:
    """Replace the values of listed clips; clips that are not listed are left out. Raises StoreError."""
    clips = list(clips)
    with lance_errors("write the clip list", _uri(db)):
        for start in range(0, len(clips), batch_clips):
            rows = _to_table(clips[start : start + batch_clips])
            table = lance.dataset(_uri(db), storage_options=db.storage_options or None)
            table.merge_insert("clip_id").when_matched_update_all().execute(rows)


def read_clips(db: Tables, ids: Sequence[str] | None = None, where: str | None = None) -> list[Clip]:
    """The clip list in stored order, each id once; only those in `ids` and those that pass the SQL filter `where`."""
    if ids is not None and not len(ids):
        return []
    table = db.read("clip_list", _FIELDS, where)
    if not table.num_rows:
        return []
    wanted = None if ids is None else set(ids)
    clips: dict[str, Clip] = {}
    for batch in table.to_batches():
        for row in _rows(batch):
            if row[0] not in clips and (wanted is None or row[0] in wanted):
                clips[row[0]] = Clip(*row)
    return list(clips.values())


def pending_clips(db: Tables, *, retry_reasons: Iterable[str] = (), where: str | None = None) -> list[Clip]:
    """The clips of the list that have neither a row nor a reject, in the order of the list.

    A reject whose reason is in `retry_reasons` does not count.
    """
    retry = set(retry_reasons)
    finished = set(db.clips(["clip_id"]).column("clip_id").to_pylist()) if db.table("clips") is not None else set()
    rejects = db.read("rejects", ["clip_id", "reason"])
    if rejects.num_rows:
        rows = zip(rejects.column("clip_id").to_pylist(), rejects.column("reason").to_pylist(), strict=True)
        finished.update(clip_id for clip_id, reason in rows if reason not in retry)
    return [clip for clip in read_clips(db, where=where) if clip.clip_id not in finished]


def renewed_videos(db: Tables, clips: Iterable[Clip]) -> set[tuple[str, str]]:
    """(dataset, video id) of the videos of these clips whose file differs from the listed one."""
    return set(read_known(db).renewed(clips))


def listed_videos(db: Tables, *, where: str | None = None) -> dict[str, VideoVersion]:
    """`{video_uri: version of its file}` of every listed video; `UNKNOWN` if the list has none, the first of several.

    where: only videos of which all clips pass it.
    """
    if where is not None:
        everything = Counter(db.read("clip_list", ["video_uri"]).column("video_uri").to_pylist())
        selected = Counter(db.read("clip_list", ["video_uri"], where).column("video_uri").to_pylist())
        whole = {uri for uri, number in selected.items() if number == everything[uri]}
        return {uri: version for uri, version in listed_videos(db).items() if uri in whole}
    return {
        uri: next((version for version in versions if version.is_known), UNKNOWN)
        for uri, versions in _listed_versions(db).items()
    }


def _other(new: VideoVersion, old: VideoVersion) -> bool:
    return new.is_known and old.is_known and new != old


def _listed_versions(db: Tables) -> dict[str, dict[VideoVersion, None]]:
    """Of each URI, the different file versions of its clips, in the order of the list."""
    columns = ["video_uri", *_FILE]
    found: dict[str, dict[VideoVersion, None]] = defaultdict(dict)
    for batch in db.batches(columns, name="clip_list", batch_size=65_536):
        for uri, *version in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
            found[uri][VideoVersion(*version)] = None
    return found


def _uri(db: Tables) -> str:
    return db.location.table_uri("clip_list")


def _values(clip: Clip) -> tuple[object, ...]:
    return tuple(getattr(clip, name) for name in CLIP_LIST.names)


def _rows(batch: pa.RecordBatch) -> Iterable[tuple[Any, ...]]:
    return zip(*(batch.column(name).to_pylist() for name in _FIELDS), strict=True)


def _to_table(clips: Sequence[Clip]) -> pa.Table:
    columns = zip(*(_values(clip) for clip in clips), strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, CLIP_LIST, strict=True)]
    return pa.Table.from_arrays(arrays, schema=CLIP_LIST)

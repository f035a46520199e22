"""The clip list: what should be processed, and what of it still is to be."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import lance
import pyarrow as pa

from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import CLIP_LIST
from handloom.store.clips.removal import remove_clips, remove_rows
from handloom.store.location import lance_errors
from handloom.store.repeated import drop_repeated
from handloom.store.tables import Tables
from handloom.video.fetch.version import UNKNOWN, VideoVersion

_VIDEO_ID = CLIP_LIST.names.index("video_id")
_NUM_OWN = CLIP_LIST.names.index("video_bytes")  # columns of the clip itself; behind them those of its video's file

_Video = tuple[str, str]
"""Dataset and video id."""


@dataclass(frozen=True)
class AddResult:
    """What `add_clips` did with the clips it was given.

    added: new. changed: already there with other values, which were replaced. already_there: nothing to do.
    repeated: given more than once in this call. changed_videos: videos that are other files than before. dropped: clips
    of these that the list no longer holds. redone: rows and rejects that were made of their old files, removed.
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


@dataclass
class _Known:
    """The list before. clips: of each id its values' digest, its video, and the file that its video was.

    other_forms: of ids that are not in the composed form, by that form, the id and the video's as they are.
    """

    clips: dict[str, tuple[int, _Video, VideoVersion]]
    versions: dict[_Video, dict[VideoVersion, VideoVersion]]
    other_forms: dict[str, tuple[str, str]]

    def as_listed(self, clip: Clip) -> Clip:
        """The clip under the id that the list has it by; of the file that is known, where none can be seen now."""
        if clip.clip_id in self.other_forms and clip.clip_id not in self.clips:
            clip_id, video_id = self.other_forms[clip.clip_id]
            clip = replace(clip, clip_id=clip_id, video_id=video_id)
        if clip.clip_id in self.clips and not VideoVersion.of_clip(clip).is_known:
            clip = self.clips[clip.clip_id][2].on(clip)
        return clip

    def add(self, clips: Iterable[Clip]) -> None:
        """The list holds these as well."""
        for clip in clips:
            version = VideoVersion.of_clip(clip)
            version = self.versions[_video(clip)].setdefault(version, version)  # one object for all clips of a video
            self.clips[clip.clip_id] = _digest(clip), _video(clip), version
            if not clip.clip_id.isascii() and not unicodedata.is_normalized("NFC", clip.clip_id):
                self.other_forms[unicodedata.normalize("NFC", clip.clip_id)] = clip.clip_id, clip.video_id

    def of_videos(self, videos: Collection[_Video]) -> list[str]:
        """Ids of the clips of these videos."""
        return [i for i, (_, video, _) in self.clips.items() if video in videos] if videos else []

    def renewed(self, clips: Iterable[Clip]) -> dict[_Video, VideoVersion]:
        """The videos of these clips that are other files than the list knows, with the new files' versions."""
        seen = {_video(clip): VideoVersion.of_clip(clip) for clip in clips}
        return {v: new for v, new in seen.items() if any(new.differs(old) for old in self.versions.get(v, ()))}


class ClipListWriter:
    """Adds clips to the clip list, batch after batch: the list is read once, and again where others have changed it.

    Raises StoreError if the list cannot be read or written.
    """

    def __init__(self, db: Tables) -> None:
        self._db = db
        self._known = _Known({}, defaultdict(dict), {})
        self._version: int | None = None  # of the list that `known` tells of

    def _read(self) -> _Known:
        known = _read_known(self._db)
        if self._db.count("clip_list") > len(known.clips):  # two ingests at once, one of them killed before it looked
            drop_repeated(self._db, "clip_list", keep_last=True)
        return known

    def _table(self) -> lance.LanceDataset:
        return lance.dataset(_uri(self._db), storage_options=self._db.storage_options or None)

    def add(self, clips: Iterable[Clip], *, whole_videos: bool = False, batch_clips: int = 50_000) -> AddResult:
        """As `add_clips`."""
        db, version = self._db, self._db.ensure_table("clip_list", CLIP_LIST).version
        if version != self._version:
            self._known = self._read()
        known = self._known
        given: dict[str, Clip] = {}
        repeated = 0
        for clip in map(known.as_listed, clips):
            repeated += clip.clip_id in given
            given[clip.clip_id] = clip
        renewed = known.renewed(given.values())
        stale = known.of_videos(renewed)
        others = [i for i in stale if i not in given]
        redone = remove_rows(db, stale)
        dropped = remove_clips(db, others, episodes=False).listed if whole_videos else 0
        new = [c for i, c in given.items() if i not in known.clips]
        changed = [c for i, c in given.items() if i in known.clips and _digest(c) != known.clips[i][0]]
        touched = [c for i, c in given.items() if i in known.clips and VideoVersion.of_clip(c) != known.clips[i][2]]
        if not whole_videos:
            touched += [renewed[_video(clip)].on(clip) for clip in read_clips(db, others)]
        alone = not dropped and version == self._table().version
        with lance_errors("write the clip list", _uri(db)):
            before = self._table().version
            for start in range(0, len(new), batch_clips):  # appended: `merge_insert` would not keep their order
                rows = _to_table(new[start : start + batch_clips])
                after = lance.write_dataset(rows, _uri(db), mode="append", storage_options=db.storage_options or None)
                raced, before = after.version != before + 1, after.version
                if raced:
                    alone = False
                    drop_repeated(db, "clip_list", keep_last=True)
        updates = {c.clip_id: c for c in (*changed, *touched)}
        update_clips(db, updates.values(), batch_clips=batch_clips)
        if alone and not updates:  # what is known is what is there, as long as its version stays
            known.add(new)
            self._version = before
        else:
            self._version = None
        counts = (len(new), len(changed), len(given) - len(new) - len(changed), repeated)
        return AddResult(*counts, len(renewed), dropped, redone.rows + redone.rejects)


def add_clips(db: Tables, clips: Iterable[Clip], *, whole_videos: bool = False, batch_clips: int = 50_000) -> AddResult:
    """Add clips to the clip list; a clip that is already there is not added twice.

    A known `clip_id` with other values (the video moved, a narration was corrected) takes the new values, so that
    ingesting again is how a moved video gets its new URI. The last of several clips with one id wins. Rows of `clips`
    keep the values they were processed with. An id that is there in another Unicode form (lists before 0.4 keep names
    as their machine wrote them) is the same clip, and stays as it is. Several processes may add clips at once: of the
    values that they give to one clip the last committed ones stay.

    A video that is another file than the list knows loses its rows and rejects, first of all: whatever a kill leaves,
    a clip is pending or its video is still known as the old file. Other clips of it stay in the list, as clips of the
    new file. A file that was only touched counts as unchanged.

    Args:
        whole_videos: the clips given are all that there are of their videos: others go with a file that has changed.

    Raises StoreError if the list cannot be written.
    """
    return ClipListWriter(db).add(clips, whole_videos=whole_videos, batch_clips=batch_clips)


def renew_videos(db: Tables, found: Mapping[str, VideoVersion]) -> AddResult:
    """Compare the list with the files that its videos are now, by URI; do as `add_clips` does where they are others.

    Files that are not known, now or to the list, are passed over. Clips of one file may know different ones: two
    datasets hold its folder, and one was ingested again. For whoever is the only writer of `clips`.
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
    """Give clips of the list these values; ids that it does not hold are passed over. Raises StoreError."""
    clips = list(clips)
    with lance_errors("write the clip list", _uri(db)):
        for start in range(0, len(clips), batch_clips):
            rows = _to_table(clips[start : start + batch_clips])
            table = lance.dataset(_uri(db), storage_options=db.storage_options or None)
            table.merge_insert("clip_id").when_matched_update_all().execute(rows)


def read_clips(db: Tables, ids: Sequence[str] | None = None, where: str | None = None) -> list[Clip]:
    """The clip list in stored order, each id once; only `ids`, only what passes the SQL filter `where`."""
    if ids is not None and not len(ids):
        return []
    table = db.read("clip_list", CLIP_LIST.names, where)
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

    A reject whose reason is in `retry_reasons` does not count: its clip is pending again.
    """
    retry = set(retry_reasons)
    finished = set(db.clips(["clip_id"]).column("clip_id").to_pylist()) if db.table("clips") is not None else set()
    rejects = db.read("rejects", ["clip_id", "reason"])
    if rejects.num_rows:
        rows = zip(rejects.column("clip_id").to_pylist(), rejects.column("reason").to_pylist(), strict=True)
        finished.update(clip_id for clip_id, reason in rows if reason not in retry)
    return [clip for clip in read_clips(db, where=where) if clip.clip_id not in finished]


def renewed_videos(db: Tables, clips: Iterable[Clip]) -> set[tuple[str, str]]:
    """(dataset, video id) of the videos of these clips that are other files than the list knows."""
    return set(_read_known(db).renewed(clips))


def listed_videos(db: Tables, *, where: str | None = None) -> dict[str, VideoVersion]:
    """`{video_uri: the file that it was}` of every video of the list, unknown where the list does not say.

    Where the list knows several, the first of them. where: videos all of whose clips pass it.
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
    """Of each URI all files that clips of the list know it as, in the order of the list."""
    columns = ["video_uri", *CLIP_LIST.names[_NUM_OWN:]]
    found: dict[str, dict[VideoVersion, None]] = defaultdict(dict)
    for batch in db.batches(columns, name="clip_list", batch_size=65_536):
        for uri, *version in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
            found[uri][VideoVersion(*version)] = None
    return found


def _uri(db: Tables) -> str:
    return db.location.table_uri("clip_list")


def _read_known(db: Tables) -> _Known:
    known = _Known({}, defaultdict(dict), {})
    for batch in db.batches(CLIP_LIST.names, name="clip_list", batch_size=4096):
        known.add(Clip(*row) for row in _rows(batch))
    return known


def _video(clip: Clip) -> _Video:
    return clip.dataset, clip.video_id


def _values(clip: Clip) -> tuple[object, ...]:
    return tuple(getattr(clip, name) for name in CLIP_LIST.names)


def _digest(clip: Clip) -> int:
    return hash(repr(_values(clip)[:_NUM_OWN]))  # repr: a start that is NaN must equal itself


def _rows(batch: pa.RecordBatch) -> Iterable[tuple[object, ...]]:
    return zip(*(batch.column(name).to_pylist() for name in CLIP_LIST.names), strict=True)


def _to_table(clips: Sequence[Clip]) -> pa.Table:
    columns = zip(*(_values(clip) for clip in clips), strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, CLIP_LIST, strict=True)]
    return pa.Table.from_arrays(arrays, schema=CLIP_LIST)

"""The clip list as it is before clips are added to it: which of them are new, which change, whose video is another."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from handloom.schemas.clip import Clip, camera_label
from handloom.schemas.hand_size import text_of_today
from handloom.store.clips.copied_values import DIGEST, read_copies
from handloom.store.filters import in_list
from handloom.store.tables import Tables
from handloom.video.fetch.version import VideoVersion

Video = tuple[str, str]
"""Dataset and video id."""
VALUES = ("video_uri", "narration", "verb", "noun", "participant", "split", "licence", "view", DIGEST, "hand")
"""Columns of a clip that another ingest may change; `camera` by its digest."""
_FILE = ("video_bytes", "video_version", "video_digest")
_COLUMNS = ("dataset", "video_id", "start_s", "end_s", *VALUES, *_FILE)
_NUM_OWN = len(_COLUMNS) - len(_FILE)
_BATCH_ROWS = 65_536
_IDS_PER_FILTER = 500


@dataclass(frozen=True)
class Addition:
    """What adding some clips changes. new: clips that are not listed. changed: listed clips with other values. touched:
    listed clips whose file has another version, also if its content is the same.

    given: {clip id: clip}, each once and as it will be listed. renewed: {video: version of its new file} where the file
    is another one. stale: ids of all listed clips of these videos: their rows are of the old file. others: those of
    them that are not given.
    """

    given: dict[str, Clip]
    new: list[Clip]
    changed: list[Clip]
    touched: list[Clip]
    num_repeated: int
    renewed: dict[Video, VideoVersion]
    stale: list[str]
    others: list[str]

    @property
    def num_same(self) -> int:
        """Listed clips with equal values."""
        return len(self.given) - len(self.new) - len(self.changed)


@dataclass
class KnownClips:
    """The list before an addition.

    clips: {clip id: (hash of its values, its video, version of the video's file)}. versions: of each video, the file
    versions that its clips name. other_forms: {NFC form: (clip id, video id)} of listed ids in another Unicode form.
    """

    clips: dict[str, tuple[int, Video, VideoVersion]]
    versions: dict[Video, dict[VideoVersion, VideoVersion]]
    other_forms: dict[str, tuple[str, str]]

    def as_listed(self, clip: Clip) -> Clip:
        """The clip with the listed id if only the Unicode form differs, and the listed file version if it has none."""
        if clip.clip_id in self.other_forms and clip.clip_id not in self.clips:
            clip_id, video_id = self.other_forms[clip.clip_id]
            clip = replace(clip, clip_id=clip_id, video_id=video_id)
        if clip.clip_id in self.clips and not VideoVersion.of_clip(clip).is_known:
            clip = self.clips[clip.clip_id][2].on(clip)
        return clip

    def addition(self, clips: Iterable[Clip]) -> Addition:
        """What adding these clips changes; of several clips with one id the last counts."""
        given: dict[str, Clip] = {}
        num_repeated = 0
        for clip in map(self.as_listed, clips):
            num_repeated += clip.clip_id in given
            given[clip.clip_id] = clip
        renewed = self.renewed(given.values())
        stale = [i for i, (_, video, _) in self.clips.items() if video in renewed] if renewed else []
        listed = [(c, *self.clips[i]) for i, c in given.items() if i in self.clips]
        return Addition(
            given=given,
            new=[clip for i, clip in given.items() if i not in self.clips],
            changed=[clip for clip, known, _, _ in listed if _hash(_values(clip)) != known],
            touched=[clip for clip, _, _, version in listed if VideoVersion.of_clip(clip) != version],
            num_repeated=num_repeated,
            renewed=renewed,
            stale=stale,
            others=[i for i in stale if i not in given],
        )

    def add(self, clips: Iterable[Clip]) -> None:
        """Clips that were added to the list."""
        for clip in clips:
            self.add_listed(clip.clip_id, _values(clip), VideoVersion.of_clip(clip))

    def add_listed(self, clip_id: str, values: Sequence[object], version: VideoVersion) -> None:
        """A clip of the list. values: as `_COLUMNS`, without those of the file."""
        video = (str(values[0]), str(values[1]))
        version = self.versions[video].setdefault(version, version)  # one object for all clips of a video
        self.clips[clip_id] = _hash(values), video, version
        if not clip_id.isascii() and not unicodedata.is_normalized("NFC", clip_id):
            self.other_forms[unicodedata.normalize("NFC", clip_id)] = clip_id, video[1]

    def renewed(self, clips: Iterable[Clip]) -> dict[Video, VideoVersion]:
        """{video: version of its new file} of the videos of these clips whose file differs from the listed one."""
        seen = {video_of(clip): VideoVersion.of_clip(clip) for clip in clips}
        return {v: new for v, new in seen.items() if any(new.differs(old) for old in self.versions.get(v, ()))}


@dataclass(frozen=True)
class FieldChange:
    """One value of a listed clip that an ingest changes. Of cameras `before` and `now` are `camera_label`s, and null
    after the first few."""

    clip_id: str
    field: str
    before: str | None
    now: str | None


def read_known(db: Tables) -> KnownClips:
    """The clip list, without the text of its cameras. Raises StoreError."""
    known = KnownClips({}, defaultdict(dict), {})
    for batch in read_copies(db, "clip_list", _COLUMNS).to_batches(max_chunksize=_BATCH_ROWS):
        columns = [batch.column(name).to_pylist() for name in ("clip_id", *_COLUMNS)]
        for clip_id, *values in zip(*columns, strict=True):
            known.add_listed(clip_id, values[:_NUM_OWN], VideoVersion(*values[_NUM_OWN:]))
    return known


def field_changes(db: Tables, changed: Collection[Clip], num_labels: int = 3) -> list[FieldChange]:
    """What `changed` clips change in the list, clip by clip. Raises StoreError.

    num_labels: of cameras that are described. Their texts are read for that.
    """
    if not changed:
        return []
    ids = [clip.clip_id for clip in changed]
    where = in_list("clip_id", ids) if len(ids) <= _IDS_PER_FILTER else None
    listed = read_copies(db, "clip_list", VALUES, where)
    listed = listed.filter(pc.is_in(listed.column("clip_id"), value_set=pa.array(ids, pa.string())))
    before = {row["clip_id"]: row for row in listed.to_pylist()}
    found = [
        FieldChange(clip.clip_id, name, old, getattr(clip, name))
        for clip in changed
        for name, old in before[clip.clip_id].items()
        if name != "clip_id" and _of_today(name, old) != _of_today(name, getattr(clip, name))
    ]
    shown = [change.clip_id for change in found if change.field == DIGEST][:num_labels]
    rows = db.read("clip_list", ["clip_id", "camera"], in_list("clip_id", shown)) if shown else pa.table({})
    cameras = {row["clip_id"]: camera_label(row["camera"]) for row in rows.to_pylist()}
    now = {clip.clip_id: camera_label(clip.camera) for clip in changed if clip.clip_id in cameras}
    return [
        FieldChange(change.clip_id, "camera", cameras.get(change.clip_id), now.get(change.clip_id))
        if change.field == DIGEST
        else change
        for change in found
    ]


def video_of(clip: Clip) -> Video:
    return clip.dataset, clip.video_id


def _values(clip: Clip) -> list[object]:
    return [getattr(clip, name) for name in _COLUMNS[:_NUM_OWN]]


def _of_today(name: str, value: str | None) -> str | None:
    return text_of_today(value) if name == "hand" else value


def _hash(values: Sequence[object]) -> int:
    hand = values[_NUM_OWN - 1]
    hand = text_of_today(hand) if isinstance(hand, str) else None
    return hash(repr([*values[:-1], hand]))  # repr: a start that is NaN must equal itself

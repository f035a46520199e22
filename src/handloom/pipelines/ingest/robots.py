"""`handloom ingest lerobot` and `calvin`: episodes of robots into `robot_episodes`, their videos into the clip list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.api import Database
from handloom.draw.thumbnail import encode_jpeg, shrink_to_short_side
from handloom.errors import ConfigError
from handloom.ingest.files import join, normalise
from handloom.ingest.result import Progress
from handloom.ingest.robot.calvin import CalvinSource
from handloom.ingest.robot.lerobot import LeRobotSource
from handloom.ingest.robot.pictures import SHORT_SIDE_PX, Filmed, PictureReader, PictureSettings
from handloom.ingest.robot.source import (
    EpisodeTally,
    ImageCamera,
    RawEpisode,
    RobotSource,
    Skip,
    SourceFacts,
    Unusable,
    VideoCamera,
    source_key,
)
from handloom.schemas.clip import Clip
from handloom.schemas.tables.robot import RobotEpisode, episode_row, make_episode_id
from handloom.store.clips.clip_list import AddResult, ClipListWriter, listed_videos
from handloom.store.embodiment import check_of_robots
from handloom.store.episodes import TABLE, EpisodeWriter, KnownEpisode, known_episodes
from handloom.video.fetch.source import VideoSource
from handloom.video.fetch.version import VideoVersion, with_versions

JPEG_QUALITY = 90
COMMIT_BYTES = 64 << 20
COMMIT_EPISODES = 64
MAX_EPISODE_BYTES = 1 << 30  # Arrow's limit is 2 GiB; a row is in memory several times


@dataclass(frozen=True)
class RobotSummary:
    """What one ingest of robot episodes did.

    counts: `listed` episodes = added + replaced + already_there + skipped (`not_in_meta` is skipped and not listed).
    left_out: what was skipped, and lists of episodes that cannot be read. skipped: by reason; skips: `{episode_index,
    reason, detail}` of each. notes: by name, what is odd about episodes that were taken. problems: one line per skip,
    note and oddity of the dataset. clips: of the clip list, by change.
    """

    counts: dict[str, int]
    skipped: dict[str, int]
    notes: dict[str, int]
    clips: dict[str, int]
    num_episodes: int
    num_clips: int
    left_out: int
    version: int | None
    skips: list[dict[str, Any]]
    problems: tuple[str, ...]


def lerobot(db: Database, directory: str, *, dataset: str | None = None, **options: Any) -> RobotSummary:
    """A LeRobotDataset: see `handloom.ingest.robot.lerobot.LeRobotSource`; the other options are those of `ingest`."""
    own = {name: options.pop(name) for name in ("licence", "view", "state", "action") if name in options}
    name = dataset or _dataset_name(directory)
    source = LeRobotSource(directory, dataset=name, options=options.get("storage_options"), **own)
    return ingest(db, source, **options)


def calvin(db: Database, directory: str, *, dataset: str | None = None, **options: Any) -> RobotSummary:
    """A CALVIN dataset: see `handloom.ingest.robot.calvin.CalvinSource`; the other options are those of `ingest`."""
    own = {name: options.pop(name) for name in ("licence", "view", "whole", "action") if name in options}
    source = CalvinSource(directory, dataset=dataset or "calvin", options=options.get("storage_options"), **own)
    return ingest(db, source, **options)


def ingest(
    db: Database,
    source: RobotSource,
    *,
    pictures: bool = True,
    videos: str | None = None,
    replace: bool = False,
    commit_episodes: int = COMMIT_EPISODES,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> RobotSummary:
    """Every episode of a source as a row of `robot_episodes`, and a clip per camera.

    An episode that is there from the same files with the same settings is left alone: its pictures are not read again.
    What has changed replaces its row. Committed in batches: a kill loses at most one, and running again goes on.

    Args:
        pictures: keep the frames as JPEG; without them videos are not opened.
        videos: folder or URI for the videos of datasets that hold single images; `DB/videos` by default.
        replace: episodes of this dataset name that came from another place may be replaced.
        commit_episodes: at most this many episodes in one commit; less where their pictures are large.
        storage_options: fsspec's, of s3:// URIs.

    Raises:
        ConfigError: nothing of the dataset can be used, or its name is taken by another one.
    """
    facts = source.facts
    known = known_episodes(db, facts.dataset)
    _check_place(known, facts.dataset, facts.uri, replace)
    check_of_robots(db, facts.dataset)
    settings = PictureSettings(normalise(videos) if videos else join(db.uri, "videos"), pictures)
    fetching = VideoSource(storage_options=storage_options)
    with PictureReader(facts, settings, _encode, fetching, dict(storage_options or {})) as reader:
        ingest = _Ingest(db, source, known, settings, reader, dict(storage_options or {}))
        for number, raw in enumerate(source.episodes(), start=1):
            ingest.take(raw)
            if ingest.num_bytes >= COMMIT_BYTES or len(ingest.waiting) >= commit_episodes:
                ingest.commit()
            if progress is not None:
                progress(number, facts.num_listed)
        ingest.commit()
        ingest.list_again()
    return ingest.summary(pictures)


class _Ingest:
    """Episodes on their way: those that wait for their commit, and the counts. waiting: (episode, its clips)."""

    def __init__(
        self,
        db: Database,
        source: RobotSource,
        known: dict[str, KnownEpisode],
        settings: PictureSettings,
        reader: PictureReader,
        storage_options: dict[str, Any],
    ) -> None:
        self._db = db
        self._clip_list, self._episodes = ClipListWriter(db), EpisodeWriter(db)
        self._source = source
        self._known = known
        self._reader = reader
        self._settings = settings
        self._options, self._versions = storage_options, listed_videos(db)
        self._tally = EpisodeTally()
        self._counts = dict.fromkeys(("listed", "added", "replaced", "already_there", "skipped"), 0)
        self._clip_counts = dict.fromkeys(("added", "changed", "already_there", "changed_videos", "redone"), 0)
        self._listed: list[Clip] = []
        self.waiting: list[tuple[RobotEpisode, list[Clip]]] = []
        self.num_bytes = 0

    def take(self, raw: RawEpisode | Skip) -> None:
        """Count it, or read its pictures and let it wait."""
        if isinstance(raw, Skip):
            self._tally.skip(raw)
            return
        self._note(raw.index, raw.notes)
        key = source_key(self._source.facts, raw, self._what_pictures(raw))
        there = self._known.get(make_episode_id(self._source.facts.dataset, raw.index))
        if there is not None and there.source_key == key:
            self._counts["already_there"] += 1
            filmed = [camera.clip for camera in raw.cameras if isinstance(camera, VideoCamera)]
            self._listed += [clip for clip in filmed if clip.clip_id in there.clip_ids]
            return
        try:
            filmed = self._reader.read(raw)
            num_bytes = _num_bytes(filmed)
        except Unusable as error:
            self._tally.skip(Skip(raw.index, error.reason, error.detail))
            return
        for camera in filmed:
            self._note(raw.index, camera.notes)
        kept = tuple(camera for camera, seen in zip(raw.cameras, filmed, strict=True) if not seen.is_depth)
        raw, filmed = replace(raw, cameras=kept), [seen for seen in filmed if not seen.is_depth]
        episode = _episode(raw, filmed, self._source.facts, key)
        self.waiting.append((episode, [camera.clip for camera in filmed if camera.clip is not None]))
        self.num_bytes += num_bytes

    def _what_pictures(self, raw: RawEpisode) -> dict[str, Any]:
        """What of the settings this episode's row depends on."""
        made = any(isinstance(camera, ImageCamera) for camera in raw.cameras)
        return {"quality": JPEG_QUALITY, **vars(self._settings), "videos": self._settings.videos if made else ""}

    def commit(self) -> None:
        """Clips first: an episode that is there has its clips in the list, whatever is killed in between."""
        if not self.waiting:
            return
        clips = with_versions([clip for _, clips in self.waiting for clip in clips], self._versions, self._options)
        self._versions |= {clip.video_uri: VideoVersion.of_clip(clip) for clip in clips}
        listed = self._clip_list.add(clips)
        rows = pa.Table.from_batches([episode_row(episode) for episode, _ in self.waiting])
        written = self._episodes.write([rows])
        self._count_clips(listed)
        self._counts["added"] += written.added
        self._counts["replaced"] += written.replaced
        self._counts["already_there"] += written.already_there
        self.waiting, self.num_bytes = [], 0

    def list_again(self) -> None:
        """Clips of episodes that were there already, if they were taken out of the list (`remove --missing`)."""
        listed = self._db.read("clip_list", ["clip_id"]).column("clip_id").to_pylist() if self._listed else []
        if gone := {clip.clip_id for clip in self._listed} - set(listed):
            again = [clip for clip in self._listed if clip.clip_id in gone]
            self._count_clips(self._clip_list.add(with_versions(again, self._versions, self._options)))

    def _count_clips(self, done: AddResult) -> None:
        for name in self._clip_counts:
            self._clip_counts[name] += getattr(done, name)

    def summary(self, pictures: bool) -> RobotSummary:
        """Raises ConfigError where nothing could be used."""
        counts, tally, facts = self._counts, self._tally, self._source.facts
        if not counts["added"] + counts["replaced"] + counts["already_there"]:
            raise _nothing(facts, tally, pictures)
        table = self._db.table(TABLE)
        return RobotSummary(
            counts=counts | {"listed": facts.num_listed, "skipped": len(tally.skips)},
            skipped=tally.reasons,
            notes=dict(sorted(tally.notes.items())),
            clips=self._clip_counts,
            num_episodes=self._db.count(TABLE),
            num_clips=self._db.count("clip_list"),
            left_out=len(tally.skips) + self._source.num_unread,
            version=None if table is None else table.version,
            skips=[vars(skip) for skip in tally.skips],
            problems=(*self._source.problems, *tally.lines),
        )

    def _note(self, index: int, notes: Iterable[tuple[str, str]]) -> None:
        for name, detail in notes:
            self._tally.note(index, name, detail)


def _num_bytes(filmed: list[Filmed]) -> int:
    """Of an episode's pictures. Raises Unusable where they are more than one Arrow value holds."""
    total = sum(len(jpeg or b"") for camera in filmed for jpeg in camera.jpegs or ())
    if total > MAX_EPISODE_BYTES:
        limit = f"a row holds {MAX_EPISODE_BYTES >> 20} MB"
        raise Unusable("too_large", f"its pictures take {total >> 20} MB, {limit}; --no-pictures keeps the rest")
    return total


def _episode(raw: RawEpisode, filmed: list[Filmed], facts: SourceFacts, key: str) -> RobotEpisode:
    stored = [camera.jpegs for camera in filmed if camera.jpegs is not None]
    return RobotEpisode(
        dataset=facts.dataset,
        episode_index=raw.index,
        fps=facts.fps,
        frame_s=raw.frame_s,
        state=raw.state,
        action=raw.action,
        cameras=tuple(camera.name for camera in raw.cameras),
        clip_ids=tuple(None if camera.clip is None else camera.clip.clip_id for camera in filmed),
        frame_jpeg=stored if stored and len(stored) == len(filmed) else None,
        source_uri=facts.uri,
        source_version=facts.version,
        source_key=key,
        robot_type=facts.robot_type,
        task=raw.task,
        split=raw.split,
        licence=facts.licence,
    )


def _encode(picture: NDArray[np.uint8]) -> bytes:
    return encode_jpeg(shrink_to_short_side(picture, SHORT_SIDE_PX), JPEG_QUALITY)


def _check_place(known: dict[str, KnownEpisode], dataset: str, uri: str, replace: bool) -> None:
    places = sorted({episode.source_uri for episode in known.values()} - {uri})
    if places and not replace:
        raise ConfigError(
            f"dataset {dataset!r} already holds {len(known)} robot episodes from {places[0]}, not from {uri}",
            "give another --dataset; or, where this is the same dataset in a new place, --replace",
        )


def _nothing(facts: SourceFacts, tally: EpisodeTally, pictures: bool) -> ConfigError:
    reasons = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.items()) or "no episode at all"
    first = f"; {tally.skips[0]}" if tally.skips else ""
    no_videos = pictures and "video_missing" in tally.reasons
    hint = "fetch the whole dataset" + ("; or take states and actions alone with --no-pictures" if no_videos else "")
    return ConfigError(f"nothing of {facts.uri} can be used: {reasons}{first}", hint)


def _dataset_name(directory: str) -> str:
    """The folder's own name, in the characters of a dataset's name."""
    name = os.path.basename(normalise(directory).rstrip("/"))
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:64] or "lerobot"

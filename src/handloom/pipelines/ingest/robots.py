"""`handloom ingest lerobot` and `calvin`: episodes of robots into `robot_episodes`, their videos into the clip list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.ingest.result import Progress
from handloom.ingest.robot.calvin import CalvinSource
from handloom.ingest.robot.images import JPEG_QUALITY, Filmed, ImageReader, ImageSettings, stored_jpeg
from handloom.ingest.robot.lerobot import LeRobotSource
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
from handloom.io.addresses import join, normalise
from handloom.pipelines.ingest.effects import Effects, bring_up_to_date, foresee, outdated_rows
from handloom.plural import plural
from handloom.schemas.clip import Clip
from handloom.schemas.tables.robot import TABLE, RobotEpisode, episode_row, make_episode_id
from handloom.store.clips.clip_list import AddResult, ClipListWriter, listed_videos
from handloom.store.clips.commit import done_ids
from handloom.store.clips.known_clips import FieldChange, field_changes
from handloom.store.embodiment import check_of_robots
from handloom.store.episodes import EpisodeWriter, KnownEpisode, known_episodes
from handloom.video.fetch.version import VideoVersion, with_versions
from handloom.video.fetch.video_source import VideoSource

COMMIT_BYTES = 64 << 20
COMMIT_EPISODES = 64
MAX_EPISODE_BYTES = 1 << 30  # Arrow's limit is 2 GiB; a row is in memory several times


@dataclass(frozen=True)
class RobotSummary:
    """What one ingest of robot episodes did.

    counts: `listed` episodes = added + replaced + already_there + skipped (`not_in_meta` is skipped, but not listed).
    left_out: number of skipped episodes and of unreadable lists of episodes. skipped: by reason. skips: the
    episode_index, reason and detail of each. notes: by name, what is unusual about episodes that were used. problems:
    one line per skip, per note and per problem of the dataset. clips: of the clip list, by change. Others: as in
    `handloom.pipelines.ingest.human.IngestSummary`.
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
    rows_reworded: int = 0
    outdated: int = 0
    outdated_fields: Mapping[str, int] = field(default_factory=dict)
    stages_again: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, int] = field(default_factory=dict)
    shown: tuple[FieldChange, ...] = ()
    examples: Mapping[str, list[str]] = field(default_factory=dict)
    dry_run: bool = False


def lerobot(db: Database, directory: str, *, dataset: str | None = None, **options: Any) -> RobotSummary:
    """A LeRobotDataset: see `handloom.ingest.robot.lerobot.LeRobotSource`; other options as for `ingest`."""
    own = {name: options.pop(name) for name in ("licence", "view", "state", "action") if name in options}
    name = dataset or _dataset_name(directory)
    source = LeRobotSource(directory, dataset=name, options=options.get("storage_options"), **own)
    return ingest(db, source, **options)


def calvin(db: Database, directory: str, *, dataset: str | None = None, **options: Any) -> RobotSummary:
    """A CALVIN dataset: see `handloom.ingest.robot.calvin.CalvinSource`; other options as for `ingest`."""
    own = {name: options.pop(name) for name in ("licence", "view", "whole", "action") if name in options}
    source = CalvinSource(directory, dataset=dataset or "calvin", options=options.get("storage_options"), **own)
    return ingest(db, source, **options)


def ingest(
    db: Database,
    source: RobotSource,
    *,
    images: bool = True,
    videos: str | None = None,
    replace: bool = False,
    commit_episodes: int = COMMIT_EPISODES,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> RobotSummary:
    """Every episode of a source as a row of `robot_episodes`, and a clip per camera.

    Episodes that are stored already from the same files with the same settings are not read again; changed episodes
    replace their rows. Commits are in batches: a kill loses at most one, and the next ingest continues.

    Args:
        images: store the frames as JPEG; otherwise videos are not opened.
        videos: folder or URI for the videos of datasets that hold single images; `DB/videos` by default.
        replace: episodes of this dataset name that came from another place may be replaced.
        commit_episodes: at most this many episodes per commit; fewer if their images are large.
        storage_options: fsspec options of s3:// URIs.
        dry_run: only report what would change. No image is read, so images that cannot be read are not reported.

    Raises:
        ConfigError: nothing of the dataset can be used, or its name is taken by another one.
    """
    facts = source.facts
    known = known_episodes(db, facts.dataset)
    _check_place(known, facts.dataset, facts.uri, replace)
    check_of_robots(db, facts.dataset)
    settings = ImageSettings(normalise(videos) if videos else join(db.uri, "videos"), images)
    fetching = VideoSource(storage_options=None if storage_options is None else dict(storage_options))
    with ImageReader(facts, settings, stored_jpeg, fetching, dict(storage_options or {})) as reader:
        ingest = _Ingest(db, source, known, settings, reader, dict(storage_options or {}), dry_run)
        for number, raw in enumerate(source.episodes(), start=1):
            ingest.take(raw)
            if ingest.num_bytes >= COMMIT_BYTES or len(ingest.waiting) >= commit_episodes:
                ingest.commit()
            if progress is not None:
                progress(number, facts.num_listed)
        ingest.commit()
        ingest.list_again()
        ingest.finish()
    return ingest.summary(images)


class _Ingest:
    """An ingest in progress: its counts, and `waiting` for the next commit: (episode, its clips)."""

    def __init__(
        self,
        db: Database,
        source: RobotSource,
        known: dict[str, KnownEpisode],
        settings: ImageSettings,
        reader: ImageReader,
        storage_options: dict[str, Any],
        dry_run: bool,
    ) -> None:
        self._db = db
        self._clip_list, self._episodes = ClipListWriter(db), EpisodeWriter(db)
        self._source = source
        self._known = known
        self._unseen = set(known)  # stored episodes that the source has not named yet
        self._others: list[str] = []  # clips that a changed episode had and has no more: its times changed
        self._reader = reader
        self._settings = settings
        self._options, self._versions = storage_options, listed_videos(db)
        self._tally = EpisodeTally()
        self._counts = dict.fromkeys(("listed", "added", "replaced", "already_there", "skipped"), 0)
        self._clip_counts = dict.fromkeys(("added", "changed", "already_there", "changed_videos", "redone"), 0)
        self._listed: list[Clip] = []  # of episodes that are stored already
        self._seen: dict[str, Clip] = {}  # every clip of this ingest
        self._changes: list[FieldChange] = []
        self._effects = Effects()
        self._dry_run = dry_run
        self.waiting: list[tuple[RobotEpisode, list[Clip]]] = []
        self.num_bytes = 0

    def take(self, raw: RawEpisode | Skip) -> None:
        """Count a skip; read the images of an episode and add it to the next commit."""
        index = raw.episode_index if isinstance(raw, Skip) else raw.index
        self._unseen.discard(make_episode_id(self._source.facts.dataset, index))
        if isinstance(raw, Skip):
            self._tally.skip(raw)
            return
        self._note(raw.index, raw.notes)
        key = source_key(self._source.facts, raw, self._what_images(raw))
        there = self._known.get(make_episode_id(self._source.facts.dataset, raw.index))
        if there is not None and there.source_key == key:
            self._counts["already_there"] += 1
            clips = [camera.clip for camera in raw.cameras if isinstance(camera, VideoCamera)]
            self._listed += [clip for clip in clips if clip.clip_id in there.clip_ids]
            return
        try:
            filmed = self._reader.foresee(raw) if self._dry_run else self._reader.read(raw)
            num_bytes = _num_bytes(filmed)
        except Unusable as error:
            self._tally.skip(Skip(raw.index, error.reason, error.detail))
            return
        for camera in filmed:
            self._note(raw.index, camera.notes)
        kept = tuple(camera for camera, seen in zip(raw.cameras, filmed, strict=True) if not seen.is_depth)
        raw, filmed = replace(raw, cameras=kept), [seen for seen in filmed if not seen.is_depth]
        if there is not None:
            now = {seen.clip.clip_id for seen in filmed if seen.clip is not None}
            self._others += [clip_id for clip_id in there.clip_ids if clip_id is not None and clip_id not in now]
        if self._dry_run:
            self._counts["added" if there is None else "replaced"] += 1
            self._foresee([seen.clip for seen in filmed if seen.clip is not None], there)
            return
        episode = _episode(raw, filmed, self._source.facts, key)
        self.waiting.append((episode, [camera.clip for camera in filmed if camera.clip is not None]))
        self.num_bytes += num_bytes

    def _what_images(self, raw: RawEpisode) -> dict[str, Any]:
        """The settings that this episode's row depends on."""
        made = any(isinstance(camera, ImageCamera) for camera in raw.cameras)
        return {"quality": JPEG_QUALITY, **vars(self._settings), "videos": self._settings.videos if made else ""}

    def _foresee(self, clips: list[Clip], there: KnownEpisode | None) -> None:
        """Keep the clips that a new or changed episode would list. Of a stored one whose cameras are fewer, those that
        have no clip hold depth: only their images would show it."""
        if there is not None and len(there.clip_ids) < len(clips):
            clips = [clip for clip in clips if clip.clip_id in there.clip_ids]
        self._seen |= {clip.clip_id: clip for clip in clips}

    def commit(self) -> None:
        """Writes clips before episodes: after a kill in between, every stored episode has its clips in the list."""
        if not self.waiting:
            return
        self._list([clip for _, clips in self.waiting for clip in clips])
        rows = pa.Table.from_batches([episode_row(episode) for episode, _ in self.waiting])
        written = self._episodes.write([rows])
        self._counts["added"] += written.added
        self._counts["replaced"] += written.replaced
        self._counts["already_there"] += written.already_there
        self.waiting, self.num_bytes = [], 0

    def _list(self, clips: list[Clip]) -> None:
        clips = with_versions(clips, self._versions, self._options)
        self._versions |= {clip.video_uri: VideoVersion.of_clip(clip) for clip in clips}
        self._changes += field_changes(self._db, self._clip_list.plan(clips).changed)
        self._count_clips(self._clip_list.add(clips))
        self._seen |= {clip.clip_id: clip for clip in clips}

    def list_again(self) -> None:
        """Lists the clips of stored episodes again if they have been removed (`remove --missing`)."""
        listed = self._db.read("clip_list", ["clip_id"]).column("clip_id").to_pylist() if self._listed else []
        gone = {clip.clip_id for clip in self._listed} - set(listed)
        again = [clip for clip in self._listed if clip.clip_id in gone]
        if self._dry_run:
            self._seen |= {clip.clip_id: clip for clip in again}
        elif again:
            self._list(again)
        self._listed = [clip for clip in self._listed if clip.clip_id not in gone]

    def finish(self) -> None:
        """Compare the rows of all clips with the list, and bring their words up to date."""
        stored = [clip.clip_id for clip in self._listed]
        if self._dry_run:
            clips = with_versions(list(self._seen.values()), self._versions, self._options)
            self._effects = foresee(self._db, clips, also=stored)
            self._clip_counts |= {name: getattr(self._effects, name) for name in self._clip_counts}
        else:
            done = bring_up_to_date(self._db, [*stored, *self._seen])
            self._effects = replace(done, changes=tuple(self._changes))

    def _count_clips(self, done: AddResult) -> None:
        for name in self._clip_counts:
            self._clip_counts[name] += getattr(done, name)

    def summary(self, images: bool) -> RobotSummary:
        """Raises ConfigError if nothing could be used."""
        counts, tally, facts = self._counts, self._tally, self._source.facts
        if not counts["added"] + counts["replaced"] + counts["already_there"]:
            raise _nothing(facts, tally, images)
        table, done = self._db.table(TABLE), self._effects
        problems = [*self._stale(), *([outdated_rows(self._db, done)] if done.outdated else [])]
        return RobotSummary(
            counts=counts | {"listed": facts.num_listed, "skipped": len(tally.skips)},
            skipped=tally.reasons,
            notes=dict(sorted(tally.notes.items())),
            clips=self._clip_counts,
            num_episodes=self._db.count(TABLE) + (counts["added"] if self._dry_run else 0),
            num_clips=done.num_clips if self._dry_run else self._db.count("clip_list"),
            left_out=len(tally.skips) + self._source.num_unread,
            version=None if table is None else table.version,
            skips=[vars(skip) for skip in tally.skips],
            problems=(*problems, *self._source.problems, *tally.lines),
            rows_reworded=done.rows_reworded,
            outdated=len(done.outdated),
            outdated_fields=done.outdated_fields,
            stages_again=done.stages_again,
            fields=done.fields,
            shown=tuple(done.shown()),
            examples=done.examples,
            dry_run=self._dry_run,
        )

    def _stale(self) -> Iterator[str]:
        """Sentences about clips and episodes that stay although the dataset has others now."""
        if self._others:
            with_row = done_ids(self._db).intersection(self._others) - self._effects.stale
            first = min(with_row or self._others)
            staying = plural(len(self._others), "clip stays in the list", "clips stay in the list")
            gone = f"`handloom remove --db {self._db.uri} --clip {first}` removes it"
            yield (
                f"the times of episodes have changed: {staying} that no episode has any more, {len(with_row)} of them "
                f"with a row, for example {first}; {gone}"
            )
        if self._unseen:
            num = plural(len(self._unseen), "stored episode is", "stored episodes are")
            yield f"{num} no longer in the dataset, for example {min(self._unseen)}"

    def _note(self, index: int, notes: Iterable[tuple[str, str]]) -> None:
        for name, detail in notes:
            self._tally.note(index, name, detail)


def _num_bytes(filmed: list[Filmed]) -> int:
    """Size of an episode's images. Raises Unusable if they are larger than one Arrow value may be."""
    total = sum(len(jpeg or b"") for camera in filmed for jpeg in camera.jpegs or ())
    if total > MAX_EPISODE_BYTES:
        limit = f"a row holds {MAX_EPISODE_BYTES >> 20} MB"
        raise Unusable("too_large", f"its images take {total >> 20} MB, {limit}; --no-pictures keeps the rest")
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
        success=raw.success,
    )


def _check_place(known: dict[str, KnownEpisode], dataset: str, uri: str, replace: bool) -> None:
    places = sorted({episode.source_uri for episode in known.values()} - {uri})
    if places and not replace:
        raise ConfigError(
            f"dataset {dataset!r} already holds {len(known)} robot episodes from {places[0]}, not from {uri}",
            "give another --dataset; or --replace, if this is the same dataset in a new place",
        )


def _nothing(facts: SourceFacts, tally: EpisodeTally, images: bool) -> ConfigError:
    reasons = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.items()) or "no episode at all"
    first = f"; {tally.skips[0]}" if tally.skips else ""
    no_videos = images and "video_missing" in tally.reasons
    hint = "fetch the whole dataset" + ("; or take states and actions alone with --no-pictures" if no_videos else "")
    return ConfigError(f"nothing of {facts.uri} can be used: {reasons}{first}", hint)


def _dataset_name(directory: str) -> str:
    """The folder's name, in characters that a dataset's name may have."""
    name = os.path.basename(normalise(directory).rstrip("/"))
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:64] or "lerobot"

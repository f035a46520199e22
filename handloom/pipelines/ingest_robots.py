"""`handloom ingest lerobot` and `calvin`: episodes of robots into `robot_episodes`, their videos into the clip list."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.draw.thumbnail import encode_jpeg, shrink_to_short_side
from handloom.errors import ConfigError
from handloom.ingest.files import join, normalise
from handloom.ingest.lerobot import LeRobotSource
from handloom.ingest.result import Progress
from handloom.ingest.robot_pictures import SHORT_SIDE_PX, Filmed, PictureReader, PictureSettings
from handloom.ingest.robot_source import RawEpisode, RobotSource, Skip, Tally, Unusable, source_key
from handloom.schemas.clip import Clip
from handloom.schemas.robot import RobotEpisode, episode_row, make_episode_id
from handloom.store.clip_list import add_clips
from handloom.store.database import Database
from handloom.store.episodes import KnownEpisode, known_episodes, write_episodes
from handloom.video.source import VideoSource

JPEG_QUALITY = 90
COMMIT_BYTES = 64 << 20
COMMIT_EPISODES = 64


@dataclass(frozen=True)
class RobotSummary:
    """What one ingest of robot episodes did.

    counts: `listed` episodes = added + replaced + already_there + skipped (`not_in_meta` is skipped and not listed).
    skipped: by reason; skips: `{episode_index, reason, detail}` of each. notes: by name, what is odd about episodes
    that were taken. problems: one line per skip, note and oddity of the dataset. clips: of the clip list, by change.
    """

    counts: dict[str, int]
    skipped: dict[str, int]
    notes: dict[str, int]
    clips: dict[str, int]
    num_episodes: int
    num_clips: int
    version: int | None
    skips: list[dict[str, Any]]
    problems: tuple[str, ...]


@dataclass
class _Batch:
    """Finished episodes that wait for their commit."""

    episodes: list[RobotEpisode] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    num_bytes: int = 0

    def add(self, episode: RobotEpisode, clips: list[Clip]) -> None:
        self.episodes.append(episode)
        self.clips += clips
        self.num_bytes += sum(len(jpeg or b"") for camera in episode.frame_jpeg or () for jpeg in camera)


def lerobot(db: Database, directory: str, *, dataset: str | None = None, **options: Any) -> RobotSummary:
    """A LeRobotDataset: see `handloom.ingest.lerobot.LeRobotSource` and `_ingest`."""
    own = {name: options.pop(name) for name in ("licence", "view", "state", "action") if name in options}
    name = dataset or _dataset_name(directory)
    source = LeRobotSource(directory, dataset=name, options=options.get("storage_options"), **own)
    return _ingest(db, source, **options)


def _ingest(
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

    Raises:
        ConfigError: nothing of the dataset can be used, or its name is taken by another one.
    """
    facts = source.facts
    known = known_episodes(db, facts.dataset)
    _check_place(known, facts.dataset, facts.uri, replace)
    target = normalise(videos) if videos else join(db.uri, "videos")
    settings = PictureSettings(target, pictures)
    in_key = {"store": pictures, "short_side_px": SHORT_SIDE_PX, "quality": JPEG_QUALITY, "videos": videos or ""}
    fetching = VideoSource(str(Path(tempfile.gettempdir()) / "handloom-videos"), storage_options=storage_options)
    tally, counts = Tally(), dict.fromkeys(("listed", "added", "replaced", "already_there", "skipped"), 0)
    counts["listed"] = facts.num_listed
    clip_counts = {"added": 0, "changed": 0, "already_there": 0}
    batch = _Batch()
    version = None

    def commit() -> None:
        nonlocal batch, version
        if not batch.episodes:
            return
        done = add_clips(db, batch.clips)
        for name in clip_counts:
            clip_counts[name] += getattr(done, name)
        rows = (_table(batch.episodes),)
        written = write_episodes(db, rows)
        counts["added"] += written.added
        counts["replaced"] += written.replaced
        version = written.version
        batch = _Batch()

    with PictureReader(facts, settings, _encode, fetching, dict(storage_options or {})) as reader:
        for number, raw in enumerate(source.episodes(), start=1):
            if isinstance(raw, Skip):
                tally.skip(raw)
            else:
                key = source_key(facts, raw, in_key)
                there = known.get(make_episode_id(facts.dataset, raw.index))
                for name, detail in raw.notes:
                    tally.note(raw.index, name, detail)
                if there is not None and there.source_key == key:
                    counts["already_there"] += 1
                else:
                    _take(raw, reader, source, key, batch, tally)
            if batch.num_bytes >= COMMIT_BYTES or len(batch.episodes) >= commit_episodes:
                commit()
            if progress is not None:
                progress(number, facts.num_listed)
        commit()
    counts["skipped"] = len(tally.skips)
    if not counts["added"] + counts["replaced"] + counts["already_there"]:
        raise _nothing(source, tally, pictures)
    return RobotSummary(
        counts=counts,
        skipped=tally.reasons,
        notes=dict(sorted(tally.notes.items())),
        clips=clip_counts,
        num_episodes=db.count("robot_episodes"),
        num_clips=db.count("clip_list"),
        version=version,
        skips=[vars(skip) for skip in tally.skips],
        problems=(*source.problems, *tally.lines),
    )


def _take(raw: RawEpisode, reader: PictureReader, source: RobotSource, key: str, batch: _Batch, tally: Tally) -> None:
    try:
        filmed = reader.read(raw)
    except Unusable as error:
        tally.skip(Skip(raw.index, error.reason, error.detail))
        return
    for camera in filmed:
        for name, detail in camera.notes:
            tally.note(raw.index, name, detail)
    batch.add(_episode(raw, filmed, source, key), [c.clip for c in filmed if c.clip is not None])


def _episode(raw: RawEpisode, filmed: list[Filmed], source: RobotSource, key: str) -> RobotEpisode:
    facts = source.facts
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


def _table(episodes: list[RobotEpisode]):
    import pyarrow as pa

    return pa.Table.from_batches([episode_row(episode) for episode in episodes])


def _encode(picture: NDArray[np.uint8]) -> bytes:
    return encode_jpeg(shrink_to_short_side(picture, SHORT_SIDE_PX), JPEG_QUALITY)


def _check_place(known: dict[str, KnownEpisode], dataset: str, uri: str, replace: bool) -> None:
    places = sorted({episode.source_uri for episode in known.values()} - {uri})
    if places and not replace:
        raise ConfigError(
            f"dataset {dataset!r} already holds {len(known)} robot episodes from {places[0]}, not from {uri}",
            "give another --dataset; or, where this is the same dataset in a new place, --replace",
        )


def _nothing(source: RobotSource, tally: Tally, pictures: bool) -> ConfigError:
    facts = source.facts
    reasons = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.items()) or "no episode at all"
    first = f"; {tally.skips[0]}" if tally.skips else ""
    no_videos = pictures and "video_missing" in tally.reasons
    hint = "fetch the whole dataset" + ("; or take states and actions alone with --no-pictures" if no_videos else "")
    return ConfigError(f"nothing of {facts.uri} can be used: {reasons}{first}", hint)


def _dataset_name(directory: str) -> str:
    """The folder's own name, in the characters of a dataset's name."""
    name = os.path.basename(normalise(directory).rstrip("/"))
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:64] or "lerobot"

"""`handloom calibrate`: lens and hand size that several clips share, from their rows into the clip list.

**What counts.** Of each clip what it says alone (`quality.focal_found`, `quality.hand_length_found_m`): never what was
assumed of it, which its row's `camera_matrix` contains. A row made with a calibrated lens looks for no lens of its own,
since its own word is in that lens already; so the clip list keeps each clip's word beside the result
(`schemas.calibrated`), and what was known without it: what was assumed, and what hands within reach told. Calibrating,
running and calibrating again therefore weighs the same words and the same assumption once more, and comes to the same
numbers: it does not get surer by itself. New clips add theirs. A lens that is there already stays while the new result
is much the same (`calibrate_group.SAME`): otherwise one new clip of a thousand would have a thousand rows made anew.

**Killed at any moment** the list is the old or the new one: it changes in one commit. Rows that were made with another
lens go after it; where a kill comes between, the same command again finds and removes them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.calibrate.group import Shared, calibrate_group
from handloom.pipelines.calibrate.words import Words, words_of
from handloom.schemas.calibrated import is_calibrated
from handloom.schemas.clip import Clip
from handloom.store.clips.clip_list import read_clips, update_clips
from handloom.store.clips.removal import remove_rows
from handloom.store.embodiment import robot_datasets
from handloom.store.runs.lease import alone
from handloom.video.fetch.presence import presence

WAYS = {
    "video": "clips of one video",
    "participant": "clips of one participant of a dataset",
    "device": "clips of one camera model, as their video files say, or of one lens preset",
    "all": "all clips",
}
OF_ONE_PERSON = ("video", "participant", "all")  # a device may be worn by many


@dataclass(frozen=True)
class GroupReport:
    """See `calibrate_group.GroupResult`. num_changed: clips of which the list says something new."""

    group: str
    num_clips: int
    num_changed: int
    known: dict[str, int]
    lens: Shared
    hand: Shared | None


@dataclass(frozen=True)
class CalibrateSummary:
    """What was found, and what was written or with `dry_run` would be.

    num_changed: clips of the list with another lens or hand size than before. rows: rows that were made with another
    one: they go, and the next run makes them anew. kept_rows: such rows whose video is not there: they stay as they
    are, because they could not be made again. ungrouped: clips of which it is not known what they belong to. robots:
    clips of robots, which are left alone: their next ingest would say that nothing is known of their lens.
    """

    by: str
    dry_run: bool
    groups: tuple[GroupReport, ...]
    num_clips: int
    num_changed: int
    rows: int
    kept_rows: int
    ungrouped: int
    robots: int


def calibrate(
    db: Database,
    *,
    by: str = "video",
    where: str | None = None,
    dry_run: bool = False,
    source_options: dict[str, Any] | None = None,
) -> CalibrateSummary:
    """Combine what clips of one `video`, `participant`, `device`, or `all` of them, say of their lens and their hands.

    What was given is left alone: a matrix, a distortion, a hand's length. Between devices hands are not shared.

    Args:
        where: an SQL filter on columns of the clip list.
        dry_run: only say what would be written.
        source_options: fsspec's, for s3:// videos.

    Raises:
        ConfigError: no clip is chosen, or the filter cannot be read.
        StoreError: a run works on the database; it cannot be read or written.
    """
    if by not in WAYS:
        raise ConfigError(f"clips are grouped by {by!r}", f"expected one of {', '.join(WAYS)}")
    with nullcontext() if dry_run else alone(db, "calibrate"):
        listed = read_clips(db, where=where)
        of_robots = set(robot_datasets(db))
        clips = [clip for clip in listed if clip.dataset not in of_robots]
        if not listed:
            chosen = "holds no clips" if where is None else f"has no clip that passes {where!r}"
            raise ConfigError(f"the clip list of {db.uri} {chosen}", "nothing was changed; `status --clips` lists them")
        groups, ungrouped = _grouped(by, words_of(db, clips))
        results = [calibrate_group(by, name, group, by in OF_ONE_PERSON) for name, group in groups.items()]
        before = {clip.clip_id: clip for clip in clips}
        changed = {clip.clip_id for result in results for clip in result.clips if clip != before[clip.clip_id]}
        shall = [clip for result in results for clip in result.clips]
        gone, kept = _outdated(db, shall, source_options)
        if not dry_run:
            update_clips(db, [clip for clip in shall if clip.clip_id in changed], batch_clips=max(len(changed), 1))
            remove_rows(db, gone)
    reports = tuple(
        GroupReport(
            result.group,
            result.num_clips,
            sum(clip.clip_id in changed for clip in result.clips),
            result.known,
            result.lens,
            result.hand,
        )
        for result in results
    )
    num_robots = len(listed) - len(clips)
    return CalibrateSummary(by, dry_run, reports, len(clips), len(changed), len(gone), kept, ungrouped, num_robots)


def _grouped(by: str, clips: Sequence[Words]) -> tuple[dict[str, list[Words]], int]:
    """Clips by group, in the order of the list; and how many are of none."""
    groups: dict[str, list[Words]] = defaultdict(list)
    for words in clips:
        name = _group(by, words)
        if name is not None:
            groups[name].append(words)
    return dict(groups), len(clips) - sum(map(len, groups.values()))


def _group(by: str, words: Words) -> str | None:
    clip = words.clip
    if by == "all":
        return "all"
    if by == "video":
        return f"{clip.dataset}:{clip.video_id}"
    if by == "participant":
        return None if clip.participant is None else f"{clip.dataset}:{clip.participant}"
    before = words.camera_before or ""
    camera = json.loads(before) if '"device":' in before or '"preset":' in before else {}
    if isinstance(camera.get("device"), str):
        return camera["device"]
    return f"preset {camera['preset']}" if isinstance(camera.get("preset"), str) else None


def _outdated(db: Database, clips: Sequence[Clip], options: dict[str, Any] | None) -> tuple[list[str], int]:
    """Ids of rows that were made with another lens or hand size than these clips shall have; and how many more of them
    cannot be made again, because their video is not there."""
    given = {clip.clip_id: clip for clip in clips if is_calibrated(clip.camera) or is_calibrated(clip.hand)}
    table = db.table("clips")
    columns = [name for name in ("clip_id", "camera", "hand") if table is not None and name in table.schema.names]
    outdated = [
        row["clip_id"]
        for batch in db.batches(columns, batch_size=4096)
        for row in batch.to_pylist()
        if (clip := given.get(row["clip_id"])) and (row["camera"], row.get("hand")) != (clip.camera, clip.hand)
    ]
    there = presence((given[clip_id].video_uri for clip_id in outdated), options)
    gone = [clip_id for clip_id in outdated if there[given[clip_id].video_uri] is not False]
    return gone, len(outdated) - len(gone)

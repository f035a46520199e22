"""`handloom calibrate`: combines what several clips measured of one lens and one person's hands, into the clip list.

**What counts.** Of each clip its own measurement (`quality.focal_found`, `quality.hand_length_found_m`), never what was
assumed, which its row's `camera_matrix` contains. A row that is made with a calibrated lens measures none itself; so
the clip list keeps, beside the result, each clip's measurement and what was known without it: the assumption, and the
reach of the hands (`schemas.calibrated`). Calibrating, running and calibrating again therefore combines the same
measurements with the same assumption, and gives the same numbers: it does not become surer by itself. New clips add
theirs. A calibrated lens stays while the new result is nearly the same (`group.SAME`): else one new clip in a thousand
would have a thousand rows made anew.

**Killed at any moment** the list is the old or the new one: it changes in one commit, and nothing else does. Rows stay
as they were made; a run with `--recompute` finds those of another lens or hand size (`store.clips.changed_inputs`), and
computes again what depends on it: not the hands in the image, nor the tracks.
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
from handloom.io.presence import presence
from handloom.pipelines.calibrate.clip_evidence import ClipEvidence, read_evidence
from handloom.pipelines.calibrate.group import Shared, calibrate_group
from handloom.schemas.calibrated import is_calibrated
from handloom.schemas.clip import Clip
from handloom.store.clips.clip_list import read_clips, update_clips
from handloom.store.embodiment import robot_datasets
from handloom.store.runs.lease import alone

WAYS = {
    "video": "clips of one video",
    "participant": "clips of one participant of a dataset",
    "device": "clips of one camera model, as their video files say, or of one lens preset",
    "all": "all clips",
}
OF_ONE_PERSON = ("video", "participant", "all")  # a device may be worn by many


@dataclass(frozen=True)
class GroupReport:
    """See `group.GroupResult`. num_changed: clips whose lens or hand size in the list is new."""

    group: str
    num_clips: int
    num_changed: int
    known: dict[str, int]
    lens: Shared
    hand: Shared | None


@dataclass(frozen=True)
class CalibrateSummary:
    """What was found and written; with `dry_run`, what would be written.

    num_changed: clips of the list with another lens or hand size than before. rows: rows that were made with another
    one: the next run with `--recompute` computes what depends on it again. kept_rows: such rows whose video is missing:
    they stay as they are. ungrouped: clips whose group is unknown. robots: clips of robots, which are
    left alone: their next ingest would overwrite their lens as unknown.
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
    """Combine what the clips of one `video`, `participant`, `device`, or `all` clips, measured of their lens and hands.

    A given matrix, distortion or hand length is left alone. Clips of one device share no hands.

    Args:
        where: an SQL filter on columns of the clip list.
        dry_run: only report what would be written.
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
        groups, ungrouped = _grouped(by, read_evidence(db, clips))
        results = [calibrate_group(by, name, group, by in OF_ONE_PERSON) for name, group in groups.items()]
        before = {clip.clip_id: clip for clip in clips}
        changed = {clip.clip_id for result in results for clip in result.clips if clip != before[clip.clip_id]}
        shall = [clip for result in results for clip in result.clips]
        num_outdated, kept = _outdated(db, shall, source_options)
        if not dry_run:
            update_clips(db, [clip for clip in shall if clip.clip_id in changed], batch_clips=max(len(changed), 1))
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
    return CalibrateSummary(by, dry_run, reports, len(clips), len(changed), num_outdated, kept, ungrouped, num_robots)


def _grouped(by: str, clips: Sequence[ClipEvidence]) -> tuple[dict[str, list[ClipEvidence]], int]:
    """Clips by group, in the order of the list; and the number of clips without a group."""
    groups: dict[str, list[ClipEvidence]] = defaultdict(list)
    for evidence in clips:
        name = _group(by, evidence)
        if name is not None:
            groups[name].append(evidence)
    return dict(groups), len(clips) - sum(map(len, groups.values()))


def _group(by: str, evidence: ClipEvidence) -> str | None:
    clip = evidence.clip
    if by == "all":
        return "all"
    if by == "video":
        return f"{clip.dataset}:{clip.video_id}"
    if by == "participant":
        return None if clip.participant is None else f"{clip.dataset}:{clip.participant}"
    before = evidence.camera_before or ""
    camera = json.loads(before) if '"device":' in before or '"preset":' in before else {}
    if isinstance(camera.get("device"), str):
        return camera["device"]
    return f"preset {camera['preset']}" if isinstance(camera.get("preset"), str) else None


def _outdated(db: Database, clips: Sequence[Clip], options: dict[str, Any] | None) -> tuple[int, int]:
    """The number of rows that were made with another lens or hand size than these clips have now; and of such rows
    whose video is missing, which are not among them."""
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
    kept = sum(there[given[clip_id].video_uri] is False for clip_id in outdated)
    return len(outdated) - kept, kept

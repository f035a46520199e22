"""EPIC-KITCHENS-100 and -55 action annotations.

Format: github.com/epic-kitchens/epic-kitchens-100-annotations, README. Times come from the timestamp columns:
`start_frame` counts frames of a 60 or 50 fps resampling, not of the MP4.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from handloom.errors import ConfigError
from handloom.ingest.csv_rows import CsvRow, read_rows
from handloom.ingest.human.epic_fields import Fields, FieldsCamera
from handloom.ingest.human.library import find_videos
from handloom.ingest.ids import check_dataset
from handloom.ingest.names import printable
from handloom.ingest.result import Gathering, IngestResult, Progress
from handloom.io.addresses import normalise
from handloom.io.remote import Options
from handloom.schemas.clip import Clip, make_clip_id

LICENCE = "CC-BY-NC-4.0"
_ID_COLUMNS = ("narration_id", "uid")  # EPIC-KITCHENS-100, -55
_NEEDED = ("participant_id", "video_id", "start_timestamp", "stop_timestamp")
_LABELS = ("narration", "verb", "noun")  # absent, all three, from the test set
_TIMESTAMP = re.compile(r"([0-9]{1,3}):([0-5]?[0-9]):([0-5]?[0-9](?:[.,][0-9]{1,9})?)")
# How spreadsheets rewrite HH:mm:ss.SS: minutes and seconds, a share of a day, a time of day.
_SPREADSHEET = re.compile(
    r"[0-9]{1,2}:[0-9]{2}(?:[.,][0-9]+)?|0?[.,][0-9]+|[0-9](?:[.,][0-9]+)?E-[0-9]+|[0-9:.]+ ?[AP]M", re.IGNORECASE
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class _Action:
    video_id: str
    participant: str
    start_s: float
    end_s: float
    labels: dict[str, Any]  # str or None
    split: str | None


def ingest_epic(
    annotations: str | list[str],
    videos: str,
    *,
    dataset: str = "epic",
    split: str | None = None,
    participants: Collection[str] | None = None,
    only_present: bool = False,
    fields: str | None = None,
    storage_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """One clip per annotated action.

    Videos are looked for as `P01/videos/P01_01.MP4` (the official download), `P01/P01_01.MP4` or `P01_01.MP4` below
    `videos`, with any video extension in any case. Rows whose video is missing are kept, and end as rejects.

    A row that cannot be read (wrong number of cells, no id, no timestamp) is named in `problems` and gives no clip. A
    reversed or zero-length range is named there too, but kept: it ends as a `bad_range` reject. Two rows with one video
    and one range are one clip with both narrations (the train set has two such pairs with equal narrations).

    Counts: entries = clips + merged + bad + skipped_participant + skipped_missing_video. With `fields` also `cameras`
    and `cameras_missing`, videos with and without a camera there; intrinsics of the latter are assumed.

    Args:
        annotations: CSV files, paths or URIs: `EPIC_100_train.csv`, `_validation.csv`, `_test_timestamps.csv`.
        videos: folder or URI.
        split: written to every clip; by default read from each file's name: `train`, `validation` or `test`.
        participants: only these (`P01`, ...).
        only_present: leave out rows whose video is missing, and count them.
        fields: folder or URI of EPIC-Fields files, `{video_id}.json`: the clips' cameras (`epic_fields`).
        storage_options: fsspec options of s3:// URIs.

    Raises:
        ConfigError: a file cannot be read, lacks columns, or has no usable row; `videos` is no folder; no row is of
            `participants`; a file of `fields` is malformed, or none is of these videos.
    """
    check_dataset(dataset)
    cameras = Fields(fields, storage_options) if fields is not None else None
    gathering = Gathering(progress)
    actions = []
    for path in [annotations] if isinstance(annotations, str) else annotations:
        actions += _read_file(normalise(path), split, storage_options, gathering)
    actions = _choose(actions, participants, gathering)
    participant_of = {action.video_id: action.participant for action in actions}
    folders_to_search = _FOLDERS | set(participant_of.values())
    library = find_videos(
        videos,
        participant_of,
        descend=lambda folders: folders[-1] in folders_to_search,
        rank=lambda folders: 0 if folders[-1:] == ("videos",) else 1,
        guess=lambda video_id: _paths(video_id, participant_of[video_id]),
        options=storage_options,
    )
    gathering.problems += library.problems
    gathering.counts["videos"] = len(participant_of)
    gathering.counts["videos_missing"] = len(participant_of.keys() - library.found.keys())
    uris = {video_id: library.uri(video_id) for video_id in participant_of}
    for video_id, same_video in _by_video(actions):  # so that every camera file is read once
        camera = _camera(video_id, cameras, gathering)
        for action in same_video:
            if video_id not in library.found:
                gathering.counts["skipped_missing_video" if only_present else "clips_missing_video"] += 1
            clip = _clip(action, dataset, uris[video_id], camera)
            if video_id in library.found or not only_present:
                gathering.add(clip)
            else:
                gathering.absent.add(clip.clip_id)
    if cameras is not None and participant_of and not gathering.counts["cameras"]:
        raise ConfigError(
            f"EPIC-Fields folder {fields} has a camera of none of {len(participant_of)} videos",
            f"expected files such as {min(participant_of)}.json; leave --fields out to go on without",
        )
    return gathering.result()


_FOLDERS = {"videos", "EPIC-KITCHENS", "train", "test", "val", "validation"}


def _paths(video_id: str, participant: str) -> list[str]:
    folders = (f"{participant}/videos/", "", f"{participant}/", f"EPIC-KITCHENS/{participant}/videos/", "videos/")
    return [f"{folder}{video_id}{extension}" for extension in (".MP4", ".mp4") for folder in folders]


def _by_video(actions: list[_Action]) -> list[tuple[str, list[_Action]]]:
    groups: dict[str, list[_Action]] = {}
    for action in actions:
        groups.setdefault(action.video_id, []).append(action)
    return list(groups.items())


def _camera(video_id: str, cameras: Fields | None, gathering: Gathering) -> FieldsCamera | None:
    if cameras is None:
        return None
    camera = cameras.camera(video_id)
    gathering.counts["cameras_missing" if camera is None else "cameras"] += 1
    return camera


def _clip(action: _Action, dataset: str, uri: str, camera: FieldsCamera | None) -> Clip:
    return Clip(
        clip_id=make_clip_id(dataset, action.video_id, action.start_s, action.end_s),
        dataset=dataset,
        video_id=action.video_id,
        video_uri=uri,
        start_s=action.start_s,
        end_s=action.end_s,
        participant=action.participant,
        split=action.split,
        licence=LICENCE,
        view="ego",
        camera=camera.text(action.start_s, action.end_s) if camera else None,
        **action.labels,
    )


def _choose(actions: list[_Action], participants: Collection[str] | None, gathering: Gathering) -> list[_Action]:
    if participants is None:
        return actions
    there = {action.participant for action in actions}
    participants = {name if name in there else name.upper() for name in participants}
    if unknown := sorted(participants - there):
        raise ConfigError(
            f"no row is of participant {', '.join(unknown)}, expected some of {', '.join(sorted(there))}",
            "check --participant and the annotation files",
        )
    chosen = [action for action in actions if action.participant in participants]
    gathering.counts["skipped_participant"] += len(actions) - len(chosen)
    return chosen


def _read_file(path: str, split: str | None, options: Options, gathering: Gathering) -> list[_Action]:
    columns, rows = read_rows(path, "annotation file", options)
    _check_columns(path, columns)
    split = split if split is not None else split_of(path)
    labels = [name for name in _LABELS if name in columns]
    id_column = next(name for name in _ID_COLUMNS if name in columns)
    actions = []
    with gathering.reading(f"annotation file {path}", "expected EPIC-KITCHENS' file as it was downloaded"):
        for row in rows:
            gathering.counts["entries"] += 1
            gathering.step()
            try:
                action = _read_row(row, id_column, labels, split)
            except ValueError as error:
                gathering.bad(f"{row.where}: {error}")
                continue
            if action.end_s <= action.start_s:
                what = "zero-length" if action.end_s == action.start_s else "reversed"
                gathering.counts["bad_ranges"] += 1
                gathering.problems.append(
                    f"{row.where}: column stop_timestamp: {what} range, {row['start_timestamp']} to "
                    f"{row['stop_timestamp']}; kept, and will be rejected as bad_range"
                )
            actions.append(action)
    return actions


def _check_columns(path: str, columns: list[str]) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    if not any(name in columns for name in _ID_COLUMNS):
        missing.insert(0, "narration_id")
    if any(name in columns for name in _LABELS):
        missing += [name for name in _LABELS if name not in columns]
    if missing:
        raise ConfigError(
            f"annotation file {path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has "
            f"{printable(', '.join(columns)[:300]) or 'none'}",
            "expected a comma-separated file of epic-kitchens-100-annotations, such as EPIC_100_validation.csv",
        )


def _read_row(row: CsvRow, id_column: str, labels: list[str], split: str | None) -> _Action:
    """Raises ValueError naming the column."""
    row.check_width()
    for column in (id_column, "video_id", "participant_id"):
        if not _NAME.fullmatch(row[column]):
            expected = "an id such as P01_11_0, P01_11 or P01"
            raise ValueError(f"column {column}: {row[column]!r}, expected {expected}")
    return _Action(
        video_id=row["video_id"],
        participant=row["participant_id"],
        start_s=_seconds(row, "start_timestamp"),
        end_s=_seconds(row, "stop_timestamp"),
        labels={name: row[name] or None for name in labels},
        split=split,
    )


def _seconds(row: CsvRow, column: str) -> float:
    match = _TIMESTAMP.fullmatch(row[column])
    if match is None:
        spoilt = "; a spreadsheet has rewritten it: take the file as it was downloaded"
        why = spoilt if _SPREADSHEET.fullmatch(row[column]) else ""
        raise ValueError(f"column {column}: {row[column]!r}, expected HH:mm:ss.SS{why}")
    hours, minutes, seconds = match.groups()
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds.replace(",", ".")), 6)


def split_of(path: str) -> str | None:
    """`train`, `validation` or `test`; None unless the file's name has exactly one of them."""
    name = path.rpartition("/")[2].lower()
    found = {split for word, split in _SPLITS.items() if re.search(rf"(?<![a-z]){word}", name)}
    return found.pop() if len(found) == 1 else None

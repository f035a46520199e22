"""Ego4D: narrations, hands and objects actions, or whole videos.

Ego4D has no intrinsics, and demands that redacted intervals are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from handloom.ingest.human.cutting import Interval, check_clip_seconds, cut, overlaps, subtract
from handloom.ingest.human.ego4d_fho import actions_of
from handloom.ingest.human.ego4d_manifest import Ego4DVideo, read_manifest
from handloom.ingest.human.ego4d_narrations import LAYOUTS, NarrationWindow, narrations_of, read_narrations
from handloom.ingest.human.library import VideoLibrary, find_videos
from handloom.ingest.ids import check_dataset
from handloom.ingest.result import Gathering, IngestResult, Progress
from handloom.io.addresses import normalise
from handloom.io.reading import read_json
from handloom.io.remote import Options
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.json_format import Entry, Form, Listed

LICENCE = "LicenseRef-Ego4D"  # its own agreement, ego4d-data.org/pdfs/Ego4D-Licenses-Draft.pdf
DEFAULT_CLIP_SECONDS = 10.0
_SAME_RELEASE = "check that manifest and annotations are of one release"
_LAYOUTS = ("v2/full_scale", "v2/video_540ss", "v1/full_scale", "v1/video_540ss", "full_scale", "video_540ss", "")
_FOLDERS = {"v1", "v2", "public", "videos", "full_scale", "video_540ss"}


class _Actions(Entry):
    """fho_main.json."""

    videos: Listed


_ACTIONS = Form(_Actions)


@dataclass(frozen=True)
class Choice:
    """Which narrations become clips.

    others: keep what other people do (`#O`). unsure: keep narrations in which the annotator was unsure (`#unsure`).
    repeats: keep narrations of the second pass that repeat one of the first within 1 s.
    """

    others: bool = True
    unsure: bool = True
    repeats: bool = False


@dataclass(frozen=True)
class _Wanted:
    video: Ego4DVideo
    times: Interval
    split: str | None
    narration: str | None = None
    verb: str | None = None
    noun: str | None = None


def ingest_ego4d(
    manifest: str,
    videos: str,
    *,
    narrations: str | None = None,
    fho: str | None = None,
    dataset: str = "ego4d",
    window: NarrationWindow | None = None,
    choice: Choice | None = None,
    clip_seconds: float | None = DEFAULT_CLIP_SECONDS,
    only_present: bool = False,
    storage_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """One clip per narration and per action; without either file, whole videos cut every `clip_seconds`.

    Videos are looked for as `v2/full_scale/UID.mp4` (the official download), `v2/video_540ss/UID.mp4` or `UID.mp4`
    below `videos`, the best image first. Clips whose video is missing are kept, and end as rejects.

    Both annotation passes are read: two people described every video and noticed different things. Windows are clipped
    to the video; a window that touches a redacted interval is left out, and whole videos are cut around those
    intervals. A time after the video's end is named in `problems` and kept: it ends as an `outside_video` reject.

    Counts: entries (narrations, actions, pieces) = clips + merged + bad + every skipped_*; a video of an unknown layout
    is one bad entry. Also `videos`, `videos_missing`, `clips_missing_video`, `videos_stereo` (two images side
    by side), `videos_redacted` and `videos_without_narration` of the narration file, `bad_videos` of the manifest.

    Args:
        manifest: `ego4d.json`, path or URI. fho: `fho_main.json`.
        narrations: `narration.json` or `all_narrations_redacted.json`.
        window: the clip around a narration, which is a point in time; by default 1 s before to 2 s after.
        clip_seconds: for whole videos; None keeps them whole.
        only_present: leave out clips whose video is missing, and count them.
        storage_options: fsspec options of s3:// URIs.

    Raises:
        ConfigError: a file cannot be read, has another shape, or nothing of it can be used; or `videos` is no folder.
    """
    check_dataset(dataset)
    check_clip_seconds(clip_seconds)
    gathering = Gathering(progress)
    known = read_manifest(normalise(manifest), gathering, storage_options)
    library = find_videos(videos, known, _descend, _rank, _guess, storage_options)
    gathering.problems += library.problems
    wanted: list[Iterator[_Wanted]] = []
    if narrations is not None:
        window, choice = window or NarrationWindow(), choice or Choice()
        wanted.append(_narrated(normalise(narrations), known, window, choice, storage_options, gathering))
    if fho is not None:
        wanted.append(_acted(normalise(fho), known, storage_options, gathering))
    if not wanted:
        wanted.append(_whole(normalise(manifest), known, clip_seconds, gathering))
    used = _gather(wanted, dataset, library, only_present, gathering)
    gathering.counts["videos"] = len(used)
    gathering.counts["videos_missing"] = len(used - library.found.keys())
    gathering.counts["videos_stereo"] = sum(known[uid].is_stereo for uid in used)
    return gathering.result()


def _gather(
    wanted: list[Iterator[_Wanted]], dataset: str, library: VideoLibrary, only_present: bool, gathering: Gathering
) -> set[str]:
    """Turn wanted times into clips; returns the uids of their videos."""
    uris: dict[str, str] = {}
    for item in (item for source in wanted for item in source):
        video = item.video
        if video.uid not in uris:
            uris[video.uid] = library.uri(video.uid)
        missing = video.uid not in library.found
        if missing:
            gathering.counts["skipped_missing_video" if only_present else "clips_missing_video"] += 1
        start_s, end_s = item.times
        if missing and only_present:
            gathering.absent.add(make_clip_id(dataset, video.uid, start_s, end_s))
            continue
        gathering.add(
            Clip(
                clip_id=make_clip_id(dataset, video.uid, start_s, end_s),
                dataset=dataset,
                video_id=video.uid,
                video_uri=uris[video.uid],
                start_s=start_s,
                end_s=end_s,
                narration=item.narration,
                verb=item.verb,
                noun=item.noun,
                participant=video.participant,
                split=item.split,
                licence=LICENCE,
                view="ego",
            )
        )
    return set(uris)


def _narrated(
    path: str,
    known: dict[str, Ego4DVideo],
    window: NarrationWindow,
    choice: Choice,
    options: Options,
    gathering: Gathering,
) -> Iterator[_Wanted]:
    name = path.rpartition("/")[2]
    by_video = read_narrations(path, options)
    with gathering.reading(f"narration file {path}", f"{_SAME_RELEASE}; a video has {LAYOUTS}"):
        for uid in list(by_video):
            narrations = by_video.pop(uid)  # freed as it becomes clips: the whole file has 4 million narrations
            video = known.get(uid)
            unknown = 0
            for narration in narrations_of(uid, narrations, window, name, gathering):
                if video is None:
                    unknown += 1
                elif narration.repeated and not choice.repeats:
                    gathering.counts["skipped_repeated"] += 1
                elif narration.who == "O" and not choice.others:
                    gathering.counts["skipped_other_person"] += 1
                elif narration.unsure and not choice.unsure:
                    gathering.counts["skipped_unsure"] += 1
                elif times := _usable(narration.window, video, f"{name}: {uid} at {narration.time_s} s", gathering):
                    yield _Wanted(video, times, video.split, narration.text)
            _not_in_manifest(uid, unknown, name, gathering)


def _acted(path: str, known: dict[str, Ego4DVideo], options: Options, gathering: Gathering) -> Iterator[_Wanted]:
    name = path.rpartition("/")[2]
    content = read_json(path, "FHO file", options)
    hint = "check that it is fho_main.json; narrations go to --narrations"
    listed = _ACTIONS.read_file(content, f"FHO file {path}", hint).videos
    with gathering.reading(f"FHO file {path}", f"expected fho_main.json; {_SAME_RELEASE}"):
        for i, entry in enumerate(listed):
            where = f"{name}: videos[{i}]"
            uid = entry.get("video_uid") if isinstance(entry, dict) else None
            video = known.get(uid) if isinstance(uid, str) else None
            unknown = 0
            for action in actions_of(entry, where, gathering):
                if video is None:
                    unknown += 1
                elif times := _usable((action.start_s, action.end_s), video, action.where, gathering):
                    yield _Wanted(video, times, video.split_fho, action.narration, action.verb, action.noun)
            _not_in_manifest(str(uid), unknown, where, gathering)


def _whole(
    path: str, known: dict[str, Ego4DVideo], clip_seconds: float | None, gathering: Gathering
) -> Iterator[_Wanted]:
    with gathering.reading(f"manifest {path}", "every second of its videos is redacted"):
        for video in known.values():
            gathering.counts["redacted_intervals"] += len(video.redacted)
            for start_s, end_s in subtract((video.start_s, video.end_s), video.redacted):
                for times in cut(start_s, end_s, clip_seconds):
                    gathering.counts["entries"] += 1
                    gathering.step()
                    yield _Wanted(video, times, video.split)


def _usable(times: Interval, video: Ego4DVideo, where: str, gathering: Gathering) -> Interval | None:
    """The times clipped to the video; None if they touch a redacted interval.

    Times that are no range, or lie wholly outside the video, are named and kept unchanged: they end as rejects.
    """
    start_s, end_s = max(times[0], video.start_s), min(times[1], video.end_s)
    if end_s <= start_s:
        why = "no range" if times[1] <= times[0] else f"outside the video, {video.start_s} to {video.end_s} s"
        gathering.counts["bad_ranges"] += 1
        gathering.problems.append(f"{where}: {times[0]} to {times[1]} s is {why}; kept, and will be rejected")
        return times
    if overlaps((start_s, end_s), video.redacted):
        gathering.counts["skipped_redacted"] += 1
        return None
    return start_s, end_s


def _not_in_manifest(uid: str, num_entries: int, where: str, gathering: Gathering) -> None:
    if num_entries:
        gathering.counts["skipped_not_in_manifest"] += num_entries
        gathering.problems.append(f"{where}: video {uid} is not in the manifest; {num_entries} entries left out")


def _descend(folders: tuple[str, ...]) -> bool:
    return folders[-1] in _FOLDERS


def _rank(folders: tuple[str, ...]) -> int:
    path = "/".join(folders)
    return next((i for i, layout in enumerate(_LAYOUTS) if path == layout or path.endswith(f"/{layout}")), 99)


def _guess(uid: str) -> list[str]:
    return [f"{layout}/{uid}.mp4".lstrip("/") for layout in _LAYOUTS]

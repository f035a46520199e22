"""Plain folders of videos."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from handloom.errors import ClipError, ConfigError
from handloom.ingest.camera_file import SUFFIX, GivenCamera, read_camera_file
from handloom.ingest.cutting import MAX_VIDEO_S, check_clip_seconds, cut
from handloom.ingest.files import VIDEO_EXTENSIONS, FoundFile, Options, list_files, normalise
from handloom.ingest.ids import check_dataset, unique_video_ids
from handloom.ingest.labels import is_labels, labelled, read_labels
from handloom.ingest.names import AmbiguousName, Names
from handloom.ingest.result import Gathering, IngestResult, Progress
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.values import VideoInfo

VIEWS = ("ego", "exo")


def ingest_folder(
    directory: str,
    *,
    probe: Callable[[str], VideoInfo],
    dataset: str = "folder",
    clip_seconds: float | None = None,
    view: str | None = None,
    licence: str | None = None,
    storage_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Every video file below `directory`, cut every `clip_seconds`, with the camera given beside it.

    A video's id is its path below `directory` without the extension, folders joined by `~` (`ids.unique_video_ids`).
    A file is a video by its extension, in any case. Names that begin with a dot are left out: they are what file
    managers and download tools leave behind. Links to folders are followed, each folder once.

    A file that cannot be read as a video stays in the list as one clip from 0 to an unknown end, and ends as a reject
    that says why. `clips.csv` at the top gives narrations, verbs, nouns (`labels.read_labels`). Pieces lie on
    the container's clock, from its first frame to the end of its last, and are a little longer at the end rather than
    tiny (`cutting.cut`).

    Counts: entries (files) = videos + skipped_not_video + skipped_camera_file + skipped_labels + bad. Also
    `unreadable` (videos), `cameras`, `labelled` (videos), `bad_labels` (lines), `bad_cameras` (files) and `hidden`
    (names that begin with a dot: no entries).

    Args:
        directory: folder, or the URI of one.
        probe: facts of one video; raises ClipError with the reason.
        clip_seconds: None keeps every video whole.
        view: `ego` or `exo`; None where unknown.
        storage_options: fsspec options of s3:// URIs.

    Raises:
        ConfigError: no such folder, no video in it, a setting out of range, a malformed camera file, or labels of which
            no line can be used.
    """
    check_dataset(dataset)
    check_clip_seconds(clip_seconds)
    if view is not None and view not in VIEWS:
        raise ConfigError(f"view {view!r}, expected one of {', '.join(VIEWS)}", "leave it out where it is unknown")
    root = normalise(directory)
    listing = list_files(root, "video folder", options=storage_options)
    files = [file for file in listing.files if file.is_video]
    if not files:
        raise ConfigError(
            f"video folder {root} holds no video: {len(listing.files)} files, none ends in "
            f"{', '.join(sorted(VIDEO_EXTENSIONS))}" + (f"; {listing.problems[0]}" if listing.problems else ""),
            "check the path",
        )
    ids = unique_video_ids(file.path for file in files)
    gathering = Gathering(progress, len(files), every=1)
    cameras = _read_cameras(listing.files, files, gathering, storage_options)
    gathering.problems += listing.problems
    for problem in listing.unusable:
        gathering.bad(problem)
    labels = read_labels(listing.files, gathering, storage_options)
    unopened: list[str] = []
    for file in files:
        camera = cameras.get(_stem(file.path))
        for start_s, end_s in _pieces(file, probe, clip_seconds, gathering, unopened):
            clip = Clip(
                clip_id=make_clip_id(dataset, ids[file.path], start_s, end_s),
                dataset=dataset,
                video_id=ids[file.path],
                video_uri=file.uri,
                start_s=start_s,
                end_s=end_s,
                licence=licence,
                view=view,
                camera=camera.text(start_s, end_s) if camera else None,
            )
            gathering.add(labelled(clip, file.path, labels))
        gathering.step()
    if len(unopened) == len(files):
        gathering.bad(f"none of the {len(files)} videos of {root} can be read: `run` will reject all of them")
    _count(gathering, listing.files, files, cameras)
    gathering.counts["hidden"] = listing.num_hidden
    return gathering.result()


def _pieces(
    file: FoundFile,
    probe: Callable[[str], VideoInfo],
    clip_seconds: float | None,
    gathering: Gathering,
    unopened: list[str],
) -> list[tuple[float, float | None]]:
    try:
        info = probe(file.uri)
    except ClipError as error:
        gathering.counts["unreadable"] += 1
        gathering.problems.append(f"{file.path}: {error.reason}: {error.problem}; kept, and will be rejected")
        unopened.append(file.path)
        return [(0.0, None)]
    length = info.end_s - info.start_s
    if not (math.isfinite(length) and 0 < length <= MAX_VIDEO_S):
        gathering.counts["unreadable"] += 1
        gathering.problems.append(
            f"{file.path}: it claims to run from {info.start_s} s to {info.end_s} s, expected a length above 0 s and "
            "up to a month; kept as one clip"
        )
        return [(0.0, None)]
    return list(cut(info.start_s, info.end_s, clip_seconds))


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _read_cameras(
    all_files: list[FoundFile], videos: list[FoundFile], gathering: Gathering, options: Options
) -> dict[str, GivenCamera]:
    """`{path of a video without its extension: camera}`; a camera file without its video is named."""
    names = Names(_stem(file.path) for file in videos)
    cameras: dict[str, GivenCamera] = {}
    for file in filter(_is_camera, all_files):
        camera = read_camera_file(file.uri, options)
        stem = file.path[: -len(SUFFIX)]
        try:
            video, why = names.find(stem), ""
        except AmbiguousName as error:
            video, why = None, f"the video {error}"
        if video is not None and video not in cameras:
            cameras[video] = camera
            continue
        why = why or (
            f"a second camera file of {video}"
            if video is not None
            else f"there is no video {stem}.* beside it{names.nearest(stem)}"
        )
        gathering.counts["bad_cameras"] += 1
        gathering.problems.append(f"{file.path}: {why}; not used")
    return cameras


def _is_camera(file: FoundFile) -> bool:
    return file.path.lower().endswith(SUFFIX)


def _count(
    gathering: Gathering, all_files: list[FoundFile], videos: list[FoundFile], cameras: dict[str, GivenCamera]
) -> None:
    num_cameras, num_labels = sum(map(_is_camera, all_files)), sum(map(is_labels, all_files))
    gathering.counts["entries"] = len(all_files) + gathering.counts["bad"]
    gathering.counts["videos"] = len(videos)
    gathering.counts["cameras"] = len(cameras)
    gathering.counts["skipped_camera_file"] = num_cameras
    gathering.counts["skipped_labels"] = num_labels
    gathering.counts["skipped_not_video"] = len(all_files) - len(videos) - num_cameras - num_labels

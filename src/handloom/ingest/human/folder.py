"""Plain folders of videos."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from handloom.errors import ClipError, ConfigError
from handloom.ingest.camera.devices import device_camera
from handloom.ingest.camera.file import SUFFIX, GivenCamera, read_camera_file
from handloom.ingest.camera.said import Asked
from handloom.ingest.files import VIDEO_EXTENSIONS, FoundFile, Listing, Options, list_files, normalise
from handloom.ingest.human.cutting import MAX_VIDEO_S, check_clip_seconds, cut
from handloom.ingest.human.labels import VIEWS, Said, clips_of, is_labels, nothing_of, read_labels
from handloom.ingest.ids import check_dataset, unique_video_ids
from handloom.ingest.names import AmbiguousName, Names
from handloom.ingest.result import Gathering, IngestResult, Progress
from handloom.plural import plural
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.values import VideoInfo
from handloom.video.container.camera_tags import CameraTags

Piece = tuple[float, float | None, dict[str, str]]
"""start_s, end_s (None: unknown), and what `clips.csv` says of it."""


def ingest_folder(
    directory: str,
    *,
    probe: Callable[[str], VideoInfo],
    tags: Callable[[str], CameraTags] = lambda uri: CameraTags(),
    asked: Asked | None = None,
    dataset: str = "folder",
    clip_seconds: float | None = None,
    view: str | None = None,
    licence: str | None = None,
    storage_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Every video file below `directory`, cut every `clip_seconds`, with its camera: the one given beside it, else the
    one asked for, else what the file says of its camera.

    A video's id is its path below `directory` without the extension, folders joined by `~` (`ids.unique_video_ids`).
    A file is a video by its extension, in any case. Names that begin with a dot are left out: they are what file
    managers and download tools leave behind. Links to folders are followed, each folder once.

    A file that cannot be read as a video stays in the list as one clip from 0 to an unknown end, and ends as a reject
    that says why. `clips.csv` at the top gives narrations, verbs, nouns, views, and the times of actions, which are
    clips then (`labels.read_labels`). Pieces lie on the container's clock, from its first frame to the end of its last,
    and are a little longer at the end rather than tiny (`cutting.cut`). A camera file that cannot be used, or does not
    fit its video, is named, and the video left out: with another camera its rows would be wrong.

    Counts: entries (files) = videos + skipped_not_video + camera_files + label_files + bad. Also `unreadable` (videos),
    `cameras`, `labelled` (videos), `actions`, `bad_labels` (lines), `bad_cameras` (files) and `hidden` (names that
    begin with a dot: no entries). Counts of videos: `cameras_asked`, `cameras_scaled` (intrinsics of another size),
    `cameras_of_device`.

    Args:
        directory: folder, or the URI of one.
        probe: facts of one video; raises ClipError with the reason.
        tags: what one video file says of its camera.
        asked: the camera and the hands of all of them. A video that the camera does not fit is named and left out.
        clip_seconds: None keeps every video whole.
        view: `ego` or `exo`; None where unknown.
        storage_options: fsspec options of s3:// URIs.

    Raises:
        ConfigError: no such folder, no video in it, a setting out of range, labels that are not understood or of which
            no line can be used, or no video that can be used.
    """
    check_dataset(dataset)
    check_clip_seconds(clip_seconds)
    if view is not None and view not in VIEWS:
        raise ConfigError(f"view {view!r}, expected one of {', '.join(VIEWS)}", "leave it out where it is unknown")
    root = normalise(directory)
    listing = list_files(root, "video folder", options=storage_options)
    files = [file for file in listing.files if file.is_video]
    if not files:
        raise _no_video(root, listing)
    ids = unique_video_ids(file.path for file in files)
    gathering = Gathering(progress, len(files), every=1)
    cameras = _read_cameras(listing.files, files, gathering, storage_options)
    gathering.problems += listing.problems
    for problem in listing.unusable:
        gathering.bad(problem)
    labels = read_labels(listing.files, gathering, storage_options)
    num_problems = len(gathering.problems)
    unopened: list[str] = []
    lenses = _Lenses(asked or Asked(), tags, gathering)
    for file in files:
        gathering.step()
        camera = cameras.get(_stem(file.path))
        if camera is None and _stem(file.path) in cameras:
            continue
        info = _info(file, probe, gathering, unopened)
        try:
            lens = lenses.of(file, info, camera)
        except ValueError as error:
            gathering.counts["bad_cameras"] += 1
            whose = lenses.said if camera is None else "the camera file beside it"
            gathering.problems.append(f"{file.path}: {whose} cannot be used: {error}; the video is left out")
            continue
        for start_s, end_s, said in _pieces(file, info, clip_seconds, labels.get(file.path), gathering):
            clip = Clip(
                clip_id=make_clip_id(dataset, ids[file.path], start_s, end_s),
                dataset=dataset,
                video_id=ids[file.path],
                video_uri=file.uri,
                start_s=start_s,
                end_s=end_s,
                licence=licence,
                view=view,
                camera=camera.text(start_s, end_s) if camera is not None else lens,
                hand=camera.hand(lenses.hand) if camera is not None else lenses.hand,
            )
            gathering.add(replace(clip, **said))
    if labels and not gathering.counts["actions"] and all(said.timed for said in labels.values()):
        raise nothing_of(f"of {root}", gathering.problems[num_problems:])
    if files and not gathering.num_clips:
        hint = "correct these files" if lenses.said == "" else "correct the camera that is asked for, or these files"
        raise ConfigError(f"no video of {root} can be used; the first: {gathering.problems[0]}", hint)
    if len(unopened) == len(files):
        gathering.bad(f"none of the {len(files)} videos of {root} can be read: `run` will reject all of them")
    lenses.tell()
    _count(gathering, listing.files, files, cameras)
    gathering.counts["hidden"] = listing.num_hidden
    return gathering.result()


def _no_video(root: str, listing: Listing) -> ConfigError:
    """A folder without videos: what it holds instead, and what it may be."""
    kinds = Counter(file.name[len(file.stem) :] or "no extension" for file in listing.files)
    found = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(5)) or "it is empty"
    more = f"; {listing.problems[0]}" if listing.problems else ""
    paths = {file.path for file in listing.files}
    hint = f"videos end in {', '.join(sorted(VIDEO_EXTENSIONS))}"
    if "meta/info.json" in paths:
        hint = "it is a LeRobot dataset: `handloom ingest lerobot`"
    elif any(path.startswith("clip_list.lance/") for path in paths):
        hint = "it is a database: give the folder of videos first, the database after --db"
    return ConfigError(f"video folder {root} holds no video: {len(listing.files)} files ({found}){more}", hint)


def _pieces(
    file: FoundFile, info: VideoInfo | None, clip_seconds: float | None, said: Said | None, gathering: Gathering
) -> list[Piece]:
    """The clips of a video: the actions that are named, else pieces."""
    span = None if info is None else _span(file, info, gathering)
    if said is not None and said.timed:
        return list(clips_of(file.path, said, span, gathering))
    whole = (said.whole if said is not None else None) or {}
    pieces = [(0.0, None)] if span is None else cut(*span, clip_seconds)
    return [(start_s, end_s, whole) for start_s, end_s in pieces]


def _info(
    file: FoundFile, probe: Callable[[str], VideoInfo], gathering: Gathering, unopened: list[str]
) -> VideoInfo | None:
    """Facts of a video; None where it cannot be read."""
    try:
        return probe(file.uri)
    except ClipError as error:
        gathering.counts["unreadable"] += 1
        gathering.problems.append(f"{file.path}: {error.reason}: {error.problem}; kept, and will be rejected")
        unopened.append(file.path)
        return None


def _span(file: FoundFile, info: VideoInfo, gathering: Gathering) -> tuple[float, float] | None:
    """Start and end of a video; None where it claims an impossible length."""
    length = info.end_s - info.start_s
    if not (math.isfinite(length) and 0 < length <= MAX_VIDEO_S):
        gathering.counts["unreadable"] += 1
        gathering.problems.append(
            f"{file.path}: it claims to run from {info.start_s} s to {info.end_s} s, expected a length above 0 s and "
            "up to a month; kept as one clip"
        )
        return None
    return info.start_s, info.end_s


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _read_cameras(
    all_files: list[FoundFile], videos: list[FoundFile], gathering: Gathering, options: Options
) -> dict[str, GivenCamera | None]:
    """`{path of a video without its extension: camera, or None}`: None where its file cannot be used.

    A file without its video, and one that cannot be used, are named in the problems.
    """
    names = Names(_stem(file.path) for file in videos)
    cameras: dict[str, GivenCamera | None] = {}
    for file in filter(_is_camera, all_files):
        stem = file.path[: -len(SUFFIX)]
        try:
            video, why = names.find(stem), ""
        except AmbiguousName as error:
            video, why = None, f"the video {error}"
        if video is not None and video not in cameras:
            try:
                cameras[video] = read_camera_file(file.uri, options)
            except ConfigError as error:
                cameras[video] = None
                gathering.counts["bad_cameras"] += 1
                gathering.problems.append(
                    f"{error.problem}; the video beside it is left out; clips that the list has of it stay"
                )
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
    gathering: Gathering, all_files: list[FoundFile], videos: list[FoundFile], cameras: dict[str, GivenCamera | None]
) -> None:
    num_cameras, num_labels = sum(map(_is_camera, all_files)), sum(map(is_labels, all_files))
    gathering.counts["entries"] = len(all_files) + gathering.counts["bad"]
    gathering.counts["videos"] = len(videos)
    gathering.counts["cameras"] = sum(camera is not None for camera in cameras.values())
    gathering.counts["camera_files"] = num_cameras
    gathering.counts["label_files"] = num_labels
    gathering.counts["skipped_not_video"] = len(all_files) - len(videos) - num_cameras - num_labels


class _Lenses:
    """Cameras of videos that have no file beside them; what was found is told once, not for every video."""

    def __init__(self, asked: Asked, tags: Callable[[str], CameraTags], gathering: Gathering) -> None:
        self._asked, self._tags, self._gathering = asked, tags, gathering
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._cut: Counter[tuple[int, int]] = Counter()
        self._beside = 0  # camera files of another size than their video's
        self._devices: Counter[str] = Counter()
        self.hand, self.said = asked.hand, asked.said

    def of(self, file: FoundFile, info: VideoInfo | None, beside: GivenCamera | None) -> str | None:
        """The camera JSON of a video, None where a file beside it has it. Raises ValueError where the camera of that
        file, or the one that is asked for, does not fit the video.
        """
        if beside is not None:
            if info is not None:
                beside.check(info)
                self._beside += beside.size not in (None, (info.width, info.height))
            return None
        if self._asked.camera is not None:
            if info is not None:
                self._asked.of_video(info)
                self._sizes[info.width, info.height] += self._asked.is_scaled(info)
                self._cut[info.width, info.height] += self._asked.is_cut(info)
            self._gathering.counts["cameras_asked"] += 1
            return self._asked.camera
        found = None if info is None else device_camera(self._tags(file.uri), info)
        if found is None:
            return None
        self._devices[found.said] += 1
        if found.camera is not None:
            self._gathering.counts["cameras_of_device"] += 1
        return found.camera

    def tell(self) -> None:
        """The notes of the summary."""
        notes = self._gathering.notes
        if self._beside:
            self._gathering.counts["cameras_scaled"] += self._beside
            files = plural(self._beside, "camera file is", "camera files are")
            notes.append(f"{files} for pictures of another size, and scaled to the video beside")
        if num := self._gathering.counts["cameras_asked"]:
            notes.append(f"{plural(num, 'video has', 'videos have')} {self.said}")
        for (width, height), num in sorted(self._sizes.items()):
            if num:
                self._gathering.counts["cameras_scaled"] += num
                given = "{} x {}".format(*self._asked.size)
                notes.append(f"intrinsics of {given} are scaled to {width} x {height}: {plural(num, 'video')}")
        for (width, height), num in sorted(self._cut.items()):
            if num:
                videos = plural(num, "video is", "videos are")
                notes.append(
                    f"that lens is of square pictures, {videos} {width} x {height}: its field of view is taken along "
                    "the longer side, as of a square picture that strips were cut off"
                )
        notes += [f"{plural(num, 'video')} {said}" for said, num in self._devices.most_common()]

"""Plain folders of videos."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from handloom.errors import ClipError, ConfigError
from handloom.ingest.camera.devices import device_camera
from handloom.ingest.camera.file import OLD_SIZE, SUFFIX, GivenCamera, read_camera_file
from handloom.ingest.camera.requested import RequestedCamera, named_camera
from handloom.ingest.human.cutting import MAX_VIDEO_S, check_clip_seconds, cut
from handloom.ingest.human.labels import VIEWS, VideoLabels, clips_of, is_labels, no_usable_line, read_labels
from handloom.ingest.ids import check_dataset, unique_video_ids
from handloom.ingest.names import AmbiguousName, Names, printable
from handloom.ingest.result import Gathering, IngestResult, Progress
from handloom.io.addresses import normalise
from handloom.io.listing import VIDEO_EXTENSIONS, FoundFile, Listing, list_files
from handloom.io.remote import Options
from handloom.plural import plural
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.values import VideoInfo
from handloom.video.container.camera_tags import CameraTags

Piece = tuple[float, float | None, dict[str, str]]
"""start_s, end_s (None: unknown), and its columns of `clips.csv`."""


def ingest_folder(
    directory: str,
    *,
    probe: Callable[[str], VideoInfo],
    tags: Callable[[str], CameraTags] = lambda uri: CameraTags(),
    requested: RequestedCamera | None = None,
    dataset: str = "folder",
    clip_seconds: float | None = None,
    view: str | None = None,
    licence: str | None = None,
    storage_options: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Every video file below `directory`, cut every `clip_seconds`. Its camera is that of the file beside it, else the
    one that `clips.csv` names (a preset, or an intrinsics file of the folder), else the requested one, else the one
    that its own tags give.

    A video's id is its path below `directory` without the extension, folders joined by `~` (`ids.unique_video_ids`).
    A file is a video by its extension, in any case. Names that begin with a dot are left out: file managers and
    download tools leave them behind. Links to folders are followed, each folder once.

    A file that cannot be read as a video stays in the list as one clip from 0 to an unknown end; it ends as a reject
    with the reason. `clips.csv` at the top gives narrations, verbs, nouns, views, and the times of actions, which then
    are the clips (`labels.read_labels`). Pieces lie on the container's clock, from its first frame to the end of its
    last; the last piece may be a little longer (`cutting.cut`). If a camera file cannot be used or does not fit its
    video, it is named and the video left out: with another camera its rows would be wrong.

    Counts: entries (files) = videos + skipped_not_video + camera_files + label_files + bad. Also `unreadable` (videos),
    `cameras`, `labelled` (videos), `actions`, `bad_labels` (lines), `bad_cameras` (files, and videos whose camera does
    not fit) and `hidden` (names that begin with a dot: no entries). Counts of videos: `cameras_asked` (by the command
    or `clips.csv`), `cameras_scaled` (intrinsics of another size), `cameras_of_device`.

    Args:
        directory: folder, or the URI of one.
        probe: facts of one video; raises ClipError with the reason.
        tags: the camera tags of one video file.
        requested: camera and hands of all these videos. A video that the camera does not fit is named and left out.
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
    lenses = _Lenses(requested or RequestedCamera(), tags, gathering, listing.files, storage_options)
    for file in files:
        gathering.step()
        camera = cameras.get(_stem(file.path))
        if camera is None and _stem(file.path) in cameras:
            continue
        info = _info(file, probe, gathering, unopened)
        try:
            lens, hand = lenses.of(file, info, camera, labels.get(file.path))
        except ValueError as error:
            gathering.counts["bad_cameras"] += 1
            gathering.problems.append(f"{file.path}: {error}; the video is left out")
            continue
        for start_s, end_s, values in _pieces(file, info, clip_seconds, labels.get(file.path), gathering):
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
                hand=hand,
            )
            named: dict[str, Any] = dict(values)
            gathering.add(replace(clip, **named))
    if labels and not gathering.counts["actions"] and all(of_video.timed for of_video in labels.values()):
        raise no_usable_line(f"of {root}", gathering.problems[num_problems:])
    if files and not gathering.num_clips:
        asked = "the column camera of clips.csv, " if any(of_video.cameras for of_video in labels.values()) else ""
        asked += "the requested camera, " if requested is not None and requested.camera is not None else ""
        hint = f"correct {asked}or these files" if asked else "correct these files"
        raise ConfigError(f"no video of {root} can be used; the first: {gathering.problems[0]}", hint)
    if len(unopened) == len(files):
        gathering.bad(f"none of the {len(files)} videos of {root} can be read: `run` will reject all of them")
    lenses.add_notes()
    _count(gathering, listing.files, files, cameras)
    gathering.counts["hidden"] = listing.num_hidden
    return gathering.result()


def _no_video(root: str, listing: Listing) -> ConfigError:
    """The error for a folder without videos: what it holds instead, and what it probably is."""
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
    file: FoundFile,
    info: VideoInfo | None,
    clip_seconds: float | None,
    labels: VideoLabels | None,
    gathering: Gathering,
) -> list[Piece]:
    """The clips of a video: its labelled actions, else pieces."""
    span = None if info is None else _span(file, info, gathering)
    if labels is not None and labels.timed:
        return list(clips_of(file.path, labels, span, gathering))
    whole = (labels.whole if labels is not None else None) or {}
    pieces = [(0.0, None)] if span is None else cut(*span, clip_seconds)
    return [(start_s, end_s, whole) for start_s, end_s in pieces]


def _info(
    file: FoundFile, probe: Callable[[str], VideoInfo], gathering: Gathering, unopened: list[str]
) -> VideoInfo | None:
    """Facts of a video; None if it cannot be read."""
    try:
        return probe(file.uri)
    except ClipError as error:
        gathering.counts["unreadable"] += 1
        gathering.problems.append(f"{file.path}: {error.reason}: {error.problem}; kept, and will be rejected")
        unopened.append(file.path)
        return None


def _span(file: FoundFile, info: VideoInfo, gathering: Gathering) -> tuple[float, float] | None:
    """Start and end of a video in seconds; None if it claims an impossible length."""
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
    """`{path of a video without its extension: camera}`; the camera is None if its file cannot be used.

    Files that cannot be used, and files without a video, are named in the problems.
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
    if num_old := sum(camera is not None and camera.is_old for camera in cameras.values()):
        gathering.notes.append(f"{plural(num_old, 'camera file')}: {OLD_SIZE}")
    gathering.counts["camera_files"] = num_cameras
    gathering.counts["label_files"] = num_labels
    gathering.counts["skipped_not_video"] = len(all_files) - len(videos) - num_cameras - num_labels


class _Lenses:
    """The lenses of videos. Counts what it found, for one note about many videos."""

    def __init__(
        self,
        requested: RequestedCamera,
        tags: Callable[[str], CameraTags],
        gathering: Gathering,
        files: list[FoundFile],
        options: Options,
    ) -> None:
        """files: of the folder, among which `clips.csv` names intrinsics. options: fsspec's."""
        self._requested, self._tags, self._gathering, self._options = requested, tags, gathering, options
        self._uris = {file.path: file.uri for file in files if file.path.lower().endswith(".json")}
        self._paths = Names(self._uris)
        self._named: dict[str, RequestedCamera | str] = {}  # by cell of `clips.csv`; a text: why it cannot be used
        self._asked: Counter[RequestedCamera] = Counter()
        self._scaled: Counter[tuple[tuple[int, int], tuple[int, int]]] = Counter()
        self._cut: Counter[tuple[int, int]] = Counter()
        self._beside = 0  # camera files of another size than their video's
        self._devices: Counter[str] = Counter()

    def of(
        self, file: FoundFile, info: VideoInfo | None, beside: GivenCamera | None, labels: VideoLabels | None
    ) -> tuple[str | None, str | None]:
        """The camera and the hand JSON of a video; no camera if the file beside it gives it. Raises ValueError if its
        camera cannot be used or does not fit the video.
        """
        if beside is not None:
            self._check("the camera file beside it", beside.check, info)
            self._beside += info is not None and beside.size not in (None, (info.width, info.height))
            return None, beside.hand(self._requested.hand)
        asked = self._asked_for(labels.cameras if labels is not None else {})
        if asked.camera is not None:
            self._check(asked.description, asked.of_video, info)
            if info is not None:
                if asked.size is not None and asked.is_scaled(info):
                    self._scaled[asked.size, (info.width, info.height)] += 1
                self._cut[info.width, info.height] += asked.is_cut(info)
            self._asked[asked] += 1
            return asked.camera, asked.hand
        found = None if info is None else device_camera(self._tags(file.uri), info)
        if found is None:
            return None, asked.hand
        self._devices[found.description] += 1
        if found.camera is not None:
            self._gathering.counts["cameras_of_device"] += 1
        return found.camera, asked.hand

    def _check(self, whose: str, check: Callable[[VideoInfo], object], info: VideoInfo | None) -> None:
        try:
            _ = None if info is None else check(info)
        except ValueError as error:
            raise ValueError(f"{whose} cannot be used: {error}") from error

    def _asked_for(self, cells: dict[str, str]) -> RequestedCamera:
        """What `clips.csv` names for a video, else what the command gives. Raises ValueError for two cameras, and for
        one that cannot be used."""
        if not cells:
            return self._requested
        if len(cells) > 1:
            both = " and ".join(f"{printable(cell)} ({where})" for cell, where in cells.items())
            raise ValueError(f"it has the cameras {both}, expected one for all its lines")
        ((cell, where),) = cells.items()
        if cell not in self._named:
            self._named[cell] = self._read(cell)
        found = self._named[cell]
        if isinstance(found, str):
            raise ValueError(f"camera {printable(cell)} ({where}) cannot be used: {found}")
        return found

    def _read(self, cell: str) -> RequestedCamera | str:
        try:
            path = self._paths.find(cell.replace("\\", "/").removeprefix("./"))
            return named_camera(cell, None if path is None else self._uris[path], self._requested, self._options)
        except AmbiguousName as error:
            return f"the file {error}"
        except ConfigError as error:
            return f"{error.problem}; {error.hint}" if error.hint else error.problem

    def add_notes(self) -> None:
        """Write what was found into the notes of the summary."""
        notes, counts = self._gathering.notes, self._gathering.counts
        if self._beside:
            counts["cameras_scaled"] += self._beside
            files = plural(self._beside, "camera file is", "camera files are")
            notes.append(f"{files} for images of another size, and scaled to the video beside")
        for asked, num in self._asked.items():
            counts["cameras_asked"] += num
            notes.append(f"{plural(num, 'video has', 'videos have')} {asked.description}")
        for (given, (width, height)), num in sorted(self._scaled.items()):
            counts["cameras_scaled"] += num
            size = "{} x {}".format(*given)
            notes.append(f"intrinsics of {size} are scaled to {width} x {height}: {plural(num, 'video')}")
        for (width, height), num in sorted(self._cut.items()):
            if num:
                videos = plural(num, "video is", "videos are")
                notes.append(
                    f"that lens is of square images, {videos} {width} x {height}: its field of view is taken along the "
                    "longer side, as if strips of a square image had been cut off"
                )
        notes += [f"{plural(num, 'video')} {description}" for description, num in self._devices.most_common()]

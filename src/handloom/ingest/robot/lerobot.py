"""LeRobotDataset v3.0, v2.1 and v2.0: episodes of robots, in local folders or behind URIs."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.ingest.camera.file import OLD_SIZE, SUFFIX, GivenCamera, read_camera_file
from handloom.ingest.ids import check_dataset, video_id_of
from handloom.ingest.names import AmbiguousName, Names
from handloom.ingest.robot.lerobot_data import (
    count_runs,
    decode_image,
    depth_in,
    first_index,
    frame_times,
    image_bytes,
    read_runs,
    signal_of,
    success_of,
    tasks_of,
)
from handloom.ingest.robot.lerobot_episodes import EpisodeEntry, read_entries, read_tasks
from handloom.ingest.robot.lerobot_info import Feature, read_info
from handloom.ingest.robot.lerobot_parquet import UnreadableParquet
from handloom.ingest.robot.source import ImageCamera, RawEpisode, Skip, SourceFacts, Unusable, VideoCamera
from handloom.io.addresses import is_remote, join, normalise
from handloom.io.listing import FoundFile, list_files
from handloom.io.remote import Options
from handloom.schemas.clip import Clip, make_clip_id

STATE_KEYS = ("observation.state", "state", "observation.states")
ACTION_KEYS = ("action", "actions")
END_TOLERANCE_FRAMES = 1.5  # the end is the time of the last frame for some writers, the end of that frame for others
NO_KEY = "none"


class LeRobotSource:
    """A dataset's episodes, in the order of its files. See `handloom.ingest.robot.source.RobotSource`.

    The timestamps of the data count: an episode's clip runs from its first timestamp to one frame after its last, both
    relative to `from_timestamp` in the video; `to_timestamp` is only compared. Images are found by their time.

    Args:
        directory: the dataset's top folder, a path or a URI.
        state, action: features to be stored side by side; empty: the usual names. `("none",)`: none of them.

    Raises:
        ConfigError: no dataset, of a version that is not read, without an episode, or without the named features.
    """

    def __init__(
        self,
        directory: str,
        *,
        dataset: str,
        licence: str | None = None,
        view: str | None = "exo",
        state: Sequence[str] = (),
        action: Sequence[str] = (),
        options: Options = None,
    ) -> None:
        self._root = normalise(directory)
        self._options = options
        self._info = info = read_info(self._root, options)
        entries, problems, unread = read_entries(self._root, info, options)
        self.problems = [*info.problems, *unread, *problems]
        self.num_unread = len(unread)
        self._entries, self._repeated = _unique(entries)
        self._num_in_video: Counter[str] = Counter()
        for entry in self._entries:
            self._num_in_video.update({path: entry.length for path, _, _ in entry.videos.values()})
        try:
            self._tasks = read_tasks(self._root, info, options)
        except (UnreadableParquet, ConfigError) as error:
            self._tasks = {}
            what = error.problem if isinstance(error, ConfigError) else f"meta/tasks.parquet: {error}"
            self.problems.append(f"{what}; tasks are those of the list of episodes")
        self._state = self._choose(state, STATE_KEYS, "state")
        self._action = self._choose(action, ACTION_KEYS, "action")
        self._files = {file.path: file for file in self._list()}
        self._names = Names(self._files)
        self._cameras = self._find_cameras()
        self._given: dict[str, GivenCamera] = {}
        self.facts = SourceFacts(
            check_dataset(dataset),
            self._root,
            f"lerobot {info.version}",
            info.fps,
            info.robot_type,
            licence,
            view,
            len(entries),
        )

    def episodes(self) -> Iterator[RawEpisode | Skip]:
        """Every listed episode once, file by file, and a `Skip` for each episode of the files that is not listed.

        Episodes that are not in the listed file are searched for in the other files at the end.
        """
        for index, detail in self._repeated:
            yield Skip(index, "duplicated", detail)
        by_file: dict[str, dict[int, EpisodeEntry]] = {}
        for entry in self._entries:
            if entry.problem:
                yield Skip(entry.index, "bad_entry", entry.problem)
            else:
                by_file.setdefault(entry.data_path, {})[entry.index] = entry
        lost: dict[int, Skip] = {}
        for path, entries in by_file.items():
            for found in self._episodes_of_file(path, entries):
                if isinstance(found, Skip) and found.reason in ("not_in_data", "data_missing"):
                    lost[found.episode_index] = found
                else:
                    yield found
        if lost:
            yield from self._elsewhere(lost, {i: entry for entries in by_file.values() for i, entry in entries.items()})

    def _elsewhere(self, lost: dict[int, Skip], entries: dict[int, EpisodeEntry]) -> Iterator[RawEpisode | Skip]:
        """Episodes that the list places in a wrong file: LeRobot's converter from v2.1 wrote the previous file for the
        first episode of each new file (lerobot issue 2401). An episode counts as found if its frames are one run in
        one file, at the listed place among all frames if both are known."""
        places: dict[int, list[str]] = {i: [] for i in lost}
        for file in self._files.values():
            if not file.path.endswith(".parquet"):
                continue
            try:
                for index, num_runs in count_runs(file.uri, self._options).items():
                    places.get(index, []).extend([file.path] * num_runs)
            except (UnreadableParquet, Unusable):
                continue  # its own episodes are named already
        by_file: dict[str, dict[int, EpisodeEntry]] = {}
        for index, found in places.items():
            if len(found) > 1:
                yield Skip(index, "duplicated", f"{lost[index].detail}, but {' and '.join(found)} hold frames of it")
            elif not found:
                yield lost[index]
            else:
                by_file.setdefault(found[0], {})[index] = replace(entries[index], data_path=found[0])
        for path, moved in by_file.items():
            for raw in self._episodes_of_file(path, moved, moved=True):
                if isinstance(raw, RawEpisode):
                    note = ("other_file", f"its frames lie in {path}, the list says {entries[raw.index].data_path}")
                    raw = replace(raw, notes=(*raw.notes, note))
                yield raw

    def _found(self, path: str) -> FoundFile | None:
        """The file of a path in the lists, in any case and Unicode form. Raises ConfigError if two files match."""
        try:
            name = self._names.find(path)
        except AmbiguousName as error:
            raise ConfigError(
                f"LeRobot dataset {self._root}: file {error}", "a dataset names every file once"
            ) from error
        return None if name is None else self._files[name]

    def _episodes_of_file(
        self, path: str, entries: dict[int, EpisodeEntry], moved: bool = False
    ) -> Iterator[RawEpisode | Skip]:
        """moved: the list names another file for these entries; the file's other episodes were yielded before."""
        left = dict(entries)
        file = self._found(path)
        if file is None:
            yield from (Skip(i, "data_missing", f"there is no file {path}") for i in left)
            return
        keys = [f.key for f in (*self._state, *self._action)]
        images = [f.key for f in self._cameras if f.dtype == "image"]
        known = {entry.index for entry in self._entries} | {index for index, _ in self._repeated}
        try:
            for index, places in count_runs(file.uri, self._options).items():
                if places > 1 and left.pop(index, None) is not None:
                    yield Skip(index, "duplicated", f"{path} holds frames of it in {places} places")
                elif index not in known and not moved:
                    yield Skip(index, "not_in_meta", f"{path} holds frames of it")
            for index, table in read_runs(file.uri, keys, images, self._options):
                if index in left:
                    entry, first = left.pop(index), first_index(table)
                    if moved and None not in (first, entry.first) and first != entry.first:
                        text = f"{path} has frames of it, the first number {first} of all; the list says {entry.first}"
                        yield Skip(index, "not_in_data", text)
                    else:
                        yield self._episode(entry, table)
        except UnreadableParquet as error:
            yield from (Skip(i, "data_unreadable", f"{path}: {error}") for i in left)
            return
        except Unusable as error:
            yield from (Skip(i, error.reason, f"{path}: {error.detail}") for i in left)
            return
        yield from (Skip(i, "not_in_data", f"{path} has no frame of it") for i in left)

    def _episode(self, entry: EpisodeEntry, table: pa.Table) -> RawEpisode | Skip:
        try:
            return self._checked(entry, table)
        except Unusable as error:
            return Skip(entry.index, error.reason, error.detail)

    def _checked(self, entry: EpisodeEntry, table: pa.Table) -> RawEpisode:
        info = self._info
        if table.num_rows != entry.length:
            raise Unusable("length_differs", f"{entry.length} frames announced, {table.num_rows} in {entry.data_path}")
        times = frame_times(table, info.fps)
        notes = [("irregular_times", times.note)] if times.note else []
        state, num_state = signal_of(table, self._state)
        action, num_action = signal_of(table, self._action)
        if num_state + num_action:
            text = f"{num_state} values of the state and {num_action} of the action are not finite: NaN, unknown"
            notes.append(("unknown_values", text))
        task = "; ".join(entry.tasks or tasks_of(table, self._tasks)) or None
        if task is None:
            notes.append(("no_task", "neither the list of episodes nor the tasks name one"))
        split = info.split_of(entry.index)
        cameras: list[ImageCamera | VideoCamera] = []
        for feature in self._cameras:
            if feature.dtype == "image":
                cameras.append(_image_camera(feature.key, table))
            elif feature.key in entry.videos:
                cameras.append(self._video_camera(feature.key, entry, times, task, split, notes))
            else:
                notes.append(("no_camera", entry.no_video[feature.key]))
        of = (task, split, tuple(notes), success_of(table))
        return RawEpisode(entry.index, times.frame_s, state, action, tuple(cameras), *of)

    def _video_camera(self, key: str, entry: EpisodeEntry, times, task, split, notes) -> VideoCamera:
        path, from_s, to_s = entry.videos[key]
        start_s = from_s + times.first_s
        end_s = start_s + float(times.frame_s[-1]) + 1 / self._info.fps
        if to_s is not None and abs(to_s - end_s) > END_TOLERANCE_FRAMES / self._info.fps:
            text = f"{key} ends at {to_s:.3f} s by the list, at {end_s:.3f} s by its {len(times.frame_s)} frames"
            notes.append(("end_differs", text))
        facts = self.facts
        video_id = video_id_of(f"{key}/episode_{entry.index:06d}")
        found = self._found(path)
        clip = Clip(
            clip_id=make_clip_id(facts.dataset, video_id, start_s, end_s),
            dataset=facts.dataset,
            video_id=video_id,
            video_uri=found.uri if found else join(self._root, path),
            start_s=start_s,
            end_s=end_s,
            narration=task,
            split=split,
            licence=facts.licence,
            view=facts.view,
            camera=self._given_camera(path, start_s, end_s),
        )
        tag = _size_tag(clip.video_uri) if found else ""
        return VideoCamera(key, clip, found is not None, tag, self._num_in_video[path])

    def _given_camera(self, path: str, start_s: float, end_s: float) -> str | None:
        """The camera in `NAME.camera.json` beside the video; None if there is no such file. Raises ConfigError."""
        found = self._found(path.rpartition(".")[0] + SUFFIX)
        if found is None:
            return None
        if found.path not in self._given:
            given = self._given[found.path] = read_camera_file(found.uri, self._options)
            if given.is_old:
                self.problems.append(f"{found.path}: {OLD_SIZE}")
        return self._given[found.path].text(start_s, end_s)

    def _choose(self, requested: Sequence[str], usual: Sequence[str], what: str) -> tuple[Feature, ...]:
        """The features of the state or the action. Raises ConfigError if one does not exist or holds no numbers."""
        if tuple(requested) == (NO_KEY,):
            return ()
        features = self._info.features
        numbers = [f.key for f in features.values() if f.is_number and f.key not in _BOOKKEEPING]
        hint = f"features with numbers: {', '.join(numbers) or 'none'}; give --{what} KEY, or --{what} {NO_KEY}"
        unusable = self._info.unusable
        there = [key for key in usual if key in unusable or (key in features and features[key].width)]
        names = tuple(requested) or tuple(there[:1])
        if not names:
            raise ConfigError(f"LeRobot dataset {self._root} has no {what} under {' or '.join(usual)}", hint)
        for key in names:
            if key in unusable:
                raise ConfigError(f"LeRobot dataset {self._root}: meta/info.json: {unusable[key]}", hint)
            if key in features and not features[key].width:
                raise ConfigError(f"LeRobot dataset {self._root}: --{what} {key!r} has a width of 0", hint)
            if key not in features or not features[key].is_number:
                found = f"is of type {features[key].dtype}" if key in features else "is no feature of it"
                raise ConfigError(f"LeRobot dataset {self._root}: --{what} {key!r} {found}", hint)
        return tuple(features[key] for key in names)

    def _find_cameras(self) -> list[Feature]:
        """The cameras that do not hold depth, by info.json or else by their first image."""
        cameras = []
        for feature in self._info.features.values():
            if feature.dtype not in ("video", "image", "depth"):
                continue
            is_listed = feature.is_depth or feature.dtype == "depth"
            depth = "by meta/info.json" if is_listed else self._first_image_is_depth(feature)
            if depth:
                self.problems.append(f"camera {feature.key} holds depth, not images ({depth}); left out")
            else:
                cameras.append(feature)
        return cameras

    def _first_image_is_depth(self, feature: Feature) -> str | None:
        files = [self._found(entry.data_path) for entry in self._entries if not entry.problem]
        first = next((file for file in files if file is not None), None)
        if feature.dtype != "image" or first is None:
            return None
        try:
            return depth_in(first.uri, feature.key, self._options)
        except UnreadableParquet:
            return None  # reported when its episodes are read

    def _list(self) -> Iterable[FoundFile]:
        """Data and videos, without the folder `images`, in which recordings leave a file per frame."""
        tops = {path.split("/")[0] for path in (self._info.data_path, self._info.video_path or "videos")}
        listing = list_files(self._root, "LeRobot dataset", lambda parts: parts[0] in tops, self._options)
        self.problems += [*listing.problems, *listing.unusable]
        return listing.files


_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def _unique(entries: list[EpisodeEntry]) -> tuple[list[EpisodeEntry], list[tuple[int, str]]]:
    """The entries, and (index, detail) of episodes that are listed more than once with different contents."""
    by_index: dict[int, list[EpisodeEntry]] = {}
    for entry in entries:
        by_index.setdefault(entry.index, []).append(entry)
    single, repeated = [], []
    for index, same in by_index.items():
        if index < 0 or all(entry == same[0] for entry in same):
            single += same if index < 0 else same[:1]
        else:
            lengths = ", ".join(str(entry.length) for entry in same)
            repeated.append((index, f"listed {len(same)} times, with {lengths} frames, first in {same[0].data_path}"))
    return single, repeated


def _image_camera(key: str, table: pa.Table) -> ImageCamera:
    data = image_bytes(table, key)
    digest = hashlib.sha256()
    for image in data:
        digest.update(hashlib.sha256(image or b"").digest())
    has = [image is not None for image in data]
    return ImageCamera(key, has.__getitem__, lambda step: decode_image(data[step]), digest.hexdigest())


def _size_tag(uri: str) -> str:
    """The size of a local file in bytes, to notice a replaced video; empty for remote files."""
    try:
        return "" if is_remote(uri) else str(os.path.getsize(uri))
    except OSError:
        return ""

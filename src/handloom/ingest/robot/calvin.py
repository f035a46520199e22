"""CALVIN: one npz file per frame at 30 Hz, and windows of frames with a description in words.

Format: mees/calvin, `dataset/README.md` and `calvin_agent/datasets/disk_dataset.py`. UNVERIFIED on real data: no real
episode was available.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.ingest.ids import check_dataset
from handloom.ingest.names import composed
from handloom.ingest.robot.arrays_only import READ_ERRORS, ForbiddenContent, read_npy
from handloom.ingest.robot.source import ImageCamera, RawEpisode, Skip, SourceFacts, Unusable
from handloom.io.addresses import normalise
from handloom.io.presence import existing
from handloom.io.reading import read_bytes
from handloom.io.remote import Options
from handloom.schemas.tables.robot import Signal

_HINT = "CALVIN's own annotation script makes this file; download it again"


@dataclass(frozen=True)
class Span:
    """Frames [first, end) of a split, their description and task id; these are None for a whole recording."""

    first: int
    end: int
    text: str | None = None
    task: str | None = None


def read_recordings(folder: str, options: Options = None) -> list[Span]:
    """`ep_start_end_ids.npy`: (n, 2) first and last frame of each recording.

    CALVIN's own loader never reads the last frame; neither does this. Raises ConfigError.
    """
    where = f"{folder}/ep_start_end_ids.npy"
    array = _read(where, "CALVIN's list of recordings", options)
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"{where} holds {type(array).__name__}, expected whole numbers (n, 2)", _HINT)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise ConfigError(f"{where} holds {array.dtype} of shape {array.shape}, expected whole numbers (n, 2)", _HINT)
    return [_span(where, n, row) for n, row in enumerate(array.tolist())]


def read_language(where: str, options: Options = None) -> list[Span]:
    """`auto_lang_ann.npy`: the described windows. Half-open: the annotator wrote `(first, first + length)`.

    Raises ConfigError: it cannot be read, has another form, or names more than arrays and plain values.
    """
    found = _read(where, "CALVIN's language file", options)
    try:
        texts, tasks, spans = found["language"]["ann"], found["language"]["task"], found["info"]["indx"]
        num = {len(texts), len(tasks), len(spans)}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ConfigError(f"{where} lacks language/ann, language/task or info/indx ({error!r})", _HINT) from error
    if len(num) > 1:
        counted = f"{len(texts)} texts, {len(tasks)} tasks and {len(spans)} windows"
        raise ConfigError(f"{where} has {counted}, expected as many of each", _HINT)
    rows = enumerate(zip(spans, texts, tasks, strict=True))
    return [_span(where, n, span, _word(text), _word(task)) for n, (span, text, task) in rows]


def _read(where: str, what: str, options: Options) -> Any:
    """A .npy file's content. Raises ConfigError."""
    try:
        return read_npy(read_bytes(where, what, options))
    except ForbiddenContent as error:
        raise ConfigError(
            f"{where} is not read: {error}", "it may hold code; get the file from CALVIN's site"
        ) from error
    except READ_ERRORS as error:
        raise ConfigError(f"{where} is no whole .npy file: {error}", _HINT) from error


def _span(where: str, number: int, pair: Any, text: str | None = None, task: str | None = None) -> Span:
    try:
        first, end = (int(value) for value in pair)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: window {number} is {pair!r}, expected first and last frame", _HINT) from error
    return Span(first, end, text, task)


def _word(value: Any) -> str | None:
    """The text; it may be written as `"text"` or as `["text"]`."""
    if isinstance(value, list | tuple | np.ndarray) and len(value):
        value = value[0]
    return composed(str(value).strip()) or None if isinstance(value, str) else None


FPS = 30.0
ROBOT_TYPE = "franka_panda"
RECORDINGS = "ep_start_end_ids.npy"
LANGUAGE = "lang_annotations/auto_lang_ann.npy"
CAMERAS = ("rgb_static", "rgb_gripper")
SPLITS = ("training", "validation")
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error, zlib.error)
MAX_ARRAY_BYTES = 64 << 20
RECENT_FRAMES = 96  # some 300 kB each
FIRST_INDEX = 10_000_000  # episodes of split s are numbered from s times this, whole recordings from half of it on

_POSE = ("tcp_x", "tcp_y", "tcp_z", "tcp_euler_x", "tcp_euler_y", "tcp_euler_z")
STATE_NAMES = (*_POSE, "gripper_width", *(f"joint_{n}" for n in range(1, 8)), "gripper_action")
STATE_UNITS = (*("m",) * 3, *("rad",) * 3, "m", *("rad",) * 7, "1")
ACTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rel_actions": (
        ("rel_x", "rel_y", "rel_z", "rel_euler_x", "rel_euler_y", "rel_euler_z", "gripper_action"),
        (*("0.02 m",) * 3, *("0.05 rad",) * 3, "1"),
    ),
    "actions": ((*_POSE, "gripper_action"), (*("m",) * 3, *("rad",) * 3, "1")),
}
"""Names and units of both kinds. `rel_actions` are differences times 50 (metres) and 20 (radians), clipped to -1..1:
one unit is 2 cm, or 0.05 rad. The gripper's action is -1 (close) or 1 (open)."""


EULER = slice(3, 6)
"""Where the angles are, in a state and in `actions`."""


def continued(
    angles_rad: NDArray[np.floating[Any]], before_rad: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.float64]:
    """Euler angles without jumps of a whole turn: the same orientations.

    The gripper points down, so CALVIN's first angle is near half a turn and jumps between both ends of -pi to pi: a
    network that reads angles as numbers would learn the mean of both.

    Args:
        angles_rad: (T, 3) of following steps; NaN stays NaN. before_rad: (3,) the step before them, as it was given
            back; None: these are the first, and the first angle begins at 0 to two pi.
    """
    out = np.array(angles_rad, np.float64)
    known = np.isfinite(out).all(axis=1)
    if before_rad is not None:
        out[known] = np.unwrap(np.concatenate([before_rad[None], out[known]]), axis=0)[1:]
        return out
    rows = np.unwrap(out[known], axis=0)
    if len(rows) and rows[0, 0] < 0:
        rows[:, 0] += 2 * np.pi
    out[known] = rows
    return out


@dataclass(frozen=True)
class _Split:
    """One folder of frames and the spans in it. Its frames are not listed: there are millions, one file each."""

    name: str
    folder: str
    number: int
    spans: list[Span]

    def frame(self, number: int) -> str:
        return f"{self.folder}/episode_{number:07d}.npz"


class CalvinSource:
    """A CALVIN dataset's described windows, or its whole recordings. See `handloom.ingest.robot.source.RobotSource`.

    Args:
        directory: the folder with `training/` and `validation/`, or one of the two.
        whole: the recordings of `ep_start_end_ids.npy`, without descriptions, not the windows of `auto_lang_ann.npy`.
        action: `rel_actions` or `actions`.

    Raises:
        ConfigError: no such folder, no frames in it, or its lists cannot be read.
    """

    def __init__(
        self,
        directory: str,
        *,
        dataset: str,
        licence: str | None = None,
        view: str | None = "exo",
        whole: bool = False,
        action: str = "rel_actions",
        options: Options = None,
    ) -> None:
        if action not in ACTIONS:
            raise ConfigError(f"--action {action!r}, expected {' or '.join(ACTIONS)}")
        root = normalise(directory)
        self._action = action
        self._options = options
        self._whole = whole
        self._recent: OrderedDict[str, _Frame] = OrderedDict()
        self.problems: list[str] = []
        self.num_unread = 0
        self._splits = self._find(root)
        num_listed = sum(len(split.spans) for split in self._splits)
        if not num_listed:
            what = "recording" if whole else "described window"
            raise ConfigError(f"CALVIN dataset {root} lists no {what}", "check the path" if whole else "try --all")
        name = check_dataset(dataset)
        self.facts = SourceFacts(name, root, "calvin", FPS, ROBOT_TYPE, licence, view, num_listed)

    def episodes(self) -> Iterator[RawEpisode | Skip]:
        """Every listed window or recording once."""
        for split in self._splits:
            for number, span in enumerate(split.spans):
                index = FIRST_INDEX * split.number + (FIRST_INDEX // 2 if self._whole else 0) + number
                try:
                    yield self._episode(index, split, span)
                except Unusable as error:
                    yield Skip(index, error.reason, f"{split.name}, frames {span.first} to {span.end}: {error.detail}")

    def _episode(self, index: int, split: _Split, span: Span) -> RawEpisode:
        if not 0 <= span.first < span.end:
            raise Unusable("bad_entry", "no range of frames")
        files = [split.frame(number) for number in range(span.first, span.end)]
        names, units = ACTIONS[self._action]
        states, actions, tags = [], [], {camera: 0 for camera in CAMERAS}
        for file in files:
            frame = self._frame(file)
            states.append(frame.numbers("robot_obs", len(STATE_NAMES)))
            actions.append(frame.numbers(self._action, len(names)))
            for camera in CAMERAS:
                tags[camera] = zlib.crc32(frame.checksum(camera), tags[camera])
        state, action = _signal(states, STATE_NAMES, STATE_UNITS), _signal(actions, names, units)
        state.values[:, EULER] = continued(state.values[:, EULER])
        if self._action == "actions":
            apart = action.values[:, EULER] - state.values[:, EULER]
            action.values[:, EULER] -= np.round(apart / (2 * np.pi)) * (2 * np.pi)
        unknown = int(np.isnan(state.values).sum() + np.isnan(action.values).sum())
        notes = (("unknown_values", f"{unknown} values are not finite: NaN, unknown"),) if unknown else ()
        cameras = tuple(self._camera(camera, files, f"{tags[camera]:08x}") for camera in CAMERAS)
        frame_s = np.arange(len(files)) / FPS
        return RawEpisode(index, frame_s, state, action, cameras, span.text, split.name, notes)

    def _camera(self, name: str, files: list[str], tag: str) -> ImageCamera:
        return ImageCamera(name, lambda step: True, lambda step: self._frame(files[step]).image(name), tag)

    def _frame(self, uri: str) -> _Frame:
        """The last frames stay in memory: windows overlap, and a file holds both cameras and the state."""
        frame = self._recent.pop(uri, None) or _Frame(uri, self._options)
        self._recent[uri] = frame
        if len(self._recent) > RECENT_FRAMES:
            self._recent.popitem(last=False)
        return frame

    def _find(self, root: str) -> list[_Split]:
        """The splits below `root`, or the one that it is."""
        folders = {name: f"{root}/{name}" for name in SPLITS} | {"": root}
        lists = [LANGUAGE, "auto_lang_ann.npy", RECORDINGS]
        there = existing([f"{folder}/{name}" for folder in folders.values() for name in lists], self._options)
        found = []
        for name, folder in folders.items():
            language = next((f"{folder}/{n}" for n in lists[:2] if f"{folder}/{n}" in there), None)
            if language is None and f"{folder}/{RECORDINGS}" not in there:
                continue
            own = name or folder.rpartition("/")[2]
            found.append(_Split(own, folder, SPLITS.index(own) if own in SPLITS else 0, self._spans(folder, language)))
        if not found:
            raise ConfigError(
                f"CALVIN dataset {root}: neither it nor {' or '.join(SPLITS)} in it has {RECORDINGS} or {LANGUAGE}",
                "give the folder that was unpacked: task_D_D, calvin_debug_dataset, ...",
            )
        return found

    def _spans(self, folder: str, language: str | None) -> list[Span]:
        if self._whole:
            return read_recordings(folder, self._options)
        if language is None:
            self.problems.append(f"{folder} has no {LANGUAGE}: none of its frames is described")
            return []
        return self._unique(read_language(language, self._options), folder)

    def _unique(self, spans: list[Span], where: str) -> list[Span]:
        """Each window once; equal frames with different descriptions are two episodes."""
        counted = Counter(spans)
        if len(counted) < len(spans):
            self.problems.append(
                f"{where}: {len(spans) - len(counted)} windows are listed again with the same description"
            )
        return list(counted)


class _Frame:
    """One npz file, read whole (a few hundred kB) and unpacked by array. Raises Unusable."""

    def __init__(self, uri: str, options: Options) -> None:
        self._name = uri.rpartition("/")[2]
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(read_bytes(uri, "CALVIN frame", options)))
        except ZIP_ERRORS as error:
            raise Unusable("data_unreadable", f"{self._name} is no whole npz file: {error}") from error
        except ConfigError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise Unusable("data_missing", f"{self._name} is not there") from error
            raise Unusable("data_unreadable", error.problem) from error

    def numbers(self, key: str, width: int) -> NDArray[np.float64]:
        """(width,) numbers of `key`."""
        array = self._array(key)
        if array.shape != (width,) or array.dtype.kind not in "fiu":
            raise Unusable(
                "bad_values", f"{key} of {self._name} is {array.dtype} {array.shape}, expected {width} numbers"
            )
        return array.astype(np.float64)

    def image(self, key: str) -> NDArray[np.uint8]:
        """(h, w, 3) RGB."""
        array = self._array(key)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise Unusable(
                "bad_pictures", f"{key} of {self._name} is {array.dtype} {array.shape}, expected uint8 (h, w, 3)"
            )
        return array

    def checksum(self, key: str) -> bytes:
        """CRC32 of the unpacked array, from the file's directory: nothing is unpacked."""
        return self._info(key).CRC.to_bytes(4, "little")

    def _info(self, key: str) -> zipfile.ZipInfo:
        try:
            return self._zip.getinfo(f"{key}.npy")
        except KeyError as error:
            there = ", ".join(sorted(name.removesuffix(".npy") for name in self._zip.namelist()))
            raise Unusable("bad_values", f"{self._name} has no {key}, but {there}") from error

    def _array(self, key: str) -> np.ndarray:
        info = self._info(key)
        try:
            if info.file_size > MAX_ARRAY_BYTES:
                raise ValueError(f"it claims {info.file_size} bytes")
            with self._zip.open(info) as member:
                return np.lib.format.read_array(io.BytesIO(member.read()), allow_pickle=False)
        except (*ZIP_ERRORS, *READ_ERRORS) as error:
            raise Unusable("data_unreadable", f"{key} of {self._name} cannot be read: {error}") from error


def _signal(rows: list[NDArray[np.float64]], names: tuple[str, ...], units: tuple[str, ...]) -> Signal:
    values = np.stack(rows).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    return Signal(values, names, units)

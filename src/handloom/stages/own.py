"""Stages that handloom does not bring: found by the class that the settings name, and run with its outputs checked."""

from __future__ import annotations

import copy
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from handloom.errors import ClipError, ConfigError, StoreError
from handloom.models.protocols import ClipFrames
from handloom.named import load_named
from handloom.schemas.clip import Clip
from handloom.schemas.json_format import explain
from handloom.schemas.settings import OWN_STAGE, StageConfig
from handloom.schemas.tables.arrow import CLIP_LIST
from handloom.schemas.tables.own_columns import own_cell, wrong_field
from handloom.schemas.tables.reject import REASONS
from handloom.schemas.tables.stage_columns import COLUMNS_OF, is_per_frame
from handloom.stages.stage import ClipInput, FrameRequest, Stage, StageSettings, owned
from handloom.stages.traces import is_lack_of_memory, trace_of
from handloom.video.stored_frames import decode_jpeg, shrink_to_short_side

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
WORDS = ("all", "none")  # of `--recompute`, where stages are named, too
BAD_OUTPUT = "bad_output"
MAX_PRINTED = 2000


class OwnStage:
    """A `Stage` in the graph."""

    def __init__(self, stage: Stage, config: StageConfig, owners: Mapping[str, str]) -> None:
        """owners: `{column: stage}` of all columns that any stage writes."""
        self.stage, self.config = stage, config
        self.name = stage.name
        fields = _fields_of(stage, config.class_)
        self.fields = [owned(field, stage.name, self.clip_fields) for field in fields]
        self.columns = tuple(field.name for field in self.fields)
        self._owners = owners

    @property
    def request(self) -> FrameRequest | None:
        """The frames that it reads."""
        return self.stage.frames

    @property
    def reads_frames(self) -> bool:
        """Whether the video must be decoded for it."""
        return self.request is not None and not self.request.stored

    @property
    def reads_columns(self) -> tuple[str, ...]:
        """The columns of the row that it reads; `frame_s` with frames and for columns with a value for each frame, and
        `frame_jpeg` with stored frames."""
        by_frame = self.request is not None or any(map(is_per_frame, self.stage.fields()))
        stored = self.request is not None and self.request.stored
        more = [*(["frame_s"] if by_frame else []), *(["frame_jpeg"] if stored else [])]
        return tuple(dict.fromkeys([*self.stage.columns, *more]))

    @property
    def clip_fields(self) -> tuple[str, ...]:
        """The columns of the clip list that it reads."""
        return tuple(name for name in self.reads_columns if name in CLIP_LIST.names)

    @property
    def reads_stages(self) -> tuple[str, ...]:
        """The stages whose columns it reads. A column that nobody writes stands for a stage of that name."""
        found = ["probe"] if self.request is not None or "end_s" in self.reads_columns else []  # writes both
        found += [self._owners.get(name, name) for name in self.reads_columns if name not in CLIP_LIST.names]
        return tuple(dict.fromkeys(found))

    def key_settings(self) -> dict[str, Any]:
        settings = self.stage.settings
        return _with_sorted_sets(settings.model_dump(mode="json"), settings.model_dump())

    def key_identity(self, versions: Mapping[str, str]) -> dict[str, str]:
        """What the class says of itself, as the run has recorded it in its versions."""
        return {"identity": versions.get(OWN_STAGE + self.name, "")}

    def identity_text(self) -> str:
        """Class, version, frames, columns and identity as text. Raises ConfigError where the class cannot tell them, or
        tells something else each time: its rows would be outdated in every run."""
        own, again = self._identity(), self._identity()
        if own != again:
            name = next(name for name in [*own, *again] if own.get(name) != again.get(name))
            problem = f"the stage {self.name!r}: identity() of {self.config.class_} gives {name!r} as {own.get(name)!r}"
            hint = "leave out what changes by itself (times, addresses, random numbers, the order of sets)"
            raise ConfigError(f"{problem} and, asked again, as {again.get(name)!r}", hint)
        types = [f"{field.name}: {field.type}" for field in self.fields]
        told = {"class": self.config.class_, "version": self.stage.version, "frames": repr(self.request), **own}
        return json.dumps(told | {"writes": types, "reads": list(self.reads_columns)}, sort_keys=True)

    def _identity(self) -> dict[str, str]:
        try:
            with printing_is_logged(self.name):
                return {str(name): str(text) for name, text in dict(self.stage.identity()).items()}
        except ConfigError:
            raise
        except Exception as error:
            problem = f"the stage {self.name!r} cannot tell its identity: {type(error).__name__}: {error}"
            raise ConfigError(problem, f"mend identity() of {self.config.class_}: a dict of texts") from error


def _with_sorted_sets(dumped: Any, value: Any) -> Any:
    """A setting as JSON, with sets in one order: theirs is another one in every process. value: as Python has it."""
    if isinstance(dumped, dict) and isinstance(value, Mapping) and len(dumped) == len(value):
        return {
            name: _with_sorted_sets(part, of) for (name, part), of in zip(dumped.items(), value.values(), strict=True)
        }
    if isinstance(dumped, list) and isinstance(value, (set, frozenset)):
        return sorted(dumped, key=lambda part: json.dumps(part, sort_keys=True))
    if isinstance(dumped, list) and isinstance(value, (list, tuple)) and len(dumped) == len(value):
        return [_with_sorted_sets(part, of) for part, of in zip(dumped, value, strict=True)]
    return dumped


def load_stage(name: str, config: StageConfig, owners: Mapping[str, str]) -> OwnStage:
    """The stage that `[stages.NAME]` declares. Raises ConfigError: it cannot be imported, or is declared wrongly."""
    where = f"[stages.{name}]"
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: a stage's name is small letters, digits and _, at most 40, and begins with a letter"
        )
    if name in WORDS:
        raise ConfigError(f"{where}: --recompute {name} has a meaning of its own", "give the stage another name")
    cls = _class_of(where, config.class_)
    try:
        settings = cls.Settings(**config.settings)
    except ValidationError as error:
        known = ", ".join(cls.Settings.model_fields) or "none"
        hint = f"settings of {config.class_}, in [stages.{name}.settings]: {known}"
        raise ConfigError(explain(error, f"stages.{name}.settings."), hint) from error
    try:
        with printing_is_logged(name):
            return OwnStage(_checked_class(where, cls(name, settings)), config, owners)
    except ConfigError:
        raise
    except Exception as error:
        problem = f"{where}: {config.class_} cannot be made: {type(error).__name__}: {error}"
        raise ConfigError(problem, f"mend __init__() and fields() of {config.class_}") from error


@contextmanager
def printing_is_logged(stage: str) -> Iterator[None]:
    """What the code of a stage prints goes to the log, cut short: stdout is data."""
    printed = _Printed()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield
    finally:
        if text := printed.getvalue().strip():
            more = f" ... {printed.left_out} characters more" if printed.left_out else ""
            log.info("stage=%s printed: %s%s", stage, text, more)


class _Printed(io.StringIO):
    """Keeps the first characters."""

    left_out = 0

    def write(self, text: str) -> int:
        kept = text[: max(MAX_PRINTED - self.tell(), 0)]
        super().write(kept)
        self.left_out += len(text) - len(kept)
        return len(text)


def _checked_class(where: str, stage: Stage) -> Stage:
    """Raises ConfigError where the class declares what cannot be read."""
    wrong = {}
    if isinstance(stage.columns, str) or not all(isinstance(name, str) for name in stage.columns):
        wrong["columns"] = 'a tuple of names: columns = ("hand_visible",)'
    if not (stage.frames is None or isinstance(stage.frames, FrameRequest)):
        wrong["frames"] = "a FrameRequest or None: frames = FrameRequest(stored=True, count=8)"
    if not isinstance(stage.version, str) or not stage.version:
        wrong["version"] = 'a text: version = "1"'
    for name, expected in wrong.items():
        raise ConfigError(f"{where}: {type(stage).__name__}.{name} is {getattr(stage, name)!r}", f"expected {expected}")
    return stage


def _class_of(where: str, text: str) -> type[Stage]:
    with printing_is_logged(where):
        cls = load_named(f"{where}: class", text)
    if not (isinstance(cls, type) and issubclass(cls, Stage)):
        raise ConfigError(f"{where}: {text} is no Stage", "a stage is a subclass of handloom.stages.Stage")
    if not (isinstance(cls.Settings, type) and issubclass(cls.Settings, StageSettings)):
        problem = f"{where}: {cls.__name__}.Settings is no subclass of handloom.stages.StageSettings"
        raise ConfigError(problem, "class Settings(StageSettings): one line a setting, with its type and default")
    return cls


def _fields_of(stage: Stage, text: str) -> list[pa.Field]:
    fields = list(stage.fields())
    if not fields or not all(isinstance(field, pa.Field) for field in fields):
        raise ConfigError(f"the stage {stage.name!r}: fields() of {text} gives no list of Arrow fields, at least one")
    for field in fields:
        if (problem := wrong_field(field)) is not None:
            raise ConfigError(f"the stage {stage.name!r}: the column {field.name} {problem[0]}", problem[1])
    return fields


def clip_input(clip: Clip, own: OwnStage, columns: dict[str, Any], frames: ClipFrames | None) -> ClipInput:
    """What a stage of one's own gets of a clip. columns: those it reads. frames: at the working size; None if it reads
    stored ones or none. Raises ClipError where the row stores no frames that the stage must have."""
    request = own.request
    if request is None:
        return ClipInput(clip, _read_only(columns))
    frame_s = np.asarray(columns["frame_s"], np.float64)
    index = request.indices(frame_s)
    if request.stored:
        jpegs = columns.pop("frame_jpeg") if "frame_jpeg" not in own.stage.columns else columns["frame_jpeg"]
        if jpegs is None and request.optional:
            return ClipInput(clip, _read_only(columns))
        if jpegs is None:
            problem = f"the stage {own.name!r} reads stored frames, and the row has none (frames.store is off)"
            raise ClipError(clip.clip_id, own.name, "no_frames", problem, "run with frames.store on, or decode them")
        images = [decode_jpeg(jpegs[at]) for at in index.tolist()]
    else:
        decoded = cast("ClipFrames", frames)
        images = [decoded.rgb(at) for at in index.tolist()]
    if request.short_side_px is not None:
        images = [shrink_to_short_side(image, request.short_side_px) for image in images]
    stacked = np.stack(images) if images else np.empty((0, 0, 0, 3), np.uint8)
    return ClipInput(clip, _read_only(columns), *(_view(array) for array in (stacked, index, frame_s[index])))


def _read_only(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """The columns as a stage may see them: others read the same arrays after it."""
    return MappingProxyType(
        {
            name: _view(value) if isinstance(value, np.ndarray) else copy.deepcopy(value)
            for name, value in columns.items()
        }
    )


def _view(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def compute_own(own: OwnStage, clips: Sequence[ClipInput]) -> list[dict[str, pa.Array] | ClipError]:
    """The cells of a stage of one's own for some clips, or why one has none. After an exception on several clips each
    is tried by itself; an unexpected one becomes a ClipError of reason `bug` with its trace."""
    try:
        with printing_is_logged(own.name):
            found = own.stage.compute(clips)
    except (ConfigError, StoreError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - code of a user (exit(), a panic in Rust): it costs this stage of this clip
        if len(clips) > 1:
            return [result for one in clips for result in compute_own(own, [one])]
        if isinstance(error, ClipError):
            return [_told(own, clips[0], error)]
        clip_id, reason = clips[0].clip.clip_id, "out_of_memory" if is_lack_of_memory(error) else "bug"
        hint = _mend(own)
        return [ClipError(clip_id, own.name, reason, trace_of(error), hint)]
    return checked_cells(own, clips, found)


def checked_cells(own: OwnStage, clips: Sequence[ClipInput], found: Any) -> list[dict[str, pa.Array] | ClipError]:
    """The output of `compute` as Arrow arrays of length 1 by column, or why it cannot be used, for each clip."""
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)) or len(found) != len(clips):
        num = len(found) if isinstance(found, Sequence) else type(found).__name__
        problem = f"compute() gave {num} results for {len(clips)} clips"
        return [_bad(own, one.clip.clip_id, problem) for one in clips]
    if (shared := _shared(found)) is not None:
        problem = f"compute() gave one and the same {shared} for several clips: the last clip's values stand in it"
        return [_bad(own, one.clip.clip_id, problem) for one in clips]
    return [_checked(own, one, values) for one, values in zip(clips, found, strict=True)]


def _shared(found: Sequence[Any]) -> str | None:
    """What several clips' results share and a stage can have overwritten: a dict, or a writable array."""
    seen: set[tuple[str, int]] = set()
    for values in found:
        if not isinstance(values, dict):
            continue
        parts = [("dict", id(values), True)]
        for name, value in values.items():
            if isinstance(value, np.ndarray) and value.size:
                parts.append((f"array of {name}", value.__array_interface__["data"][0], value.flags.writeable))
        mine = {(name, at) for name, at, is_writable in parts if is_writable}
        if again := mine & seen:
            return min(again)[0]
        seen |= mine
    return None


def _told(own: OwnStage, one: ClipInput, error: ClipError) -> ClipError:
    """A ClipError that a stage gave, of this stage and clip, and with a reason that is known."""
    reason, problem, hint = map(_short, (error.reason, error.problem, error.hint or ""))
    if reason in REASONS:
        return ClipError(one.clip.clip_id, own.name, reason, problem, hint)
    return ClipError(one.clip.clip_id, own.name, "model_failed", f"{reason}: {problem}", hint)


def _short(words: Any) -> str:
    """What code of a user says, as text: perhaps an exception, or all of a large value."""
    text = str(words)
    return text if len(text) <= MAX_PRINTED else text[:MAX_PRINTED] + " ..."


def _checked(own: OwnStage, one: ClipInput, values: Any) -> dict[str, pa.Array] | ClipError:
    clip_id = one.clip.clip_id
    if isinstance(values, ClipError):
        return _told(own, one, values)
    if not isinstance(values, Mapping) or set(values) != set(own.columns):
        told = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
        return _bad(own, clip_id, f"compute() gave {told}, expected a value for each of {', '.join(own.columns)}")
    cells = {}
    for field in own.fields:
        try:
            cells[field.name] = own_cell(values[field.name], field)
        except Exception as error:  # noqa: BLE001 - an object of a user's in place of a value
            seen = _described(values[field.name])
            return _bad(own, clip_id, f"the column {field.name} is {field.type}, compute() gave {seen}: {error}")
        num = len(cells[field.name][0]) if is_per_frame(field) and cells[field.name][0].is_valid else None
        if num not in (None, num_frames := len(one.row.get("frame_s", ()))):
            problem = f"the column {field.name} has a value for each frame, compute() gave {num} for {num_frames}"
            return _bad(own, clip_id, problem)
    return cells


def _described(value: Any) -> str:
    return f"an array {value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _bad(own: OwnStage, clip_id: str, problem: str) -> ClipError:
    hint = _mend(own)
    return ClipError(clip_id, own.name, BAD_OUTPUT, f"stage {own.name!r}: {_short(problem)}", hint)


def reserved(name: str) -> bool:
    """Whether a stage that handloom brings has this name."""
    return name in COLUMNS_OF


def _mend(own: OwnStage) -> str:
    """The hint of a fault in a stage's class."""
    return (
        f"mend {own.config.class_}, and run with --retry-rejects; if other clips get other values now, change its "
        f"version and run with --recompute {own.name}"
    )

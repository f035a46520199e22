"""The windows of stage 3: episodes of robots, their states in one form, and the cameras to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handloom.errors import ConfigError
from handloom.schemas.tables.robot import TABLE
from handloom.train.arm4r.data import scales
from handloom.train.arm4r.data.commands import check_commands, command_facts
from handloom.train.arm4r.data.control_sample import ControlSample
from handloom.train.arm4r.data.points import check_rate
from handloom.train.arm4r.network.turning import spread
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.robot_state import POSE_NAMES, StateForm, check_things, form_of, plain_name, thing_name
from handloom.train.parts.table_checks import STATISTICS_WINDOWS, evenly
from handloom.train.recipe import RecipeData

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

INGEST = "bring robots in with `handloom ingest lerobot` or `handloom ingest calvin`"


@dataclass(frozen=True)
class _Read:
    """What the episodes' names say. told: names of the things' numbers that the network gets; target: see `_target`."""

    rows: list[dict[str, Any]]
    state_names: list[str] | None
    cameras: tuple[str, ...]
    form: StateForm | None
    told: list[str]
    target: str


def _read(db: Database, settings: Arm4rSettings, version: int | None) -> _Read:
    rows = _episodes(db, settings, version)
    check_rate(settings, min(row["fps"] for row in rows))
    state_names = _alike(rows, "state_names", db)
    cameras = _cameras(rows, settings)
    form = form_of(state_names, _euler(rows, settings), settings.things)
    if settings.things:
        check_things(form, state_names, db.uri)
    told = _names(form, state_names)
    if unknown := [one for one in settings.things_hidden if not any(name.rpartition(".")[0] == one for name in told)]:
        raise ConfigError(
            f"things_hidden names {', '.join(unknown)}; the states have {', '.join(told)}", "name some of them"
        )
    return _Read(rows, state_names, cameras, form, told, _target(rows, state_names, settings))


def check_control(db: Database, settings: Arm4rSettings, version: int | None = None) -> None:
    """Raise ConfigError as `control_data` does, by names and filters alone: no window is read, no latent computed."""
    rows = _read(db, settings, version).rows
    if settings.is_told_by_motion():
        check_commands(db, settings, {row["task"] or "" for row in rows})


def control_data(db: Database, settings: Arm4rSettings, version: int | None = None) -> RecipeData:
    """Training and held-out windows of episodes; whole episodes are held out.

    Raises:
        ConfigError: there are no episodes; their states differ; an episode lacks a camera of the settings; the actions
            that the settings ask for have another form than the states; as `command_facts`.
    """
    read = _read(db, settings, version)
    rows, state_names, cameras, form, told, target = (
        read.rows, read.state_names, read.cameras, read.form, read.told, read.target
    )  # fmt: skip
    fields = tuple(f"images:{name}" for name in cameras)
    sample = ControlSample(settings.context, settings.predicted_steps(), form, target, fields)
    train = _windows(db, settings, version, "train", sample, fields)
    held_out = _windows(db, settings, version, "held_out", sample, fields)
    if not len(train):
        raise ConfigError(
            f"no window to train on in {len(rows)} episodes of {db.uri}: windows count {dict(train.counts)}",
            "use a smaller held_out_share, a higher rate_hz, or longer episodes",
        )
    plain = _windows(db, settings, version, "train", ControlSample(*_without_cameras(sample)), ())
    facts = statistics(plain, settings, told) | {
        "state_names": list(POSE_NAMES) if form else list(state_names or ()),
        "has_pose": form is not None,
        "things": _names(form_of(state_names, things=bool(settings.things)), state_names),
        "things_told": told,
        "target": target,
        "euler": form.euler if form else "",
        "cameras": list(cameras),
        "picture_size": _picture_size(db, settings, cameras, version),
        "robot_types": sorted({row["robot_type"] or "unknown" for row in rows}),
        "counts": {"rows": len(rows), "train": dict(train.counts), "held_out": dict(held_out.counts)},
    }
    if settings.is_told_by_motion():
        facts["command"] = command_facts(db, settings, {row["task"] or "" for row in rows})
    return RecipeData(train, held_out, train.version, facts)


def statistics(windows: Windows, settings: Arm4rSettings, things: Sequence[str] = ()) -> dict[str, Any]:
    """Sizes and, with `standardise`, means and deviations (see `scales`) from at most 512 training windows. things: the
    names of the numbers beside the pose."""
    found = [windows[index] for index in evenly(len(windows), STATISTICS_WINDOWS if settings.standardise else 1)]
    sides = {name: [sample[name] for sample in found] for name in ("state", "target")}
    if settings.turned or settings.scaled > 1:
        how = settings.turned, settings.scaled
        sides = {name: [one for some in every for one in spread(some, things, *how)] for name, every in sides.items()}
    return scales.of_control(sides["state"], sides["target"], settings.standardise)


def _episodes(db: Database, settings: Arm4rSettings, version: int | None) -> list[dict[str, Any]]:
    """The episodes' names of numbers, cameras and rates. Raises ConfigError where there are no episodes."""
    columns = ["episode_id", "state_names", "action_names", "cameras", "source_version", "fps", "robot_type", "task"]
    if db.table(TABLE, version) is None:
        raise ConfigError(f"there are no robot episodes in {db.uri}", INGEST)
    rows = db.read(TABLE, columns, settings.where or None, version).to_pylist()
    if not rows:
        raise ConfigError(f"where = {settings.where!r} passes no robot episode of {db.uri}", f"change it, or {INGEST}")
    return rows


def _names(form: StateForm | None, state_names: list[str] | None) -> list[str]:
    """The names of the things' numbers in a state."""
    return [thing_name((state_names or [])[index]) for index, _ in form.things] if form else []


def _alike(rows: Sequence[dict[str, Any]], column: str, db: Database) -> list[str] | None:
    """The names that all episodes share. Raises ConfigError with two episodes that differ."""
    for row in rows:
        if row[column] != rows[0][column]:
            raise ConfigError(
                f"{column} differ: {rows[0][column]} in {rows[0]['episode_id']}, {row[column]} in {row['episode_id']}",
                "train on one kind of robot: where = \"dataset = '...'\"",
            )
    return rows[0][column]


def _cameras(rows: Sequence[dict[str, Any]], settings: Arm4rSettings) -> tuple[str, ...]:
    """The cameras to use, none without an image encoder. Raises ConfigError where an episode lacks one."""
    if settings.image_encoder == "none":
        return ()
    for row in rows:
        missing = [name for name in settings.cameras if name not in row["cameras"]]
        if missing or not row["cameras"]:
            wanted = f"{missing[0]!r} is no camera" if missing else "there is no camera"
            raise ConfigError(
                f"{wanted} of {row['episode_id']}; its cameras: {row['cameras']}",
                "set cameras to some of them, or image_encoder = none",
            )
    return settings.cameras or tuple(rows[0]["cameras"][: settings.num_cameras])


def _picture_size(
    db: Database, settings: Arm4rSettings, cameras: Sequence[str], version: int | None
) -> list[int] | None:
    """Width and height of the first camera's stored pictures, in pixels; None without pictures."""
    windows = (
        None
        if not cameras
        else db.windows(
            past=1,
            future=1,
            fields=[f"images:{cameras[0]}"],
            pad=True,
            where=settings.where or None,
            version=version,
            table=TABLE,
            rate_hz=settings.rate_hz,
        )
    )
    image = None if windows is None else windows[0][f"images:{cameras[0]}"]
    return None if image is None else [image.shape[2], image.shape[1]]


def _euler(rows: Sequence[dict[str, Any]], settings: Arm4rSettings) -> str:
    """`xyz` for CALVIN (PyBullet's angles, about fixed axes), else the paper's `XYZ`; the setting goes first."""
    if settings.euler != "auto":
        return settings.euler
    return "xyz" if rows[0]["source_version"].startswith("calvin") else "XYZ"


def _target(rows: Sequence[dict[str, Any]], state_names: list[str] | None, settings: Arm4rSettings) -> str:
    """`action` or `next_state`. Raises ConfigError where the settings ask for actions that have another form."""
    names = [None if row["action_names"] is None else [plain_name(n) for n in row["action_names"]] for row in rows]
    state = None if state_names is None else [plain_name(n) for n in state_names]
    fits = state is not None and all(n == state for n in names)
    if settings.control_target == "action" and not fits:
        raise ConfigError(
            f"the actions ({rows[0]['action_names']}) have another form than the states ({state_names})",
            "use control_target = next_state: the states that the robot reached are then the targets",
        )
    return "action" if fits and settings.control_target != "next_state" else "next_state"


def _without_cameras(sample: ControlSample) -> tuple[int, int, StateForm | None, str, tuple[str, ...]]:
    return sample.context, sample.num_pred_steps, sample.form, sample.target, ()


def _windows(db, settings: Arm4rSettings, version, split: str, sample: ControlSample, images: Sequence[str]) -> Windows:
    return db.windows(
        past=1,
        future=settings.context + settings.predicted_steps() - 1,
        fields=["state", "task", *(["action"] if sample.target == "action" else []), *images],
        rate_hz=settings.rate_hz,
        stride=settings.stride,
        pad=True,
        where=settings.where or None,
        split=split,
        held_out_share=settings.held_out_share,
        seed=settings.seed,
        version=version,
        table=TABLE,
        image_size=settings.image_size if images else None,
        transform=sample,
    )

"""The windows of stages 1 and 2: which clips can be used, and the numbers the network is built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from handloom.errors import ConfigError
from handloom.store.embodiment import ALL, HUMAN, ROBOT, narrowed, robot_datasets
from handloom.store.sql import both
from handloom.train.arm4r.data import scales
from handloom.train.arm4r.data.shown import SHOWN_FIELDS, ShownSample
from handloom.train.arm4r.data.track_sample import TrackSample
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.rates import TOLERANCE, rates_of
from handloom.train.recipe import RecipeData

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

FIELDS = ("track_points_px", "track_visible", "track_kind", "width", "height", "narration")
WORLD_FIELDS = ("track_points_world_m", "world_from_camera", "world_unit_m")
STATISTICS_WINDOWS = 512
_COLUMNS = ("track_depth_source", "world_unit_m", "frame_jpeg")
_WITH_DEPTH = "track_depth_source IS NOT NULL"
_WITH_WORLD = "world_unit_m IS NOT NULL"
_WITH_PICTURES = "frame_jpeg IS NOT NULL"


@dataclass(frozen=True)
class PointData(RecipeData):
    """shown: the held-out windows again, with pictures, for the report."""

    shown: Windows = None


def point_data(db: Database, settings: Arm4rSettings, version: int | None = None) -> PointData:
    """Training and held-out windows of tracks.

    Held-out windows also carry the world, where the table has it, so that what moves can be measured apart.

    Raises:
        ConfigError: there are no clips, none with depth or none with poses where they are needed, no grid that the
            settings fit, all clips are shorter than a sample, or a split is empty.
    """
    version = version or settings.version or db.version
    counts = usable(db, settings, version)
    hz, slower = rates_of(db, narrowed(db, _filter(settings), embodiment_of(db, settings)), version, settings.rate_hz)
    check_rate(settings, hz)
    counts["slower"] = slower
    sample = TrackSample(
        settings.context,
        settings.points,
        settings.grid_points,
        settings.num_selected,
        settings.frame,
        images=settings.image_encoder != "none",
    )
    train = _windows(db, settings, version, "train", sample)
    held_out = _windows(db, settings, version, "held_out", sample, _measured(db, settings, version))
    at = 0 if settings.frame == "world" else settings.context // 2 - 1
    names = db.table("clips", version).schema.names
    shown_fields = [name for name in SHOWN_FIELDS if name in names or (name == "images" and _has_pictures(db, version))]
    drawn = ShownSample(replace(sample, images=False), at)
    shown = _windows(db, settings, version, "held_out", drawn, shown_fields)
    plain = _windows(db, settings, version, "train", replace(sample, images=False))
    facts = statistics(plain, settings) | {
        "num_points": sample.num_points,
        "counts": counts | {"train": dict(train.counts), "held_out": dict(held_out.counts)},
    }
    return PointData(train, held_out, train.version, facts, shown)


def usable(db: Database, settings: Arm4rSettings, version: int | None) -> dict[str, int]:
    """How many rows there are, how many of the stage's embodiment pass the filter, and how many of those lack depth or
    poses.

    Raises ConfigError where nothing is left.
    """
    table = None if version is None else db.table("clips", version)
    if table is None:
        raise ConfigError(f"there are no clips to train on in {db.uri}", "extract some with `handloom run --db DB`")
    missing = {*FIELDS, *_COLUMNS} - set(table.schema.names)
    if missing:
        raise ConfigError(
            f"the table of {db.uri} has no column {', '.join(sorted(missing))}",
            "it was extracted by an older handloom: extract into a new database",
        )
    embodiment = embodiment_of(db, settings)
    where = narrowed(db, settings.where or None, embodiment)
    asked = _count(db, where, version)
    counts = {"rows": _count(db, None, version), "asked_for": asked}
    if not asked:
        raise _none_asked_for(db, settings, version, counts["rows"])
    if settings.depth == "needed":
        counts["without_depth"] = asked - _count(db, both(where, _WITH_DEPTH), version)
        if counts["without_depth"] == asked:
            raise ConfigError(
                f"none of the {asked} clips has a depth for its tracks, so that z is unknown everywhere",
                "extract with a camera path, hands or a depth model (tracks.tracker = robust, depth.provider), "
                "or train on u and v alone with depth = none",
            )
    if settings.frame == "world":
        counts["without_world"] = asked - _count(db, both(where, _WITH_WORLD), version)
        if counts["without_world"] == asked:
            raise ConfigError(
                f"frame = world needs camera poses in metres, and none of the {asked} clips has them",
                "extract with camera.path, give poses in NAME.camera.json, or train with frame = camera",
            )
    return counts


def embodiment_of(db: Database, settings: Arm4rSettings) -> str:
    """Whose clips a stage trains on: `human` on those of people, `robot_points` on those of robots.

    A robot's videos may have come as plain ones, without episodes; `where` then says which they are.
    """
    if settings.stage != "robot_points":
        return HUMAN
    return ALL if settings.where and not robot_datasets(db) else ROBOT


def _none_asked_for(db: Database, settings: Arm4rSettings, version: int, rows: int) -> ConfigError:
    """Says whether there are clips of the other embodiment, which another stage trains on."""
    others = _count(db, settings.where or None, version)
    if not others:
        problem = f"where = {settings.where!r} passes none of {rows} clips of {db.uri}"
        return ConfigError(problem, "change `where`, or extract more clips")
    passing = f" that pass where = {settings.where!r}" if settings.where else f" of {db.uri}"
    asked, there = ("people", "robots") if embodiment_of(db, settings) == HUMAN else ("robots", "people")
    hint = "set stage = robot_points to train on clips of robots, or extract some of people"
    if there == "people":
        hint = "bring robots in with `handloom ingest lerobot` or `calvin`, then `handloom run`; or set stage = human"
    problem = f"stage {settings.stage!r} trains on clips of {asked}, and all {others} clips{passing} are of {there}"
    return ConfigError(problem, hint)


def check_rate(settings: Arm4rSettings, hz: float) -> None:
    """Raise ConfigError where steps are asked for faster than frames come: many would have none."""
    if settings.rate_hz is not None and settings.rate_hz > TOLERANCE * hz:
        raise ConfigError(
            f"rate_hz is {settings.rate_hz:g}, and the frames come at {hz:.3g} Hz",
            f"set rate_hz to {hz:.3g} or less, or extract with video.sample_hz = {settings.rate_hz:g}",
        )


def statistics(windows: Windows, settings: Arm4rSettings) -> dict[str, Any]:
    """`handloom.train.arm4r.data.scales` of up to 512 training windows, evenly spread."""
    picked = np.unique(np.linspace(0, len(windows) - 1, min(len(windows), STATISTICS_WINDOWS)).astype(int))
    if not settings.standardise:
        picked = picked[:1]
    return scales.of_points([windows[int(index)]["points"] for index in picked], settings.standardise)


def _windows(
    db, settings: Arm4rSettings, version, split: str, sample: TrackSample | ShownSample, extra: Sequence[str] = ()
) -> Windows:
    with_images = isinstance(sample, TrackSample) and sample.images
    fields = [*FIELDS, *extra]
    fields += ["track_depth_m"] if settings.depth == "needed" else []
    fields += WORLD_FIELDS if settings.frame == "world" else ()
    fields += ["track_query_frame"] if settings.points == "selected" else []
    fields += ["images"] if with_images else []
    return db.windows(
        past=1,
        future=settings.context,
        fields=fields,
        rate_hz=settings.rate_hz,
        stride=settings.stride,
        where=_filter(settings),
        embodiment=embodiment_of(db, settings),
        split=split,
        held_out_share=settings.held_out_share,
        seed=settings.seed,
        version=version,
        image_size=settings.image_size if with_images else None,
        transform=sample,
        track_grid=settings.track_grid,
    )


def _measured(db: Database, settings: Arm4rSettings, version: int | None) -> tuple[str, ...]:
    """The world's fields, where no clip would be left out for want of them."""
    if settings.frame == "world":
        return ()
    used = narrowed(db, _filter(settings), embodiment_of(db, settings))
    everywhere = _count(db, used, version) == _count(db, both(used, _WITH_WORLD), version)
    return WORLD_FIELDS if everywhere else ()


def _has_pictures(db: Database, version: int | None) -> bool:
    return db.read("clips", ["clip_id"], _WITH_PICTURES, version, limit=1).num_rows > 0


def _filter(settings: Arm4rSettings) -> str | None:
    parts = [settings.where] if settings.where else []
    parts += [_WITH_DEPTH] if settings.depth == "needed" else []
    parts += [_WITH_WORLD] if settings.frame == "world" else []
    return " AND ".join(f"({part})" for part in parts) or None


def _count(db: Database, where: str | None, version: int | None) -> int:
    return db.read("clips", ["clip_id"], where, version).num_rows

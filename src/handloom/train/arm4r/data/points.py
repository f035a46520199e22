"""The windows of stages 1 and 2: which clips can be used, and the sizes and statistics that the network needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from handloom.errors import ConfigError
from handloom.store.embodiment import ALL, HUMAN, ROBOT, narrowed, robot_datasets
from handloom.store.filters import both
from handloom.train.arm4r.data import scales
from handloom.train.arm4r.data.shown import SHOWN_FIELDS, ShownSample
from handloom.train.arm4r.data.track_sample import TrackSample
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.table_checks import STATISTICS_WINDOWS, TOLERANCE, count_clips, evenly, has_images, rates_of
from handloom.train.recipe import RecipeData

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

FIELDS = ("track_points_px", "track_visible", "track_kind", "width", "height", "narration")
WORLD_FIELDS = ("track_points_world_m", "world_from_camera", "world_unit_m")
_COLUMNS = ("track_depth_source", "world_unit_m", "frame_jpeg")
_WITH_DEPTH = "track_depth_source IS NOT NULL"
_WITH_WORLD = "world_unit_m IS NOT NULL"


@dataclass(frozen=True)
class PointData(RecipeData):
    """shown: the held-out windows once more, with images, for the report."""

    shown: Windows | None = None


def point_data(db: Database, settings: Arm4rSettings, version: int | None = None) -> PointData:
    """Training and held-out windows of tracks.

    Held-out windows also have world coordinates, if every clip has them, so that errors of moving points are reported.

    Raises:
        ConfigError: there are no clips; none has the depth or the poses that the settings need; the table's grid does
            not fit the settings; all clips are shorter than a sample; a split is empty.
        StoreError: the version no longer exists.
    """
    train, held_out, counts = point_sides(db, settings, version)
    version, sample = train.version, _sample(settings)
    at = 0 if settings.frame == "world" else settings.context // 2 - 1
    names = db.existing_table("clips", version).schema.names
    shown_fields = [name for name in SHOWN_FIELDS if name in names or (name == "images" and has_images(db, version))]
    drawn = ShownSample(replace(sample, images=False), at)
    shown = _windows(db, settings, version, "held_out", drawn, shown_fields)
    plain = _windows(db, settings, version, "train", replace(sample, images=False))
    facts = statistics(plain, settings) | {"num_points": sample.num_points, "counts": counts}
    return PointData(train, held_out, version, facts, shown)


def point_sides(
    db: Database, settings: Arm4rSettings, version: int | None = None
) -> tuple[Windows, Windows, dict[str, Any]]:
    """Training and held-out windows, none of which is read, and counts of clips. Raises as `point_data`."""
    version = version or settings.version or db.version
    counts: dict[str, Any] = {**usable(db, settings, version)}
    hz, slower = rates_of(db, narrowed(db, _filter(settings), embodiment_of(db, settings)), version, settings.rate_hz)
    check_rate(settings, hz)
    sample = _sample(settings)
    train = _windows(db, settings, version, "train", sample)
    held_out = _windows(db, settings, version, "held_out", sample, _measured(db, settings, version))
    counts |= {"slower": slower, "train": dict(train.counts), "held_out": dict(held_out.counts)}
    return train, held_out, counts


def usable(db: Database, settings: Arm4rSettings, version: int | None) -> dict[str, int]:
    """Counts of clips: `rows` in all, `asked_for` (of the stage's embodiment, that pass the filter), and of these
    `without_depth` and `without_world` (poses in metres), where the settings need them.

    Raises ConfigError where no clip is left.
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
    asked = count_clips(db, where, version)
    counts = {"rows": count_clips(db, None, version), "asked_for": asked}
    if not asked:
        raise _none_asked_for(db, settings, table.version, counts["rows"])
    if settings.depth == "needed":
        counts["without_depth"] = asked - count_clips(db, both(where, _WITH_DEPTH), version)
        if counts["without_depth"] == asked:
            raise ConfigError(
                f"none of the {asked} clips has a depth for its tracks, so that z is unknown everywhere",
                "extract with a camera path, hands or a depth model (tracks.tracker = robust, depth.provider), "
                "or train on u and v alone with depth = none",
            )
    if settings.frame == "world":
        counts["without_world"] = asked - count_clips(db, both(where, _WITH_WORLD), version)
        if counts["without_world"] == asked:
            raise ConfigError(
                f"frame = world needs camera poses in metres, and none of the {asked} clips has them",
                "extract with camera.path, give poses in NAME.camera.json, or train with frame = camera",
            )
    return counts


def embodiment_of(db: Database, settings: Arm4rSettings) -> str:
    """Whose clips a stage trains on: `human` on clips of people, `robot_points` on clips of robots.

    Videos of robots may have been ingested without episodes: `where` then chooses them among all clips.
    """
    if settings.stage != "robot_points":
        return HUMAN
    return ALL if settings.where and not robot_datasets(db) else ROBOT


def _none_asked_for(db: Database, settings: Arm4rSettings, version: int, rows: int) -> ConfigError:
    """The error for an empty selection; it names clips of the other embodiment, which another stage trains on."""
    others = count_clips(db, settings.where or None, version)
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
    """Raise ConfigError where steps come faster than frames: many steps would have no frame."""
    if settings.rate_hz is not None and settings.rate_hz > TOLERANCE * hz:
        raise ConfigError(
            f"rate_hz is {settings.rate_hz:g}, and the frames come at {hz:.3g} Hz",
            f"set rate_hz to {hz:.3g} or less, or extract with video.sample_hz = {settings.rate_hz:g}",
        )


def _sample(settings: Arm4rSettings) -> TrackSample:
    return TrackSample(
        settings.context,
        settings.points,
        settings.grid_points,
        settings.num_selected,
        settings.frame,
        images=settings.image_encoder != "none",
    )


def statistics(windows: Windows, settings: Arm4rSettings) -> dict[str, Any]:
    """Sizes and, with `standardise`, means and deviations (see `scales`) from at most 512 training windows."""
    picked = evenly(len(windows), STATISTICS_WINDOWS if settings.standardise else 1)
    return scales.of_points([windows[index]["points"] for index in picked], settings.standardise)


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
    """The fields of world coordinates, if all clips have them: windows leave out clips that lack a field."""
    if settings.frame == "world":
        return ()
    used = narrowed(db, _filter(settings), embodiment_of(db, settings))
    everywhere = count_clips(db, used, version) == count_clips(db, both(used, _WITH_WORLD), version)
    return WORLD_FIELDS if everywhere else ()


def _filter(settings: Arm4rSettings) -> str | None:
    parts = [settings.where] if settings.where else []
    parts += [_WITH_DEPTH] if settings.depth == "needed" else []
    parts += [_WITH_WORLD] if settings.frame == "world" else []
    return " AND ".join(f"({part})" for part in parts) or None

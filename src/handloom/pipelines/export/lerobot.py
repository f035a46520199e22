"""`handloom export lerobot`: first find what the rows have in common, then write them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.export.card import TALLIED, Card, CardTally
from handloom.export.images import jpeg_size
from handloom.export.lerobot.clips import (
    COLUMNS,
    SIGMA,
    TRACK_COLUMNS,
    WORLD,
    clip_columns,
    clip_episode,
    clip_layout,
    own_fields,
)
from handloom.export.lerobot.dataset import UNKNOWN, Episode, Layout, LeRobotSummary, export_lerobot
from handloom.export.lerobot.grids import BEGUN, GRID_COLUMNS, num_slots
from handloom.export.lerobot.robots import one_shape, robot_episode, robot_layout, shape_of
from handloom.export.steps import rate_of
from handloom.pipelines.export.parquet import opened
from handloom.plural import plural
from handloom.schemas.tables.robot import episode_arrays
from handloom.schemas.tables.row import row_arrays
from handloom.store.embodiment import ALL, HUMAN, ROBOT
from handloom.store.filters import clause, in_list
from handloom.store.stages.row_keys import StageKeys

BATCH_ROWS = 4
INDEX_ROWS = 256  # of a column of few bytes
TRACKS = (*TRACK_COLUMNS, SIGMA, *GRID_COLUMNS)
NO_TRACKS = {"num_tracks": None}
TITLES = {
    HUMAN: "Human hands as robot episodes",
    ROBOT: "Hands seen in clips of robots",
    ALL: "Hands seen in clips of people and of robots",
}
Size = tuple[int, int]
READING = """`meta/info.json` describes the features. Opens with LeRobot's own reader:

```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("local/handloom", root="DIR")
```

`meta/episodes` says for every episode which clip it is (`clip_id` or `episode_id`), and its licence."""
CLIP_LIMITS = (
    "`observation.state` is unknown where `observation.hand_visible` is false, and `action` where "
    "`next.hand_visible` is. Mask them; statistics count known values only.",
    "`action` is where the hands are one step later (absolute, camera frame of that step), not a command. "
    "The camera moves too; use the world's columns, where they are, to take that out.",
    "An empty task: no text describes the clip.",
    "`picture_valid` is false where a step has no frame of its own; its image is then the last one again.",
)
GRID_LIMITS = (
    "The first grid of points may have left the image long before an episode ends. Later ones are in `regrid_*`, in "
    "{slots}, each with one grid from its first step to its last: `regrid_query_frame` says in which step that began "
    "(-1: none). Take for a window a slot whose number is the same in all of its steps.",
)
ROBOT_LIMITS = ("`picture_valid` is false where an image was missing; the last one is there.",)
UNKNOWN_LIMITS = {
    "nan": "NaN is an unknown value. LeRobot's reader and normaliser pass it on; its tool that merges "
    "datasets makes nulls of it, which its reader cannot read.",
    "zero": "Unknown values are zero (`--unknown zero`): only the masks show which ones were measured.",
}
NO_IMAGES = "There are no images: the frames were not stored."


def lerobot(
    db: Database,
    out: str,
    where: str | None = None,
    *,
    table: str = "clips",
    embodiment: str = HUMAN,
    stage_keys: StageKeys = None,
    hz: float | None = None,
    size: Size | None = None,
    tracks: bool = False,
    unknown: str = "nan",
    **options: Any,
) -> LeRobotSummary:
    """Write `clips` or `robot_episodes` as one LeRobotDataset v3.0.

    Args:
        embodiment: of `clips`, whose: `human`, `robot` or `all`. stage_keys: only rows with these keys, by stage;
            `current`: those of the last run, for the columns that are read.
        hz: frames per second of the dataset; None: the rate of all rows. size: (width, height) that images are
            fitted into; None: the one that all have. tracks: with point tracks (clips only). unknown: `nan` or `zero`.

    Raises:
        StoreError: nothing is there to export, or `out` cannot be written.
        ConfigError: rates, image sizes, states or cameras differ; `out` is not empty; `where` is no SQL.
    """
    if unknown not in UNKNOWN:
        raise ConfigError(f"--unknown {unknown!r} is none of {', '.join(UNKNOWN)}")
    read = (*COLUMNS, *WORLD, *(TRACKS if tracks else ()))
    dataset, source, where = opened(db, table, where, embodiment, stage_keys, read)
    tally = CardTally()
    plan = _plan_clips if table == "clips" else _plan_robots
    if table != "clips" and tracks:
        raise ConfigError("robot_episodes has no tracks", "tracks of a robot's videos are in `clips`")
    layout, columns, make = plan(db, source, where, hz, size, tracks)
    layout = replace(layout, unknown=unknown)
    wanted = dict.fromkeys([*columns, *(name for name in TALLIED if name in dataset.schema.names)])
    batches = db.batches(list(wanted), where, dataset.version, BATCH_ROWS, table)
    limits = [*(CLIP_LIMITS if table == "clips" else ROBOT_LIMITS), UNKNOWN_LIMITS[unknown]]
    if BEGUN in layout.features:
        slots = plural(layout.features[BEGUN].shape[0], "slot")
        limits += [limit.format(slots=slots) for limit in GRID_LIMITS]
    limits += [] if any(feature.is_video for feature in layout.features.values()) else [NO_IMAGES]
    title = TITLES[embodiment] if table == "clips" else "Robot episodes"
    card = Card("lerobot", title, READING, source, "data/*/*.parquet", limits, ("LeRobot",))
    return export_lerobot(
        _episodes(tally.over(batches), layout, make),
        out,
        layout,
        card=lambda info: card.text(tally),
        metadata={**source, "hz": layout.hz, "unknown": unknown},
        **options,
    )


def _episodes(batches: Iterator[pa.RecordBatch], layout: Layout, make: Callable[..., Episode]) -> Iterator[Episode]:
    for batch in batches:
        for index in range(batch.num_rows):
            yield make(batch, index, layout)


def _plan_clips(
    db: Database, source: dict[str, Any], where: str | None, hz: float | None, size: Size | None, tracks: bool
):
    version = source["version"]
    columns = ["clip_id", "fps", "width", "height", "world_scale"]
    rows = db.read("clips", columns, where, version).to_pylist()
    _some(rows, where)
    hz = rate_of((_sampled_hz(row["fps"], source) for row in rows), hz, "clips")
    sources = {(row["width"], row["height"]): row["clip_id"] for row in rows}
    if _count(db, "frame_jpeg IS NULL", where, version):
        size = None
    else:
        sizes = {clip_id: _stored_size(db, clip_id, version) for clip_id in sources.values()}
        size = size or _one_size(sizes)
    world = all(row["world_scale"] == "metric" for row in rows)
    schema = _schema(db, "clips", version)
    world = world and set(WORLD) <= set(schema.names)
    of_tracks = _tracks(db, schema, where, version) if tracks else NO_TRACKS
    layout = clip_layout(hz, size, world=world, own=own_fields(schema), **of_tracks)
    names = [name for name in clip_columns(layout) if name in schema.names]
    return layout, names, lambda batch, index, layout: clip_episode(row_arrays(batch, index), layout)


def _tracks(db: Database, schema: pa.Schema, where: str | None, version: int) -> dict[str, Any]:
    """What the layout is told of tracks; a table of before has neither their sigma nor later grids."""
    found = {"num_tracks": schema.field("track_depth_m").type.value_type.list_size, "sigma": SIGMA in schema.names}
    if "regrid_frame" not in schema.names:
        return found
    slots = num_slots(db.batches(["regrid_frame"], where, version, INDEX_ROWS, "clips"))
    return found | {"slots": slots, "num_grid": schema.field("regrid_visible").type.value_type.list_size}


def _plan_robots(db: Database, source: dict[str, Any], where: str | None, hz: float | None, size: Size | None, _: bool):
    version = source["version"]
    columns = ["episode_id", "dataset", "fps", "robot_type", "cameras", "success"]
    columns += [f"{name}_{what}" for name in ("state", "action") for what in ("names", "units")]
    rows = db.read("robot_episodes", columns, where, version).to_pylist()
    _some(rows, where)
    hz = rate_of((row["fps"] for row in rows), hz, "robot episodes")
    missing = {name: _ids(db, f"{name} IS NULL", where, version) for name in ("frame_jpeg", "state", "action")}
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        lacks = tuple(row["episode_id"] in ids for ids in missing.values())
        groups.setdefault((row["dataset"], row["robot_type"], tuple(row["cameras"]), lacks), []).append(row)
    found = []
    for (*_, lacks), same in groups.items():
        widths = _widths(db, same[0]["episode_id"], version)
        found += [shape_of({**row, **widths}, not lacks[0]) for row in same]
    shape = one_shape(found)
    sizes = {}
    if shape.has_images:
        sizes = (
            {camera: size for camera in shape.cameras} if size else _camera_sizes(db, rows[0]["episode_id"], version)
        )
    units = {name: rows[0][f"{name}_units"] for name in ("state", "action")}
    layout = robot_layout(hz, shape, sizes, units, all(row["success"] is not None for row in rows))
    names = [name for name in _schema(db, "robot_episodes", version).names if name != "source_uri"]
    return layout, names, lambda batch, index, layout: robot_episode(episode_arrays(batch, index), layout)


def _schema(db: Database, name: str, version: int) -> pa.Schema:
    """The columns of a table whose rows were read. Raises StoreError: it has gone since."""
    table = db.table(name, version)
    if table is None:
        raise StoreError(f"the table {name} of {db.uri} is not there any more", "begin again")
    return table.schema


def _sampled_hz(fps: float, source: dict[str, Any]) -> float:
    """The rate of a clip's frames: the run's, or its video's where that is slower."""
    sample_hz = source.get("settings", {}).get("video", {}).get("sample_hz")
    if sample_hz is None:
        raise ConfigError("the database does not say at which rate its clips were sampled", "give --hz")
    return min(float(sample_hz), fps)


def _some(rows: list[Any], where: str | None) -> None:
    if not rows:
        raise ConfigError(f"no row passes --where {where!r}", "loosen the filter")


def _count(db: Database, condition: str, where: str | None, version: int) -> int:
    return len(db.read("clips", ["clip_id"], _both(where, condition), version))


def _ids(db: Database, condition: str, where: str | None, version: int) -> set[str]:
    rows = db.read("robot_episodes", ["episode_id"], _both(where, condition), version)
    return set(rows.column("episode_id").to_pylist())


def _both(where: str | None, condition: str) -> str:
    return condition if where is None else f"{clause(where)} AND {condition}"


def _widths(db: Database, episode_id: str, version: int) -> dict[str, int | None]:
    """How many numbers a frame of the episode's state and action has; None for one that is not there."""
    row = db.read("robot_episodes", ["state", "action"], in_list("episode_id", [episode_id]), version)
    cells = {name: row.column(name)[0] for name in row.column_names}
    return {f"{name}_width": len(cell[0]) if cell.is_valid and len(cell) else None for name, cell in cells.items()}


def _camera_sizes(db: Database, episode_id: str, version: int) -> dict[str, Size]:
    """The size of each camera's images in one episode; others are fitted into it, should they differ."""
    row = db.read("robot_episodes", ["cameras", "frame_jpeg"], in_list("episode_id", [episode_id]), version)
    found = {}
    for camera, jpegs in zip(row.column("cameras")[0].as_py(), row.column("frame_jpeg")[0], strict=True):
        first = next((jpeg.as_py() for jpeg in jpegs if jpeg.is_valid), None)
        if first is None:
            raise ConfigError(
                f"episode {episode_id} has no image of camera {camera}, so the size of its video is not known",
                "give --size WIDTHxHEIGHT",
            )
        found[camera] = _even(jpeg_size(first, f"an image of camera {camera} of episode {episode_id}"))
    return found


def _stored_size(db: Database, clip_id: str, version: int) -> Size:
    row = db.row(clip_id, ["frame_jpeg"], version)
    return jpeg_size(row.column("frame_jpeg")[0][0].as_py(), f"stored frame 0 of clip {clip_id}")


def _one_size(sizes: dict[str, Size]) -> Size:
    """The size of all images. Raises ConfigError, with every size and one of its clips, where they differ."""
    examples = {size: clip_id for clip_id, size in sizes.items()}
    if len(examples) == 1:
        return _even(next(iter(examples)))
    found = ", ".join(f"{w}x{h} (such as {clip_id})" for (w, h), clip_id in sorted(examples.items()))
    raise ConfigError(
        f"the clips' images differ in size, and a LeRobot dataset has one: {found}",
        "give --size WIDTHxHEIGHT to fit them all into one (black bars beside them), or choose some with --where",
    )


def _even(size: Size) -> Size:
    """4:2:0 wants even sides: a column or a row of black is added where one is odd."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2

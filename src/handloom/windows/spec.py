"""`WindowSpec`: the parameters of windows, and the columns that they need."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.schemas.tables.later_grids import GRID_INDEX
from handloom.schemas.tables.row import FRAME_SHAPES
from handloom.schemas.tables.stage_columns import is_private
from handloom.store.embodiment import HUMAN, check_embodiment

IMAGES = "images"
GROUPS: dict[str, tuple[str, ...]] = {
    "hands": ("hand_visible", "hand_keypoints_px", "hand_keypoints_cam_m"),
    "hands_world": ("hand_visible", "hand_keypoints_world_m"),
    "tracks": ("track_points_px", "track_depth_m", "track_visible", "track_kind", "track_query_frame"),
    "tracks_world": ("track_points_world_m", "track_visible", "track_kind", "track_query_frame"),
}
NEAREST, FIRST = "nearest", "first"
_GRID = (*GRID_INDEX, "regrid_visible", "track_visible")
_CAMERA = ("camera_matrix", "camera_source", "camera_distortion", "camera_model", "world_from_camera", "world_unit_m")
# The columns of later grids that a column of the tracks needs.
GRIDS_FOR: dict[str, tuple[str, ...]] = {
    "track_points_px": (*_GRID, "regrid_points_px"),
    "track_visible": _GRID,
    "track_depth_m": (*_GRID, "regrid_depth_m"),
    "track_sigma_px": (*_GRID, "regrid_sigma_px"),
    "track_points_world_m": (*_GRID, "regrid_points_px", "regrid_depth_m", *_CAMERA),
}
SPLITS = ("train", "held_out")
# Per table: its id, the columns that identify a video, and the columns with one value per frame.
ID_OF = {"clips": "clip_id", "robot_episodes": "episode_id"}
VIDEO_OF = {"clips": ("dataset", "video_id"), "robot_episodes": ("episode_id",)}
FRAMED = {
    "clips": frozenset(FRAME_SHAPES) | {"frame_flags"},
    "robot_episodes": frozenset({"state", "action"}),
}
# A condition on a light column that is true where the column is null; the column itself may have a megabyte a row.
_NO_WORLD = "world_scale IS NULL OR world_scale = 'none'"  # null: the stage was not computed
NULL_WHERE = {
    "hand_keypoints_world_m": _NO_WORLD,
    "track_points_world_m": _NO_WORLD,
    "world_from_camera": _NO_WORLD,
    "track_depth_m": "track_depth_source IS NULL",
}
COMPUTED_BY = {
    "hand_keypoints_world_m": 'poses: `camera.poses = "estimate"` finds them where the scene allows, or give them in '
    "NAME.camera.json",
    "frame_jpeg": "`frames.store = true` of `handloom run`, or images at `handloom ingest lerobot`",
    "track_depth_m": "camera paths, hands or a depth model: `depth.provider` of `handloom run`",
    "state": "`handloom ingest lerobot` or `calvin`, with the dataset's own key of it: --state",
    "action": "`handloom ingest lerobot` or `calvin`, with the dataset's own key of it: --action",
}
COMPUTED_BY |= dict.fromkeys(("track_points_world_m", "world_from_camera"), COMPUTED_BY["hand_keypoints_world_m"])


@dataclass(frozen=True)
class WindowSpec:
    """Everything that decides which windows there are and what they hold. Parameters as in `Database.windows`."""

    past: int
    future: int
    fields: tuple[str, ...]
    rate_hz: float | None = None
    stride: int = 1
    pad: bool = False
    where: str | None = None
    split: str | None = None
    held_out_share: float = 0.2
    seed: int = 0
    table: str = "clips"
    image_size: tuple[int, int] | None = None
    embodiment: str = HUMAN
    track_grid: str = NEAREST
    stage_keys: tuple[tuple[str, str], ...] = ()  # (stage, key) that rows must have, sorted; never `current`
    spans: tuple[tuple[str, float, float], ...] = ()  # (clip, start_s, end_s): its windows lie within these times
    optional: tuple[str, ...] = ()  # of the fields: rows in which they are null have windows, too

    @property
    def num_steps(self) -> int:
        """S, past (the last of which is now) and future."""
        return self.past + self.future

    @property
    def id_column(self) -> str:
        return ID_OF[self.table]

    @property
    def cameras(self) -> tuple[str | None, ...]:
        """The cameras whose images are asked for; None is the first one (or the only one of a clip)."""
        found = (name.partition(":") for name in self.fields if name.partition(":")[0] == IMAGES)
        return tuple(camera or None for _, _, camera in found)

    def grid_columns(self) -> list[str]:
        """The columns of later grids that the fields need; a table may lack them."""
        if self.table != "clips" or self.track_grid == FIRST:
            return []
        return list(dict.fromkeys(column for name in self.fields for column in GRIDS_FOR.get(name, ())))

    def columns(self) -> list[str]:
        """The table's columns that a sample holds, `frame_s` and the id first."""
        names = [self.id_column, "frame_s"]
        if self.cameras:
            names += ["frame_jpeg", *(["cameras"] if self.table == "robot_episodes" else [])]
        names += [name for name in self.fields if name.partition(":")[0] != IMAGES]
        return list(dict.fromkeys(names))

    def read_columns(self) -> list[str]:
        """The columns that samples are made of; a table may lack those of later grids."""
        return [*self.columns(), *self.grid_columns()]

    def key(self) -> str:
        """Hash of the spec: 16 hex digits."""
        content = asdict(self)
        if self.embodiment == HUMAN:  # specs from before this parameter existed keep their key
            del content["embodiment"]
        if self.track_grid == NEAREST:
            del content["track_grid"]
        if not self.stage_keys:
            del content["stage_keys"]
        for name in ("spans", "optional"):
            if not content[name]:
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def make_spec(*, fields: Sequence[str], image_size: int | Sequence[int] | None = None, **values: Any) -> WindowSpec:
    """The spec, with groups replaced by their columns. Raises ConfigError for values out of range."""
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if isinstance(fields, str):
        raise ConfigError(f"fields={fields!r}: expected a list of columns and groups", f"fields=[{fields!r}]")
    names = dict.fromkeys(column for name in fields for column in GROUPS.get(name, (name,)))
    size: Any = None if image_size is None else tuple(image_size)  # of two numbers: checked
    values["optional"] = tuple(values.get("optional", ()))
    spec = WindowSpec(fields=tuple(names), image_size=size, **values)
    _check(spec)
    return spec


def check_columns(spec: WindowSpec, schema: pa.Schema) -> None:
    """Raise ConfigError for a field that the table does not have, with the nearest names."""
    known = [*(name for name in schema.names if not is_private(name)), *GROUPS, IMAGES]
    for name in spec.columns():
        if is_private(name):
            problem = f"fields names {name!r}, which only handloom's own stages read"
            raise ConfigError(problem, "the stage's columns in docs/tables.md hold what is for readers")
        if name not in schema.names:
            near = difflib.get_close_matches(name, known, 3, 0.5)
            raise ConfigError(
                f"fields names {name!r}, which table {spec.table} does not have",
                f"did you mean {', '.join(near)}?" if near else f"expected any of {', '.join(known)}",
            )


def _check(spec: WindowSpec) -> None:
    check_embodiment(spec.embodiment)
    if spec.table not in ID_OF:
        raise ConfigError(f"table {spec.table!r}", f"one of {', '.join(ID_OF)}")
    unasked = [name for name in spec.optional if name not in spec.fields]
    if unasked:
        raise ConfigError(f"optional names {', '.join(unasked)}, which fields does not", "name columns of `fields`")
    if spec.track_grid not in (NEAREST, FIRST):
        raise ConfigError(
            f"track_grid {spec.track_grid!r}",
            f"{NEAREST}: the grid that shows most, {FIRST}: ARM4R's, of the first frame",
        )
    if spec.past < 1 or spec.future < 0:
        raise ConfigError(
            f"past={spec.past}, future={spec.future}", "past counts `now`, so it is 1 or more; future 0 or more"
        )
    if spec.stride < 1 or (spec.rate_hz is not None and not 0 < spec.rate_hz <= 1000):
        raise ConfigError(f"stride={spec.stride}, rate_hz={spec.rate_hz}", "a stride of 1 or more, a rate above 0")
    if spec.split is not None and spec.split not in SPLITS:
        raise ConfigError(f"split {spec.split!r}", f"one of {', '.join(SPLITS)}, or None for both")
    if not 0 <= spec.held_out_share < 1:
        raise ConfigError(f"held_out_share {spec.held_out_share}", "a share, 0 to below 1")
    if spec.image_size is not None and (len(spec.image_size) != 2 or min(spec.image_size) < 1):
        raise ConfigError(f"image_size {spec.image_size}", "a side, or (height, width), in pixels")
    if spec.table == "clips" and spec.cameras not in ((), (None,)):
        raise ConfigError(f"fields {spec.fields}: a clip has one camera", "say images, without a camera's name")

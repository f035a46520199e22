"""A window of the table as ARM4R's sample: normalised (u, v, z) of the chosen points, images and the narration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.geometry.tracks.arm4r_scale import PER_PX, at_912x512, subgrid
from handloom.schemas.values import TrackKind

Floats = NDArray[np.float32]

SELECTED_KINDS = (TrackKind.LEFT_HAND, TrackKind.RIGHT_HAND, TrackKind.MOVING)
MOVES_M_S = 0.05
"""A point whose place in the world changes faster than this between two steps counts as moving."""


@dataclass(frozen=True)
class TrackSample:
    """The windows' transform of stages 1 and 2; runs in loader workers.

    context: steps of the sample; the window has one more, the last step's target. points, grid_points, num_selected,
    frame: as in the settings. images: whether the sample has images.
    """

    context: int
    points: str
    grid_points: int
    num_selected: int
    frame: str
    images: bool

    @property
    def num_points(self) -> int:
        """N of the sample."""
        return self.grid_points**2 if self.points == "grid" else self.num_selected

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """`points` (context + 1, N, 3) float32, NaN where unknown: (u', v', z') or, with `frame` world, metres; `slots`
        (N,) int32, the track of each point, -1 for none; `images` (context, 1, h, w, 3) uint8; `text`; `moves`
        (context, N) bool, if the windows have world coordinates: the point is known to move from this step to the next.

        Raises:
            StoreError: a step has no image.
            ConfigError: the row's grid does not fit `grid_points`.
        """
        slots = self._slots(sample)
        used = slots >= 0
        place = self._places(sample, slots).astype(np.float32)
        known = self._known(sample, slots) & used
        place[~known] = np.nan
        out = {
            "clip_id": sample["clip_id"],
            "now_s": sample["now_s"],
            "text": sample.get("narration") or "",
            "points": place,
            "slots": slots.astype(np.int32),
        }
        if self.images:
            out["images"] = images(sample, self.context)
        if "track_points_world_m" in sample:
            out["moves"] = self._moves(sample, slots, known)
        return out

    def _slots(self, sample: Mapping[str, Any]) -> NDArray[np.int64]:
        """(N,) indices of the row's tracks that the sample takes, -1 for an empty slot."""
        kind = np.asarray(sample["track_kind"])
        if self.points == "grid":
            return grid_slots(kind, self.grid_points, sample["clip_id"])
        seen = self._known(sample, np.arange(len(kind)))[0]
        share = self.num_selected // len(SELECTED_KINDS)
        out = np.full(self.num_selected, -1, np.int64)
        for number, wanted in enumerate(SELECTED_KINDS):
            found = np.flatnonzero(kind == wanted)
            found = np.sort(found[np.argsort(~seen[found], kind="stable")][:share])  # those visible now first
            out[number * share : number * share + len(found)] = found
        return out

    def _known(self, sample: Mapping[str, Any], slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(context + 1, slots): visible in a valid step, not before its query frame."""
        known = np.asarray(sample["track_visible"])[:, slots] & np.asarray(sample["valid"])[:, None]
        if self.points == "grid":
            return known
        return known & (np.asarray(sample["track_query_frame"])[slots] <= np.asarray(sample["frame_index"])[:, None])

    def _places(self, sample: Mapping[str, Any], slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """(context + 1, slots, 3) in the units of the setting `frame`."""
        # Tracks are chosen before they are converted: a row has ten times as many.
        if self.frame == "world":
            world_m = np.asarray(sample["track_points_world_m"])[:, slots]
            return in_first_camera(world_m, sample["world_from_camera"], float(sample["world_unit_m"]))
        pixels = at_912x512(np.asarray(sample["track_points_px"])[:, slots], sample["width"], sample["height"])
        depth = sample.get("track_depth_m")
        depth = np.full(pixels.shape[:2], np.nan) if depth is None else np.asarray(depth)[:, slots]
        return np.concatenate([PER_PX * pixels, depth[..., None]], axis=-1)

    def _moves(self, sample: Mapping[str, Any], slots, known) -> NDArray[np.bool_]:
        if sample["track_points_world_m"] is None:
            return np.zeros_like(known[1:])
        world = np.asarray(sample["track_points_world_m"])[:, slots]
        step_s = np.diff(np.asarray(sample["frame_s"]))[:, None]
        speed = np.linalg.norm(np.diff(world, axis=0), axis=-1) / step_s
        with np.errstate(invalid="ignore"):
            return (speed > MOVES_M_S) & known[1:] & known[:-1]


def grid_slots(kind: NDArray[np.integer], grid_points: int, clip_id: str) -> NDArray[np.int64]:
    """Indices of the `grid_points` x `grid_points` sub-grid of a row's grid. Raises ConfigError where it has none."""
    num = int((kind == TrackKind.GRID).sum())
    side = round(num**0.5)
    if side * side != num or not (kind[:num] == TrackKind.GRID).all() or side % grid_points or not num:
        raise ConfigError(
            f"grid_points is {grid_points}, which does not divide the grid of this table: {num} grid points "
            f"(clip {clip_id})",
            f"extract with tracks.grid = 36, or train with grid_points set to a divisor of {side}",
        )
    return subgrid(grid_points, side)


def in_first_camera(world_m: NDArray, world_from_camera: NDArray, unit_m: float) -> NDArray[np.float64]:
    """(S, N, 3) points in world metres to metres in the camera frame of the first step; all NaN without that pose.

    world_from_camera: (S, 4, 4) with translations in units of `unit_m` metres.

    Ours: a point at rest then has the same coordinates in all steps, however the camera moves.
    """
    pose = np.asarray(world_from_camera, np.float64)[0]
    return (np.asarray(world_m, np.float64) - unit_m * pose[:3, 3]) @ pose[:3, :3]


def images(sample: Mapping[str, Any], context: int, name: str = "images") -> NDArray[np.uint8]:
    """(context, 1, h, w, 3) uint8 images of the steps.

    Raises StoreError where a valid step has no image: the released loader puts random pixels there without a warning.
    """
    valid = np.asarray(sample["valid"])[:context]
    missing = valid & ~np.asarray(sample[f"{name}_valid"])[:context]
    if missing.any():
        raise StoreError(
            f"{int(missing.sum())} of {int(valid.sum())} images are missing or unreadable "
            f"({sample.get('clip_id') or sample.get('episode_id')}, from {float(sample['now_s']):.3f} s)",
            "extract with frames.store = true, or train with image_encoder = none",
        )
    return np.asarray(sample[name])[:context, None]

"""A clip's world from above and from the side: the camera's path, the wrists' paths and the tracked points."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.certainty import STILL, scale_sigma
from handloom.draw.frame import BACKGROUND
from handloom.draw.overlay import EDGE, HAND_COLORS, WHITE
from handloom.draw.text import line_height, put_text, text_width
from handloom.geometry.tracks.stored_grids import WORLD, StoredGrids
from handloom.schemas.values import NUM_HANDS, TrackKind

TEXT_PX = 14
MARGIN_PX = 24
NO_SCALE = "scale unknown"
STILL_M = 0.02  # a smaller world, of a camera at rest without hands, has no bar
POINT_COLORS = {
    TrackKind.GRID: (120, 128, 136),
    TrackKind.CORNER: (150, 158, 166),
    TrackKind.LEFT_HAND: HAND_COLORS[0],
    TrackKind.RIGHT_HAND: HAND_COLORS[1],
    TrackKind.MOVING: (0, 158, 115),
}
VIEWS = (("from above", (0, 2), (1, -1)), ("from the side", (2, 1), (1, 1)))  # axes of the first camera frame, signs


def draw_world(row: dict[str, Any], width: int, height: int) -> NDArray[np.uint8] | None:
    """(height, width, 3) RGB with two views in the frame of the first camera that has a pose; None without poses.

    White: the camera, with a ring at its start. Blue, orange: left and right wrist. Dots: the median position of each
    track, coloured by its kind. Both views have one scale, so that the noise of a straight path is not magnified from
    the side. A bar shows a length and its uncertainty if the scale is metric and the world is larger than `STILL_M`;
    otherwise words say what is known.
    """
    poses = row.get("world_from_camera")
    if poses is None or not np.isfinite(poses).all(axis=(1, 2)).any():
        return None
    known = np.isfinite(poses).all(axis=(1, 2))
    first_from_world = np.linalg.inv(poses[known][0].astype(np.float64))
    camera = _moved(first_from_world, np.where(known[:, None], poses[:, :3, 3], np.nan))
    hands = row.get("hand_keypoints_world_m")
    wrists = [] if hands is None else [_moved(first_from_world, hands[:, hand, 0]) for hand in range(NUM_HANDS)]
    points, kinds = _still_places(row, first_from_world)
    panel = np.full((height, width, 3), BACKGROUND, np.uint8)
    half = width // 2
    views: list[list[NDArray[Any]]] = [
        [np.asarray(p)[:, axes] * signs for p in (camera, *wrists, points)] for _, axes, signs in VIEWS
    ]
    boxes = [_bounds(flat) for flat in views]
    unit_px = min(_unit_px(box, half, height) for box in boxes)
    for number, ((title, _, _), flat, box) in enumerate(zip(VIEWS, views, boxes, strict=True)):
        part = panel[:, number * half : (number + 1) * half]
        to_px = _placed(box, unit_px, half, height)
        for kind, color in POINT_COLORS.items():
            for x, y in to_px(flat[-1][kinds == kind]).round().astype(int).tolist():
                cv2.circle(part, (x, y), 2, color, cv2.FILLED, cv2.LINE_AA)
        for hand, path in enumerate(flat[1:-1]):
            _draw_path(part, to_px(path), HAND_COLORS[hand])
        _draw_path(part, to_px(flat[0]), WHITE)
        cv2.circle(part, to_px(flat[0][known][:1]).round().astype(int)[0].tolist(), 5, WHITE, 1, cv2.LINE_AA)
        put_text(part, title, (8, 4), TEXT_PX, WHITE, EDGE)
        is_metric = row.get("world_scale") == "metric"
        if is_metric and max(part.shape[:2]) / unit_px > STILL_M:
            _draw_bar(part, unit_px, scale_sigma(row))
        for line, words in enumerate(_words(row, is_metric)):
            y = part.shape[0] - (line + 1 + 2 * is_metric) * line_height(TEXT_PX) - (MARGIN_PX if is_metric else 2)
            put_text(part, words, (part.shape[1] - text_width(words, TEXT_PX) - MARGIN_PX, y), TEXT_PX, WHITE, EDGE)
    return panel


def _words(row: dict[str, Any], is_metric: bool) -> list[str]:
    still = STILL.get(row.get("camera_path_reason") or "")
    return [*([] if is_metric else [NO_SCALE]), *([still] if still else [])]


def _moved(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    return points.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def _still_places(row: dict[str, Any], first_from_world: NDArray[np.float64]):
    """(n, 3) median positions of the tracks and of later grids' points, those that have one, and (n,) their kinds."""
    points, kinds = row.get("track_points_world_m"), row.get("track_kind")
    if points is None or kinds is None:
        return np.empty((0, 3)), np.empty(0, np.int8)
    found = [(points, kinds)]
    if (grids := StoredGrids.of(row)) is not None:
        of_grid = np.full(grids.num_points, TrackKind.GRID, np.int8)
        every = range(len(grids.query_frame))
        found += [(grids.take(number, WORLD, grids.frames(number)), of_grid) for number in every]
    places = [_median(points) for points, _ in found]
    kinds = np.concatenate([kinds[np.isfinite(points).all(axis=-1).any(axis=0)] for points, kinds in found])
    return _moved(first_from_world, np.concatenate(places)), kinds


def _median(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 3) median positions of (T, N, 3) points; points that are never known are left out."""
    placed = np.isfinite(points).all(axis=-1).any(axis=0)
    return np.nanmedian(points[:, placed].astype(np.float64), axis=0) if placed.any() else np.empty((0, 3))


def _bounds(paths: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(2, 2) corners of a view: it shows all of the camera's and the wrists' paths and nine tenths of the points."""
    solid = np.concatenate([path[np.isfinite(path).all(axis=1)] for path in paths[:-1]])
    bounds = np.stack([solid.min(axis=0), solid.max(axis=0)])
    if len(paths[-1]):
        spread = np.quantile(paths[-1], [0.05, 0.95], axis=0)
        bounds = np.stack([np.minimum(bounds[0], spread[0]), np.maximum(bounds[1], spread[1])])
    return bounds


def _unit_px(bounds: NDArray[np.float64], width: int, height: int) -> float:
    """Pixels per unit at which a view fills its part of the image."""
    size = np.maximum(bounds[1] - bounds[0], 1e-6)
    return float(np.min((np.array([width, height]) - 2 * MARGIN_PX) / size))


def _placed(bounds: NDArray[np.float64], unit_px: float, width: int, height: int):
    """A function from positions in a view, (n, 2), to pixels; the centre of `bounds` is the centre of the image."""
    middle = bounds.mean(axis=0)
    return lambda p: (p - middle) * unit_px + np.array([width, height]) / 2


def _draw_path(part: NDArray[np.uint8], path_px: NDArray[np.float64], color: tuple[int, int, int]) -> None:
    seen = np.isfinite(path_px).all(axis=1)
    for start, end in zip(path_px[:-1][seen[:-1] & seen[1:]], path_px[1:][seen[:-1] & seen[1:]], strict=True):
        first, last = (np.clip(p, -30_000, 30_000).round().astype(int).tolist() for p in (start, end))
        cv2.line(part, first, last, color, 2, cv2.LINE_AA)


def _draw_bar(part: NDArray[np.uint8], unit_px: float, sigma: float | None) -> None:
    """A bar of the largest round length below a third of the image, with its uncertainty, one standard deviation."""
    longest = part.shape[1] / 3 / unit_px
    length = max((m * 10.0**e for m in (1, 2, 5) for e in range(-4, 5) if m * 10.0**e <= longest), default=longest)
    y, x = part.shape[0] - 14, part.shape[1] - 14
    cv2.line(part, (round(x - length * unit_px), y), (x, y), WHITE, 2, cv2.LINE_AA)
    name = f"{length:g} m" if length >= 1 else f"{length * 100:g} cm"
    name += "" if sigma is None else f" ± {sigma:.0%}"
    left = min(round(x - length * unit_px), x - text_width(name, TEXT_PX))
    put_text(part, name, (left, y - TEXT_PX - 8), TEXT_PX, WHITE, EDGE)

"""A clip as a Rerun recording (.rrd): images, camera, hands, tracks and moved things in 3D over time.

`rerun FILE.rrd` opens it (the package `rerun-sdk`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.frames import Frames, match_frames, other_video
from handloom.draw.overlay import HAND_COLORS, SKELETON, track_colors
from handloom.draw.segments.things import MovedThing, color_of, marked_tracks, moved_things
from handloom.errors import ConfigError, with_extra
from handloom.geometry.tracks.stored_grids import window_tracks
from handloom.io.atomic import atomic_file

HAND_NAMES = ("left", "right")
JPEG_QUALITY = 85
NEEDS_RERUN = f"{with_extra('rerun')}; or name the file .png or .mp4"


def write_recording(frames: Frames, row: dict[str, Any], path: str | Path) -> None:
    """A recording of all of the row's frames, on the timeline `frame_s` (seconds on the video's clock).

    With poses all is in the world of `world_from_camera` (`/world`), in metres if the scale is known; without poses, in
    the camera's frame. NaN values are left out.

    Raises:
        ConfigError: rerun-sdk is not installed, or the frames are not the row's.
        StoreError: the file cannot be written.
    """
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise ConfigError("a .rrd file needs the package rerun-sdk, which is not installed", NEEDS_RERUN) from error
    with atomic_file(path) as draft:
        recording = rerun.RecordingStream("handloom", recording_id=row["clip_id"])
        recording.save(str(draft))
        recording.log("world", rerun.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
        scale = 1.0 if row.get("world_unit_m") is None else float(row["world_unit_m"])
        if row.get("camera_distortion") is not None:
            # Rerun has pinhole cameras only: without this note its image and its hands seem to contradict each other.
            recording.log("lens", rerun.TextDocument(_lens_note(row)), static=True)
        things = moved_things(row) if _has_world(row) else []
        num_drawn = 0
        for index, image in match_frames(frames, row):
            recording.set_time("frame_s", duration=float(row["frame_s"][index]))
            _log_camera(rerun, recording, row, index, image, scale)
            _log_hands(rerun, recording, row, index)
            _log_tracks(rerun, recording, row, index)
            _log_things(rerun, recording, things, index)
            num_drawn += 1
        recording.flush()
        recording.disconnect()
        if num_drawn != len(row["frame_s"]):
            raise other_video(row, num_drawn)


def _has_world(row: dict[str, Any]) -> bool:
    return row.get("world_from_camera") is not None


def _lens_note(row: dict[str, Any]) -> str:
    return (
        f"The lens distorts ({row.get('camera_model') or 'opencv'}). Positions in 3D are true; the image and the "
        "points on it are as the lens shows them, but the frustum is that of a pinhole with the same matrix: near the "
        "edges 3D and image do not coincide."
    )


def _log_camera(rerun, recording, row: dict[str, Any], index: int, image: NDArray[np.uint8], scale: float) -> None:
    height, width = image.shape[:2]
    shrink = np.array([width / row["width"], height / row["height"]])
    matrix = np.array(row["camera_matrix"], np.float64).reshape(3, 3).copy()
    matrix[:2, 2] += 0.5  # (0, 0) is the corner of the first pixel in Rerun, its centre in handloom
    matrix[:2] *= shrink[:, None]
    if _has_world(row):
        pose = row["world_from_camera"][index].astype(np.float64)
        if np.isfinite(pose).all():
            recording.log("world/camera", rerun.Transform3D(translation=pose[:3, 3] * scale, mat3x3=pose[:3, :3]))
        else:
            recording.log("world/camera", rerun.Clear(recursive=False))
    recording.log(
        "world/camera/image",
        rerun.Pinhole(image_from_camera=matrix, resolution=[width, height], image_plane_distance=0.2),
    )
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    recording.log("world/camera/image", rerun.EncodedImage(contents=data.tobytes(), media_type="image/jpeg"))
    points, visible = row.get("track_points_px"), row.get("track_visible")
    if points is not None:
        now = window_tracks(row, np.array([index]))
        seen, visible = now["track_points_px"][0], now["track_visible"][0]
        shown = visible & np.isfinite(seen).all(axis=-1)
        colors = track_colors(points[0], row["width"], row["height"])[shown]
        places = (seen[shown] + 0.5) * shrink
        recording.log("world/camera/image/tracks", rerun.Points2D(places, colors=colors, radii=1.5))
        _log_marked(rerun, recording, row, index, shrink)


def _log_marked(rerun, recording, row: dict[str, Any], index: int, shrink: NDArray[np.float64]) -> None:
    """The points of the things that hands come to or move."""
    marked = list(marked_tracks(row, index))
    places = [(row["track_points_px"][index, tracks] + 0.5) * shrink for _, tracks in marked]
    colors = [color for color, tracks in marked for _ in tracks]
    at = np.concatenate([np.empty((0, 2)), *places])
    recording.log("world/camera/image/things", rerun.Points2D(at, colors=colors, radii=3.0))


def _log_hands(rerun, recording, row: dict[str, Any], index: int) -> None:
    in_world = _has_world(row) and row.get("hand_keypoints_world_m") is not None
    keypoints = row.get("hand_keypoints_world_m" if in_world else "hand_keypoints_cam_m")
    for hand, name in enumerate(HAND_NAMES):
        entity = f"world/hands/{name}" if in_world else f"world/camera/hands/{name}"
        points = None if keypoints is None else keypoints[index, hand]
        if points is None or not np.isfinite(points).all():
            recording.log(entity, rerun.Clear(recursive=True))
            continue
        color = HAND_COLORS[hand]
        recording.log(f"{entity}/keypoints", rerun.Points3D(points, colors=[color] * len(points), radii=0.004))
        bones = [points[[a, b]] for a, b in SKELETON]
        recording.log(f"{entity}/bones", rerun.LineStrips3D(bones, colors=[color] * len(bones), radii=0.002))


def _log_tracks(rerun, recording, row: dict[str, Any], index: int) -> None:
    points = row.get("track_points_world_m")
    if points is None:
        return
    points = window_tracks(row, np.array([index]))["track_points_world_m"][0]
    shown = np.isfinite(points).all(axis=-1)
    colors = track_colors(row["track_points_px"][0], row["width"], row["height"])[shown]
    recording.log("world/tracks", rerun.Points3D(points[shown], colors=colors, radii=0.003))


def _log_things(rerun, recording, things: list[MovedThing], index: int) -> None:
    """The box and the axes of every thing whose pose is known in a frame."""
    for thing in things:
        entity, pose = f"world/things/{thing.name}", thing.poses[index]
        if not np.isfinite(pose).all():
            recording.log(entity, rerun.Clear(recursive=True))
            continue
        recording.log(entity, rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        low, high = thing.box_m[:3], thing.box_m[3:]
        box = rerun.Boxes3D(centers=[(low + high) / 2], sizes=[high - low], colors=[color_of(thing.name)])
        recording.log(f"{entity}/box", box)
        recording.log(f"{entity}/axes", rerun.Arrows3D(vectors=0.05 * np.eye(3), colors=255 * np.eye(3, dtype=int)))

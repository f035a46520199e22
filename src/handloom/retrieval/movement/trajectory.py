"""A trajectory of hands as a query: keypoints with their times, from a file or from arrays."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.schemas.hand_topology import MIDDLE, WRIST
from handloom.schemas.values import LEFT, NUM_HANDS, NUM_KEYPOINTS, RIGHT, Hands, Tracks, VideoInfo

SIDES = {"left": LEFT, "right": RIGHT}
PALM_M = (0.03, 0.3)  # wrist to the middle finger's base; an adult's is 0.09
FORMAT = (
    "an .npz file with `keypoints` (T, 2, 21, 3) or (T, 21, 3), metres in the camera frame (x right, y down, z "
    "forward), and `frame_s` (T,) seconds"
)
NAMES = ("keypoints", "frame_s", "hand")
UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, TokenError)
"""What numpy raises for damaged files."""
WIDTH_PX, HEIGHT_PX, FOCAL_PX = 640, 480, 500.0  # of the camera that the embedding is computed for
GRID = 13  # rows and columns of points at rest


@dataclass(frozen=True)
class Trajectory:
    """keypoints_cam_m: (T, 2, 21, 3) float32, left and right hand, NaN where not seen. frame_s: (T,) increasing."""

    keypoints_cam_m: NDArray[np.float32]
    frame_s: NDArray[np.float64]


def read_trajectory(given: Any, hz: float | None = None) -> Trajectory:
    """A trajectory from a file (.npz, or .npy of keypoints alone with `hz`), or from a pair (keypoints, frame_s).

    One hand, (T, 21, 3), is the right one; an .npz file may say `hand` = "left".

    Raises:
        ConfigError: the file cannot be read, or what it holds is no trajectory of hands.
    """
    if isinstance(given, Trajectory):
        return given
    if isinstance(given, str | Path):
        keypoints, frame_s, hand = _load(Path(given), hz)
        name = str(given)
    else:
        if not isinstance(given, tuple | list) or len(given) != 2:
            kind = type(given).__name__
            raise ConfigError(f"a trajectory of type {kind}", f"a pair (keypoints, frame_s), or {FORMAT}")
        (keypoints, frame_s), hand, name = given, "right", "the trajectory"
    try:
        return _checked(np.asarray(keypoints), np.asarray(frame_s), hand, name)
    except (ValueError, TypeError) as error:  # lists of lists of several lengths
        raise ConfigError(f"{name} holds no arrays: {error}", FORMAT) from error


def _load(path: Path, hz: float | None) -> tuple[Any, Any, str]:
    try:
        with open(path, "rb") as file:
            held = np.load(file, allow_pickle=False)
            is_bare = isinstance(held, np.ndarray)
            there = ["keypoints"] if is_bare else held.files
            arrays = {"keypoints": held} if is_bare else {name: held[name] for name in NAMES if name in there}
    except UNREADABLE as error:
        raise ConfigError(f"the trajectory {path} cannot be read: {error}", FORMAT) from error
    if is_bare:
        if hz is None or not 0 < hz < 100_000:
            raise ConfigError(f"the trajectory {path} holds keypoints without times", f"give its hz, or {FORMAT}")
        return held, np.arange(len(held) if held.ndim else 0) / hz, "right"
    lacking = [name for name in ("keypoints", "frame_s") if name not in arrays]
    if lacking:
        raise ConfigError(f"the trajectory {path} has no {' and no '.join(lacking)}: {', '.join(there)}", FORMAT)
    if hz is not None:
        raise ConfigError(f"the trajectory {path} has times, and hz is given", "leave hz out")
    return arrays["keypoints"], arrays["frame_s"], str(arrays.get("hand", "right"))


def _checked(keypoints: NDArray[Any], frame_s: NDArray[Any], hand: str, name: str) -> Trajectory:
    if keypoints.dtype.kind not in "fiu" or frame_s.dtype.kind not in "fiu":
        raise ConfigError(f"{name} holds {keypoints.dtype} and {frame_s.dtype}, expected numbers", FORMAT)
    one_hand = keypoints.shape[1:] == (NUM_KEYPOINTS, 3)
    if not one_hand and keypoints.shape[1:] != (NUM_HANDS, NUM_KEYPOINTS, 3):
        raise ConfigError(f"{name} has keypoints of shape {keypoints.shape}", f"expected {FORMAT}")
    if frame_s.shape != (len(keypoints),) or len(keypoints) < 2:
        problem = f"{name} has {len(keypoints)} frames and times of {frame_s.shape}, expected two or more of each"
        raise ConfigError(problem, FORMAT)
    frame_s = frame_s.astype(np.float64)  # differences of unsigned numbers are never below 0
    if not np.isfinite(frame_s).all() or (np.diff(frame_s) <= 0).any():
        raise ConfigError(f"the times of {name} do not increase", "seconds of each frame, in order")
    if hand not in SIDES:
        raise ConfigError(f"{name} is of hand {hand!r}", f"expected one of: {', '.join(SIDES)}")
    with np.errstate(over="ignore"):  # such a keypoint is none
        points = keypoints.astype(np.float32)
    if one_hand:
        both = np.full((len(points), NUM_HANDS, NUM_KEYPOINTS, 3), np.nan, np.float32)
        both[:, SIDES[hand]] = points
        points = both
    _check_size(points, name)
    return Trajectory(points, frame_s)


def _check_size(points: NDArray[np.float32], name: str) -> None:
    seen = np.isfinite(points).all((2, 3))
    if not seen.any():
        raise ConfigError(f"{name} has no frame with all 21 keypoints of a hand", FORMAT)
    palm_m = float(np.median(np.linalg.norm(points[:, :, MIDDLE[0]] - points[:, :, WRIST], axis=-1)[seen]))
    if not PALM_M[0] <= palm_m <= PALM_M[1]:
        problem = f"{name} has hands of {palm_m:.3g} from the wrist to the middle finger's base, an adult's has 0.09 m"
        raise ConfigError(problem, "keypoints are in metres, in MediaPipe's order, the wrist first")
    if (points[seen][:, WRIST, 2] > 0).mean() < 0.5:
        raise ConfigError(f"most wrists of {name} are behind the camera (z <= 0)", FORMAT)


def row_of_trajectory(given: Trajectory) -> dict[str, Any]:
    """The columns of a clip in which a camera of 640 x 480 pixels, at rest, sees these hands before points at rest."""
    from handloom.models.embeddings.flow_steps import flow_steps  # needs OpenCV, as the embedding does

    points = given.keypoints_cam_m.astype(np.float64)
    seen = np.isfinite(points).all((2, 3)) & (points[..., 2].min(-1) > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels = FOCAL_PX * points[..., :2] / points[..., 2:] + [(WIDTH_PX - 1) / 2, (HEIGHT_PX - 1) / 2]
    num = len(points)
    hands = Hands(
        seen,
        np.zeros_like(seen),
        np.where(seen, 1, np.nan).astype(np.float32),
        np.where(seen[..., None, None], pixels, np.nan).astype(np.float32),
        np.where(seen[..., None, None], points, np.nan).astype(np.float32),
    )
    tracks = _tracks(hands)
    info = VideoInfo(WIDTH_PX, HEIGHT_PX, 0.0, "", "", 0, float(given.frame_s[0]), float(given.frame_s[-1]), num)
    columns = {f"hand_{name}": getattr(hands, name) for name in ("visible", "infilled", "confidence")}
    columns |= {"hand_keypoints_px": hands.keypoints_px, "hand_keypoints_cam_m": hands.keypoints_cam_m}
    columns |= {f"track_{name}": getattr(tracks, name) for name in ("points_px", "visible", "query_frame", "kind")}
    size = {"width": info.width, "height": info.height, "fps": info.fps, "codec": info.codec}
    seen_steps = (tracks.points_px, tracks.visible, hands.keypoints_px, hands.visible)
    steps = flow_steps(*seen_steps, given.frame_s, (info.width, info.height))
    return columns | size | {"frame_s": given.frame_s, "clip_id": "the trajectory", "motion_steps": steps}


def _tracks(hands: Hands) -> Tracks:
    """The keypoints as points that move, a tenth of all for a hand, and an even grid of points at rest."""
    num = len(hands.visible)
    side = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(WIDTH_PX * side - 0.5, HEIGHT_PX * side - 0.5)
    rest = np.tile(np.stack([x, y], axis=-1).reshape(1, -1, 2), (num, 1, 1))
    points = np.concatenate([rest, hands.keypoints_px.reshape(num, -1, 2)], axis=1).astype(np.float32)
    seen = np.repeat(hands.visible, NUM_KEYPOINTS, axis=1)
    return Tracks.of_grid(points, np.concatenate([np.ones((num, GRID**2), bool), seen], axis=1))

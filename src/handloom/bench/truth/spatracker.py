"""Published tracks of a video, made with SpatialTracker by the authors of ARM4R: for comparison, not truth.

`NAME_tracks.npy` (T, N, 3): x, y in pixels of the video NAME, depth in an arbitrary unit; row i is the video's frame i,
the points are a grid in frame 0. Visibility is not given.

Source: Niu et al., Pre-training Auto-regressive Robotic Models with 4D Representations, 2025; Xiao et al.,
SpatialTracker, CVPR 2024.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handloom.bench.truth.files import files_below
from handloom.errors import ConfigError

ENDING = "_tracks.npy"
VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm")


def published_tracks(folder: Path) -> list[tuple[Path, Path]]:
    """Videos below a folder, each with its file of tracks, anywhere below the folder."""
    files = files_below(folder)
    videos = {path.stem: path for path in files if path.suffix.lower() in VIDEOS}
    found = [path for path in files if path.name.endswith(ENDING)]
    pairs = [(videos.get(path.name.removesuffix(ENDING)), path) for path in found]
    return [(video, path) for video, path in pairs if video is not None]


def read_published(path: Path) -> NDArray[np.float64]:
    """(T, N, 3).

    Raises:
        ConfigError: the file has no such array.
    """
    try:
        tracks = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "expected an array of (T, N, 3) numbers") from error
    if tracks.ndim != 3 or tracks.shape[2] != 3 or tracks.dtype.kind not in "fiu":
        raise ConfigError(f"{path} holds {tracks.dtype} of {tracks.shape}", "expected (T, N, 3) numbers: x, y, depth")
    return tracks.astype(np.float64)

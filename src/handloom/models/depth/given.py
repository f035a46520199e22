"""Depth maps from files, made by a depth camera or by another program."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.models.protocols import ClipFrames
from handloom.schemas.clip import Clip
from handloom.schemas.settings import DepthConfig
from handloom.schemas.values import Camera, DepthMaps, VideoInfo

HINT = "correct the maps, or set depth.provider = geometry"
SUFFIXES = (".npz", ".png", ".npy")
END_BYTES, MAX_ENDS = 4096, 1000
READERS = 16  # threads: on a network disk each file waits for the server
NEAR_S = 0.025
"""A map belongs to a frame when their times differ by no more than this (or half the time between frames)."""
MAX_ASPECT = 0.02
"""A map shows the whole image: its width over its height may differ from the video's by this share."""


class GivenDepth:
    """Depth maps of a clip's frames, found by video id and time below `depth.folder`, in one of two layouts:

    - `FOLDER/VIDEO_ID.npz`: `frame_s` (M,) seconds on the container's clock and `depth_m` (M, h, w) in metres; optional
      `scale`, `metric` (default) or `arbitrary`.
    - `FOLDER/VIDEO_ID/MILLISECONDS.png`, 16 bits, millimetres; or `MILLISECONDS.npy`, metres. The name is the frame's
      time on the container's clock in milliseconds, rounded: `00001533.png`.

    A map may have any size; it shows the whole image after rotation. Values of 0 and values that are not finite are
    unknown. A frame without a map of its time is unknown everywhere; a clip without any map has none.

    Raises:
        ConfigError: there is no such folder.
    """

    def __init__(self, config: DepthConfig) -> None:
        _check_folder(config)
        self._folder = Path(config.folder)

    def maps(self, clip: Clip, info: VideoInfo, frames: ClipFrames, camera: Camera) -> DepthMaps | None:
        """(T, h, w) float32 metres, NaN unknown; None where there is no file for the clip's frames.

        Raises:
            ClipError: `bad_depth`, a file cannot be read, or has another layout than those above.
        """
        archive, folder = self._folder / f"{clip.video_id}.npz", self._folder / clip.video_id
        try:
            if archive.is_file():
                series = _from_archive(archive)
            elif folder.is_dir():
                series = _from_files(folder)
            else:
                return None
            return _at_frames(series, frames.frame_s, info)
        except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
            problem = f"the depth maps given for {clip.video_id} cannot be used: {error}"
            raise ClipError(clip.clip_id, "depth", "bad_depth", problem, HINT) from None


def folder_identity(config: DepthConfig) -> str:
    """The digest of the maps below `depth.folder`: names and sizes of all files, and the last 4 KiB of up to 1000.

    An .npz ends with the CRC-32 of its arrays and a .png with the Adler-32 of its pixels, so the end differs for other
    contents of the same size. An .npy ends with its last values. A copy of the folder has the same digest. The 1000
    files are spread evenly: a folder may hold a million, and every worker computes this.

    Raises:
        ConfigError: there is no such folder, or a file cannot be read.
    """
    _check_folder(config)
    root = Path(config.folder)
    try:
        found = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
        maps = sorted(path for path in found if path.suffix in SUFFIXES)
        sizes = [path.stat().st_size for path in maps]
        looked_at = maps[:: max(1, math.ceil(len(maps) / MAX_ENDS))]
        with ThreadPoolExecutor(READERS) as pool:
            ends = list(pool.map(_end_of, looked_at))
    except OSError as error:
        raise ConfigError(f"the depth maps in {config.folder} cannot be read: {error}", "check the folder") from None
    digest = hashlib.sha256()
    for path, size in zip(maps, sizes, strict=True):
        digest.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode(errors="surrogateescape"))
    digest.update(b"".join(ends))
    return f"{len(maps)} files {digest.hexdigest()[:16]}"


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - END_BYTES))
        return hashlib.sha256(file.read()).digest()


def _check_folder(config: DepthConfig) -> None:
    if not config.folder or not Path(config.folder).is_dir():
        problem = f"depth.provider is given, but depth.folder {config.folder!r} is no folder"
        raise ConfigError(problem, "set depth.folder to the folder with the depth maps")


@dataclass(frozen=True)
class _Series:
    """Maps in the order of their times. maps: (M, h, w) metres or M paths."""

    time_s: NDArray[np.float64]
    maps: NDArray[np.floating] | list[Path]
    scale: str


def _from_archive(path: Path) -> _Series:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        missing = {"frame_s", "depth_m"} - set(stored.files)
        if missing:
            raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))} (found {sorted(stored.files)})")
        time_s, depth = np.asarray(stored["frame_s"], np.float64), stored["depth_m"]
        scale = str(stored["scale"]) if "scale" in stored.files else "metric"
    if depth.ndim != 3 or time_s.shape != depth.shape[:1]:
        raise ValueError(
            f"{path.name}: depth_m is {depth.shape} and frame_s {time_s.shape}, expected (M, h, w) and (M,)"
        )
    if scale not in ("metric", "arbitrary"):
        raise ValueError(f"{path.name}: scale is {scale!r}, expected metric or arbitrary")
    order = np.argsort(time_s, kind="stable")
    return _Series(time_s[order], depth[order], scale)


def _from_files(folder: Path) -> _Series:
    named = {int(p.stem): p for p in sorted(folder.iterdir()) if p.suffix in (".png", ".npy") and p.stem.isdigit()}
    times = sorted(named)
    return _Series(np.array(times, np.float64) / 1000, [named[t] for t in times], "metric")


def _at_frames(series: _Series, frame_s: NDArray[np.float64], info: VideoInfo) -> DepthMaps | None:
    if not len(series.time_s):
        return None
    nearest = np.abs(series.time_s - frame_s[:, None]).argmin(axis=1)
    step = float(np.median(np.diff(frame_s))) / 2 if len(frame_s) > 1 else NEAR_S
    found = np.flatnonzero(np.abs(series.time_s[nearest] - frame_s) <= min(NEAR_S, step) + 1e-6)
    out = None
    for t in found:
        one = _metres(series.maps[nearest[t]])
        if out is None:
            _check_aspect(one.shape, info)
            out = np.full((len(frame_s), *one.shape), np.nan, np.float32)
        if one.shape != out.shape[1:]:
            raise ValueError(
                f"the map at {frame_s[t]:.3f} s is {one.shape[1]} x {one.shape[0]} px, "
                f"the ones before it {out.shape[2]} x {out.shape[1]}"
            )
        out[t] = one
    return None if out is None else DepthMaps(out, series.scale, "given")


def _metres(source: NDArray[np.floating] | Path) -> NDArray[np.float32]:
    """(h, w), NaN unknown."""
    if isinstance(source, Path):
        source = _read_png(source) if source.suffix == ".png" else np.load(source, allow_pickle=False)
    if source.ndim != 2:
        raise ValueError(f"a map has the shape {source.shape}, expected (h, w)")
    depth = source.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def _read_png(path: Path) -> NDArray[np.float32]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        found = "no image" if image is None else f"{image.dtype} {image.shape}"
        raise ValueError(f"{path.name} is {found}, expected one channel of 16 bits, millimetres")
    return image.astype(np.float32) / 1000


def _check_aspect(shape: tuple[int, ...], info: VideoInfo) -> None:
    height, width = shape
    if abs(width * info.height / (height * info.width) - 1) > MAX_ASPECT:
        raise ValueError(
            f"they are {width} x {height} px, expected the whole image of the {info.width} x {info.height} video, "
            "at any size"
        )

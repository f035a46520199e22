"""Clips with truth for `bench accuracy`: rendered ones, and those of a folder in EgoDex's layout."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handloom.bench.egodex import egodex_pairs, read_egodex
from handloom.bench.metrics_hands import TrueHands
from handloom.bench.pictures import Pictures
from handloom.geometry.camera import project
from handloom.geometry.world import to_camera
from handloom.ingest.camera_file import SUFFIX, read_camera_file
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.values import Camera, VideoInfo
from handloom.synth import Truth
from handloom.video.decoder import DecoderSwitched
from handloom.video.frame_store import FrameStore
from handloom.video.grid import clip_range, sample_frames, working_size
from handloom.video.packets import read_packet_index

RENDERED, EGODEX = "rendered", "egodex"
NOTES = {
    EGODEX: "In-sample: the rule for left and right and the usual tilt of a palm were fitted to five clips of this "
    "data set (those of the README), seen_size and the weights of the fit in 3D to two of them, and the other three "
    "were looked at meanwhile. Device truth, visibly off the hands in places.",
    RENDERED: "Exact truth; a seed that was not used for tuning, but scenes of the kind that was. The rendered hand "
    "has nearly the bones of the template that is fitted.",
}
"""What is to be known beside the numbers of a source."""
IN_SAMPLE = frozenset({EGODEX})  # rules and settings were fitted to clips of these
MIN_INSIDE = 0.5  # share of a hand's keypoints inside the picture, for device truth, which knows no occlusion


@dataclass(frozen=True)
class Case:
    """A video and where its truth is. source: `RENDERED` or `EGODEX`."""

    name: str
    source: str
    video: Path
    truth: Path


@dataclass(frozen=True)
class Loaded:
    """A case at the sampled frames. clip: with intrinsics and poses; `without_poses` leaves those away.

    index: (T,) frames of the truth; world_from_camera: (T, 4, 4); surfaces: the rendered truth, that can follow points.
    """

    clip: Clip
    info: VideoInfo
    frames: FrameStore
    index: NDArray[np.intp]
    hands: TrueHands
    world_from_camera: NDArray[np.float64]
    camera: Camera
    surfaces: Truth | None

    @property
    def without_poses(self) -> Clip:
        content = json.loads(self.clip.camera)
        kept = {key: content[key] for key in content if key not in ("world_from_camera", "world_scale")}
        return replace(self.clip, camera=json.dumps(kept))


def rendered_cases(folder: Path, names: tuple[str, ...]) -> list[Case]:
    """The clips that `synth` rendered into `folder`."""
    return [Case(name, RENDERED, folder / f"{name}.mp4", folder / f"{name}.truth.npz") for name in names]


def egodex_cases(folder: Path) -> list[Case]:
    """The clips of a folder in EgoDex's layout. Raises ConfigError if there are none."""
    pairs = egodex_pairs(folder)
    return [Case(video.relative_to(folder).with_suffix("").as_posix(), EGODEX, video, file) for video, file in pairs]


def load(case: Case, sample_hz: float, short_side_px: int) -> Loaded:
    """Decode a case as the pipeline would, with its truth at the sampled frames.

    Raises:
        ConfigError: the truth cannot be read. ClipError: the video cannot.
    """
    packets = read_packet_index(str(case.video))
    clip = Clip(make_clip_id(case.source, case.name, 0.0, None), case.source, case.name, str(case.video), 0.0, None)
    index = sample_frames(packets.times_s, *clip_range(clip, packets.info), sample_hz)
    if case.source == RENDERED:
        return _rendered(case, clip, packets, index, short_side_px)
    return _egodex(case, clip, packets, index, short_side_px)


def _rendered(case: Case, clip: Clip, packets, index, short_side_px: int) -> Loaded:
    truth = Truth.load(case.truth)
    given = read_camera_file(str(case.video.with_suffix(SUFFIX)))
    clip = replace(clip, camera=given.text(0.0, None))
    matrix = truth.camera_matrix
    camera = Camera(matrix, "given", truth.distortion if truth.distortion.any() else None)
    hands = TrueHands(
        truth.keypoints_px[index],
        truth.keypoints_cam_m[index],
        truth.keypoints_world_m[index],
        truth.hand_visible[index],
        float(np.sqrt(matrix[0, 0] * matrix[1, 1])),
    )
    frames = _decode(case.video, packets, index, short_side_px)
    return Loaded(clip, packets.info, frames, index, hands, truth.world_from_camera[index], camera, truth)


def _egodex(case: Case, clip: Clip, packets, index, short_side_px: int) -> Loaded:
    truth = read_egodex(case.truth)
    index = index[index < len(truth.world_from_camera)]
    poses = [
        {"frame_s": float(at), "matrix": pose.reshape(-1).tolist()}
        for at, pose in zip(packets.times_s, truth.world_from_camera, strict=False)  # one may have a frame more
    ]
    given = {
        "camera_matrix": truth.camera_matrix.reshape(-1).tolist(),
        "world_from_camera": poses,
        "world_scale": "metric",
    }
    camera = Camera(truth.camera_matrix, "given")
    world, world_from_camera = truth.keypoints_world_m[index], truth.world_from_camera[index]
    cam = to_camera(world.reshape(len(index), -1, 3), world_from_camera).reshape(world.shape)
    px = project(cam, camera)
    inside = ((px >= -0.5) & (px < np.array([packets.info.width, packets.info.height]) - 0.5)).all(axis=-1)
    matrix = truth.camera_matrix
    hands = TrueHands(px, cam, world, inside.mean(axis=-1) >= MIN_INSIDE, float(np.sqrt(matrix[0, 0] * matrix[1, 1])))
    frames = _decode(case.video, packets, index, short_side_px)
    clip = replace(clip, camera=json.dumps(given))
    return Loaded(clip, packets.info, frames, index, hands, world_from_camera, camera, None)


def _decode(video: Path, packets, index: NDArray[np.intp], short_side_px: int) -> FrameStore:
    size = working_size(packets.info.width, packets.info.height, short_side_px)
    pictures = Pictures(str(video), packets, index, size)
    while True:
        store = FrameStore(packets.times_s[index])
        try:
            for chunk in pictures.chunks():
                store.append(chunk)
        except DecoderSwitched:
            store.close()
            continue
        return store

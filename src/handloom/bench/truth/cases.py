"""Clips with truth for `bench accuracy`: rendered ones, and those of a folder in a published layout."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.bench.images import Images
from handloom.bench.metrics.hands import TrueHands
from handloom.bench.truth.arctic import arctic_sequences, read_arctic
from handloom.bench.truth.egodex import egodex_pairs, read_egodex
from handloom.bench.truth.files import files_below
from handloom.bench.truth.hot3d import hot3d_clips, read_hot3d
from handloom.bench.truth.hot3d_recording import hot3d_recordings, read_recording
from handloom.bench.truth.mano import mano_folder, read_hands
from handloom.bench.truth.recorded import Recorded
from handloom.bench.truth.rendered import hands_at
from handloom.errors import ConfigError
from handloom.ingest.camera.file import SUFFIX, read_camera_file
from handloom.schemas.camera_presets import PRESETS
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.values import Camera, VideoInfo
from handloom.synth.truth import TRUTH_SUFFIX, Truth
from handloom.video.container.packets import read_packet_index
from handloom.video.decode.frame_store import FrameStore
from handloom.video.grid import clip_range, sample_frames, working_size

RENDERED, EGODEX, HOT3D, ARCTIC = "rendered", "egodex", "hot3d", "arctic"
SOURCES = (RENDERED, EGODEX, HOT3D, ARCTIC)
LAYOUTS = {
    EGODEX: "an .hdf5 file of a video's name",
    HOT3D: "HOT3D-Clips: clip-*.tar; or a full recording's folder with frames/STREAM/TIMESTAMP.jpg",
    ARCTIC: "ARCTIC: raw_seqs/s01/*.egocam.dist.npy, with images/s01/*/0 beside raw_seqs",
}
EGODEX_NOTE = "ARKit's joints, as the headset estimated them"


@dataclass(frozen=True)
class Case:
    """The files of a clip and of its truth. source: one of `SOURCES`; keypoints: ARCTIC's processed sequence; mano: the
    folder of MANO's files."""

    name: str
    source: str
    video: Path
    truth: Path
    keypoints: Path | None = None
    mano: Path | None = None


@dataclass(frozen=True)
class Loaded:
    """A case at the sampled frames. clip: with intrinsics and poses; `without_poses` has only the intrinsics.

    index: (T,) frames of the truth; world_from_camera: (T, 4, 4); surfaces: the rendered truth, which can follow
    points; note: what the truth is.
    """

    clip: Clip
    info: VideoInfo
    frames: FrameStore
    index: NDArray[np.intp]
    hands: TrueHands
    world_from_camera: NDArray[np.float64]
    camera: Camera
    surfaces: Truth | None
    note: str = ""

    @property
    def without_poses(self) -> Clip:
        content = json.loads(self.clip.camera or "{}")
        kept = {key: content[key] for key in content if key not in ("world_from_camera", "world_scale")}
        return replace(self.clip, camera=json.dumps(kept))

    @property
    def without_camera(self) -> Clip:
        """Without camera, and of an unknown data set."""
        return replace(self.clip, camera=None, dataset="unknown")


def rendered_cases(folder: Path, names: tuple[str, ...]) -> list[Case]:
    """The clips that `synth` rendered into `folder`."""
    return [Case(name, RENDERED, folder / f"{name}.mp4", folder / f"{name}{TRUTH_SUFFIX}") for name in names]


def real_cases(folder: Path) -> list[Case]:
    """The clips of a folder in one or several of `LAYOUTS`.

    Raises:
        ConfigError: there are none.
    """
    files = files_below(folder)
    mano = mano_folder(files)
    cases = [Case(_name(path, folder), HOT3D, path, path, mano=mano) for path in hot3d_clips(files)]
    for path in hot3d_recordings(files):
        cases.append(Case(path.relative_to(folder).as_posix(), HOT3D, path, path, mano=mano))
    for path, keypoints in arctic_sequences(files):
        name = f"{path.parent.name}/{path.name.partition('.')[0]}"
        cases.append(Case(name, ARCTIC, path, path, keypoints, mano))
    if cases and not any(path.suffix == ".hdf5" for path in files):
        return cases
    try:
        pairs = egodex_pairs(folder)
    except ConfigError as error:
        if cases:
            return cases
        known = "; ".join(f"{name} ({form})" for name, form in LAYOUTS.items())
        raise ConfigError(f"{folder} is in no known layout: {error.problem}", f"expected {known}") from error
    return [Case(_name(video, folder), EGODEX, video, file) for video, file in pairs] + cases


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def load(case: Case, sample_hz: float, short_side_px: int) -> Loaded:
    """Decode a case as the pipeline would, with its truth at the sampled frames.

    Raises:
        ConfigError: the truth cannot be read. ClipError: the video cannot.
    """
    clip = Clip(make_clip_id(case.source, case.name, 0.0, None), case.source, case.name, str(case.video), 0.0, None)
    if case.source == EGODEX:
        clip = replace(clip, hand=json.dumps(PRESETS["egodex"].hand()))
    if case.source in (HOT3D, ARCTIC):
        truth = _of_images(case)
        index = sample_frames(truth.frame_s, *clip_range(clip, truth.info), sample_hz)
        return _recorded(clip, truth, truth.info, index, _rectified(truth, index, short_side_px))
    packets = read_packet_index(str(case.video))
    index = sample_frames(packets.times_s, *clip_range(clip, packets.info), sample_hz)
    if case.source == RENDERED:
        return _rendered(case, clip, packets, index, short_side_px)
    truth = _of_egodex(case, packets)
    index = index[index < len(truth.frame_s)]
    return _recorded(clip, truth, packets.info, index, _decode(case.video, packets, index, short_side_px))


def _rendered(case: Case, clip: Clip, packets, index, short_side_px: int) -> Loaded:
    truth = Truth.load(case.truth)
    given = read_camera_file(str(case.video.with_suffix(SUFFIX)))
    clip = replace(clip, camera=given.text(0.0, None))
    camera = truth.lens.camera
    hands = hands_at(truth, index)
    frames = _decode(case.video, packets, index, short_side_px)
    return Loaded(
        clip, packets.info, frames, index, hands, truth.world_from_camera[index], camera, truth, "exact: rendered"
    )


def _of_images(case: Case) -> Recorded:
    mano = None if case.mano is None else read_hands(case.mano)
    if case.source == ARCTIC:
        return read_arctic(case.truth, case.keypoints, mano)
    return read_recording(case.truth, mano) if case.truth.is_dir() else read_hot3d(case.truth, mano)


def _of_egodex(case: Case, packets) -> Recorded:
    truth = read_egodex(case.truth)
    num = min(len(packets.times_s), len(truth.world_from_camera))  # one of them may have one frame more
    return Recorded(
        packets.times_s[:num],
        Camera(truth.camera_matrix, "given"),
        (packets.info.width, packets.info.height),
        truth.world_from_camera[:num],
        truth.keypoints_world_m[:num],
        EGODEX_NOTE,
    )


def _recorded(clip: Clip, truth: Recorded, info: VideoInfo, index: NDArray[np.intp], frames: FrameStore) -> Loaded:
    clip = replace(clip, camera=truth.camera_text())
    poses = truth.world_from_camera[index]
    return Loaded(clip, info, frames, index, truth.hands(index), poses, truth.camera, None, truth.note)


def _rectified(truth: Recorded, index: NDArray[np.intp], short_side_px: int) -> FrameStore:
    size = working_size(*truth.size, short_side_px)
    store = FrameStore(truth.frame_s[index])
    if truth.rgb is None:
        raise ValueError("the images of this clip are in a video")
    for t in index:
        store.append(cv2.resize(truth.rgb(int(t)), size, interpolation=cv2.INTER_AREA)[None])
    return store


def _decode(video: Path, packets, index: NDArray[np.intp], short_side_px: int) -> FrameStore:
    size = working_size(packets.info.width, packets.info.height, short_side_px)
    images = Images(str(video), packets, index, size)
    store = FrameStore(packets.times_s[index])
    for chunk in images.chunks(store.clear):
        store.append(chunk)
    return store

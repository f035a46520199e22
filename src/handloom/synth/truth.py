"""The exact truth of a rendered clip, and its file."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.geometry.camera.distortion import lens_of
from handloom.synth.render.lens import Lens
from handloom.synth.script.actions import ActionSpan, ContactSpan

Array = NDArray[np.float64]
TRUTH_SUFFIX = ".truth.npz"
"""Of the file, beside the video."""

DEPTH_UNIT_M = 1e-4
"""One step of a stored depth map; the value 0 stands for no surface."""


@dataclass(frozen=True)
class Truth:
    """The exact truth of a rendered clip. A hand that is not in the scene is NaN.

    frame_s: (T,). camera_matrix: (3, 3). distortion: of `camera_model`, as in `Camera`, or (0,). size: (2,) width,
    height.
    world_from_camera: (T, 4, 4); camera x right, y down, z forward; world z up, table top at z = 0, metres.
    keypoints_px: (T, 2, 21, 2), as the lens shows them; keypoints_cam_m, keypoints_world_m: (T, 2, 21, 3).
    keypoint_visible: (T, 2, 21), inside the image and not hidden. hand_visible: (T, 2), more than half of the hand's
    keypoints are inside the image and not hidden by anything but the hand itself.
    world_from_object: (T, O, 4, 4); object_nouns: O words, the acted thing first. actions: in order, they fill the
    clip, but for a sequence of beats. contacts: when a hand moves an object.
    world_from_bone: (T, 2, C, 4, 4) of every piece of flesh, a round cone from its origin to bone_end_m (T, 2, C, 3,
    world) with bone_radius_m (2, C, 2) at both ends: a hand's surface points move rigidly with one of them.
    depth: (T, h, w) uint16 in `DEPTH_UNIT_M` along the optical axis, 0 no surface; ids: (T, h, w) uint8, 0 still scene,
    1 left hand, 2 right hand, 3 + i object i, 255 another person. Both None where no image was drawn
    (`RenderedClip.truth`).
    other_keypoints_px: (T, 2, 21, 2) of a second person's left and right hand; other_hand_visible: (T, 2), as
    hand_visible. None: there is nobody else.
    """

    frame_s: Array
    camera_matrix: Array
    world_from_camera: Array
    keypoints_px: Array
    keypoints_cam_m: Array
    keypoints_world_m: Array
    keypoint_visible: NDArray[np.bool_]
    hand_visible: NDArray[np.bool_]
    world_from_object: Array
    distortion: Array
    size: NDArray[np.int64]
    world_from_bone: Array
    bone_end_m: Array
    bone_radius_m: Array
    object_nouns: tuple[str, ...]
    actions: tuple[ActionSpan, ...]
    depth: NDArray[np.uint16] | None = None
    ids: NDArray[np.uint8] | None = None
    camera_model: str = "opencv"
    contacts: tuple[ContactSpan, ...] = ()
    other_keypoints_px: Array | None = None
    other_hand_visible: NDArray[np.bool_] | None = None

    @property
    def lens(self) -> Lens:
        return Lens(self.camera_matrix, self.distortion, int(self.size[0]), int(self.size[1]), self.camera_model)

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """(T, h, w) metres along the optical axis, NaN where there is no surface."""
        depth, _ = self.maps()
        return np.where(depth > 0, depth * np.float32(DEPTH_UNIT_M), np.float32(np.nan))

    def maps(self) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """`depth` and `ids`. Raises ConfigError where no images were drawn."""
        if self.depth is None or self.ids is None:
            raise ConfigError("this truth has no depth and id maps", "take it from `render_all` or `write_clip`")
        return self.depth, self.ids

    def save(self, path: Path | str) -> None:
        """Write one .npz; maps are stored as deflated second differences: about 55 kB for a frame of 480 x 360."""
        stored: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TEXTS + _MAPS}
        stored = {name: value for name, value in stored.items() if value is not None}
        texts = {
            "object_nouns": self.object_nouns,
            "camera_model": self.camera_model,
            "actions": [asdict(span) for span in self.actions],
            "contacts": [asdict(span) for span in self.contacts],
        }
        stored["texts"] = np.array(json.dumps(texts))
        if self.depth is not None and self.ids is not None:
            stored["map_shape"] = np.array(self.depth.shape)
            stored["depth"], stored["ids"] = _packed(_differences(self.depth)), _packed(self.ids)
        np.savez_compressed(path, **stored)

    @staticmethod
    def load(path: Path | str, *, maps: bool = True) -> Truth:
        """Read one. maps: with `depth` and `ids`, which are most of the file.

        Raises ConfigError for a file that is none, or that was cut or changed.
        """
        try:
            return Truth._load(Path(path), maps)
        except _BROKEN as error:
            problem = f"{Path(path).name} cannot be read as a truth: {error or type(error).__name__}"
            raise ConfigError(problem, "render the clip again") from error

    @staticmethod
    def _load(path: Path, maps: bool) -> Truth:
        with zipfile.ZipFile(path) as packed:
            num_bytes = sum(one.file_size for one in packed.infolist())
        if num_bytes > MOST_BYTES:
            raise ValueError(f"its arrays take {num_bytes:,} bytes, at most {MOST_BYTES:,} are read")
        with np.load(path, allow_pickle=False) as file:
            stored: dict[str, Any] = {name: file[name] for name in file.files if maps or name not in _STORED_MAPS}
        texts = json.loads(str(stored.pop("texts")))
        stored["object_nouns"] = tuple(texts["object_nouns"])
        stored["camera_model"] = texts.get("camera_model", "opencv")
        stored["actions"] = tuple(ActionSpan(**span) for span in texts["actions"])
        stored["contacts"] = tuple(ContactSpan(**span) for span in texts.get("contacts", ()))
        shape = stored.pop("map_shape", None)
        if shape is not None:
            stored["depth"] = _sums(_unpacked(stored["depth"], np.uint16, shape))
            stored["ids"] = _unpacked(stored["ids"], np.uint8, shape)
        loaded = Truth(**stored)
        loaded._check()
        return loaded

    def _check(self) -> None:
        """Raise ValueError for arrays of another shape or kind than those of a truth."""
        num = self.frame_s.size
        of_frames = {name: (num, *shape) for name, shape in _OF_FRAMES.items()}
        for name, shape in (of_frames | {"camera_matrix": (3, 3), "size": (2,)}).items():
            array = getattr(self, name)
            if array.shape != shape or not num or array.dtype.kind not in "biuf":
                raise ValueError(f"{name} is {array.dtype} {array.shape}, expected numbers {shape} of 1 frame or more")
        lens_of(self.camera_model, self.distortion if self.distortion.size else None)


MOST_BYTES = 4 << 30
"""Of a truth's arrays, unpacked but for the maps."""
_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    MemoryError,
    RuntimeError,
)
_OF_FRAMES: dict[str, tuple[int, ...]] = {
    **{"frame_s": (), "world_from_camera": (4, 4), "keypoint_visible": (2, 21), "hand_visible": (2,)},
    **{"keypoints_px": (2, 21, 2), "keypoints_cam_m": (2, 21, 3), "keypoints_world_m": (2, 21, 3)},
}
_TEXTS, _MAPS = ("object_nouns", "camera_model", "actions", "contacts"), ("depth", "ids")
_STORED_MAPS = (*_MAPS, "map_shape")


def quantised(depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Metres to map steps; 0 beyond the last step (6.55 m) and without a surface."""
    steps = np.nan_to_num(depth_m / np.float32(DEPTH_UNIT_M), nan=0.0, posinf=0.0)
    return np.where(steps < 65535, np.rint(steps), 0).astype(np.uint16)


def _differences(maps: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Differences along columns, then along rows, modulo 2^16: planes become nearly zero."""
    for axis in (2, 1):
        maps = np.diff(maps, axis=axis, prepend=np.zeros_like(maps.take([0], axis)))
    return maps


def _sums(differences: NDArray[np.uint16]) -> NDArray[np.uint16]:
    for axis in (1, 2):
        differences = np.cumsum(differences, axis=axis, dtype=np.uint16)
    return differences


def _packed(maps: NDArray) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.compress(np.ascontiguousarray(maps).tobytes(), 1), np.uint8)


def _unpacked(packed: NDArray[np.uint8], dtype: type, shape: NDArray) -> NDArray:
    return np.frombuffer(zlib.decompress(packed.tobytes()), dtype).reshape(shape)

"""MANO's hand model, from files that each user has to fetch: keypoints from poses and shapes.

HOT3D and ARCTIC give hands as MANO's parameters. `MANO_RIGHT.pkl` and `MANO_LEFT.pkl` come from mano.is.tue.mpg.de,
after registration, and must not be redistributed. They are pickles of Python 2 with arrays of chumpy and scipy, read
here without either package and without running code.

Source: Romero, Tzionas and Black, Embodied Hands: Modeling and Capturing Hands and Bodies Together, SIGGRAPH Asia 2017;
order of joints and vertices of the fingertips as in the smplx package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.errors import ConfigError
from handloom.ingest.robot.arrays_only import READ_ERRORS, ForbiddenContent, plain, read_pickle

Floats = NDArray[np.floating]

FILES = ("MANO_LEFT.pkl", "MANO_RIGHT.pkl")
HINT = "fetch MANO_LEFT.pkl and MANO_RIGHT.pkl from mano.is.tue.mpg.de (registration), put them below the folder"
_TIPS = (744, 320, 443, 554, 671)  # vertices, thumb to little finger
_JOINTS, _VERTICES = 16, 778
MEDIAPIPE = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""MediaPipe's 21 keypoints among MANO's 16 joints (wrist, index, middle, little, ring finger, thumb) and 5 tips."""


@dataclass(frozen=True)
class Mano:
    """One hand's model. template_m: (V, 3); shape_m: (V, 3, 10); bends_m: (V, 3, 135); regressor: (16, V); weights:
    (V, 16); parents: (16,), -1 for the wrist; mean, components: (45,), (45, 45) of the finger pose."""

    template_m: Floats
    shape_m: Floats
    bends_m: Floats
    regressor: Floats
    weights: Floats
    parents: NDArray[np.int64]
    mean: Floats
    components: Floats
    tips: tuple[int, ...] = _TIPS

    def fingers(self, coefficients: Floats) -> NDArray[np.float64]:
        """(T, 45) axis-angle pose of (T, n) principal components, without the mean."""
        values = np.asarray(coefficients, np.float64)
        return values @ self.components[: values.shape[1]]

    def keypoints_m(self, shape: Floats, orient: Floats, fingers: Floats, shift_m: Floats) -> NDArray[np.float64]:
        """(T, 21, 3) in MediaPipe's order, from shape (10,), wrist rotation (T, 3) and finger pose (T, 45) relative to
        the mean, both axis-angle, and shift (T, 3), as in smplx: the hand is rotated about the wrist, then shifted."""
        rest = self.template_m + self.shape_m @ np.asarray(shape, np.float64)
        joints = self.regressor @ rest
        pose = np.concatenate([np.asarray(orient, np.float64), np.asarray(fingers, np.float64) + self.mean], axis=1)
        turns = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(len(pose), _JOINTS, 3, 3)
        world = np.tile(np.eye(4), (len(pose), _JOINTS, 1, 1))
        world[..., :3, :3], world[:, 0, :3, 3] = turns, joints[0]
        for j in range(1, _JOINTS):
            world[:, j, :3, 3] = joints[j] - joints[self.parents[j]]
            world[:, j] = world[:, self.parents[j]] @ world[:, j]
        bent = (turns[:, 1:] - np.eye(3)).reshape(len(pose), -1)
        tips = rest[list(self.tips)] + np.einsum("vik,tk->tvi", self.bends_m[list(self.tips)], bent)
        local = tips[:, :, None] - joints  # (T, 5, 16, 3)
        moved = np.einsum("tjab,tvjb->tvja", world[..., :3, :3], local) + world[:, None, :, :3, 3]
        tips = np.einsum("vj,tvja->tva", self.weights[list(self.tips)], moved)
        points = np.concatenate([world[..., :3, 3], tips], axis=1) + np.asarray(shift_m, np.float64)[:, None]
        return points[:, MEDIAPIPE]


def mano_folder(files: Sequence[Path]) -> Path | None:
    """The first folder with both of `FILES`; None if there is none."""
    there = set(files)
    return next((p.parent for p in files if p.name == FILES[1] and p.with_name(FILES[0]) in there), None)


def read_hands(folder: Path | str) -> tuple[Mano, Mano]:
    """Read the left and the right hand from a folder with both of `FILES`.

    Raises:
        ConfigError: a file cannot be used.
    """
    left, right = (read_mano(Path(folder) / name) for name in FILES)
    return left_mended(left, right), right


def left_mended(left: Mano, right: Mano) -> Mano:
    """MANO's published left hand has the right hand's shape directions without mirroring (vchoutas/smplx, issue 48)."""
    if left.shape_m.shape == right.shape_m.shape and np.abs(left.shape_m[:, 0] - right.shape_m[:, 0]).sum() < 1:
        return replace(left, shape_m=left.shape_m * np.array([-1.0, 1.0, 1.0])[:, None])
    return left


def read_mano(path: Path | str) -> Mano:
    """Read one of MANO's files.

    Raises:
        ConfigError: the file is no such pickle, or holds more than arrays.
    """
    try:
        content = read_pickle(Path(path).read_bytes(), _STAND_INS)
        parents = _numbers(content["kintree_table"]).astype(np.int64)[0]
        parents[0] = -1
        names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "hands_mean", "hands_components")
        template, shapes, poses, joints, weights, mean, components = (_numbers(content[name]) for name in names)
        read = Mano(
            template,
            shapes,
            poses,
            joints,
            weights,
            parents,
            mean,
            components,
        )
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", HINT) from error
    except (ForbiddenContent, *READ_ERRORS) as error:
        raise ConfigError(f"{path} is no MANO file that can be used: {error}", HINT) from error
    num = len(read.template_m)
    arrays = (read.template_m, read.shape_m[..., :10], read.bends_m, read.regressor, read.weights, read.mean)
    wanted = ((num, 3), (num, 3, 10), (num, 3, 135), (_JOINTS, num), (num, _JOINTS), (45,))
    if num != _VERTICES or any(array.shape != shape for array, shape in zip(arrays, wanted, strict=True)):
        found = [array.shape for array in arrays]
        raise ConfigError(f"{path} holds arrays of {found}", f"expected {wanted} with {_VERTICES} vertices")
    return replace(read, shape_m=read.shape_m[..., :10])


class _Object:
    """Stands for an object of scipy or chumpy: its state without its code."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"an object with the state {str(state)[:80]}")
        self.state = state


def _rebuilt(kind: Any, *_: Any) -> Any:
    """How Python 2's pickles name an object's class."""
    if kind is not _Object:
        raise ForbiddenContent(f"it would rebuild {kind!r}")
    return _Object()


def _numbers(value: Any) -> NDArray[np.float64]:
    """A dense array from an array, scipy's sparse matrix by columns, or chumpy's variable or a selection of one."""
    if not isinstance(value, _Object):
        return np.array(value, np.float64)
    state = {key: plain(item) for key, item in value.state.items()}
    if "indptr" in state:
        shape = state["_shape"] if "_shape" in state else state["shape"]
        out = np.zeros(shape)
        columns = np.repeat(np.arange(shape[1]), np.diff(state["indptr"]))
        np.add.at(out, (np.asarray(state["indices"], np.int64), columns), state["data"])
        return out
    if "x" in state:
        return _numbers(state["x"])
    if "a" in state and "idxs" in state:
        return _numbers(state["a"]).ravel()[np.asarray(state["idxs"], np.int64)].reshape(state["preferred_shape"])
    raise ValueError(f"an object that holds {sorted(state)}, expected a matrix, a variable or a selection of one")


_STAND_INS = {
    ("copy_reg", "_reconstructor"): _rebuilt,
    ("copyreg", "_reconstructor"): _rebuilt,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("__builtin__", "set"): set,
    ("scipy.sparse.csc", "csc_matrix"): _Object,
    ("scipy.sparse._csc", "csc_matrix"): _Object,
    ("chumpy.ch", "Ch"): _Object,
    ("chumpy.reordering", "Select"): _Object,
}

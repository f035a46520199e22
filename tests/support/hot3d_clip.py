"""HOT3D's files, made small: five frames whose hands and lens are known, as a tar of the clips' form."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from handloom.bench.truth.fisheye import Fisheye624

FRAMES, SIDE = 5, 240
PARAMS = [100.0, 119.0, 121.0, 0.02, -0.01, 0.003, -0.001, 0.0, 0.0, 1e-3, -5e-4, 4e-4, -2e-4, 3e-4, 1e-4]
LENS = Fisheye624.of_params(PARAMS, (SIDE, SIDE))
# The camera lies on its side, as Aria's: what is up in the world is left in its images.
MOUNTED = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # world_from_camera: x right, y down, z forward in both


def profile() -> dict:
    """A hand whose fingers lie along x, millimetres: joint j of finger f at (30 + 25 j, 0, 20 f - 40)."""
    joints = np.array([[30 + 25 * j, 0, 20 * f - 40] for f in range(5) for j in range(4)], float)
    tips = joints[3::4] + np.array([20, 0, 0])
    inner = [joints[2], joints[3]] + [joints[4 * f + j] for f in range(1, 5) for j in (1, 2, 3)]
    landmarks = [*tips, np.zeros(3), *inner, np.array([50.0, 0, 0])]
    bones = [4, 7, 10, 13, 16, 1, 2, 3, *[b for f in range(1, 5) for b in (1, 2 + 3 * f, 3 + 3 * f)], 1]
    return {
        "joint_rest_positions": [*joints.tolist(), [0, 0, 0], [0, 0, 0]],
        "joint_rotation_axes": [[0, 0, -1]] * 22,
        "landmark_rest_positions": np.array(landmarks).tolist(),
        "landmark_rest_bone_indices": [[b, b, b] for b in bones],
        "landmark_rest_bone_weights": [[1, 0, 0]] * 21,
    }


def rigid(matrix: np.ndarray) -> dict:
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return {"quaternion_wxyz": [w, x, y, z], "translation_xyz": matrix[:3, 3].tolist()}


def poses() -> np.ndarray:
    out = np.tile(np.eye(4), (FRAMES, 1, 1))
    out[:, :3, :3] = MOUNTED
    out[:, 0, 3] = 0.01 * np.arange(FRAMES)
    return out


def wrist(t: int, x: float) -> np.ndarray:
    """Fingers up (-y of the world), 0.4 m in front. A right hand's fingers lie along -x."""
    out = np.eye(4)
    out[:3, :3] = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]) @ np.diag([1.0, 1, 1] if x < 0 else [-1, -1, 1])
    out[:3, 3] = [x, 0.05, 0.4 + 0.002 * t]
    return out


def members(with_hands: bool = True, stream: str = "214-1") -> dict[str, bytes]:
    out = {"__hand_shapes.json__": json.dumps({"umetrack": profile()}).encode()}
    for t in range(FRAMES):
        calibration = {
            "image_width": SIDE,
            "image_height": SIDE,
            "projection_model_type": "CameraModelType.FISHEYE624",
            "projection_params": PARAMS,
        }
        camera = {stream: {"calibration": calibration, "T_world_from_camera": rigid(poses()[t])}}
        out[f"{t:06d}.cameras.json"] = json.dumps(camera).encode()
        image = np.full((SIDE, SIDE, 3), 90, np.uint8)
        mark = LENS.project(MOUNTED.T @ [0.05, -0.1, 0.4])  # a white disc, right of the axis and above it
        cv2.circle(image, np.rint(mark).astype(int).tolist(), 4, (255, 255, 255), -1)
        out[f"{t:06d}.image_{stream}.jpg"] = cv2.imencode(".jpg", image)[1].tobytes()
        out[f"{t:06d}.info.json"] = json.dumps({"image_timestamps_ns": {stream: 10**12 + t * 33_333_333}}).encode()
        if with_hands:
            hands = {}
            for side, x in (("left", -0.1), ("right", 0.1)):
                pose = {"joint_angles": [0.0] * 22, "T_world_from_wrist": rigid(wrist(t, x))}
                hands[side] = {"umetrack_pose": pose, "visibilities_modeled": {stream: 0.9 if side == "left" else 0.1}}
            if t == 4:
                hands.pop("left")
            out[f"{t:06d}.hands.json"] = json.dumps(hands).encode()
    return out


def write(path: Path, content: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path

"""The camera's path: a head above the table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.synth.script.scene import SceneSpec

Array = NDArray[np.float64]

_HEAD = np.array([0.0, -0.33, 0.46])
_GAZE = np.array([0.01, 0.055, 0.035])
_SWAY_M = np.array([0.022, 0.014, 0.013])  # amplitude of the sways: sideways, to and fro, up and down
_LOOK_M = np.array([0.032, 0.024, 0.012])  # amplitude of the gaze on the table
_LEAN_M = np.array([0.045, 0.030, 0.025])  # displacement by a lean over the clip


def camera_path(spec: SceneSpec, since_s: Array) -> Array:
    """(T, 4, 4) world_from_camera: a head that sways, leans, looks around and tilts, smoothly, in six degrees of
    freedom.

    With `camera_motion` 1 it moves by 6 to 12 cm and turns by 10 to 20 degrees within five seconds. With `camera_path`
    "turn" it stays in one place.

    since_s: (T,) seconds since the clip's first frame.
    """
    rng = np.random.default_rng([spec.seed, 2])
    phase, hertz = rng.uniform(0, 2 * np.pi, (2, 6)), rng.uniform(0.18, 0.5, (2, 6))
    angle = 2 * np.pi * hertz[:, None] * since_s[:, None] + phase[:, None]
    sway = spec.camera_motion * (np.sin(angle[0]) + 0.4 * np.sin(2 * angle[1]))
    lean = spec.camera_motion * rng.choice([-1.0, 1.0], 3) * _LEAN_M
    leaning = np.sin(0.5 * np.pi * np.clip(since_s / 5.0, -1.0, 1.0))[:, None] - 0.4
    head = _HEAD + rng.uniform(-1, 1, 3) * [0.03, 0.02, 0.025]
    gaze = _GAZE + rng.uniform(-1, 1, 3) * [0.015, 0.015, 0.01] + _LOOK_M * sway[:, 3:]
    moved = head + _SWAY_M * sway[:, :3] + lean * leaning
    roll = 0.045 * sway[:, 5] + rng.uniform(-0.05, 0.05)
    if spec.camera_path == "turn":
        moved = np.broadcast_to(head, moved.shape)
    forward = _unit(gaze - moved)
    right = _unit(np.cross(forward, [0.0, 0.0, 1.0]))
    down = np.cross(forward, right)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    out = np.tile(np.eye(4), (len(since_s), 1, 1))
    out[:, :3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], axis=2)
    out[:, :3, 3] = moved
    return out


def _unit(v: Array) -> Array:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)

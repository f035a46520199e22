"""Finger poses by name, easing between them, and the arm behind the hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.synth.hand import FOREARM_M

Array = NDArray[np.float64]

# Degrees; thumb (CMC flexion, CMC abduction, MCP, IP), then index to little finger (MCP, abduction, PIP, DIP).
_POSES_DEG: dict[str, list[list[float]]] = {
    "flat": [[0, 0, 5, 5], [5, 2, 6, 4], [4, 0, 6, 4], [5, -1, 6, 4], [6, -3, 8, 5]],
    "spread": [[-6, 14, 2, 0], [2, 11, 5, 3], [0, 2, 5, 3], [2, -7, 5, 3], [4, -16, 6, 4]],
    "relaxed": [[10, 0, 10, 12], [22, 2, 28, 14], [24, 0, 30, 16], [26, -1, 32, 16], [28, -3, 32, 16]],
    "preshape": [[14, 12, 6, 8], [22, 4, 24, 12], [24, 0, 26, 14], [27, -3, 28, 14], [28, -8, 28, 14]],
    "grasp": [[34, 10, 16, 22], [46, 2, 44, 24], [48, 0, 46, 26], [51, -1, 48, 26], [54, -4, 48, 26]],
    "pinch": [[32, 6, 14, 20], [48, 0, 42, 26], [44, 0, 40, 22], [40, -2, 36, 18], [36, -6, 32, 16]],
    "claw": [[26, 18, 12, 18], [30, 9, 46, 26], [30, 1, 48, 28], [33, -6, 48, 28], [36, -13, 46, 26]],
    "point": [[38, 0, 24, 30], [4, 0, 6, 4], [62, 0, 78, 40], [66, 0, 80, 42], [68, 0, 80, 42]],
    "hook": [[20, 4, 14, 16], [34, 2, 62, 34], [36, 0, 64, 36], [38, -1, 64, 36], [40, -3, 62, 34]],
    "fist": [[42, 0, 30, 36], [70, 0, 84, 50], [72, 0, 86, 50], [74, 0, 86, 50], [76, 0, 84, 48]],
}
POSES: dict[str, Array] = {name: np.radians(np.array(deg, float)) for name, deg in _POSES_DEG.items()}

UPPER_ARM_M = 0.30


def ease(times: list[float], values: list, at: Array) -> Array:
    """Minimum-jerk interpolation through (times, values); constant before the first and after the last.

    Source: Flash and Hogan, The coordination of arm movements, J. Neurosci. 5, 1985: 10 s^3 - 15 s^4 + 6 s^5.
    """
    stops, points = np.asarray(times, float), np.asarray(values, float)
    index = np.clip(np.searchsorted(stops, at, side="right") - 1, 0, len(stops) - 2)
    s = np.clip((at - stops[index]) / (stops[index + 1] - stops[index]), 0.0, 1.0)
    weight = s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
    weight = weight.reshape(-1, *(1,) * (points.ndim - 1))
    return points[index] * (1.0 - weight) + points[index + 1] * weight


def elbow_position(shoulder_m: Array, wrist_m: Array) -> Array:
    """(T, 3) elbow of a right arm of fixed bone lengths, outwards and down; a straight arm where the wrist is too
    far."""
    reach = wrist_m - shoulder_m
    distance = np.clip(np.linalg.norm(reach, axis=1, keepdims=True), 0.10, UPPER_ARM_M + FOREARM_M - 1e-3)
    along = reach / np.linalg.norm(reach, axis=1, keepdims=True)
    a = (UPPER_ARM_M**2 - FOREARM_M**2 + distance**2) / (2.0 * distance)
    height = np.sqrt(np.maximum(UPPER_ARM_M**2 - a**2, 0.0))
    pole = np.array([0.8, -0.3, -0.45]) - along * (along @ np.array([0.8, -0.3, -0.45]))[:, None]
    elbow = shoulder_m + a * along + height * pole / np.linalg.norm(pole, axis=1, keepdims=True)
    elbow[:, 2] = np.maximum(elbow[:, 2], 0.05)  # never through the table
    forearm = elbow - wrist_m
    return wrist_m + FOREARM_M * forearm / np.linalg.norm(forearm, axis=1, keepdims=True)


def hand_rotation(elbow_m: Array, wrist_m: Array, pronation: Array, extension: Array, deviation: Array) -> Array:
    """World-from-hand rotation (T, 3, 3) of a right hand on its forearm.

    pronation: radians, 0 palm down, +pi/2 thumb up. extension: fingertips up. deviation: towards the thumb.
    """
    y = wrist_m - elbow_m
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    z = np.array([0.0, 0.0, 1.0]) - y * y[:, 2:3]
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    x = np.cross(y, z)
    x, z = _turn(x, z, -pronation)
    y, z = _turn(y, z, extension)
    x, y = _turn(x, y, deviation)
    return np.stack([x, y, z], axis=2)


def _turn(first: Array, second: Array, angle: Array) -> tuple[Array, Array]:
    angle = np.ascontiguousarray(angle)[:, None]
    c, s = np.cos(angle), np.sin(angle)
    return c * first + s * second, c * second - s * first

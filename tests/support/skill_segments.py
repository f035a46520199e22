"""Segments of clips in which a hand takes a cup and puts it elsewhere, turns it, or moves it aside; places jitter."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from handloom.schemas.tables.segments import SEGMENT

FRAMES = 12
CUP = (0.04, 0.04, 0.05)
NONE = [float("nan")] * 16


def pose(place=(0.0, 0.0, 0.0), turn_deg=(0.0, 0.0, 0.0)) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix(), place
    return out


def path_to(start: np.ndarray, way, turn_deg=(0.0, 0.0, 0.0)) -> np.ndarray:
    """(n, 4, 4) straight from a pose, turning on the way."""
    shares = np.linspace(0.0, 1.0, FRAMES)
    moved = np.stack([start @ pose((0, 0, 0), share * np.array(turn_deg)) for share in shares])
    moved[:, :3, 3] = start[:3, 3] + shares[:, None] * np.array(way)
    return moved


def cell(at_s: float, hand: str, phase: str | None, text: str | None, **values: Any) -> dict[str, Any]:
    first = round(at_s * 10)
    out = dict.fromkeys(field.name for field in SEGMENT) | {
        "start_s": at_s, "end_s": at_s + 1.0, "start_frame": first, "end_frame": first + FRAMES, "hand": hand,
        "phase": phase, "text": text, "keyframes": [first], "object_tracks": [], "trajectory": [NONE] * FRAMES,
        "confidence": 1.0,
    }  # fmt: skip
    return out | values


def taking(
    seed: int,
    moves: list[tuple[str, tuple, tuple]],
    *,
    hand: str = "right",
    half_m=CUP,
    grasp=(0.0, -0.14, 0.0),
    jitter_m: float = 0.005,
) -> list[dict[str, Any]]:
    """A reach for object 1, then moves of it: (words, way in metres along the thing's axes, turn in degrees).

    The world's axes are others in each clip. A left hand does the mirror image.
    """  # fmt: skip
    rng = np.random.default_rng(seed)
    half = np.array(half_m) * rng.uniform(0.95, 1.05, 3)
    flip = -1.0 if hand == "left" else 1.0
    box = np.concatenate([-half, half]).tolist()
    held = pose(np.array(grasp) * [flip, 1, 1] + rng.normal(0, jitter_m, 3), rng.normal(0, 4.0, 3))
    near = {"hand": hand, "grasp_pose": held.ravel().tolist(), "object_box_m": box}
    out = [
        cell(0.5, text="reach for object 1", phase="grasping", master="object_1", slave=f"hand_{hand}", **near),
    ]
    now = pose(rng.uniform(-1, 1, 3), rng.uniform(-180, 180, 3))
    axes = now[:3, :3].copy()
    for number, (words, way, turn) in enumerate(moves):
        way_m = axes @ (np.array(way) * [flip, 1, 1] + rng.normal(0, jitter_m, 3))
        path = path_to(now, way_m, np.array(turn) * [1, flip, flip])
        now = path[-1]
        told = path.reshape(FRAMES, 16).tolist()
        values = {"master": "scene", "slave": "object_1", "trajectory": told, **near}
        out.append(cell(1.8 + 1.3 * number, phase="manipulation", text=f"{words} object 1", **values))
    out.append(cell(9.0, hand, None, None, master="scene", slave=f"hand_{hand}"))
    return out


PLACE = [("lift", (0.0, 0.0, 0.10), (0, 0, 0)), ("lower", (0.12, 0.0, -0.10), (0, 0, 0))]
POUR = [("lift", (0.0, 0.0, 0.10), (0, 0, 0)), ("turn", (0.0, 0.0, 0.0), (80, 0, 0))]

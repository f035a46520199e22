"""A segment in a few plain words, read from its motion alone: `reach for object 1`, `lift object 1`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]

MOVES_M, TURNS_DEG = 0.03, 30.0
"""A thing that moves by less, and turns by less, is only held."""
STEEP = 1.0
"""A thing goes up or down where it moves by more along the upright axis than across it, times this."""


def manipulation_words(poses: Floats, up: Floats, thing: str, master: str) -> str | None:
    """Words for the motion of a thing. poses: (n, 4, 4) world_from_object, NaN unknown. up: (3,) world; None: unknown
    poses."""
    known = poses[np.isfinite(poses).all(axis=(1, 2))]
    if len(known) < 2:
        return None
    places = known[:, :3, 3]
    way = places[-1] - places[0]
    farthest = float(np.linalg.norm(places - places[0], axis=1).max())
    turned = float(np.degrees(Rotation.from_matrix(known[:, :3, :3] @ known[0, :3, :3].T).magnitude().max()))
    rise = float(way @ up)
    across = float(np.linalg.norm(way - rise * up))
    name, to = thing.replace("_", " "), f" to {master.replace('_', ' ')}" if master.startswith("object") else ""
    if farthest < MOVES_M:
        return f"turn {name}" if turned > TURNS_DEG else f"hold {name}"
    if np.linalg.norm(way) < 0.35 * farthest:
        return f"turn {name} and back" if turned > TURNS_DEG else f"move {name} to and fro"
    if abs(rise) > STEEP * across:
        return f"lift {name}" if rise > 0 else f"lower {name}{to}"
    return f"move {name}{to}"


def grasping_words(thing: str) -> str:
    return f"reach for {thing.replace('_', ' ')}"


def segment_words(one: Mapping[str, Any]) -> str:
    """What the hand does in a segment (a value of the column `segments`): its `text`; where that is null, what phase,
    master and slave tell: `move object 2`."""
    if one.get("text"):
        return str(one["text"])
    if one.get("phase") == "grasping":
        return grasping_words(one["master"] or "something")
    if one.get("phase") == "manipulation":
        beside = "" if one["master"] in (None, "scene") else f" relative to {one['master'].replace('_', ' ')}"
        return f"move {(one['slave'] or 'something').replace('_', ' ')}{beside}"
    return "move without an object"

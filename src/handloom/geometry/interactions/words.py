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
STROKES = 3
"""A thing that goes to, fro and to again on what it lay on wipes it: scripted wipes have 5 to 8 strokes, drawers that
are opened and closed 2, all other scripted actions 1."""
STROKE_M, STROKE_SHARE = 0.015, 0.3
"""A way back is a stroke from this length on, and from this share of the whole width."""
ABOVE, LEAVES = 0.25, 0.6
"""A thing stays on what it lay on where its usual height above that, and the range of its heights, are below these
shares of the width. Pours have a range of .7 or more; of thin things that wipe, heights are found with errors of .3 to
.5."""


def manipulation_words(poses: Floats, rest: Floats, thing: str, master: str) -> str | None:
    """Words for the motion of a thing; None where its poses are unknown.

    poses: (n, 4, 4) world_from_object, NaN unknown. rest: (4, 4) its pose before it was moved, z upwards.
    """
    up = rest[:3, 2]
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
    if farthest >= MOVES_M and _wipes(places - rest[:3, 3], up):
        return f"wipe with {name}"
    if farthest < MOVES_M:
        return f"turn {name}" if turned > TURNS_DEG else f"hold {name}"
    if np.linalg.norm(way) < 0.35 * farthest:
        return f"turn {name} and back" if turned > TURNS_DEG else f"move {name} to and fro"
    if abs(rise) > STEEP * across:
        return f"lift {name}" if rise > 0 else f"lower {name}{to}"
    return f"move {name}{to}"


def _wipes(places: Floats, up: Floats) -> bool:
    """Whether a thing goes to and fro along a surface. places: (n, 3) from where it lay."""
    heights = places @ up
    if not np.isfinite(heights).all():
        return False
    flat = places - heights[:, None] * up
    flat = flat - flat.mean(axis=0)
    along = flat @ np.linalg.svd(flat, full_matrices=False)[2][0]
    width = float(np.ptp(along))
    if np.ptp(heights) > LEAVES * width or abs(np.median(heights)) > ABOVE * width:
        return False
    return _strokes(along, max(STROKE_M, STROKE_SHARE * width)) >= STROKES


def _strokes(along: Floats, least: float) -> int:
    """How often a coordinate (n,) moves one way, by `least` or more each time."""
    num, rises = 0, 0
    low = high = along[0]
    for value in along:
        low, high = min(low, value), max(high, value)
        if rises <= 0 and value - low > least:
            num, rises, high = num + 1, 1, value
        elif rises >= 0 and high - value > least:
            num, rises, low = num + 1, -1, value
    return num


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

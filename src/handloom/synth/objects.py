"""The things on the table: rigid, textured, made of a few simple solids; z up, the origin in their middle."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """One solid of an object. half_m: half extents x, y, z; a cylinder's or open cylinder's radius is half_m[0].

    kind: `box`, `cylinder`, `open` (a cylinder without a lid, its wall `WALL_M` thick) or `ball` (an ellipsoid).
    centre_m: in the object's frame.
    """

    kind: str
    half_m: tuple[float, float, float]
    colour: Colour
    texture: str
    centre_m: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class ObjectShape:
    """A rigid thing. half_m: half extents of all its parts together. hold: the grasp that takes it (`verbs.GRASPS`)."""

    parts: tuple[Part, ...]
    half_m: tuple[float, float, float]
    hold: str = "power"

    @property
    def radius_m(self) -> float:
        """Radius of the upright cylinder around it."""
        return float(np.hypot(*self.half_m[:2])) if self.parts[0].kind == "box" else max(self.half_m[:2])


WALL_M = 0.003


def _one(kind: str, half_m: tuple[float, float, float], colour: Colour, texture: str, hold: str) -> ObjectShape:
    return ObjectShape((Part(kind, half_m, colour, texture),), half_m, hold)


_WOOD, _FRONT = (0.55, 0.40, 0.26), (0.62, 0.50, 0.36)
CABINET_HALF_M = (0.115, 0.085, 0.050)
DRAWER_HALF_M = (0.100, 0.088, 0.036)
HANDLE_M = (0.0, -0.112, 0.0)
"""Where a hand takes the drawer, in the drawer's frame."""


def _cabinet() -> ObjectShape:
    x, y, z = CABINET_HALF_M
    wall = 0.006
    parts = [Part("box", (wall, y, z), _WOOD, "speckle", (side * (x - wall), 0.0, 0.0)) for side in (-1.0, 1.0)] + [
        Part("box", (x, y, wall), _WOOD, "label", (0.0, 0.0, side * (z - wall))) for side in (-1.0, 1.0)
    ]
    parts.append(Part("box", (x, wall, z), _WOOD, "speckle", (0.0, y - wall, 0.0)))
    return ObjectShape(tuple(parts), CABINET_HALF_M)


def _drawer() -> ObjectShape:
    x, y, z = DRAWER_HALF_M
    wall = 0.004
    inside = (0.50, 0.44, 0.36)
    parts = (
        Part("box", (x, wall, z), _FRONT, "checker", (0.0, wall - y, 0.0)),
        Part("box", (0.030, 0.005, 0.006), (0.25, 0.25, 0.28), "speckle", HANDLE_M),
        Part("box", (0.005, 0.011, 0.005), (0.25, 0.25, 0.28), "speckle", (-0.022, -0.098, 0.0)),
        Part("box", (0.005, 0.011, 0.005), (0.25, 0.25, 0.28), "speckle", (0.022, -0.098, 0.0)),
        Part("box", (wall, y, 0.6 * z), inside, "speckle", (wall - x, 0.0, -0.4 * z)),
        Part("box", (wall, y, 0.6 * z), inside, "speckle", (x - wall, 0.0, -0.4 * z)),
        Part("box", (x, y, wall), inside, "checker", (0.0, 0.0, wall - z)),
        Part("box", (x, wall, 0.6 * z), inside, "speckle", (0.0, y - wall, -0.4 * z)),
    )
    return ObjectShape(parts, (x, 0.117, z), "hook")


def _bottle() -> ObjectShape:
    body, neck = (0.030, 0.030, 0.060), (0.013, 0.013, 0.022)
    colour = (0.30, 0.55, 0.45)
    parts = (
        Part("cylinder", body, colour, "label", (0.0, 0.0, -0.022)),
        Part("cylinder", neck, (0.85, 0.80, 0.70), "stripes", (0.0, 0.0, 0.060)),
    )
    return ObjectShape(parts, (0.030, 0.030, 0.082))


NOUNS: dict[str, ObjectShape] = {
    "cup": _one("open", (0.036, 0.036, 0.045), (0.25, 0.45, 0.75), "stripes", "power"),
    "can": _one("cylinder", (0.030, 0.030, 0.055), (0.75, 0.25, 0.20), "label", "power"),
    "jar": _one("cylinder", (0.040, 0.040, 0.050), (0.35, 0.60, 0.40), "label", "power"),
    "box": _one("box", (0.045, 0.032, 0.040), (0.80, 0.70, 0.35), "checker", "power"),
    "block": _one("box", (0.026, 0.026, 0.026), (0.30, 0.55, 0.60), "speckle", "pinch"),
    "cloth": _one("box", (0.075, 0.060, 0.004), (0.85, 0.85, 0.80), "checker", "pinch"),
    "bowl": _one("open", (0.062, 0.062, 0.026), (0.70, 0.62, 0.50), "stripes", "pinch"),
    "apple": _one("ball", (0.036, 0.036, 0.034), (0.72, 0.22, 0.18), "speckle", "power"),
    "book": _one("box", (0.060, 0.085, 0.011), (0.35, 0.25, 0.50), "label", "pinch"),
    "bottle": _bottle(),
    "drawer": _drawer(),
    "cabinet": _cabinet(),
}
"""Every thing by its noun; a `drawer` slides in a `cabinet`."""

STANDALONE = tuple(noun for noun in NOUNS if noun not in ("drawer", "cabinet", "cloth"))
"""Things that can stand anywhere on the table."""


def varied(shape: ObjectShape, rng: np.random.Generator) -> ObjectShape:
    """The same thing in other colours: random hue, brightness and saturation."""
    gain = rng.uniform(0.75, 1.2)
    roll = int(rng.integers(3))
    tint = rng.uniform(0.85, 1.15, 3)

    def repaint(colour: Colour) -> Colour:
        mixed = np.clip(np.roll(colour, roll) * gain * tint, 0.06, 0.92)
        red, green, blue = (float(v) for v in mixed)
        return red, green, blue

    return replace(shape, parts=tuple(replace(part, colour=repaint(part.colour)) for part in shape.parts))


def corners_m(part: Part) -> NDArray[np.float64]:
    """(n, 3) points in the object's frame whose convex hull holds the part."""
    half, centre = np.array(part.half_m), np.array(part.centre_m)
    if part.kind == "box":
        return np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T * half + centre
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * 1.035  # a twelve-sided prism around the circle
    return np.concatenate([np.c_[ring, np.full(12, z)] for z in (-1, 1)]) * half + centre

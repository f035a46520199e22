"""The arm's kinematics in one scene: inverse kinematics, what collides, and paths between two postures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.sim.tabletop.model import FINGERS, HOME_RAD, JOINTS, NUM_JOINTS, OPEN_M
from handloom.sim.tabletop.scene import Scene

Floats = NDArray[np.float64]

PLACE_M, TURN_RAD = 0.002, 0.02
"""What a solution of the inverse kinematics may be off."""
ITERATIONS, DAMPING, LONGEST_RAD = 80, 0.02, 0.35
STRAY_RAD = 0.9
"""Neighbouring poses of a path are reached by postures that differ by no more than this in any joint."""
TOUCH_M, OF_HELD_M = 0.001, 0.004
"""How deep solids may be in each other before it is a collision; those of a held thing, which moves in the hand."""
CHECK_RAD = 0.15
RRT_STEP_RAD, RRT_NODES = 0.25, 300


@dataclass(frozen=True)
class Held:
    """A thing in the hand: its name, and (4, 4) grip_from_thing. on: what it may touch: `table`, names of things."""

    name: str
    in_grip: Floats
    on: frozenset[str] = frozenset()


class Arm:
    """Questions about postures (7,) of the arm while things stand where they are; the simulation is not touched."""

    def __init__(self, model: Any, scene: Scene) -> None:
        import mujoco

        self._mj, self.model = mujoco, model
        self._data = mujoco.MjData(model)
        self.things = tuple(one.name for one in (*scene.things, *scene.obstacles))
        self._joints = [int(model.joint(name).qposadr[0]) for name in JOINTS]
        self._dofs = [int(model.joint(name).dofadr[0]) for name in JOINTS]
        self._fingers = [int(model.joint(name).qposadr[0]) for name in FINGERS]
        self._free = {name: int(model.joint(name).qposadr[0]) for name in self.things}
        self._site = model.site("grip_site").id
        ranges = np.array([model.joint(name).range for name in JOINTS])
        self.low, self.high = ranges[:, 0] + 0.02, ranges[:, 1] - 0.02
        self._owner = [self._owner_of(geom) for geom in range(model.ngeom)]
        self._fingertip = ["finger" in (model.geom(geom).name or "") for geom in range(model.ngeom)]

    def _owner_of(self, geom: int) -> str:
        body = self.model.body(int(self.model.geom_bodyid[geom])).name
        return body if body in self.things else "table" if body == "world" else "arm"

    def see(self, qpos: Floats) -> None:
        """Take over where things are from a simulation's state."""
        self._data.qpos[:] = qpos

    def open_fingers(self, half_width_m: float = OPEN_M) -> None:
        for address, sign in zip(self._fingers, (1.0, -1.0), strict=True):
            self._data.qpos[address] = sign * half_width_m

    def grip(self, q: Floats) -> Floats:
        """(4, 4) scene_from_grip: the point between the fingertips, z out of the hand, x across the fingers."""
        self._data.qpos[self._joints] = q
        self._mj.mj_kinematics(self.model, self._data)
        return self._site_pose()

    def _site_pose(self) -> Floats:
        out = np.eye(4)
        out[:3, :3] = self._data.site_xmat[self._site].reshape(3, 3)
        out[:3, 3] = self._data.site_xpos[self._site]
        return out

    def reach(self, target: Floats, start: Floats) -> Floats | None:
        """A posture with the grip at `target` (4, 4), near `start`; None: not found.

        Damped least squares: Buss, Introduction to Inverse Kinematics, 2004, section 6.
        """
        q = np.array(start, float)
        jac = np.zeros((6, self.model.nv))
        home = np.array(HOME_RAD)
        for _ in range(ITERATIONS):
            self._data.qpos[self._joints] = q
            self._mj.mj_kinematics(self.model, self._data)
            self._mj.mj_comPos(self.model, self._data)
            now = self._site_pose()
            error = np.concatenate([target[:3, 3] - now[:3, 3], _turn(target[:3, :3] @ now[:3, :3].T)])
            if np.linalg.norm(error[:3]) < PLACE_M and np.linalg.norm(error[3:]) < TURN_RAD:
                return q
            self._mj.mj_jacSite(self.model, self._data, jac[:3], jac[3:], self._site)
            part = jac[:, self._dofs]
            inverse = part.T @ np.linalg.inv(part @ part.T + DAMPING**2 * np.eye(6))
            step = inverse @ error + (np.eye(NUM_JOINTS) - inverse @ part) @ (0.05 * (home - q))
            longest = np.abs(step).max()
            q = np.clip(q + step * min(1.0, LONGEST_RAD / max(longest, 1e-9)), self.low, self.high)
        return None

    def hits(self, q: Floats, touchable: Collection[str] = (), held: Held | None = None) -> tuple[str, str] | None:
        """The first two that collide in a posture; None: nothing does.

        Args:
            touchable: things that the fingers may touch. held: moves with the hand.
        """
        grip = self.grip(q)
        if held is not None:
            self._put(held.name, grip @ held.in_grip)
            self._mj.mj_kinematics(self.model, self._data)
        self._mj.mj_comPos(self.model, self._data)
        self._mj.mj_collision(self.model, self._data)
        for number in range(self._data.ncon):
            contact = self._data.contact[number]
            a, b = int(contact.geom1), int(contact.geom2)
            pair = (self._owner[a], self._owner[b])
            if self._is_fine(pair, (a, b), contact.dist, touchable, held):
                continue
            return pair
        return None

    def _is_fine(
        self, pair: tuple[str, str], geoms: tuple[int, int], dist: float, touchable: Collection[str], held: Held | None
    ) -> bool:
        if dist > -TOUCH_M or "arm" not in pair:
            if held is None or held.name not in pair or dist > -OF_HELD_M:
                return True
            return bool(set(pair) - {held.name} <= held.on)
        if pair == ("arm", "arm"):
            return self._fingertip[geoms[0]] and self._fingertip[geoms[1]]
        other = pair[0] if pair[1] == "arm" else pair[1]
        return other in touchable or (held is not None and other == held.name)

    def _put(self, name: str, pose: Floats) -> None:
        at = self._free[name]
        self._data.qpos[at : at + 3] = pose[:3, 3]
        quat = np.zeros(4)
        self._mj.mju_mat2Quat(quat, np.ascontiguousarray(pose[:3, :3]).ravel())
        self._data.qpos[at + 3 : at + 7] = quat

    def is_free(self, a: Floats, b: Floats, touchable: Collection[str] = (), held: Held | None = None) -> bool:
        """Whether nothing collides between two postures, both included."""
        num = max(2, int(np.ceil(np.abs(b - a).max() / CHECK_RAD)) + 1)
        return all(self.hits(a + share * (b - a), touchable, held) is None for share in np.linspace(1.0, 0.0, num))

    def connect(
        self, a: Floats, b: Floats, rng: np.random.Generator, touchable: Collection[str] = (), held: Held | None = None
    ) -> list[Floats] | None:
        """Postures from `a` to `b` without collisions: straight, else by RRT-Connect; None: not found.

        Source: Kuffner and LaValle, RRT-Connect, ICRA 2000.
        """
        if self.is_free(a, b, touchable, held):
            return [a, b]
        if self.hits(a, touchable, held) is not None or self.hits(b, touchable, held) is not None:
            return None
        trees: list[tuple[list[Floats], list[int]]] = [([a], [-1]), ([b], [-1])]
        low, high = np.minimum(a, b) - 0.6, np.maximum(a, b) + 0.6
        low, high = np.maximum(low, self.low), np.minimum(high, self.high)
        for number in range(RRT_NODES):
            grown, other = trees[number % 2], trees[1 - number % 2]
            new = self._extend(grown, rng.uniform(low, high), touchable, held)
            if new is None:
                continue
            while True:
                met = self._extend(other, grown[0][new], touchable, held)
                if met is None:
                    break
                if np.abs(other[0][met] - grown[0][new]).max() < 1e-6:
                    way = _back(grown, new)[::-1] + _back(other, met)[1:]
                    return self._shortened(way if number % 2 == 0 else way[::-1], rng, touchable, held)
        return None

    def _extend(
        self, tree: tuple[list[Floats], list[int]], to: Floats, touchable: Collection[str], held: Held | None
    ) -> int | None:
        nodes, parents = tree
        nearest = int(np.argmin([np.abs(node - to).max() for node in nodes]))
        way = to - nodes[nearest]
        new = nodes[nearest] + way * min(1.0, RRT_STEP_RAD / max(float(np.abs(way).max()), 1e-9))
        if not self.is_free(nodes[nearest], new, touchable, held):
            return None
        nodes.append(new)
        parents.append(nearest)
        return len(nodes) - 1

    def _shortened(
        self, way: list[Floats], rng: np.random.Generator, touchable: Collection[str], held: Held | None
    ) -> list[Floats]:
        for _ in range(20):
            if len(way) < 3:
                break
            i, j = sorted(int(k) for k in rng.choice(len(way), 2, replace=False))
            if j > i + 1 and self.is_free(way[i], way[j], touchable, held):
                way = way[: i + 1] + way[j:]
        return way


def _back(tree: tuple[list[Floats], list[int]], at: int) -> list[Floats]:
    """From a node to the root."""
    out = []
    while at >= 0:
        out.append(tree[0][at])
        at = tree[1][at]
    return out


def _turn(rotation: Floats) -> Floats:
    """(3,) the rotation vector of a rotation (3, 3)."""
    sine = 0.5 * np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    length, cosine = float(np.linalg.norm(sine)), 0.5 * (float(np.trace(rotation)) - 1.0)
    angle = float(np.arctan2(length, cosine))
    if length < 1e-9:
        return sine if cosine > 0 else np.array([np.pi, 0.0, 0.0])
    return sine * (angle / length)


def grip_poses(places: Sequence[Floats], turn: Floats) -> list[Floats]:
    """(4, 4) poses at places (3,) with one rotation (3, 3)."""
    out = []
    for place in places:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, place
        out.append(pose)
    return out

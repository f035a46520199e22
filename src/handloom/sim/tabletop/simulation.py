"""A scene in which time passes: the arm follows postures, the gripper opens and closes, and things do what they do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from handloom.sim.tabletop.model import FINGERS, HOME_RAD, JOINTS, OPEN_M, STEP_S, load
from handloom.sim.tabletop.scene import Scene

Floats = NDArray[np.float64]

MEDIAN_OF_TWO = 1.1774
"""The median distance from the middle of a normal distribution in the plane, of its standard deviation."""
FRAME_S = 0.06
"""Between the states that are kept for a video."""
SETTLE_S, CLOSE_S = 0.12, 0.5
RAD_PER_S = 1.1
"""How fast the fastest joint moves."""
REST_S, REST_M = 0.4, 0.005
BUMPED_M = 0.03
"""A thing that was not to be touched, and moved farther than this, was hit."""


class Failed(Exception):
    """An attempt failed. reason: a key of `FAILURES`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Simulation:
    """MuJoCo's state of a scene, moved by the arm's servos.

    Args:
        weld: held things are fixed to the hand. error_m: what the places of things are seen off, horizontally (median);
            another error of each thing at each look, by the seed.

    Raises:
        ModuleNotFoundError: the simulator or the robot's description is not installed.
    """

    def __init__(self, scene: Scene, weld: bool = False, error_m: float = 0.0, seed: int = 0) -> None:
        import mujoco

        self._mj, self.scene = mujoco, scene
        self.welds = weld
        self.model = load(scene, weld)
        self.data = mujoco.MjData(self.model)
        self._joints = [int(self.model.joint(name).qposadr[0]) for name in JOINTS]
        self._servos = [self.model.actuator(name).id for name in (*JOINTS, *FINGERS)]
        self._fingers = [int(self.model.joint(name).qposadr[0]) for name in FINGERS]
        names = [one.name for one in (*scene.things, *scene.obstacles)]
        self._bodies = {name: self.model.body(name).id for name in names}
        self._spread_m, self._eyes = error_m / MEDIAN_OF_TWO, np.random.default_rng([seed, 1])
        self._off = {name: np.zeros(3) for name in names}
        self._free = {name: int(self.model.joint(name).qposadr[0]) for name in names}
        self._pads = [self._fingers_of(name) for name in ("finger_joint1_tip", "finger_joint2_tip")]
        self._warned = int(mujoco.mjtWarning.mjWARN_BADQACC)
        self.frames: list[Floats] = []
        self.target = np.array(HOME_RAD)
        self.data.qpos[self._joints] = self.target
        self.data.qpos[self._fingers] = (OPEN_M, -OPEN_M)
        self._width = OPEN_M
        mujoco.mj_forward(self.model, self.data)
        self.wait(0.2)

    def _fingers_of(self, tip: str) -> frozenset[int]:
        """The geoms of a finger: its tip's, and those of the body that the tip hangs on."""
        body = self.model.body(tip).id
        parent = int(self.model.body_parentid[body])
        return frozenset(geom for geom in range(self.model.ngeom) if self.model.geom_bodyid[geom] in (body, parent))

    @property
    def seconds(self) -> float:
        return float(self.data.time)

    def pose(self, name: str) -> Floats:
        """(4, 4) scene_from_thing."""
        out = np.eye(4)
        out[:3, :3] = self.data.xmat[self._bodies[name]].reshape(3, 3)
        out[:3, 3] = self.data.xpos[self._bodies[name]]
        return out

    def poses(self) -> dict[str, Floats]:
        return {name: self.pose(name) for name in self._bodies}

    def look(self) -> None:
        """See anew where things are, with other errors."""
        for off in self._off.values():
            off[:2] = self._spread_m * self._eyes.normal(size=2)

    def seen(self, name: str) -> Floats:
        """(4, 4) scene_from_thing as it was seen by the last look, and has moved since."""
        out = self.pose(name)
        out[:3, 3] += self._off[name]
        return out

    def seen_poses(self) -> dict[str, Floats]:
        return {name: self.seen(name) for name in self._bodies}

    def seen_qpos(self) -> Floats:
        """(nq,) MuJoCo's state with things where they are seen."""
        out = self.data.qpos.copy()
        for name, at in self._free.items():
            out[at : at + 3] += self._off[name]
        return out

    def grip(self) -> Floats:
        """(4, 4) scene_from_grip."""
        out, site = np.eye(4), self.model.site("grip_site").id
        out[:3, :3], out[:3, 3] = self.data.site_xmat[site].reshape(3, 3), self.data.site_xpos[site]
        return out

    def wait(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True: `until` became true, which ends it. Raises Failed: it diverged."""
        self.data.ctrl[self._servos] = [*self.target, self._width, -self._width]
        for number in range(max(1, round(seconds / STEP_S))):
            self._step()
            if until is not None and number % 5 == 4 and until():
                return True
        return False

    def _step(self) -> None:
        if self.data.time >= len(self.frames) * FRAME_S:
            self.frames.append(self.data.qpos.copy())
        self._mj.mj_step(self.model, self.data)
        if self.data.warning[self._warned].number or not np.isfinite(self.data.qpos[self._joints[0]]):
            raise Failed("diverged", f"at {self.data.time:.2f} s MuJoCo warned of a state that is not finite")

    def follow(
        self, postures: Sequence[Floats], speed: float = 1.0, watch: Callable[[], None] | None = None,
        until: Callable[[], bool] | None = None,
    ) -> bool:  # fmt: skip
        """Move through postures; True: `until` became true, and the arm stopped there.

        Args:
            speed: of `RAD_PER_S`. watch: called some times a second; it may raise Failed.
        """
        for posture in postures:
            begin, way = self.target, posture - self.target
            num = max(1, round(float(np.abs(way).max()) / (RAD_PER_S * speed * STEP_S)))
            for number in range(1, num + 1):
                self.target = begin + way * (number / num)
                self.data.ctrl[self._servos] = [*self.target, self._width, -self._width]
                self._step()
                if number % 10 == 0:
                    if watch is not None:
                        watch()
                    if until is not None and until():
                        return True
            if watch is not None:
                watch()
        return self.wait(SETTLE_S, until)

    def fingers(self, half_width_m: float, seconds: float = CLOSE_S) -> None:
        """Open or close the gripper; 0 presses."""
        self._width = float(np.clip(half_width_m, 0.0, OPEN_M))
        self.wait(seconds)

    def half_width(self) -> float:
        """How far each finger is from the middle, metres."""
        return 0.5 * float(self.data.qpos[self._fingers[0]] - self.data.qpos[self._fingers[1]])

    def is_held(self, name: str) -> bool:
        """Whether both fingers touch a thing."""
        touched = [False, False]
        body = self._bodies[name]
        for number in range(self.data.ncon):
            contact = self.data.contact[number]
            for own, other in ((contact.geom1, contact.geom2), (contact.geom2, contact.geom1)):
                if self.model.geom_bodyid[own] == body:
                    touched = [is_so or other in pads for is_so, pads in zip(touched, self._pads, strict=True)]
        return all(touched)

    def stands(self, name: str) -> bool:
        """Whether a thing touches the table or another thing."""
        body, others = self._bodies[name], {0, *self._bodies.values()} - {self._bodies[name]}
        for number in range(self.data.ncon):
            contact = self.data.contact[number]
            pair = {int(self.model.geom_bodyid[contact.geom1]), int(self.model.geom_bodyid[contact.geom2])}
            if body in pair and pair - {body} <= others:
                return True
        return False

    def rested(self, names: Collection[str]) -> bool:
        """Let `REST_S` pass; whether no thing moved by more than `REST_M` in it."""
        before = self.poses()
        self.wait(REST_S)
        return all(np.linalg.norm(self.pose(name)[:3, 3] - before[name][:3, 3]) < REST_M for name in names)

    def fix(self, name: str, is_fixed: bool) -> None:
        """Weld a thing to the hand, or let it go; without `weld` nothing is done."""
        if not self.welds:
            return
        hold = self.model.equality(f"hold_{name}")
        body1, body2 = self.model.body("right_gripper").id, int(hold.obj2id[0])
        if is_fixed:
            turn = self.data.xmat[body1].reshape(3, 3)
            relative = turn.T @ (self.data.xpos[body2] - self.data.xpos[body1])
            quat = np.zeros(4)
            self._mj.mju_mat2Quat(quat, np.ascontiguousarray(turn.T @ self.data.xmat[body2].reshape(3, 3)).ravel())
            self.model.eq_data[hold.id, 3:10] = [*relative, *quat]
        self.data.eq_active[hold.id] = is_fixed

"""A humanoid whose pelvis and legs are fixed, in MuJoCo: waist, head and arms follow goals of their joints.

Frame: the robot's base (x forward, y to its left, z up, metres). Sides are in the order left, right, as hands are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from handloom.errors import ConfigError
from handloom.schemas.settings import Frozen
from handloom.sim.descriptions import compiled, find_description, open_spec, require_joints

Array = NDArray[np.float64]

POLICY_HZ = 50.0
"""Actions a second, as RoboGhost and RoboPerform have it."""
MARKERS = ("goal left wrist", "goal right wrist")
"""Green balls in videos: where the person's wrists are."""
CAMERA = "corner"
"""From which videos are drawn."""
SUBSTEPS = 10
"""Steps of the simulation for one action: 500 Hz."""


class Humanoid(Frozen):
    """Which parts of a description are moved and measured. Positions of joints are in radians."""

    name: str
    """Of the robot; a checkpoint is of one."""
    description: str
    """As `sim.descriptions.find_description` takes it: a name, an MJCF file or a folder with one."""
    joints: tuple[str, ...] = Field(min_length=1)
    """Hinges that are moved; all others are fixed where the description has them."""
    rest: Mapping[str, float] = Field(default_factory=dict)
    """The posture at rest, of joints that are not at 0; arms bent, hands before the body."""
    head: str
    """The head's site, between the eyes: x forward, z up when the robot stands."""
    shoulders: tuple[str, str]
    elbows: tuple[str, str]
    wrists: tuple[str, str]
    """Sites at the joints of the left and right arm. A wrist's axes, with the arm hanging down: x forward (where the
    thumb points), y left, z up (fingers point down)."""
    natural_hz: float = Field(5.0, gt=0, le=50)
    """How stiff joints are: the frequency at which one would swing with its inertia at rest and no damping."""
    damping_ratio: float = Field(1.0, gt=0)
    """1: critical."""
    armature: float = Field(0.01, ge=0)
    """Inertia of a motor and its gear at each joint, kg m2; descriptions of GR1 give none."""

    @property
    def sites(self) -> tuple[str, ...]:
        """The key points that are measured: head, elbows, wrists."""
        return (self.head, *self.elbows, *self.wrists)


def _sided(side: str) -> tuple[str, ...]:
    parts = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow_pitch", "wrist_yaw", "wrist_roll", "wrist_pitch")
    return tuple(f"{side}_{part}" for part in parts)


GR1 = Humanoid(
    name="gr1",
    description="gr1",
    joints=(
        *(f"torso_waist_{axis}" for axis in ("yaw", "pitch", "roll")),
        *(f"head_{axis}" for axis in ("yaw", "roll", "pitch")),
        *_sided("l"),
        *_sided("r"),
    ),
    rest={
        "l_shoulder_pitch": -0.35, "l_shoulder_roll": 0.15, "l_elbow_pitch": -1.35,
        "r_shoulder_pitch": -0.35, "r_shoulder_roll": -0.15, "r_elbow_pitch": -1.35,
    },
    head="head",
    shoulders=("l_collar_site", "r_collar_site"),
    elbows=("l_elbow_site", "r_elbow_site"),
    wrists=("l_wrist_site", "r_wrist_site"),
)  # fmt: skip
HUMANOIDS = {"gr1": GR1}


def find_humanoid(name: str) -> Humanoid:
    """A robot of `HUMANOIDS`, or of a JSON file with the fields of `Humanoid`.

    A relative `description` is beside the file. Raises ConfigError: no such name or file, or one that lacks a field.
    """
    if name in HUMANOIDS:
        return HUMANOIDS[name]
    path = Path(name).expanduser()
    known = f"one of {', '.join(HUMANOIDS)}, or a JSON file with the fields of docs/humanoid.md"
    try:
        content = json.loads(path.read_text())
        found = Humanoid.model_validate(content)
    except OSError as error:
        raise ConfigError(f"there is no humanoid {name!r}: {error.strerror}", known) from error
    except (ValueError, ValidationError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error), "loc": ()}
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{path}: {where} {problem['msg']}".replace(":  ", ": "), known) from error
    beside = path.parent / found.description
    return found.model_copy(update={"description": str(beside)}) if beside.exists() else found


def body_of(humanoid: Humanoid) -> Body:
    """The robot, opened once in a process. Raises as `Body`."""
    return _opened(humanoid.model_dump_json())


@lru_cache(maxsize=2)
def _opened(content: str) -> Body:
    return Body(Humanoid.model_validate_json(content))


class Body:
    """The opened robot: its model, which of its numbers are whose, and the gains of its joints.

    model: `mujoco.MjModel`; its `nq` numbers are the joints in the order of `Humanoid.joints`. low, high, rest, kp, kd:
    (J,) of each joint, radians, N m / rad and N m s / rad. reach_m: (2,) from shoulder to wrist with a straight arm.

    Raises:
        ConfigError: the description lacks a joint or a site, or a joint is no hinge.
    """

    def __init__(self, humanoid: Humanoid) -> None:
        mujoco.set_mju_user_warning(_no_log)
        self.humanoid = humanoid
        path = find_description(humanoid.description)
        spec = open_spec(path)
        require_joints(spec, humanoid.joints, str(path))
        _fix(spec, humanoid)
        model = compiled(spec, path)
        self._check(model, str(path))
        self.joints = tuple(model.joint(number).name for number in range(model.njnt))
        self.low, self.high = model.jnt_range.T.copy()
        free = model.jnt_limited == 0
        self.low[free], self.high[free] = -np.pi, np.pi
        rest = np.array([humanoid.rest.get(name, 0.0) for name in self.joints])
        self.rest: Array = np.clip(rest, self.low, self.high)
        self.kp, self.kd = _gains(model, self.rest, humanoid)
        for number in range(model.nu):
            model.actuator_gainprm[number, 0] = self.kp[number]
            model.actuator_biasprm[number, 1:3] = -self.kp[number], -self.kd[number]
        self.model = model
        self.site_ids = np.array([model.site(name).id for name in humanoid.sites])
        arm = [self._places(self.rest, sites) for sites in (humanoid.shoulders, humanoid.elbows, humanoid.wrists)]
        self.reach_m = np.linalg.norm(arm[1] - arm[0], axis=1) + np.linalg.norm(arm[2] - arm[1], axis=1)
        self.shoulders_m = arm[0]
        self.head_m = self._places(self.rest, (humanoid.head,))[0]

    def __reduce__(self) -> tuple[Any, tuple[Humanoid]]:
        """For other processes: each opens the robot's files once, which are large."""
        return body_of, (self.humanoid,)

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    def state(self) -> Any:
        """A new `mujoco.MjData` at rest."""
        data = mujoco.MjData(self.model)
        put(self.model, data, self.rest)
        return data

    def key_points(self, joints_rad: Array) -> Array:
        """(T, J) positions of joints to (T, P, 3) metres, `Humanoid.sites`."""
        data = mujoco.MjData(self.model)
        out = np.empty((len(joints_rad), len(self.site_ids), 3))
        for number, position in enumerate(joints_rad):
            data.qpos[:] = position
            mujoco.mj_kinematics(self.model, data)
            out[number] = data.site_xpos[self.site_ids]
        return out

    def _places(self, joints_rad: Array, sites: tuple[str, ...]) -> Array:
        data = mujoco.MjData(self.model)
        data.qpos[:] = joints_rad
        mujoco.mj_kinematics(self.model, data)
        return np.array([data.site(name).xpos.copy() for name in sites])

    def _check(self, model: Any, description: str) -> None:
        there = [model.site(number).name for number in range(model.nsite)]
        wanted = (*self.humanoid.sites, *self.humanoid.shoulders)
        if missing := [name for name in wanted if name not in there]:
            hint = f"its sites: {', '.join(name for name in there if name) or 'none'}"
            raise ConfigError(f"the robot {description} has no site {', '.join(missing)}", hint)
        for number in range(model.njnt):
            if model.jnt_type[number] != mujoco.mjtJoint.mjJNT_HINGE:
                raise ConfigError(f"the joint {model.joint(number).name} of {description} is no hinge", "leave it out")


def put(model: Any, data: Any, joints_rad: Array) -> None:
    """Set the joints, at rest and held there."""
    mujoco.mj_resetData(model, data)
    data.qpos[:] = joints_rad
    data.ctrl[:] = joints_rad
    mujoco.mj_forward(model, data)


def act(model: Any, data: Any, action: Array) -> str:
    """Hold the goals (J,) of the joints for one step of the policy; what MuJoCo warns of, empty if nothing."""
    data.ctrl[:] = action
    try:
        mujoco.mj_step(model, data, SUBSTEPS)
    except mujoco.FatalError as error:
        return str(error)
    if any(data.warning[kind].number for kind in _UNSTABLE):
        return "MuJoCo warns that the state is unstable"
    return "" if np.isfinite(data.qpos).all() else "the state is not finite"


_UNSTABLE = tuple(int(getattr(mujoco.mjtWarning, f"mjWARN_{name}")) for name in ("BADQPOS", "BADQVEL", "BADQACC"))


def _fix(spec: Any, humanoid: Humanoid) -> None:
    """Take away joints that are not moved, and motors; each moved joint gets a servo, in the order of the model."""
    for actuator in list(spec.actuators):
        actuator.delete()
    for joint in list(spec.joints):
        if joint.name not in humanoid.joints:
            joint.delete()
        else:
            joint.armature = humanoid.armature
    for sensor in list(spec.sensors):
        sensor.delete()
    for key in list(spec.keys):
        key.delete()
    for joint in spec.joints:  # in the order of the model
        servo = spec.add_actuator()
        servo.name = servo.target = joint.name
        servo.trntype = mujoco.mjtTrn.mjTRN_JOINT
        servo.gaintype, servo.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        servo.ctrllimited = servo.forcelimited = mujoco.mjtLimited.mjLIMITED_FALSE  # the description's are of motors
        servo.gear = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    spec.option.timestep = 1.0 / (POLICY_HZ * SUBSTEPS)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    for name in MARKERS:
        marker = spec.worldbody.add_site()
        marker.name, marker.size, marker.rgba = name, [0.035, 0.035, 0.035], [0.1, 0.9, 0.2, 0.0]
        marker.type = mujoco.mjtGeom.mjGEOM_SPHERE
        marker.pos = [0.0, 0.0, 1.0]  # at the origin MuJoCo would take it for fixed there
    spec.visual.headlight.ambient = [0.45, 0.45, 0.45]
    spec.visual.headlight.diffuse = [0.6, 0.6, 0.6]
    _add_camera(spec, np.array([1.35, -0.85, 0.7]), np.array([0.1, 0.0, 0.22]))


def _add_camera(spec: Any, eye_m: Array, target_m: Array) -> None:
    """A camera before the robot, to its right, that looks at its chest."""
    away = eye_m - target_m
    right = np.cross([0.0, 0.0, 1.0], away)
    right /= np.linalg.norm(right)
    up = np.cross(away, right) / np.linalg.norm(away)
    turn = np.empty(4)
    mujoco.mju_mat2Quat(turn, np.stack([right, up, away / np.linalg.norm(away)], axis=1).ravel())
    camera = spec.worldbody.add_camera()
    camera.name, camera.pos, camera.quat, camera.fovy = CAMERA, eye_m, turn, 42.0


def _gains(model: Any, rest: Array, humanoid: Humanoid) -> tuple[Array, Array]:
    """(J,) stiffness and damping from the inertia at rest.

    Source: BeyondMimic (Liao et al., 2025), whose gains follow from each joint's inertia and one frequency.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = rest
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, inertia, data.qM)
    omega = 2 * np.pi * humanoid.natural_hz
    kp = np.diag(inertia) * omega**2
    return kp, 2 * humanoid.damping_ratio * kp / omega


def _no_log(message: str) -> None:
    """MuJoCo's warnings are counted in its data; by default it also writes MUJOCO_LOG.TXT into the working folder."""

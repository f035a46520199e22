"""The table, the arm and the things as one model of MuJoCo.

The arm is Franka's Panda with its parallel gripper, as the package `robosuite` describes it; of it only the solids that
touch, so that a model is ready in a few hundredths of a second. Its base stands behind the edge of the table, and it
looks along y.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.sim.descriptions import find_description
from handloom.sim.tabletop.scene import WALL_M, Goal, Scene, Thing
from handloom.sim.world import require_simulator

Floats = NDArray[np.float64]

BASE_M = (0.0, -0.42, 0.0)
HOME_RAD = (0.0, 0.05, 0.0, -2.20, 0.0, 2.25, 0.785)
NUM_JOINTS = 7
JOINTS = tuple(f"joint{number}" for number in range(1, NUM_JOINTS + 1))
FINGERS = ("finger_joint1", "finger_joint2")
OPEN_M = 0.04
"""How far each finger is from the middle when the gripper is open."""
STEP_S = 0.002
FINGER_GEOMS, PADS_HOLD = tuple(f"finger{n}_{part}" for n in (1, 2) for part in ("pad_collision", "collision")), 1.5
INSIDE_M = 0.004
WALLS = 16
_STIFF = (1800.0, 1800.0, 1800.0, 1600.0, 700.0, 500.0, 300.0)
_DAMPED = (180.0, 180.0, 160.0, 140.0, 50.0, 40.0, 25.0)
_FORCE = (87.0, 87.0, 87.0, 87.0, 40.0, 40.0, 40.0)
_COLOURS = {"A": "0.85 0.45 0.25 1", "B": "0.25 0.5 0.8 1", "C": "0.4 0.7 0.4 1"}
GREY = "0.55 0.55 0.5 1"
CAMERA = 'pos="0.45 0.85 0.55" xyaxes="-0.888 0.460 0 -0.185 -0.357 0.916" fovy="47"'
"""Opposite the arm; all places where things may stand or be put are in its pictures."""


@cache
def _arm() -> tuple[str, str]:
    """The arm's meshes and body as XML: only what touches, with the gripper in the hand."""
    files = find_description("panda"), find_description("panda_gripper")
    arm, gripper = (ET.parse(file).getroot() for file in files)
    meshes = []
    for root, folder in ((arm, files[0].parent), (gripper, files[1].parent)):
        for body in root.iter("body"):
            for part in list(body):
                seen = part.tag == "geom" and _only_seen(part)
                if seen or part.tag == "camera" or (part.tag == "site" and part.get("name") != "grip_site"):
                    body.remove(part)
                elif part.tag == "site":
                    part.set("rgba", "0 0 0 0")
        used = {one.get("mesh") for one in root.iter("geom")}
        for mesh in root.iter("mesh"):
            if (name := mesh.get("name")) in used:
                meshes.append(f'<mesh name="{name}" file="{(folder / str(mesh.get("file"))).resolve()}"/>')
    base = arm.find("worldbody/body[@name='base']")
    hand = arm.find(".//body[@name='right_hand']")
    own = gripper.find("worldbody/body[@name='right_gripper']")
    if base is None or hand is None or own is None:
        raise ValueError(f"{files[0]}: other bodies than those of robosuite 1.5")
    hand.append(own)
    base.set("pos", " ".join(map(str, BASE_M)))
    base.set("quat", f"{math.sqrt(0.5)} 0 0 {math.sqrt(0.5)}")
    for body in base.iter("body"):
        body.set("gravcomp", "1")
    for joint in base.iter("joint"):
        if joint.get("name") in JOINTS:
            joint.set("armature", "0.1")
    for geom in base.iter("geom"):
        if "pad" in str(geom.get("name")):
            geom.set("friction", "1.5 0.05 0.0005")
            geom.set("condim", "4")
        elif "finger" not in str(geom.get("name")):
            geom.set("rgba", "0.9 0.9 0.92 1")
        else:
            geom.set("rgba", "0.35 0.35 0.38 1")
    return "\n".join(meshes), ET.tostring(base, "unicode")


def _only_seen(geom: ET.Element) -> bool:
    return geom.get("contype") == "0" and geom.get("conaffinity") == "0"


def scene_xml(scene: Scene, weld: bool = False, marks: bool = False) -> str:
    """MuJoCo's XML of a scene. weld: things may be fixed to the hand, by equalities `hold_NAME`. marks: each goal is a
    disc as wide as its tolerance, of the thing's colour, which touches nothing: the mocap body `goal_NUMBER`."""
    meshes, arm = _arm()
    things = "\n".join(_thing(one) for one in (*scene.things, *scene.obstacles))
    servos = "\n".join(
        f'<general name="{name}" joint="{name}" gainprm="{kp}" biastype="affine" biasprm="0 -{kp} -{kv}" '
        f'forcerange="-{most} {most}"/>'
        for name, kp, kv, most in zip(JOINTS, _STIFF, _DAMPED, _FORCE, strict=True)
    )
    fingers = "\n".join(
        f'<position name="{name}" joint="{name}" kp="1000" ctrlrange="{low} {high}" forcerange="-30 30"/>'
        for name, low, high in zip(FINGERS, (0.0, -OPEN_M), (OPEN_M, 0.0), strict=True)
    )
    welds = "".join(
        f'<weld name="hold_{one.name}" body1="right_gripper" body2="{one.name}" active="false"/>'
        for one in scene.things
    )
    discs = "".join(_mark(goal, number) for number, goal in enumerate(scene.goals)) if marks else ""
    return f"""<mujoco><compiler angle="radian"/>
<option timestep="{STEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"/>
<visual><headlight ambient="0.45 0.45 0.45" diffuse="0.4 0.4 0.4"/></visual>
<asset>{meshes}
<texture name="sky" type="skybox" builtin="gradient" width="64" height="64" rgb1="0.8 0.85 0.9" rgb2="0.6 0.65 0.7"/>
<texture name="wood" type="2d" builtin="checker" width="64" height="64" rgb1="0.62 0.5 0.38" rgb2="0.58 0.46 0.35"/>
<material name="wood" texture="wood" texrepeat="12 8"/></asset>
<worldbody><light pos="0.5 -0.5 2" dir="-0.2 0.3 -1"/>
<camera name="corner" {CAMERA}/>
<geom name="table" type="box" size="0.7 0.5 0.02" pos="0 0.12 -0.02" material="wood" friction="0.5 0.005 0.0001"/>
{arm}
{things}{discs}</worldbody>
<contact><exclude body1="link7" body2="right_gripper"/><exclude body1="link6" body2="right_gripper"/>
<exclude body1="base" body2="link0"/>{"".join(map(_slips, scene.things))}</contact>
{f"<equality>{welds}</equality>" if weld else ""}
<actuator>{servos}{fingers}</actuator></mujoco>"""


def _mark(goal: Goal, number: int) -> str:
    colour = _COLOURS.get(goal.thing, GREY).rsplit(" ", 1)[0]
    return (
        f'<body name="goal_{number}" mocap="true"><geom type="cylinder" size="{goal.tolerance_m} 0.001" '
        f'rgba="{colour} 0.45" contype="0" conaffinity="0"/></body>'
    )


def _slips(one: Thing) -> str:
    """Contacts of a slippery thing with the fingers."""
    if one.grip_friction == PADS_HOLD:
        return ""
    f = one.grip_friction
    return "".join(
        f'<pair geom1="{finger}" geom2="{one.name}_{number}" condim="4" friction="{f} {f} 0.01 0.0001 0.0001"/>'
        for finger in FINGER_GEOMS
        for number in range(1 if one.kind != "cup" else WALLS + 1)
    )


def _thing(one: Thing) -> str:
    pose = one.pose
    x, y, z = pose[:3, 3]
    half = math.radians(one.yaw_deg) / 2
    colour = _COLOURS.get(one.name, GREY)
    touch = f'rgba="{colour}" friction="0.5 0.01 0.001" condim="4" density="{one.density}"'
    a, b, c = (0.5 * side for side in one.size_m)
    if one.kind == "box":
        geoms = f'<geom name="{one.name}_0" type="box" size="{a} {b} {c}" {touch}/>'
    elif one.kind == "cylinder":
        geoms = f'<geom name="{one.name}_0" type="cylinder" size="{a} {c}" {touch}/>'
    elif one.kind == "ball":
        rolls = touch.replace('condim="4"', 'condim="6"').replace("0.5 0.01 0.001", "0.5 0.02 0.004")
        geoms = f'<geom name="{one.name}_0" type="ellipsoid" size="{a} {b} {c}" {rolls}/>'
    else:
        # A square floor: cylinders that stand on a cylinder tremble.
        floor = f'size="{0.7 * a} {0.7 * a} {WALL_M}" pos="0 0 {WALL_M - c}" {touch}/>'
        geoms = f'<geom name="{one.name}_0" type="box" {floor}' + "".join(
            _wall(a, c, number, f'name="{one.name}_{number + 1}" {touch}') for number in range(WALLS)
        )
    return (
        f'<body name="{one.name}" pos="{x} {y} {z + 0.0005}" quat="{math.cos(half)} 0 0 {math.sin(half)}">'
        f'<freejoint name="{one.name}"/>{geoms}</body>'
    )


def _wall(radius: float, half_height: float, number: int, touch: str) -> str:
    """One of the flat pieces of a cup's wall."""
    angle = 2 * math.pi * number / WALLS
    middle, wide = radius - 0.5 * WALL_M, radius * math.tan(math.pi / WALLS)
    place = f"{middle * math.cos(angle)} {middle * math.sin(angle)} 0"
    turn = f"{math.cos(angle / 2)} 0 0 {math.sin(angle / 2)}"
    return f'<geom type="box" size="{0.5 * WALL_M} {wide} {half_height}" pos="{place}" quat="{turn}" {touch}/>'


def load(scene: Scene, weld: bool = False, marks: bool = False) -> Any:
    """MuJoCo's model of `scene_xml`.

    Raises:
        ConfigError: MuJoCo refuses the scene, such as for a thing with the name of a part of the arm.
        ModuleNotFoundError: the simulator or the arm's description is not installed.
    """
    require_simulator()
    import mujoco

    try:
        return mujoco.MjModel.from_xml_string(scene_xml(scene, weld, marks))
    except ValueError as error:
        names = ", ".join(one.name for one in (*scene.things, *scene.obstacles))
        hint = "parts of the arm have names, too, such as link0: give a thing of this name another one"
        raise ConfigError(f"MuJoCo refuses the scene of {names}: {str(error).strip()}", hint) from error


def require_room(scene: Scene) -> None:
    """Raise ConfigError where a thing stands in another one, or in the arm, deeper than `INSIDE_M`; else as `load`."""
    model = load(scene)
    import mujoco

    data = mujoco.MjData(model)
    for name, at in zip((*JOINTS, *FINGERS), (*HOME_RAD, OPEN_M, -OPEN_M), strict=True):
        data.qpos[int(model.joint(name).qposadr[0])] = at
    mujoco.mj_forward(model, data)
    things = {model.body(one.name).id: one.name for one in (*scene.things, *scene.obstacles)}
    for number in range(data.ncon):
        contact = data.contact[number]
        bodies = [int(model.geom_bodyid[geom]) for geom in (contact.geom1, contact.geom2)]
        if contact.dist < -INSIDE_M and any(body in things for body in bodies):
            first, second = sorted((things.get(body, "the arm" if body else "the table") for body in bodies), key=len)
            problem = f"{first} and {second} of the scene are in the same place, {-1000 * contact.dist:.0f} mm deep"
            raise ConfigError(problem, "place them apart")

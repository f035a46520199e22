"""Rendered demonstrations of a robot: the actions and narrations of the clips of a person, with exact states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.schemas.values import RIGHT
from handloom.synth.follow import OBJECT, STILL
from handloom.synth.render.furniture import Furniture
from handloom.synth.render.march import MarchedView
from handloom.synth.render.render import RenderedFrame
from handloom.synth.render.room import Room, shadow_map
from handloom.synth.render.textures import TEXTURES
from handloom.synth.robot.arm import ARM, LINKS
from handloom.synth.robot.stage import RobotStage, build_robot_stage
from handloom.synth.script.actions import ACTIONS
from handloom.synth.script.scene import SceneSpec

Array = NDArray[np.float64]

ROBOT_ACTIONS = tuple(name for name in ACTIONS if name not in ("wave", "cross"))
"""What one gripper can do: all actions but waving and crossing hands."""
CAMERAS = ("front", "wrist")
ARM_ID, GRIPPER_ID = 1, 2
"""Values of the id map, beside STILL and OBJECT + i."""

_FRONT_EYE, _FRONT_AIM = np.array([-0.50, -0.36, 0.50]), np.array([0.05, 0.09, 0.06])
_FRONT_FOV_DEG, _WRIST_FOV_DEG = 52.0, 80.0
_WRIST_EYE, _WRIST_AIM = np.array([0.105, 0.0, 0.105]), np.array([0.018, 0.0, -0.01])  # in the tool frame
_NOISE = 0.010


def robot_specs(
    num: int, seed: int = 0, *, width: int = 384, height: int = 288, fps: float = 15.0, duration_s: float | None = None
) -> list[SceneSpec]:
    """`num` demonstrations: `ROBOT_ACTIONS` in turn, everything else random by the seed.

    duration_s: of each; None: about 1.6 s for each step, and 2.5 s at least, as `synth_specs`.
    """
    rng = np.random.default_rng([seed, 11])
    out = []
    for i in range(num):
        action = ROBOT_ACTIONS[i % len(ROBOT_ACTIONS)]
        usual_s = max(2.5, 1.6 * sum(step.weight for step in ACTIONS[action].steps) + 0.5)
        spec = SceneSpec(
            action=action,
            noun=str(rng.choice(ACTIONS[action].nouns)),
            main_hand=RIGHT,
            hands="main",
            seed=int(rng.integers(2**31)),
            duration_s=float(np.round(usual_s, 1)) if duration_s is None else duration_s,
            fps=fps,
            width=width,
            height=height,
            table=str(rng.choice(list(TEXTURES))),
            camera_motion=0.0,
        )
        out.append(spec)
    return out


@dataclass(frozen=True)
class RobotDemo:
    """A demonstration whose states are known at once and whose images are drawn while iterating."""

    spec: SceneSpec
    stage: RobotStage

    def camera_matrix(self, camera: str) -> Array:
        """(3, 3) of a pinhole, pixels. Raises ConfigError for a name that is not in `CAMERAS`."""
        if camera not in CAMERAS:
            raise ConfigError(f"camera {camera!r} is not known", f"one of: {', '.join(CAMERAS)}")
        fov_deg = _FRONT_FOV_DEG if camera == "front" else _WRIST_FOV_DEG
        focal_px = self.spec.width / (2.0 * np.tan(np.radians(fov_deg) / 2.0))
        cx, cy = (self.spec.width - 1) / 2.0, (self.spec.height - 1) / 2.0
        return np.array([[focal_px, 0.0, cx], [0.0, focal_px, cy], [0.0, 0.0, 1.0]])

    def world_from_camera(self, camera: str) -> Array:
        """(T, 4, 4); camera x right, y down, z forward. `front` stands still, `wrist` moves with the gripper."""
        num = len(self.stage.frame_s)
        if camera == "front":
            return np.tile(_looking(_FRONT_EYE, _FRONT_AIM, np.array([0.0, 0.0, 1.0])), (num, 1, 1))
        return self.stage.world_from_tool @ _looking(_WRIST_EYE, _WRIST_AIM, np.array([1.0, 0.0, 0.3]))

    def project(self, camera: str, points_m: Array) -> Array:
        """(T, ..., 3) world points to (T, ..., 2) pixels of a camera."""
        cam_from_world = np.linalg.inv(self.world_from_camera(camera))
        shift = cam_from_world[:, :3, 3].reshape(-1, *(1,) * (points_m.ndim - 2), 3)
        cam = np.einsum("tij,t...j->t...i", cam_from_world[:, :3, :3], points_m) + shift
        homogeneous = cam @ self.camera_matrix(camera).T
        return homogeneous[..., :2] / homogeneous[..., 2:]

    def frames(self, camera: str = "front") -> Iterator[RenderedFrame]:
        """Image, depth and ids (STILL, ARM_ID, GRIPPER_ID, OBJECT + i) of every frame."""
        painter = _Painter(self, camera)
        for index in range(len(self.stage.frame_s)):
            yield painter.draw(index)

    def images(self, camera: str = "front") -> Iterator[NDArray[np.uint8]]:
        for frame in self.frames(camera):
            yield frame.image


def render_robot(spec: SceneSpec) -> RobotDemo:
    """The demonstration of a spec; nothing is drawn until `frames()` or `images()` is iterated.

    Raises:
        ConfigError: one gripper cannot do the action.
    """
    if spec.action not in ROBOT_ACTIONS:
        raise ConfigError(f"a robot does not do {spec.action!r}", f"one of: {', '.join(ROBOT_ACTIONS)}")
    return RobotDemo(spec, build_robot_stage(spec))


class _Painter:
    """Draws frames of one camera; holds what they have in common."""

    def __init__(self, demo: RobotDemo, camera: str) -> None:
        spec = demo.spec
        rng = np.random.default_rng([spec.seed, 4])
        self.stage, self.room = demo.stage, Room(spec)
        matrix = demo.camera_matrix(camera)
        self.view = MarchedView(matrix[0, 0], matrix[0, 2], matrix[1, 2], spec.width, spec.height)
        self.poses = demo.world_from_camera(camera)
        light = np.array([rng.uniform(-0.5, 0.2), rng.uniform(-0.4, 0.2), 1.0])
        self.toward_light = light / np.linalg.norm(light)
        self.warmth = (np.array([1.0, 0.98, 0.95]) * rng.uniform(0.94, 1.05, 3)).astype(np.float32)
        self.softness = 0.55 * spec.width / 480 + 0.15
        self.noise = (rng.standard_normal((spec.height + 64, spec.width + 64)) * _NOISE).astype(np.float32)
        self.noise_at = rng.integers(0, 64, (spec.num_frames, 2))
        self.furniture = [Furniture(shape, rng) for shape in self.stage.shapes]
        self.links = [Furniture(link.shape, rng) for link in LINKS]

    def draw(self, t: int) -> RenderedFrame:
        stage, pose = self.stage, self.poses[t]
        outlines = [
            outline
            for pieces, places in ((self.furniture, stage.world_from_object[t]), (self.links, stage.world_from_link[t]))
            for piece, place in zip(pieces, places, strict=True)
            for outline in piece.outlines(place)
        ]
        colour, depth = self.room.draw(self.view, pose, shadow_map([], outlines, self.toward_light))
        ids = np.full(depth.shape, STILL, np.uint8)
        for i, thing in enumerate(self.furniture):
            thing.draw(
                self.view, stage.world_from_object[t, i], pose, self.toward_light, OBJECT + i, colour, depth, ids
            )
        for i, piece in enumerate(self.links):
            name = ARM_ID if LINKS[i].owner == ARM else GRIPPER_ID
            piece.draw(self.view, stage.world_from_link[t, i], pose, self.toward_light, name, colour, depth, ids)
        return RenderedFrame(self._develop(colour, t), depth, ids)

    def _develop(self, colour: NDArray[np.float32], t: int) -> NDArray[np.uint8]:
        """Apply white balance, the lens's softness and sensor noise; 8 bits."""
        image = cv2.GaussianBlur(colour * self.warmth, (0, 0), self.softness)
        y, x = self.noise_at[t]
        image += self.noise[y : y + image.shape[0], x : x + image.shape[1], None]
        return np.clip(image * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _looking(eye: Array, aim: Array, up: Array) -> Array:
    """(4, 4) frame-from-camera of a camera at `eye` that looks at `aim`, with `up` upwards in its image."""
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = np.stack([right, np.cross(forward, right), forward], axis=1), eye
    return out

"""What is rendered (`SceneSpec`) and what is true in it (`Truth`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.schemas.values import RIGHT
from handloom.synth.actions import ACTIONS, NOUNS
from handloom.synth.textures import TEXTURES

SKINS: dict[str, tuple[float, float, float]] = {
    "light": (0.87, 0.66, 0.55),
    "tan": (0.78, 0.56, 0.43),
    "olive": (0.70, 0.51, 0.38),
    "brown": (0.54, 0.36, 0.26),
    "dark": (0.38, 0.25, 0.18),
}
"""Skin albedo, sRGB 0 to 1."""


@dataclass(frozen=True)
class SceneSpec:
    """One clip to render. The same values give the same bytes.

    main_hand: LEFT or RIGHT, the hand that acts. hands: which of the two are there at all. hand_scale: 1 is a hand of
    0.19 m. camera_motion: 0 keeps the camera still, 1 moves it like a calm head. fov_deg: along the width. start_s:
    time of the first frame.
    """

    action: str
    noun: str = "cup"
    main_hand: int = RIGHT
    hands: Literal["both", "main"] = "both"
    seed: int = 0
    duration_s: float = 2.5
    fps: float = 30.0
    width: int = 480
    height: int = 360
    fov_deg: float = 66.0
    start_s: float = 0.0
    skin: str = "tan"
    hand_scale: float = 1.0
    table: str = "wood"
    camera_motion: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("action", ACTIONS), ("noun", NOUNS), ("skin", SKINS), ("table", TEXTURES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r} is not known", f"one of: {', '.join(known)}")
        if self.width < 16 or self.height < 16 or self.num_frames < 1:
            raise ConfigError(
                f"nothing to render: {self.width}x{self.height} px, {self.duration_s} s at {self.fps} fps",
                "give at least 16x16 px and one frame",
            )

    @property
    def num_frames(self) -> int:
        return round(self.duration_s * self.fps)

    @property
    def verb(self) -> str:
        return ACTIONS[self.action].verb

    @property
    def object_noun(self) -> str:
        """The noun of the narration: what is acted on (a wave acts on nothing but the hand)."""
        return ACTIONS[self.action].noun or self.noun

    @property
    def narration(self) -> str:
        return ACTIONS[self.action].narration.format(noun=self.object_noun)

    def camera_matrix(self) -> NDArray[np.float64]:
        """(3, 3) pinhole, pixels; (0, 0) is the centre of the top-left pixel."""
        focal_px = self.width / (2.0 * np.tan(np.radians(self.fov_deg) / 2.0))
        cx, cy = (self.width - 1) / 2.0, (self.height - 1) / 2.0
        return np.array([[focal_px, 0.0, cx], [0.0, focal_px, cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Truth:
    """What is exactly so in a rendered clip. A hand that is not in the scene is NaN.

    frame_s: (T,). camera_matrix: (3, 3). world_from_camera: (T, 4, 4); camera x right, y down, z forward; world z up,
    table top at z = 0, metres. keypoints_px: (T, 2, 21, 2); keypoints_cam_m, keypoints_world_m: (T, 2, 21, 3).
    keypoint_visible: (T, 2, 21), inside the image and hidden by nothing. hand_visible: (T, 2), at least half of the
    hand's keypoints inside the image and hidden by nothing but the hand itself. world_from_object: (T, O, 4, 4).
    """

    frame_s: NDArray[np.float64]
    camera_matrix: NDArray[np.float64]
    world_from_camera: NDArray[np.float64]
    keypoints_px: NDArray[np.float64]
    keypoints_cam_m: NDArray[np.float64]
    keypoints_world_m: NDArray[np.float64]
    keypoint_visible: NDArray[np.bool_]
    hand_visible: NDArray[np.bool_]
    world_from_object: NDArray[np.float64]

    def save(self, path: Path | str) -> None:
        np.savez_compressed(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @staticmethod
    def load(path: Path | str) -> Truth:
        with np.load(path) as stored:
            return Truth(**{name: stored[name] for name in Truth.__dataclass_fields__})

"""The specification of one rendered clip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.geometry.camera.distortion import lens_of
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.objects import NOUNS
from handloom.synth.render.lens import Lens, matrix_of_view
from handloom.synth.render.textures import TEXTURES
from handloom.synth.script.actions import ACTIONS, ActionSpan, narration, spans
from handloom.synth.script.sequence import Beat, beat_spans

SKINS: dict[str, tuple[float, float, float]] = {
    "light": (0.87, 0.66, 0.55),
    "tan": (0.78, 0.56, 0.43),
    "olive": (0.70, 0.51, 0.38),
    "brown": (0.54, 0.36, 0.26),
    "dark": (0.38, 0.25, 0.18),
}
"""Skin albedo, sRGB 0 to 1."""

Entrance = Literal["none", "helper", "both"]
CameraKind = Literal["head", "turn"]
Seat = Literal["opposite", "left", "right", "beside"]


@dataclass(frozen=True)
class Person:
    """A second person at the wearer's table: `opposite`, at its `left` or `right` end, or `beside` the wearer.

    action: what the hands do, without any thing. main_hand, hands, hand_scale, skin, entrance: as in `SceneSpec`.
    """

    seat: Seat
    action: str = "reach"
    main_hand: int = RIGHT
    hands: Literal["both", "main"] = "both"
    hand_scale: float = 1.0
    skin: str = "tan"
    entrance: Entrance = "none"

    def __post_init__(self) -> None:
        _check_words(self, {"seat": get_args(Seat), "action": ACTIONS, "skin": SKINS, "entrance": get_args(Entrance)})


@dataclass(frozen=True)
class SceneSpec:
    """One clip to render. The same values give the same bytes.

    main_hand: LEFT or RIGHT, the hand that acts. hands: which hands are in the scene. hand_scale: 1 is a hand of 0.19
    m.
    camera_motion: 0 keeps the camera still, 1 moves it like a head. fov_deg: along the width; for OpenCV's polynomial
    that of the pinhole with the same matrix. start_s: time of the first frame. shutter: share of the frame time in
    which the shutter is open; 0: no motion blur. distortion: the coefficients of `camera_model` (as in `Camera`), or
    empty: `render.lens.LENSES` has some. distractors: number of things that are not touched; None: 1 to 3 by the seed.
    entrance: `helper`, the helping hand comes late and leaves early; `both`, the acting hand also comes from outside.
    camera_path: `head` moves in six degrees of freedom, `turn` only looks around. beats: a sequence of actions in place
    of `action` and `noun` (`script.sequence`). person: somebody else at the table.
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
    shutter: float = 0.0
    distortion: tuple[float, ...] = ()
    camera_model: str = "opencv"
    distractors: int | None = None
    entrance: Entrance = "none"
    camera_path: CameraKind = "head"
    beats: tuple[Beat, ...] = ()
    person: Person | None = None

    def __post_init__(self) -> None:
        known: dict[str, Iterable[str]] = {"action": ACTIONS, "noun": NOUNS, "skin": SKINS, "table": TEXTURES,
                 "entrance": get_args(Entrance), "camera_path": get_args(CameraKind)}  # fmt: skip
        _check_words(self, known)
        if self.width < 16 or self.height < 16 or self.num_frames < 1:
            raise ConfigError(
                f"nothing to render: {self.width}x{self.height} px, {self.duration_s} s at {self.fps} fps",
                "give at least 16x16 px and one frame",
            )
        if not 0.0 <= self.shutter <= 1.0:
            raise ConfigError(f"shutter is {self.shutter}", "a share of the frame time, 0 to 1")
        try:
            lens = lens_of(self.camera_model, np.array(self.distortion) if self.distortion else None)
        except ValueError as error:
            raise ConfigError(f"there is no such lens: {error}", "give a model its coefficients, or neither") from None
        widest_deg = 170.0 if lens is None else np.degrees(2 * lens.max_angle_rad)
        if not 1.0 <= self.fov_deg <= min(widest_deg, 170.0):
            raise ConfigError(f"fov_deg is {self.fov_deg}", f"1 to {min(widest_deg, 170.0):.0f} degrees with this lens")

    @property
    def num_frames(self) -> int:
        return round(self.duration_s * self.fps)

    @property
    def verb(self) -> str:
        """Of the clip; with beats, of the first one that moves something."""
        if self.beats:
            return next((beat.verb for beat in self.beats if beat.verb != "reach"), self.beats[0].verb)
        return ACTIONS[self.action].verb

    @property
    def object_noun(self) -> str:
        """The noun of the narration: the thing that is acted on; `hand` for a wave."""
        if self.beats:
            return self.beats[0].noun
        return ACTIONS[self.action].noun or self.noun

    @property
    def narration(self) -> str:
        if self.beats:
            return ", then ".join(span.narration for span in self.actions)
        return narration(self.action, self.object_noun)

    @property
    def actions(self) -> tuple[ActionSpan, ...]:
        """The atomic actions in order; they fill the clip, but for a sequence of beats."""
        hand = {LEFT: "left", RIGHT: "right"}[self.main_hand]
        if self.beats:
            return beat_spans(self.beats, hand, self.start_s)
        return spans(self.action, self.noun, hand, self.start_s, self.num_frames / self.fps)

    def camera_matrix(self) -> NDArray[np.float64]:
        """(3, 3) pixels; (0, 0) is the centre of the top-left pixel."""
        return matrix_of_view(self.camera_model, self.distortion, self.fov_deg, self.width, self.height)

    def lens(self) -> Lens:
        return Lens(self.camera_matrix(), np.array(self.distortion, float), self.width, self.height, self.camera_model)


def _check_words(given: object, known: Mapping[str, Iterable[str]]) -> None:
    """Raise ConfigError for a field whose word is not known."""
    for name, words in known.items():
        if getattr(given, name) not in words:
            raise ConfigError(f"{name} {getattr(given, name)!r} is not known", f"one of: {', '.join(words)}")

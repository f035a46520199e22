"""Settings of the recipe `arm4r`; the published values are in full.toml and full-control.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from handloom.schemas.training import TrainSettings

SIZES: dict[str, tuple[int, int, int]] = {
    "vit-b": (768, 12, 12),
    "vit-l": (1024, 24, 16),
    "vit-s": (384, 12, 6),
    "tiny": (192, 12, 3),
}
"""Width, layers and heads of the transformer (the released code's model configurations)."""


class Arm4rSettings(TrainSettings):
    """The paper's choices by default; the frozen encoders have no default and must be named."""

    LATER: ClassVar[frozenset[str]] = frozenset({"token_length"})

    stage: Literal["human", "robot_points", "control"] = "human"
    """1 `human`: next-step prediction of 3D tracks on clips of people; 2 `robot_points`: the same on clips of robots
    (`where` chooses clips); 3 `control`: robot states and actions of `robot_episodes`."""
    model: Literal["vit-b", "vit-l", "vit-s", "tiny"] = "vit-b"
    """Width, layers and heads of the causal transformer: 768/12/12, 1024/24/16, 384/12/6, 192/12/3."""
    layers: int | None = Field(None, ge=1, le=48)
    """Layers, if not the model's own number."""
    context: int = Field(16, ge=2, le=256)
    """Steps of a sample; three tokens each."""
    num_pred_steps: int | None = Field(None, ge=1, le=64)
    """Steps that are predicted at once: 1 for points and 16 for control by default."""
    head_hidden: int = Field(128, ge=8)
    """Hidden units of the head that reads the prediction from the state token."""

    rate_hz: float | None = Field(None, gt=0)
    """Steps per second; by default the table's own frames (15 Hz unless extracted otherwise; ARM4R: 20 Hz)."""
    stride: int = Field(1, ge=1)
    """Steps between the starts of consecutive windows of a clip."""
    points: Literal["grid", "selected"] = "grid"
    """`grid`: a grid (the paper's). `selected` (ours): the points on hands and what moves near."""
    track_grid: Literal["nearest", "first"] = "nearest"
    """`grid`: `first` takes the grid of the clip's first frame (the paper's), which leaves the image as the camera
    turns; `nearest` (ours) the grid of which most points are visible throughout the window."""
    grid_points: int = Field(36, ge=2, le=200)
    """`grid`: points per side that are used; a number that divides the table's grid."""
    num_selected: int = Field(96, ge=3)
    """`selected`: slots for points, a third each for the left hand, the right hand and moving things; slots may stay
    empty."""
    frame: Literal["camera", "world"] = "camera"
    """`camera`: (u, v, z) in the camera of each frame (the paper's). `world` (ours): metres in the camera frame of the
    window's first step, which removes the camera's motion; needs poses in metres."""
    depth: Literal["needed", "none"] = "needed"
    """`needed`: clips without any depth are left out and counted. `none`: z is masked everywhere."""
    skip: Literal["none", "deltas", "neighbours"] = "none"
    """`none`: the paper's network. Ours: a learned mixture of every point's last deltas is added to the prediction
    (`deltas`), and of the mean deltas around it (`neighbours`). Stages 1 and 2 alone."""
    skip_steps: int = Field(6, ge=1, le=64)
    """With a skip path: how many of the last deltas."""
    standardise: bool = False
    """Ours: the network's inputs and outputs are scaled by the training windows' mean and deviation. The loss and every
    reported number stay in the paper's units."""

    augment: bool = True
    """Random resized crop (0.65 to 1, no flip), contrast and brightness of the training images; targets stay."""
    point_dropout: float = Field(0.0, ge=0, lt=1)
    """Ours, stages 1 and 2: largest share of a sample's points that is hidden from the network while training (the
    share is drawn for each sample); they remain targets."""
    proprio_noise: float = Field(0.005, ge=0)
    """`control`: deviation of Gaussian noise on the normalised state while training."""
    cameras: tuple[str, ...] = ()
    """`control`: the robot's cameras; by default the first `num_cameras` of the episodes."""
    num_cameras: int = Field(2, ge=1, le=8)
    """Images per step, each pooled on its own; a clip with one camera gives each the same image (as in the paper)."""
    euler: Literal["auto", "XYZ", "xyz"] = "auto"
    """`control`: the axes of a state's Euler angles: `XYZ` the moving ones (the paper's data), `xyz` the fixed ones
    (CALVIN's); `auto` decides by the episodes' source."""
    control_target: Literal["auto", "action", "next_state"] = "auto"
    """`control`: the target: the recorded actions, which must have the state's form (`action`), or the states that
    follow (`next_state`); `auto` takes actions whose names are the state's."""

    things: bool | Literal["places"] = False
    """`control`, ours: the network also gets the state's numbers beside the pose, such as where things and goals are;
    places as seen from the hand. They are not predicted. `places`: places alone, no orientations. Off: a pose alone, as
    in the paper."""
    things_hidden: tuple[str, ...] = ()
    """`control`, with `things`: those whose numbers are unknown to the network, such as `object0`: what does not
    matter to a task only distracts."""
    hand_pose: bool = True
    """`control`: the network gets the hand's place and rotation in the robot's frame, as in the paper. False, ours: of
    the pose the gripper alone, beside `things` and past motion: it cannot learn where demonstrations ended."""
    turned: bool | Literal["all"] = False
    """`control`, ours: while training, each sample is turned by a random angle, about the vertical (z) or, with `all`,
    about any axis: places, rotations and targets. Not with orientations of `things`."""
    scaled: float = Field(1.0, ge=1, le=10)
    """`control`, ours: while training, each sample's places and ways are multiplied by a random factor, up to this and
    down to its inverse: people's ways are shorter and slower than a robot's."""
    balanced_loss: bool = False
    """`control`, ours, with `standardise`: the loss divides each error by the deviation of its number, so that one
    axis of long ways does not decide alone. Reported numbers stay in the paper's units."""
    token_length: float = Field(0.0, ge=0)
    """`control` without images, ours: how long the tokens of states and actions are before training; 0: as they come,
    which is 2 and 4 at the width 192. Where they are short, what the transformer adds to them hides them: least so in a
    new one, most after points, whose tokens had grown to 50."""

    image_encoder: Literal["hub", "small", "none"] = "hub"
    """`hub`: a frozen ViT from the hub, a folder or S3; `small`: handloom's own, trained; `none`: no images."""
    image_model: str = ""
    """`hub`: id, folder or s3:// URI of the image encoder."""
    image_size: int = Field(224, ge=16, le=1024)
    """Images are resized to this square."""
    text_encoder: Literal["hub", "small"] = "hub"
    """`hub`: a frozen CLIP text encoder; `small`: handloom's own."""
    text_model: str = ""
    """`hub`: id, folder or s3:// URI of the text encoder."""
    command: Literal["words", "motion", "both", "none"] = "words"
    """`control`: what tells the task: its `words` (the paper's). Ours: the `motion` of a person who does the same in a
    clip, as latents of RoboMirror; `both`; `none`: nothing does."""
    command_clips: dict[str, str] = Field({})
    """`motion`, `both`: for each task of the episodes, in words, an SQL filter of the clips that show it."""
    command_motion: str = ""
    """`motion`, `both`: a checkpoint of `handloom train robomirror`. Of stage `motion`: latents of the clips' hands; of
    stage `understand`: latents made from their images alone."""
    command_db: str = ""
    """`motion`, `both`: the database of these clips, if it is not that of the episodes."""
    command_version: int | None = Field(None, ge=1)
    """`motion`, `both`: version of its `clips`; by default the newest when the job starts."""
    command_parts: int = Field(4, ge=1, le=64)
    """`motion`, `both`: parts of a clip's time of which the network gets the mean latents."""
    num_examples: int = Field(4, ge=0)
    """Held-out windows that the report draws."""

    @model_validator(mode="after")
    def _fits(self) -> Arm4rSettings:
        if self.num_cameras > 1 and SIZES[self.model][0] % self.num_cameras:
            raise ValueError(f"num_cameras is {self.num_cameras}, expected a divisor of {SIZES[self.model][0]}")
        if self.turned and self.things is True:
            raise ValueError("turned is true and things is true, expected things = 'places': orientations do not turn")
        if self.balanced_loss and not self.standardise:
            raise ValueError("balanced_loss is true and standardise is false, expected true: it gives the deviations")
        if self.things_hidden and not self.things:
            hidden = list(self.things_hidden)
            raise ValueError(f"things_hidden is {hidden} and things is false, expected things = 'places' or true")
        if self.stage == "control" and not (self.hand_pose or self.things) and self.image_encoder == "none":
            others = "hand_pose = true, things = 'places', or an image encoder"
            raise ValueError(f"hand_pose is false: of each state the gripper alone would be told, expected {others}")
        if self.stage != "control" and self.predicted_steps() != 1:
            raise ValueError(f"num_pred_steps is {self.num_pred_steps}, expected 1 for stage {self.stage!r}")
        if self.token_length and (self.stage != "control" or self.image_encoder != "none"):
            given = f"stage {self.stage!r} and image_encoder {self.image_encoder!r}"
            raise ValueError(f"token_length is {self.token_length:g} with {given}, expected 'control' and 'none', or 0")
        if self.command != "words" and self.stage != "control":
            raise ValueError(f"command is {self.command!r}, expected 'words' for stage {self.stage!r}")
        if self.is_told_by_motion() and not (self.command_clips and self.command_motion):
            raise ValueError(f"command is {self.command!r}, and command_clips or command_motion is not given")
        return self

    def is_told_by_motion(self) -> bool:
        """Whether clips of people tell the task."""
        return self.command in ("motion", "both")

    def pinned(self, facts: Mapping[str, Any]) -> Arm4rSettings:
        """With the version of the clips that tell tasks."""
        known = facts.get("command", {}).get("version")
        return self if self.command_version or known is None else self.model_copy(update={"command_version": known})

    def predicted_steps(self) -> int:
        """Steps predicted at once in this stage."""
        return self.num_pred_steps or (16 if self.stage == "control" else 1)

    def transformer(self) -> tuple[int, int, int]:
        """Width, layers and heads."""
        width, layers, heads = SIZES[self.model]
        return width, self.layers or layers, heads

"""Settings of `handloom sim imitate`: all that changes what a student learns."""

from __future__ import annotations

from pydantic import Field

from handloom.schemas.settings import Frozen
from handloom.sim.humanoid.goals import Frame
from handloom.sim.humanoid.reference import KinematicsSettings
from handloom.train.robomirror.imitation import FitSettings
from handloom.train.robomirror.network.student import StudentSettings


class ImitateSettings(Frozen):
    """DAgger: in each round episodes are run, the teacher says what it would have done, and the student is fitted."""

    seed: int = Field(0, ge=0)
    scripted: int = Field(160, ge=0)
    """Motions of scripted people to train on."""
    held_out: int = Field(40, ge=1)
    """Motions of scripted people, of another seed, that are never trained on."""
    held_out_share: float = Field(0.2, gt=0, lt=1)
    """Of the videos of the table, chosen by a hash of their name as the recipes choose them."""
    where: str = ""
    """SQL filter on the clips of the table; empty: all."""
    frame: Frame = "head"
    """From where hands have their places: the head as it is (`head`), or as it was in the first frame (`first`)."""
    experts: tuple[str, ...] = ("lead", "correct")
    """The teacher's, combined by a gate: follow, lead, correct."""
    rounds: int = Field(8, ge=1)
    episodes: int = Field(100, ge=1)
    """Of each round, of motions in random order."""
    side_by_side: int = Field(40, ge=1)
    """Episodes that run at once, in one process."""
    fit_steps: int = Field(900, ge=1)
    """Of the optimiser, after each round."""
    teacher_share: float = Field(0.5, ge=0, le=1)
    """The share of steps at which the teacher acts, falls by this factor from round to round; the first round is
    its."""
    start_noise_rad: float = Field(0.05, ge=0)
    """Of the joints at the start of an episode, one deviation."""
    action_noise_rad: float = Field(0.03, ge=0)
    """Of the actions that are made in training, one deviation: states beside the reference are seen, too."""
    allowed_m: float = Field(0.15, gt=0)
    """An episode ends as failed where a key point is farther from the reference."""
    repeats: int = Field(2, ge=1)
    """Episodes of each held-out motion in the evaluation, with other noise at the start."""
    understood_samples: int = Field(8, ge=1)
    """Samples of latents that are made from an intent; the student is told their mean."""
    evaluation_noise_rad: float = Field(0.02, ge=0)
    kinematics: KinematicsSettings = KinematicsSettings()
    student: StudentSettings = StudentSettings()
    fit: FitSettings = FitSettings()

"""Settings of the recipe `robomirror`; docs/robomirror.md says what is the paper's, its sister's, and ours."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handloom.schemas.training import TrainSettings


class RobomirrorSettings(TrainSettings):
    """The paper gives almost no numbers; the latent's width and rate per frame are those of its sister RoboGhost."""

    stage: Literal["motion"] = "motion"
    """1 `motion`: a causal variational auto-encoder of the wearer's motion."""

    steps: int = Field(32, ge=4, le=512)
    """Frames of a window."""
    rate_hz: float = Field(15.0, gt=0)
    """Frames a second; the table must have as many."""
    stride: int = Field(4, ge=1)
    """Frames between the starts of consecutive windows of a clip."""

    latent: int = Field(64, ge=2, le=1024)
    """Numbers of the motion's latent, for each frame (RoboGhost: 64)."""
    vae_width: int = Field(256, ge=16)
    """Width of the auto-encoder."""
    vae_layers: int = Field(3, ge=1, le=24)
    """Causal convolutions in the encoder, and as many in the decoder: three reach 14 frames back."""
    kl: float = Field(1e-4, ge=0)
    """`motion`: weight of the Kullback-Leibler divergence from the standard normal distribution."""
    mirror: float = Field(0.5, ge=0, le=1)
    """`motion`: share of the training windows that are mirrored, left and right exchanged."""
    num_examples: int = Field(4, ge=0)
    """Held-out windows that the report draws."""

"""Settings of the recipe `robomirror`; docs/robomirror.md says what is the paper's, its sister's, and ours."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from handloom.schemas.training import TrainSettings


class RobomirrorSettings(TrainSettings):
    """The paper gives almost no numbers; the latent's width and rate per frame are those of its sister RoboGhost."""

    LATER: ClassVar[frozenset[str]] = frozenset({"body"})

    stage: Literal["motion", "understand"] = "motion"
    """1 `motion`: a causal variational auto-encoder of the wearer's motion. 2 `understand`: the motion's latents from
    the clip's intent, without poses; set `init` to a checkpoint of stage 1."""

    steps: int = Field(32, ge=4, le=512)
    """Frames of a window, at `rate_hz`; not the optimiser's steps, which `max_steps` limits."""
    rate_hz: float = Field(15.0, gt=0)
    """Frames a second; the table must have as many."""
    stride: int = Field(4, ge=1)
    """Frames between the starts of consecutive windows of a clip."""
    body: bool = False
    """The motion is of the body, too, where the view shows it: the keypoints of the stage `body` in clips whose hands
    are that body's. Both stages alike."""

    latent: int = Field(64, ge=2, le=1024)
    """Numbers of the motion's latent, for each frame (RoboGhost: 64)."""
    vae_width: int = Field(256, ge=16)
    """Width of the auto-encoder."""
    vae_layers: int = Field(3, ge=1, le=24)
    """Causal convolutions in the encoder, and as many in the decoder: three reach 14 frames back."""
    kl: float = Field(1e-6, ge=0)
    """`motion`: weight of the Kullback-Leibler divergence from the standard normal distribution."""
    mirror: float = Field(0.5, ge=0, le=1)
    """`motion`: share of the training windows that are mirrored, left and right exchanged."""

    understand_by: Literal["reconstruction", "alignment"] = "reconstruction"
    """`understand`: `reconstruction`: a diffusion transformer makes the latents (the paper's); `alignment`: an adaptor
    that is trained by InfoNCE (the baseline, RoboPerform's form). The report compares both."""
    intent: str = Field("intent", pattern=r"^[a-z][a-z0-9_]*$")
    """`understand`: the column of the intent; with a stage's `prefix`, PREFIXintent."""
    intent_steps: int = Field(16, ge=1, le=512)
    """`understand`: vectors of the intent that a window is given, those nearest in time."""
    intent_components: int = Field(128, ge=1, le=4096)
    """`understand`: the intent's principal components that the network is given. With few clips, all numbers of a
    vector tell the clip, and not what is done in it."""
    intent_dropout: float = Field(0.1, ge=0, lt=1)
    """`understand`: share of the intent's numbers that are hidden while training."""
    process: Literal["flow", "ddpm"] = "flow"
    """`understand`: flow matching, or denoising diffusion with a cosine schedule (RoboGhost's)."""
    sampling_steps: int = Field(2, ge=1, le=1000)
    """`understand`: calls of the network for a motion (RoboGhost: 2). More follow the distribution of motions closely;
    1 gives the mean of all that fit."""
    highest_hz: float = Field(1.75, gt=0)
    """`understand`: latents are made of the cosines over a window's time up to this frequency: what sampling leaves of
    the noise is no faster."""
    wrist_weight: float = Field(1.0, ge=0)
    """`understand`: weight of errors of the wrists' places, and of half as much of their rotations, beside those of the
    latents; a hand's shape is most of these."""
    dim: int = Field(256, ge=16)
    """`understand`: width of the transformer."""
    layers: int = Field(8, ge=1, le=48)
    """`understand`: layers of the diffusion transformer."""
    adaptor_layers: int = Field(6, ge=1, le=48)
    """`understand`: layers of the alignment's adaptor (RoboPerform: 6)."""
    heads: int = Field(8, ge=1)
    """`understand`: heads of both."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """`understand`: dropout in both, while training."""
    held_out_by: Literal["video", "participant"] = "video"
    """Whether whole videos are held out, or all videos of some participants."""
    num_examples: int = Field(4, ge=0)
    """Held-out windows that the report draws."""

    @model_validator(mode="after")
    def _fits(self) -> RobomirrorSettings:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim is {self.dim}, expected a multiple of twice heads = {self.heads}")
        return self

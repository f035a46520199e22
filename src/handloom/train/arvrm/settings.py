"""Settings of the recipe `arvrm`; the published values are in full.toml and full-finetune.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from handloom.schemas.training import TrainSettings


class ArvrmSettings(TrainSettings):
    """The paper's choices by default, where it gives them; docs/arvrm.md says what is the paper's, ours, or unknown."""

    stage: Literal["pretrain", "finetune"] = "pretrain"
    """1 `pretrain`: next hand keypoints of human clips. 2 `finetune`: next states of robot episodes, with human clips
    that are retrieved; set `init` to a checkpoint of stage 1."""

    dim: int = Field(384, ge=16)
    """Width of the causal transformer."""
    layers: int = Field(12, ge=1, le=48)
    """Layers of the transformer."""
    heads: int = Field(12, ge=1)
    """Heads of the transformer."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout in the transformer, while training."""
    latents: int = Field(9, ge=1)
    """Latents that the Perceiver resampler makes of an image's patches."""
    resampler_depth: int = Field(3, ge=1)
    """Layers of the resampler."""
    resampler_heads: int = Field(4, ge=1)
    """Heads of the resampler."""
    resampler_head_dim: int = Field(128, ge=8)
    """Numbers per head of the resampler."""
    keypoint_dim: int = Field(64, ge=4)
    """Width of a keypoint's own feature in the keypoint encoder."""
    keypoint_layers: int = Field(2, ge=0, le=12)
    """Attention layers among a step's keypoints in the keypoint encoder."""

    steps: int = Field(10, ge=3, le=256)
    """Steps of a sample."""
    rate_hz: float = Field(10 / 3, gt=0)
    """Steps per second. The paper gives no rate; 10 frames in 3 s is an estimate from its 8 M frames of 800 K clips."""
    phases: int = Field(1, ge=1, le=30)
    """Windows may start at this many times per step; rate_hz times phases must not exceed the table's frame rate."""
    stride: int = Field(1, ge=1)
    """Distance between the starts of consecutive windows of a clip, in units of 1 / (rate_hz phases) s."""

    residual: bool = False
    """Ours: the head predicts the difference from each number's last known value. Off: the value itself."""
    standardise: bool = False
    """Ours: the network's inputs and outputs are scaled by the training windows' mean and deviation. The loss and every
    reported number stay in the paper's units."""
    motion: bool = False
    """Ours: a keypoint's token also holds its position relative to its wrist and its motion since the step before."""
    mirror: float = Field(0.0, ge=0, le=1)
    """Ours: share of the training samples that are mirrored: image, both hands, and the words left and right."""
    jitter: float = Field(0.0, ge=0, lt=0.5)
    """Ours: deviation of a random shift of a training sample's keypoints, in parts of the image (which stays)."""

    goal_s: float = Field(0.0, ge=0, le=10)
    """Ours: a sample of human clips also tells where each wrist is so many seconds after its last step, as seen from
    the hand, as `things` tells a robot of its goal. 0: as in the paper."""

    image_encoder: Literal["hub", "small", "none"] = "hub"
    """`hub`: a frozen MAE ViT from the hub, a folder or S3; `small`: handloom's own, trained; `none`: no images."""
    image_model: str = ""
    """`hub`: id, folder or s3:// URI of the image encoder, facebook/vit-mae-base for the paper's."""
    image_size: int = Field(224, ge=16, le=1024)
    """Images are resized to this square."""
    image_width: int = Field(64, ge=8)
    """`small`: width of the image encoder."""
    text_encoder: Literal["hub", "small"] = "hub"
    """`hub`: a frozen CLIP text encoder; `small`: handloom's own, trained with the network."""
    text_model: str = ""
    """`hub`: id, folder or s3:// URI of the text encoder, openai/clip-vit-base-patch32 for the paper's."""

    pad: bool = False
    """`finetune`, ours: windows also begin in an episode's last steps; what would come after its end is unknown."""
    things: bool = False
    """`finetune`, ours: the network also gets the state's numbers beside the robot's own, such as where things and
    goals are; places as seen from the hand. They are not predicted. Off: all numbers of a state are the robot's."""

    retrieval: bool = True
    """`finetune`: retrieve human clips for every episode, learn the map, and train on them as replay."""
    topk: int = Field(10, ge=1, le=1000)
    """`finetune`: J, the number of human clips that are retrieved for an episode."""
    human_where: str = ""
    """`finetune`: SQL filter on the human clips; empty: all with hands. Videos of the episodes are never retrieved."""
    human_version: int | None = Field(None, ge=1)
    """`finetune`: version of the human clips, by default the newest when the job starts (`version` is the
    episodes')."""
    retrieve: Literal["similar", "random"] = "similar"
    """`finetune`: the clips that resemble an episode most; or as many at random, by `seed`, which the report compares
    with."""
    alpha: float = Field(0.5, ge=0, le=1)
    """`finetune`: share of the robot's own feature in f* = (1 - alpha) m f_k + alpha f_s. Ours; not in the paper."""
    beta: float = Field(1.0, ge=0)
    """`finetune`: weight of L_AR. Ours; not in the paper."""
    replay: float = Field(0.1, ge=0)
    """`finetune`: weight of the keypoint loss on one of the retrieved clips. Ours."""
    camera: str = ""
    """`finetune`: the robot's camera whose images are used; by default the first."""

    num_examples: int = Field(4, ge=0)
    """Held-out windows that the report draws."""

    def pinned(self, facts: Mapping[str, Any]) -> ArvrmSettings:
        """With the version of the human clips that were retrieved from."""
        known = facts.get("counts", {}).get("human_version")
        return self if self.human_version or known is None else self.model_copy(update={"human_version": known})

    @model_validator(mode="after")
    def _fits(self) -> ArvrmSettings:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}, expected a multiple of heads = {self.heads}")
        return self

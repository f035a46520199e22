"""The network of stage 1: next hand keypoints from text, images and past keypoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from handloom.train.arvrm.network.backbone import Backbone, past_images
from handloom.train.arvrm.network.goals import GoalTokens
from handloom.train.arvrm.network.keypoints import KeypointEncoder, KeypointHead
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.baselines import Past, error_sums, mean_square, past_of

_SIDES = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


class KeypointNetwork(nn.Module):
    """The parts that stage 2 takes from stage 1, and what both stages do with them."""

    def __init__(self, settings: ArvrmSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings)
        self.keypoint_encoder = KeypointEncoder(settings, facts)
        self.keypoint_head = KeypointHead(settings, facts)
        self.hand_place = nn.Parameter(0.02 * torch.randn(1, settings.dim))
        self.goals = GoalTokens(settings, facts) if settings.goal_s else None

    def predict_keypoints(self, batch: Mapping[str, Any], prefix: str = "") -> tuple[Tensor, Past]:
        """(B, T - 1, 2, 21, 3) prediction of the next step at all steps but the last, and `Past` at those steps.

        prefix: of the names in the batch: `replay_` for the replayed windows of stage 2.
        """
        keypoints = batch[f"{prefix}keypoints"][:, :-1]
        before = past_of(keypoints)
        _, tokens = self.keypoint_encoder(keypoints, before)
        tokens = tokens + self.hand_place
        if self.goals is not None:
            goals = batch[f"{prefix}goals"][:, :-1].float() / self.goals.std
            tokens = torch.cat([self.goals(goals).to(tokens.dtype), tokens], dim=2)
        out = self.backbone(list(batch[f"{prefix}text"]), past_images(batch, prefix), tokens)
        return self.keypoint_head(out[:, :, -1], before), before

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`torch.compile` the transformer alone: the encoders take strings and images of any size."""
        self.backbone.gpt.compile(*args, **kwargs)


class HandNetwork(KeypointNetwork):
    """[z_l, z_o1, z_k1, ..., z_ot, z_kt] to the keypoints of step t + 1, for every t at once (arXiv 2508.07626).

    Loss: mean squared error over the known coordinates of the next steps, whether or not they were known before.
    """

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of `HandSample`s to `{"loss", "sums", "prediction"}`; prediction (B, T - 1, 2, 21, 3) from step 2."""
        if self.training:
            batch = augmented(batch, self.settings)
        predicted, before = self.predict_keypoints(batch)
        true = batch["keypoints"][:, 1:]
        loss, counted = mean_square(predicted.float(), true)
        sums = {"loss": counted} | error_sums(predicted.float(), true, before, pixels(batch["size"]))
        hands = batch["keypoints"][..., 0, 0].isfinite()
        sums["missing_hands"] = torch.stack([(~hands).sum(), torch.tensor(hands.numel(), device=hands.device)]).double()
        return {"loss": loss, "sums": sums, "prediction": predicted}


def pixels(size: Tensor) -> Tensor:
    """(B, 1, 1, 1, 3) factors from normalised differences to pixels of the source; 0 for the depth."""
    return torch.cat([size, torch.zeros_like(size[:, :1])], dim=-1)[:, None, None, None]


def augmented(batch: Mapping[str, Any], settings: ArvrmSettings) -> dict[str, Any]:
    """The batch with a share `mirror` of its samples mirrored, and all keypoints shifted by `jitter`; random."""
    batch = dict(batch)
    keypoints, device = batch["keypoints"], batch["keypoints"].device
    if settings.mirror:
        turned = torch.rand(len(keypoints), device=device) < settings.mirror
        batch |= _mirrored(batch, turned)
    if settings.jitter:
        move = settings.jitter * torch.randn(len(keypoints), 1, 1, 1, 2, device=device)
        batch["keypoints"] = torch.cat([batch["keypoints"][..., :2] + move, batch["keypoints"][..., 2:]], dim=-1)
    return batch


def _mirrored(batch: Mapping[str, Any], turned: Tensor) -> dict[str, Any]:
    """Left and right exchanged in the samples that are `turned` (B,): keypoints, images, words."""
    keypoints = batch["keypoints"]
    last = 1 - 1 / batch["size"][:, 0].view(-1, 1, 1, 1)  # x of the last column's centre
    other = torch.cat([last[..., None] - keypoints[..., :1], keypoints[..., 1:]], dim=-1).flip(2)
    out: dict[str, Any] = {"keypoints": torch.where(turned.view(-1, 1, 1, 1, 1), other, keypoints)}
    if "goals" in batch:
        other = batch["goals"].flip(2) * torch.tensor([-1.0, 1.0, 1.0], device=keypoints.device)
        out["goals"] = torch.where(turned.view(-1, 1, 1, 1), other, batch["goals"])
    if "images" in batch:
        flip = turned.view(-1, 1, 1, 1, 1)
        out["images"] = torch.where(flip, batch["images"].flip(3), batch["images"])
    out["text"] = [_other_side(t) if turn else t for t, turn in zip(batch["text"], turned.tolist(), strict=True)]
    return out


def _other_side(text: str | None) -> str | None:
    return text and re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda word: _SIDES[word[0]], text)

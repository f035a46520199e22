"""The keypoint encoder (token z_k and a feature of each keypoint) and the keypoint head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.baselines import Past
from handloom.train.parts.mlp import Mlp

NUM_POINTS = NUM_HANDS * NUM_KEYPOINTS
SHAPE = (NUM_HANDS, NUM_KEYPOINTS, 3)


class Scales(nn.Module):
    """Mean and deviation of the keypoints' three coordinates, and deviation of their steps; saved with the weights.

    Without `standardise` they are 0, 1 and 1: the paper's own units throughout.
    """

    mean: Tensor
    std: Tensor
    step_std: Tensor

    def __init__(self, settings: ArvrmSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        given = settings.standardise
        for name, plain in (("mean", 0.0), ("std", 1.0), ("step_std", 1.0)):
            values = facts[f"keypoint_{name}"] if given else [plain] * 3
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))


class KeypointEncoder(nn.Module):
    """(B, T, 2, 21, 3) keypoints to a feature of each (B, T, 42, keypoint_dim) and one token z_k (B, T, 1, dim).

    A keypoint's numbers plus a learned vector of its name, then attention among the known keypoints of a step (the
    paper's encoder is "HandFormer-style"; its sizes are not known), then all features through a perceptron to the
    token. An unknown keypoint has a learned vector, and no keypoint attends to it.
    """

    def __init__(self, settings: ArvrmSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        dim, self.motion = settings.keypoint_dim, settings.motion
        self.scales = Scales(settings, facts)
        self.numbers = nn.Linear(9 if self.motion else 3, dim)
        self.names = nn.Parameter(0.02 * torch.randn(NUM_POINTS, dim))
        self.missing = nn.Parameter(0.02 * torch.randn(dim))
        heads = max(1, dim // 16) if dim % 16 == 0 else 1
        options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        layers = [nn.TransformerEncoderLayer(dim, heads, 2 * dim, **options) for _ in range(settings.keypoint_layers)]
        self.layers = nn.ModuleList(layers)
        self.pool = Mlp(NUM_POINTS * dim, settings.dim, hidden=settings.dim)

    def forward(self, keypoints: Tensor, before: Past) -> tuple[Tensor, Tensor]:
        """`before`: of the same keypoints. Returns (features, token)."""
        flat = self._numbers(keypoints, before).flatten(2, 3)
        known = keypoints[..., :2].isfinite().all(-1).flatten(2)
        features = torch.where(known[..., None], self.numbers(flat), self.missing) + self.names
        size = features.shape[:2]
        features, hidden = features.flatten(0, 1), ~known.flatten(0, 1)
        # Attention over no key is NaN: in a step without hands all keypoints attend to all.
        hidden = hidden & ~hidden.all(-1, keepdim=True)
        for layer in self.layers:
            features = layer(features, src_key_padding_mask=hidden)
        features = features.unflatten(0, size)
        return features, self.pool(features.flatten(2))[:, :, None]

    def _numbers(self, keypoints: Tensor, before: Past) -> Tensor:
        """(B, T, 2, 21, 3 or 9): coordinates, and with `motion` also relative to the wrist and since the last step."""
        scales = self.scales
        parts = [(keypoints - scales.mean) / scales.std]
        if self.motion:
            parts += [(keypoints - keypoints[..., :1, :]) / scales.step_std, before.velocity / scales.step_std]
        return torch.nan_to_num(torch.cat(parts, dim=-1))


class KeypointHead(nn.Module):
    """(B, T, dim) outputs at the z_k tokens to the next keypoints (B, T, 2, 21, 3), in image space."""

    def __init__(self, settings: ArvrmSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.scales = Scales(settings, facts)
        self.residual = settings.residual
        self.mlp = Mlp(settings.dim, NUM_POINTS * 3, hidden=settings.dim)
        with torch.no_grad():
            self.mlp.outer.weight.mul_(0.1)  # a new network predicts about the mean, or about no motion

    def forward(self, tokens: Tensor, before: Past) -> Tensor:
        found = self.mlp(tokens).unflatten(-1, SHAPE)
        scales = self.scales
        if not self.residual:
            return scales.mean + scales.std * found
        known = before.last.isfinite()
        start = torch.where(known, before.last, scales.mean)
        return start + torch.where(known, scales.step_std, scales.std) * found

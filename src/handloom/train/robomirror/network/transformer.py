"""A transformer over the frames of a motion and the steps of an intent, at times in seconds.

Source of the blocks: Peebles and Xie, Scalable Diffusion Models with Transformers (arXiv 2212.09748), adaLN-Zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.train.robomirror.settings import RobomirrorSettings

SHORTEST_S, LONGEST_S = 0.1, 60.0
"""Periods of the sines that a time in seconds enters by."""


def sines(values: Tensor, dim: int, shortest: float, longest: float) -> Tensor:
    """(...) numbers to (..., dim): sine and cosine of periods from `shortest` to `longest`, spread geometrically."""
    spread = torch.linspace(0, 1, dim // 2, dtype=torch.float32, device=values.device)
    rates = 2 * math.pi / (shortest * (longest / shortest) ** spread)
    angle = values.float()[..., None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Seen(nn.Module):
    """The intent of a batch as tokens (B, L, dim), and as one more for each frame (B, T, dim): between the two steps
    that are nearest in time, in proportion."""

    mean: Tensor
    components: Tensor

    def __init__(self, settings: RobomirrorSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        for name in ("mean", "components"):
            self.register_buffer(name, torch.tensor(facts[f"intent_{name}"], dtype=torch.float32))
        self.drop = nn.Dropout(settings.intent_dropout)
        self.project = nn.Linear(len(self.components), settings.dim)

    def forward(self, batch: Mapping[str, Any], frame_s: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.project(self.drop((batch["intent"] - self.mean) @ self.components.T))
        apart = frame_s[None, :, None] - batch["intent_s"][:, None]  # (B, T, L)
        apart = apart.masked_fill(~batch["intent_valid"][:, None], torch.inf)
        distance, near = apart.abs().topk(min(2, apart.shape[-1]), dim=-1, largest=False)
        weight = 1 / distance.clamp(min=1e-6)
        weight = weight / weight.sum(-1, keepdim=True)
        taken = tokens[torch.arange(len(tokens), device=tokens.device)[:, None, None], near]
        return tokens, (weight[..., None] * taken).sum(-2)


class Block(nn.Module):
    """Attention among all tokens and a perceptron; the condition scales and shifts, and gates what is added."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))
        self.modulate = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor, hidden: Tensor) -> Tensor:
        """x: (B, N, dim); condition: (B, dim); hidden: (B, N) tokens that nothing attends to."""
        parts = self.modulate(F.silu(condition))[:, None].chunk(6, dim=-1)
        inside = _modulated(x, parts[0], parts[1])
        attended, _ = self.attention(inside, inside, inside, key_padding_mask=hidden, need_weights=False)
        x = x + parts[2] * attended
        return x + parts[5] * self.feed(_modulated(x, parts[3], parts[4]))


class FrameTransformer(nn.Module):
    """Tokens of T frames, from the intent and, if `num_in` is above 0, numbers of each frame, to (B, T, latent).

    A new one gives 0. Its last layer is not conditioned, but for the blocks before it.
    """

    def __init__(self, settings: RobomirrorSettings, facts: Mapping[str, Any], num_in: int, layers: int) -> None:
        super().__init__()
        dim = settings.dim
        self.seen = Seen(settings, facts)
        self.numbers = nn.Linear(num_in, dim) if num_in else None
        self.kinds = nn.Parameter(0.02 * torch.randn(2, dim))
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(Block(dim, settings.heads, settings.dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.last = nn.Linear(dim, settings.latent)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.dim, self.rate_hz = dim, settings.rate_hz

    def forward(self, batch: Mapping[str, Any], frames: Tensor | None = None, time: Tensor | None = None) -> Tensor:
        """frames: (B, T, num_in); time: (B,) of the diffusion, 0 to 1; None: there is none."""
        num, length = batch["motion"].shape[:2]
        frame_s = torch.arange(length, device=batch["intent"].device) / self.rate_hz
        intent, beside = self.seen(batch, frame_s)
        intent = intent + self.kinds[0] + sines(batch["intent_s"], self.dim, SHORTEST_S, LONGEST_S)
        own = beside + self.kinds[1] + sines(frame_s, self.dim, SHORTEST_S, LONGEST_S)
        if self.numbers is not None and frames is not None:
            own = own + self.numbers(frames)
        at = torch.zeros(num, device=own.device) if time is None else time
        condition = self.time(sines(at, self.dim, 0.02, 4.0))
        hidden = torch.cat([~batch["valid"], ~batch["intent_valid"]], dim=1)
        x = torch.cat([own, intent], dim=1)
        for block in self.blocks:
            x = block(x, condition, hidden)
        return self.last(self.norm(x[:, :length]))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift

"""A causal transformer like LLaMA's: RMS norms before each part, rotary positions, gated feed-forward, no biases.

Sources: Touvron et al., LLaMA (2023); Su et al., RoFormer (2021); Shazeer, GLU Variants Improve Transformer (2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RmsNorm(nn.Module):
    """Scale (..., dim) to a root mean square of one, times a learned weight; computed in float32."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight


def rotary_table(length: int, head_dim: int, base: float = 10_000.0, device: torch.device | None = None) -> Tensor:
    """(length, head_dim / 2, 2): cosine and sine of each position's angle for each pair of numbers of a head."""
    rates = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)
    angle = torch.arange(length, dtype=torch.float64, device=device)[:, None] * rates
    return torch.stack([angle.cos(), angle.sin()], dim=-1).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate each pair of neighbouring numbers of (B, heads, L, head_dim) by the angle of its position."""
    pairs = x.float().unflatten(-1, (-1, 2))
    cos, sin = table[..., 0], table[..., 1]
    even = pairs[..., 0] * cos - pairs[..., 1] * sin
    odd = pairs[..., 0] * sin + pairs[..., 1] * cos
    return torch.stack([even, odd], dim=-1).flatten(-2).to(x.dtype)


def hidden_width(dim: int, multiple_of: int = 256) -> int:
    """Width of the gated feed-forward layer: two thirds of 4 dim, rounded up to `multiple_of`."""
    return multiple_of * -(-int(8 * dim / 3) // multiple_of)


class Block(nn.Module):
    """Causal self-attention, then the gated feed-forward layer, each added to its own input."""

    def __init__(self, dim: int, heads: int, multiple_of: int = 256, eps: float = 1e-5) -> None:
        super().__init__()
        hidden = hidden_width(dim, multiple_of)
        self.heads = heads
        self.attention_norm, self.feed_norm = RmsNorm(dim, eps), RmsNorm(dim, eps)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.gate_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        query, key, value = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(rotate(query, table), rotate(key, table), value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.feed_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    """(B, L, dim) embeddings to (B, L, dim); each position attends to itself and to those before it. No vocabulary.

    Weights are initialised normal with deviation 0.02, those that add to the residual stream smaller with the depth.
    """

    def __init__(self, dim: int, layers: int, heads: int, multiple_of: int = 256, eps: float = 1e-5) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.blocks = nn.ModuleList(Block(dim, heads, multiple_of, eps) for _ in range(layers))
        self.norm = RmsNorm(dim, eps)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                adds = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * layers) ** 0.5 if adds else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        table = rotary_table(tokens.shape[1], self.head_dim, device=tokens.device)
        for block in self.blocks:
            tokens = block(tokens, table)
        return self.norm(tokens)

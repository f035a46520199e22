"""A Perceiver resampler: a few learned latents look at many patch tokens, and take their place.

Source: Alayrac et al., Flamingo (2022), section 2.1; depth 3, 4 heads of 128, 9 latents in AR-VRM (SPECS 2.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Layer(nn.Module):
    """Latents attend to the tokens and to themselves, then a perceptron."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.norm_tokens, self.norm_latents, self.norm_feed = (nn.LayerNorm(dim) for _ in range(3))
        self.query = nn.Linear(dim, inner, bias=False)
        self.key_value = nn.Linear(dim, 2 * inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)
        self.up, self.down = nn.Linear(dim, mlp_ratio * dim, bias=False), nn.Linear(mlp_ratio * dim, dim, bias=False)

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        own = self.norm_latents(latents)
        seen = torch.cat([self.norm_tokens(tokens), own], dim=1)
        query = self.query(own).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(seen).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        latents = latents + self.out(attended)
        return latents + self.down(F.gelu(self.up(self.norm_feed(latents))))


class PerceiverResampler(nn.Module):
    """(B, P, dim) patch tokens to (B, num_latents, dim)."""

    def __init__(
        self, dim: int, num_latents: int = 9, depth: int = 3, heads: int = 4, head_dim: int = 128, mlp_ratio: int = 4
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(0.02 * torch.randn(1, num_latents, dim))
        self.layers = nn.ModuleList(_Layer(dim, heads, head_dim, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        latents = self.latents.expand(len(tokens), -1, -1)
        for layer in self.layers:
            latents = layer(latents, tokens)
        return self.norm(latents)

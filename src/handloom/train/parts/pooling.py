"""Few tokens for the many of an image: attention pooling (ARM4R) and the Perceiver resampler (AR-VRM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.train.parts.mlp import Mlp


class AttentionPool(nn.Module):
    """(B, L, dim) tokens to (B, num_out): one learned query attends to all of them, then a residual perceptron.

    ARM4R's has one query, 8 heads and mlp_ratio 4 (its released code). That the last layer brings `dim` down to
    `num_out` is ours: the paper gives both widths and not how one becomes the other.
    """

    def __init__(self, dim: int, num_out: int, heads: int = 8, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.heads = heads
        self.latent = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.mixed = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, dim, hidden=int(dim * mlp_ratio))
        self.out = nn.Linear(dim, num_out)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.query(self.latent).expand(len(tokens), -1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pooled = self.mixed(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return self.out(pooled + self.mlp(self.norm(pooled)))[:, 0]


class _ResamplerLayer(nn.Module):
    """Latents attend to the tokens and to the latents, then a perceptron."""

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
    """(B, P, dim) patch tokens to (B, num_latents, dim): learned latents attend to the tokens, layer by layer.

    AR-VRM's has depth 3, 4 heads of 128 and 9 latents.

    Source: Alayrac et al., Flamingo: a Visual Language Model for Few-Shot Learning (2022), section 2.1.
    """

    def __init__(
        self, dim: int, num_latents: int = 9, depth: int = 3, heads: int = 4, head_dim: int = 128, mlp_ratio: int = 4
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(0.02 * torch.randn(1, num_latents, dim))
        self.layers = nn.ModuleList(_ResamplerLayer(dim, heads, head_dim, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        latents = self.latents.expand(len(tokens), -1, -1)
        for layer in self.layers:
            latents = layer(latents, tokens)
        return self.norm(latents)

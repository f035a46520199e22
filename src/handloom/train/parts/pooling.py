"""Attention pooling: a learned query looks at patch tokens and one more, and gives one vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.train.parts.mlp import Mlp


class AttentionPool(nn.Module):
    """(B, L, dim) tokens to (B, num_out): one learned query attends to all of them, then a residual perceptron.

    latent_len 1, 8 heads, mlp_ratio 4 in ARM4R (SPECS 1.5). That the last layer brings `dim` down to `num_out` is ours:
    the source gives both widths and not how one becomes the other.
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

"""A causal transformer like GPT-2's that takes embeddings with their positions: norms first, biases, dropout.

Source: Radford et al., Language Models are Unsupervised Multitask Learners (2019).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class GptBlock(nn.Module):
    """Causal self-attention and a ReLU perceptron, each after a layer norm and added to its input."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        x = x + F.dropout(self.out(attended.transpose(1, 2).flatten(2)), dropout)
        return x + F.dropout(self.down(F.relu(self.up(self.norm2(x)))), dropout)


class Gpt(nn.Module):
    """(B, L, dim) tokens, positions already added, to (B, L, dim); each token attends to itself and those before it.

    Weights are initialised as GPT-2's: normal with deviation 0.02, those that add to the residual stream smaller with
    the depth.
    """

    def __init__(self, dim: int, layers: int, heads: int, hidden: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = dropout
        self.blocks = nn.ModuleList(GptBlock(dim, heads, hidden or 4 * dim, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        for name, weight in self.blocks.named_parameters():
            if weight.ndim == 2:
                adds = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / ((2 * layers) ** 0.5 if adds else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = F.dropout(tokens, self.dropout if self.training else 0.0)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

"""Causal convolutions over the frames of a motion: an output depends on its own frame and those before it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = 3
DILATIONS = (1, 2, 4)
"""Of consecutive blocks, again and again."""


class CausalBlock(nn.Module):
    """(B, T, dim) plus a convolution over this frame and two before it, `dilation` frames apart.

    Before a sequence's first frame all hidden values are 0, as if the person had appeared then.
    """

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.reach = dilation * (KERNEL - 1)
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Conv1d(dim, 2 * dim, KERNEL, dilation=dilation)
        self.outer = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        before = F.pad(self.norm(x).transpose(1, 2), (self.reach, 0))
        return x + self.outer(F.gelu(self.inner(before).transpose(1, 2)))


class CausalStack(nn.Module):
    """(B, T, num_in) to (B, T, num_out) through `layers` blocks; a new one gives 0.

    reach: how many frames before its own an output depends on.
    """

    def __init__(self, num_in: int, num_out: int, width: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(num_in, width)
        blocks = [CausalBlock(width, DILATIONS[n % len(DILATIONS)]) for n in range(layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, num_out)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.reach = sum(block.reach for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.blocks(self.first(x))))

"""Perceptrons: the encoder of a vector, and the head that turns a token into numbers."""

from __future__ import annotations

from torch import Tensor, nn


class Mlp(nn.Module):
    """(..., num_in) to (..., num_out): linear, GELU, linear. The hidden layer is as wide as the input by default, as in
    ARM4R's encoders (timm's `Mlp`)."""

    def __init__(self, num_in: int, num_out: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or num_in
        self.inner = nn.Linear(num_in, hidden)
        self.outer = nn.Linear(hidden, num_out)
        self.act = nn.GELU()

    def forward(self, values: Tensor) -> Tensor:
        return self.outer(self.act(self.inner(values)))


class MlpHead(Mlp):
    """(..., dim) tokens to (..., num_out) through `hidden` units (ARM4R: 128).

    The last layer starts a hundred times smaller than usual (ours): a new network then predicts deltas near zero, the
    zero-motion baseline, and not noise of the size of the activations.
    """

    def __init__(self, dim: int, num_out: int, hidden: int = 128) -> None:
        super().__init__(dim, num_out, hidden)
        nn.init.normal_(self.outer.weight, std=0.01 * hidden**-0.5)
        nn.init.zeros_(self.outer.bias)

"""The setting `skip` (ours): a learned mixture of the last deltas of a point and of its neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPEED = 10.0
"""AdamW moves every parameter by about the learning rate a step: parameters of size one would take the whole training
to change, so they are stored ten times smaller."""
REACHES = (0.1, 0.3, None)
"""Sizes of neighbourhoods: deviations of a Gaussian in u' and v' (50 and 150 px at 912 x 512) or in metres of the
world; None: all points, equally."""
_AT_ONCE = 32
"""Steps whose N x N distances are in memory at once: they fit into the processor's cache."""


class DeltaSkip(nn.Module):
    """A mixture of the last deltas, to be added to the network's prediction.

    Reasons: the network reads N points through one vector of its width, which blurs each point's last delta, and an
    extrapolation needs it exactly. A tracker's jitter differs from point to point, while the camera's motion is shared:
    means over neighbours separate the two. All points share one set of weights, plus a gate that follows from the state
    token of the step; before training the mixture is constant velocity.

    steps: how many of the last deltas. neighbours: also use the means over `REACHES`. metric: distances are of x, y and
    z in metres, not of u' and v'.
    """

    def __init__(self, dim: int, steps: int, neighbours: bool, metric: bool = False) -> None:
        super().__init__()
        self.reaches = REACHES if neighbours else ()
        self.metric = metric
        self.shape = (1 + len(self.reaches), steps, 3)
        self.base = nn.Parameter(torch.zeros(self.shape))
        with torch.no_grad():
            self.base[0, 0] = 1 / SPEED
        self.gate = nn.Linear(dim, self.base.numel())
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, tokens: Tensor, proprio: Tensor, action: Tensor) -> Tensor:
        """(B, T, 3 N) deltas to add.

        tokens: (B, T, dim). proprio, action: (B, T, 3 N), places and true deltas, NaN where unknown; step t uses those
        of t - 1, ..., t - steps.
        """
        weight = SPEED * self.base + self.gate(tokens).float().unflatten(-1, self.shape)
        delta = action.unflatten(-1, (-1, 3)).float()
        place = proprio.unflatten(-1, (-1, 3)).float()
        sources = torch.stack([torch.nan_to_num(delta), *self._around(place, delta)], dim=2)  # (B, T, kinds, N, 3)
        length = sources.shape[1]
        padded = F.pad(sources, (0, 0, 0, 0, 0, 0, self.shape[1], 0))
        lagged = torch.stack([padded[:, self.shape[1] - lag :][:, :length] for lag in range(1, self.shape[1] + 1)], 3)
        return torch.einsum("btklc,btklnc->btnc", weight, lagged).flatten(2)

    @torch.no_grad()
    def _around(self, place: Tensor, delta: Tensor) -> list[Tensor]:
        """For each reach (B, T, N, 3): mean of the known deltas around each place, 0 where no delta is known."""
        if not self.reaches:
            return []
        where = torch.nan_to_num(place if self.metric else place[..., :2]).flatten(0, 1)
        seen = delta.isfinite().float().flatten(0, 1)
        values = torch.cat([torch.nan_to_num(delta).flatten(0, 1), seen], dim=-1)  # (B * T, N, 6)
        parts = zip(where.split(_AT_ONCE), values.split(_AT_ONCE), strict=True)
        means = [torch.stack([_mean_around(*part, reach) for reach in self.reaches], 1) for part in parts]
        return list(torch.cat(means).unflatten(0, place.shape[:2]).unbind(2))


def _mean_around(where: Tensor, values: Tensor, reach: float | None) -> Tensor:
    """(M, N, 3) means. where: (M, N, 2 or 3) places. values: (M, N, 6), three numbers, then 1 or 0 for known or not."""
    if reach is None:
        near = values.sum(1, keepdim=True).expand_as(values)
    else:
        scaled = where * (0.5**0.5 / reach)
        length = scaled.square().sum(-1)
        near = torch.baddbmm(length[:, None] + length[..., None], scaled, scaled.mT, alpha=-2).neg_().exp_() @ values
    return near[..., :3] / near[..., 3:].clamp(min=1e-6)

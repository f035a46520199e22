"""Free-running prediction: from some true steps on, the network goes on from what it predicted itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from handloom.train.arm4r.network import Arm4rNetwork


@torch.no_grad()
def roll_out(network: Arm4rNetwork, batch: Mapping[str, Any], given: int) -> Tensor:
    """(B, T + 1, N, 3) places: the first `given` steps are the true ones, the rest predicted step by step, each from
    the predictions before it (stages 1 and 2). Pictures of later steps are the last given one.

    A point that is not known at the last given step stays NaN.
    """
    network.eval()
    points = batch["points"].float().clone()
    points[:, given:] = torch.nan
    batch = {**batch, "points": points}
    if "images" in batch:
        images = batch["images"].clone()
        images[:, given:] = images[:, given - 1 : given]
        batch["images"] = images
    for step in range(given - 1, points.shape[1] - 1):
        change = network.predict(batch, network.targets(batch))[:, step, 0]
        points[:, step + 1] = points[:, step] + change.float().unflatten(-1, (-1, 3))
    return points


@torch.no_grad()
def one_step(network: Arm4rNetwork, batch: Mapping[str, Any]) -> Tensor:
    """(B, T + 1, N, 3) places: each step predicted from the true steps before it; the first is the true one."""
    network.eval()
    points = batch["points"].float()
    change = network.predict(batch, network.targets(batch))[:, :, 0].float().unflatten(-1, (-1, 3))
    return torch.cat([points[:, :1], points[:, :-1] + change], dim=1)


def steady(points: Tensor, given: int) -> Tensor:
    """(B, T + 1, N, 3): constant velocity from the last two given steps."""
    last, before = points[:, given - 1], points[:, given - 2]
    ahead = torch.arange(1, points.shape[1] - given + 1, device=points.device)[:, None, None]
    return torch.cat([points[:, :given], last[:, None] + ahead * (last - before)[:, None]], dim=1)

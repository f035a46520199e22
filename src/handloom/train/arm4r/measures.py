"""What a batch adds to the reported numbers: sums over known elements, and how many there were."""

from __future__ import annotations

import torch
from torch import Tensor

from handloom.train.arm4r.batches import Targets


@torch.no_grad()
def sums_of(wrong: Tensor, targets: Targets) -> dict[str, Tensor]:
    """name -> (sum, count), float64. `wrong`: (B, T, P, A) absolute errors of the network, 0 where unknown.

    `l1`, `zero_motion` and `constant_velocity` are over the same elements: target and the delta before it are known.
    `loss` is over all known targets: also where there is no delta before (a sample's first step). The same three again
    for every part, as in `l1_moving`. `unknown_inputs`: share of the states' numbers that were NaN.
    """
    fair = targets.known & targets.velocity.isfinite()
    still = targets.delta.abs()
    steady = (targets.delta - torch.nan_to_num(targets.velocity)).abs()
    out = {"loss": _sum(wrong, targets.known)}
    for part, mask in {"": torch.ones_like(fair), **targets.parts}.items():
        end = f"_{part}" if part else ""
        for name, error in {"l1": wrong, "zero_motion": still, "constant_velocity": steady}.items():
            out[f"{name}{end}"] = _sum(error, fair & mask)
    counted = torch.tensor(float(targets.num_inputs), dtype=torch.float64, device=wrong.device)
    out["unknown_inputs"] = torch.stack([targets.num_missing.double(), counted])
    return out


def _sum(error: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([torch.where(mask, error, 0.0).sum(dtype=torch.float64), mask.sum().double()])

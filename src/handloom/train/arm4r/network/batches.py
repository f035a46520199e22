"""Inputs and targets of the network from collated samples, with masks of what is unknown, and the reported sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def sums_of(wrong: Tensor, targets: Targets) -> dict[str, Tensor]:
    """`{name: (sum, count)}`, float64. wrong: (B, T, P, A) absolute errors of the network, 0 where unknown.

    `l1`, `zero_motion` and `constant_velocity` are over the same elements: the target and the delta before it are
    known. `loss` is over all known targets, a sample's first step among them, which has no delta before it. The first
    three also for every part of `targets`, such as `l1_moving`. `unknown_inputs`: share of the states' numbers that are
    NaN.
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


@dataclass(frozen=True)
class Targets:
    """A batch of B samples of T steps, P predicted steps, A numbers in an action, D in a state. NaN: unknown.

    proprio: (B, T, D). action: (B, T, A), the true delta of the first predicted step: the teacher-forced action token.
    delta: (B, T, P, A), 0 where unknown. known: the same shape, bool: the mask of the loss.
    velocity: (B, T, P, A), what constant velocity predicts, NaN where the step before is unknown.
    parts: {name: mask that broadcasts to `known`}, elements that are also reported on their own.
    num_inputs, num_missing: how many numbers the states have, and how many of them are unknown.
    """

    proprio: Tensor
    action: Tensor
    delta: Tensor
    known: Tensor
    velocity: Tensor
    parts: Mapping[str, Tensor]
    num_inputs: int
    num_missing: Tensor


def point_targets(batch: Mapping[str, Any], metric: bool = False) -> Targets:
    """Targets of stages 1 and 2 from `points` (B, T + 1, N, 3), NaN where unknown, and `moves` (B, T, N) if present.

    The target is the next place minus this one, known number by number where both are: of a point without depth u and v
    are learned. metric: the numbers are x, y and z in metres.
    """
    points = batch["points"].float()
    change = points[:, 1:] - points[:, :-1]
    delta = change.flatten(2)[:, :, None]
    before = torch.full_like(change[:, :1], torch.nan)
    velocity = torch.cat([before, change[:, :-1]], dim=1).flatten(2)[:, :, None]
    third = torch.arange(delta.shape[-1], device=delta.device) % 3
    parts = {"xy" if metric else "uv": third < 2, "z": third == 2}
    if "moves" in batch:
        parts["moving"] = batch["moves"].repeat_interleave(3, dim=-1)[:, :, None]
    return _targets(points[:, :-1].flatten(2), delta, velocity, parts)


def control_targets(batch: Mapping[str, Any]) -> Targets:
    """Targets of stage 3 from `state` (B, T, D + things) and `target` (B, T, P, D), deltas to the state of their step;
    NaN where unknown."""
    state, delta = batch["state"].float(), batch["target"].float()
    pose = state[..., : delta.shape[-1]]
    step = torch.diff(pose, dim=1, prepend=torch.full_like(pose[:, :1], torch.nan))
    ahead = torch.arange(1, delta.shape[2] + 1, device=delta.device)[:, None]
    first = torch.arange(delta.shape[2], device=delta.device)[:, None] == 0
    return _targets(state, delta, step[:, :, None] * ahead, {"first_step": first})


def _targets(proprio: Tensor, delta: Tensor, velocity: Tensor, parts: Mapping[str, Tensor]) -> Targets:
    known = delta.isfinite()
    return Targets(
        proprio=proprio,
        action=delta[:, :, 0],
        delta=torch.nan_to_num(delta),
        known=known,
        velocity=velocity,
        parts=parts,
        num_inputs=proprio.numel(),
        num_missing=proprio.isnan().sum(),
    )

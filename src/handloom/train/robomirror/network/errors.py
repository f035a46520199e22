"""Errors of a motion over its known numbers, beside those of standing still and of constant velocity."""

from __future__ import annotations

import torch
from torch import Tensor

from handloom.schemas.hand_topology import WRIST
from handloom.train.parts.baselines import pair, past_of
from handloom.train.robomirror.data.motion import head_steps_of, keypoints_of, wrists_of

MM = 1000.0


def motion_sums(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    """`{name: (sum, count)}` of (B, T, 147) motions: mean distances of the 21 keypoints of both hands (MPJPE), `error`,
    of the wrists, `error_wrist`, in mm; `error_turn` of the wrists' rotations in degrees; `error_head` (mm a step),
    `error_head_turn` (degrees a step).

    `error` and `error_wrist` are over elements that were known before, too, so that `zero_motion` (the last known
    place) and `constant_velocity` are over the same.
    """
    points, guess = keypoints_of(true), keypoints_of(predicted)
    before = past_of(points)
    # Entry t of `Past` is a guess of t + 1.
    still, steady = (
        torch.cat([torch.full_like(p[:, :1], torch.nan), p[:, :-1]], dim=1)
        for p in (before.zero_motion, before.constant_velocity)
    )
    fair = (points.isfinite() & still.isfinite()).all(-1)
    out = {}
    for name, values in {"error": guess, "zero_motion": still, "constant_velocity": steady}.items():
        apart = torch.where(fair, MM * (values - points).norm(dim=-1), 0.0)
        out[name] = pair(apart, fair)
        out[f"{name}_wrist"] = pair(apart[..., WRIST], fair[..., WRIST])
    turns = (wrists_of(motion)[..., :3, :3] for motion in (predicted, true))
    out["error_turn"] = _known(angle_deg(*turns))
    steps = [head_steps_of(motion) for motion in (predicted, true)]
    out["error_head"] = _known(MM * (steps[0] - steps[1])[..., :3, 3].norm(dim=-1))
    out["error_head_turn"] = _known(angle_deg(steps[0][..., :3, :3], steps[1][..., :3, :3]))
    return out


def angle_deg(a: Tensor, b: Tensor) -> Tensor:
    """(...) angle between rotations (..., 3, 3), degrees; NaN where one is unknown."""
    # By the chord: arccos of the trace is inexact at small angles.
    return torch.rad2deg(2 * torch.asin((a - b).flatten(-2).norm(dim=-1).div(8**0.5).clamp(max=1)))


def _known(values: Tensor) -> Tensor:
    return pair(torch.nan_to_num(values), values.isfinite())

"""Errors of a motion over its known numbers, beside those of standing still and of constant velocity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from handloom.schemas.hand_topology import WRIST
from handloom.train.parts.baselines import pair, past_of
from handloom.train.robomirror.data.motion import bodies_of, has_body, head_steps_of, keypoints_of, wrists_of

MM = 1000.0


def motion_sums(predicted: Tensor, true: Tensor, beside: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`{name: (sum, count)}` of (B, T, D) motions: mean distances of the 21 keypoints of both hands (MPJPE), `error`,
    of the wrists, `error_wrist`, in mm; `error_turn` of the wrists' rotations in degrees; `error_head` (mm a step),
    `error_head_turn` (degrees a step). With a body `error_hips`, of the middle of the hips, and `error_body`, of the
    body's keypoints from there, in mm of a person of MediaPipe's usual size.

    `error` and `error_wrist` are over elements that were known before, too, so that `zero_motion` (the last known
    place) and `constant_velocity` are over the same, as are the distances of the motions `beside`, by name.
    """
    points = keypoints_of(true)
    still, steady, fair = _before(points)
    guesses = {"error": predicted, **beside}
    hands = {name: keypoints_of(motion) for name, motion in guesses.items()}
    out = _distances(hands | {"zero_motion": still, "constant_velocity": steady}, points, fair)
    if has_body(true):
        _, points = bodies_of(true)
        still, steady, fair = _before(points)
        bodies = {name: bodies_of(motion)[1] for name, motion in guesses.items()}
        bodies |= {"zero_motion": still, "constant_velocity": steady}
        out |= {f"{name}_body": _distance(values, points, fair) for name, values in bodies.items()}
        out |= _hips("error", predicted, true)
    return out | _turns("error", predicted, true) | _head("error", predicted, true)


def _before(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, ..., 3) places if nothing moves, and if the velocity stays, and (B, T, ...) where the place is known, now
    and before."""
    before = past_of(points)
    # Entry t of `Past` is a guess of t + 1.
    still, steady = (
        torch.cat([torch.full_like(p[:, :1], torch.nan), p[:, :-1]], dim=1)
        for p in (before.zero_motion, before.constant_velocity)
    )
    return still, steady, (points.isfinite() & still.isfinite()).all(-1)


def hand_sums(guesses: Mapping[str, Tensor], true: Tensor) -> dict[str, Tensor]:
    """As `motion_sums`, of several motions beside each other, by name, over all known elements."""
    points = keypoints_of(true)
    out: dict[str, Tensor] = {}
    for name, guess in guesses.items():
        out |= _distances({name: keypoints_of(guess)}, points, points.isfinite().all(-1))
        out |= _turns(name, guess, true) | _head(name, guess, true)
        if has_body(true):
            body = bodies_of(true)[1]
            out[f"{name}_body"] = _distance(bodies_of(guess)[1], body, body.isfinite().all(-1))
            out |= _hips(name, guess, true)
    return out


def _distances(guesses: Mapping[str, Tensor], points: Tensor, fair: Tensor) -> dict[str, Tensor]:
    """Of keypoints (B, T, 2, 21, 3), where `fair`."""
    out = {}
    for name, values in guesses.items():
        out[name] = _distance(values, points, fair)
        out[f"{name}_wrist"] = _distance(values[..., WRIST, :], points[..., WRIST, :], fair[..., WRIST])
    return out


def _distance(values: Tensor, points: Tensor, fair: Tensor) -> Tensor:
    return pair(torch.where(fair, MM * (values - points).norm(dim=-1), 0.0), fair)


def _hips(name: str, predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    hips, _ = bodies_of(true)
    return {f"{name}_hips": _distance(bodies_of(predicted)[0], hips, hips.isfinite().all(-1))}


def _turns(name: str, predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    turns = (wrists_of(motion)[..., :3, :3] for motion in (predicted, true))
    return {f"{name}_turn": _known(angle_deg(*turns))}


def _head(name: str, predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    steps = [head_steps_of(motion) for motion in (predicted, true)]
    place = MM * (steps[0] - steps[1])[..., :3, 3].norm(dim=-1)
    turn = angle_deg(steps[0][..., :3, :3], steps[1][..., :3, :3])
    return {f"{name}_head": _known(place), f"{name}_head_turn": _known(turn)}


def jerk_sums(motions: Mapping[str, Tensor], true: Tensor, rate_hz: float) -> dict[str, Tensor]:
    """`{name: (sum, count)}` of the wrists' jerk (m/s3) in the frame of the head: how unsteady motions are. Counted are
    the same elements of all: those where the true wrist is known, and in the three frames before."""
    jerks = {name: _jerk(motion, rate_hz) for name, motion in {"true": true, **motions}.items()}
    known = jerks["true"].isfinite()
    return {name: pair(torch.where(known, jerk, 0.0), known) for name, jerk in jerks.items()}


def _jerk(motion: Tensor, rate_hz: float) -> Tensor:
    return wrists_of(motion)[..., :3, 3].diff(n=3, dim=1).norm(dim=-1) * rate_hz**3


def angle_deg(a: Tensor, b: Tensor) -> Tensor:
    """(...) angle between rotations (..., 3, 3), degrees; NaN where one is unknown."""
    # By the chord: arccos of the trace is inexact at small angles.
    return torch.rad2deg(2 * torch.asin((a - b).flatten(-2).norm(dim=-1).div(8**0.5).clamp(max=1)))


def _known(values: Tensor) -> Tensor:
    return pair(torch.nan_to_num(values), values.isfinite())

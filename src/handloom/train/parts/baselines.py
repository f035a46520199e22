"""The baselines that predictions are compared with: zero motion and constant velocity, from the last known values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Past:
    """What is known at each step; tensors are (B, T, ...), entry t is about the steps up to and including t.

    last: last known value, NaN where there is none. velocity: change per step between the last two known values, NaN
    where there are fewer. age: steps since the last known value (0: known at t).
    """

    last: Tensor
    velocity: Tensor
    age: Tensor

    @property
    def zero_motion(self) -> Tensor:
        """The value at t + 1 if nothing moves."""
        return self.last

    @property
    def constant_velocity(self) -> Tensor:
        """The value at t + 1 if the velocity stays; no motion where it is not known."""
        return self.last + torch.nan_to_num(self.velocity) * (self.age + 1)


def past_of(values: Tensor) -> Past:
    """`Past` of (B, T, ...) values with NaN where unknown; element by element."""
    last = torch.full_like(values[:, 0], torch.nan)
    velocity, age = torch.full_like(last, torch.nan), torch.zeros_like(last)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for t in range(values.shape[1]):
        now, known = values[:, t], values[:, t].isfinite()
        moved = (now - last) / (age + 1)
        velocity = torch.where(known & moved.isfinite(), moved, velocity)
        age = torch.where(known, torch.zeros_like(age), age + 1)
        last = torch.where(known, now, last)
        rows.append((last, velocity, age))
    return Past(*(torch.stack(column, dim=1) for column in zip(*rows, strict=True)))


def error_sums(predicted: Tensor, true: Tensor, before: Past, scale: Tensor | None = None) -> dict[str, Tensor]:
    """`{name: (sum, count)}` in float64, all over the same elements: those known now and at least once before.

    error, zero_motion, constant_velocity: squared errors; with `_l1` absolute ones; with `_px` absolute ones times
    `scale` where it is above zero. All arguments (B, T, ...).
    """
    fair = true.isfinite() & before.last.isfinite()
    guesses = {"error": predicted, "zero_motion": before.zero_motion, "constant_velocity": before.constant_velocity}
    out = {}
    for name, guess in guesses.items():
        apart = torch.where(fair, (guess - true).abs(), 0.0).detach().double()
        out[name] = pair(apart.square(), fair)
        out[f"{name}_l1"] = pair(apart, fair)
        if scale is not None:
            out[f"{name}_px"] = pair(apart * scale, fair & (scale > 0))
    return out


def mean_square(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """(mean squared error over the known elements, (sum, count) of it); 0 where nothing is known."""
    known = true.isfinite()
    squares = torch.where(known, (predicted - torch.nan_to_num(true)).square(), 0.0)
    return squares.sum() / known.sum().clamp(min=1), pair(squares.detach().double(), known)


def pair(values: Tensor, counted: Tensor) -> Tensor:
    """(sum, count) in float64, as the loop adds them up."""
    return torch.stack([values.detach().double().sum(), counted.sum().double()])

"""Turning and scaling samples of stage 3 while training (ours): the way of a hand to a thing does not depend on where
north is, and hardly on how long the arm is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handloom.train.arm4r.network.batches import Targets

Turned = bool | Literal["all"]
"""False: not. True: about the vertical. `all`: about any axis."""
POSE, PLACE_AND_ROTATION = 10, 9
"""Numbers of a pose, and of it without the gripper."""
_PLACE, _COLUMNS = 0, (3, 6)
_EVEN = np.array([np.diag(signs) for signs in product((1.0, -1.0), repeat=3) if np.prod(signs) > 0])
_CYCLES = np.array([np.roll(np.eye(3), shift, axis=0) for shift in range(3)])


def places_of(things: Sequence[str]) -> list[int]:
    """Where the places of things begin in a state: the names `NAME.x`, `NAME.y` and `NAME.z`, one after the other."""
    return [
        POSE + at
        for at, name in enumerate(things)
        if name.endswith(".x") and tuple(things[at + 1 : at + 3]) == (f"{name[:-1]}y", f"{name[:-1]}z")
    ]


def spread(values: NDArray[np.floating], things: Sequence[str], how: Turned, most: float) -> list[NDArray[np.floating]]:
    """States or targets (..., D) in directions, and in a size, that give the mean and deviation of changed ones. how,
    most: as `changed`."""
    if how == "all":
        turns = [even @ cycle for even in _EVEN for cycle in _CYCLES]
    else:
        turns = [np.linalg.matrix_power(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), k) for k in range(4 * how or 1)]
    size = 1.0 if most <= 1 else math.sqrt((most**2 - most**-2) / (4 * math.log(most)))  # root mean square of factors
    places = places_of(things) if values.shape[-1] > POSE else []
    given, factor = torch.from_numpy(values)[None], torch.tensor([size], dtype=torch.float64)
    return [_changed(given, places, torch.from_numpy(turn)[None], factor)[0].numpy() for turn in turns]


def changed(targets: Targets, things: Sequence[str], how: Turned, most: float) -> Targets:
    """The same batch with each sample turned by a random angle, and made larger or smaller.

    Args:
        targets: of B samples of a pose and things, frame z up. things: names of the numbers beside the pose.
        how: about which axes. most: places and ways are multiplied by up to this, or divided.
    """
    num, device = len(targets.proprio), targets.proprio.device
    turn = _any_turn(num, device) if how == "all" else _about_z(num, device) if how else _none(num, device)
    factor = torch.exp(math.log(most) * (2 * torch.rand(num, device=device) - 1))
    return replace(
        targets,
        proprio=_changed(targets.proprio, places_of(things), turn, factor),
        action=_changed(targets.action, (), turn, factor),
        delta=_changed(targets.delta, (), turn, factor),
        velocity=_changed(targets.velocity, (), turn, factor),
    )


def _changed(values: Tensor, places: Sequence[int], turn: Tensor, factor: Tensor) -> Tensor:
    """(B, ..., D) of a pose, with things at `places`. turn: (B, 3, 3). factor: (B,)."""
    shape = (-1, *[1] * (values.dim() - 2))
    out = values.clone()
    for at in (_PLACE, *_COLUMNS, *places):
        scale = factor.view(*shape, 1).to(values) if at not in _COLUMNS else 1.0
        vectors = values[..., None, at : at + 3]
        out[..., at : at + 3] = scale * (vectors * turn.view(*shape, 3, 3).to(values)).sum(-1)
    return out


def _none(num: int, device: torch.device) -> Tensor:
    return torch.eye(3, device=device).expand(num, 3, 3)


def _about_z(num: int, device: torch.device) -> Tensor:
    angle = 2 * torch.pi * torch.rand(num, device=device)
    out = _none(num, device).clone()
    out[:, 0, 0] = out[:, 1, 1] = torch.cos(angle)
    out[:, 1, 0] = torch.sin(angle)
    out[:, 0, 1] = -out[:, 1, 0]
    return out


def _any_turn(num: int, device: torch.device) -> Tensor:
    """(num, 3, 3), uniform over all rotations: of unit quaternions of Gaussian numbers (Shoemake, Uniform Random
    Rotations, Graphics Gems III, 1992)."""
    w, x, y, z = torch.nn.functional.normalize(torch.randn(num, 4, device=device), dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)

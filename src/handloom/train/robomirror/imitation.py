"""Trains the student of "imitate" on what a teacher would have done, and lets it act; the episodes are the caller's.

Arrays in, arrays out: the simulation, which stands above the recipes, runs the episodes (`sim/humanoid/dagger.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from handloom.errors import HandloomError
from handloom.schemas.settings import Frozen
from handloom.train.checkpoint import seed_all
from handloom.train.parts.acting import alone, one_core
from handloom.train.robomirror.network.student import Student, StudentSettings

Floats = NDArray[np.float32]


class FitSettings(Frozen):
    """How the student is fitted after each round of episodes."""

    batch_size: int = Field(256, ge=1)
    lr: float = Field(1e-3, gt=0)
    """Of AdamW; over the steps of all rounds, a half cosine takes it to a tenth."""
    weight_decay: float = Field(1e-4, ge=0)
    most_samples: int = Field(300_000, ge=1)
    """That are kept; then each new one takes the place of one at random."""


class Imitator:
    """A student with what it has seen.

    Args:
        widths: of latents, observations and actions. total_steps: of the optimiser, in all rounds.
    """

    def __init__(
        self,
        student: StudentSettings,
        fit: FitSettings,
        widths: tuple[int, int, int],
        total_steps: int,
        seed: int,
    ) -> None:
        seed_all(seed)
        self.network = Student(student, *widths)
        self.widths, self.step = widths, 0
        self._fit, self._total = fit, total_steps
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
        self._rng = np.random.default_rng([seed, 1])
        self._samples: tuple[Floats, ...] = tuple(np.empty((0, width), np.float32) for width in widths)
        self._met = 0

    @property
    def num_samples(self) -> int:
        return len(self._samples[0])

    def add(self, latents: Floats, observed: Floats, actions: Floats) -> None:
        """Keep (N, ...) samples; the first ones also set the network's scales."""
        new = (latents, observed, actions)
        if not self.num_samples:
            self.network.set_scales(torch.from_numpy(observed), torch.from_numpy(actions))
        room = max(0, self._fit.most_samples - self.num_samples)
        self._samples = tuple(
            np.concatenate([old, values[:room]]) for old, values in zip(self._samples, new, strict=True)
        )
        for number in range(room, len(latents)):  # reservoir sampling: every sample is kept with the same chance
            place = int(self._rng.integers(self._met + number + 1))
            if place < self._fit.most_samples:
                for kept, values in zip(self._samples, new, strict=True):
                    kept[place] = values[number]
        self._met += len(latents)

    @one_core()
    def fit(self, num_steps: int) -> float:
        """Train, on one core; the mean loss of the last fifth of the steps. Raises HandloomError: it is not finite."""
        self.network.train()
        losses = []
        for _ in range(num_steps):
            picked = self._rng.integers(self.num_samples, size=self._fit.batch_size)
            latents, observed, actions = (torch.from_numpy(values[picked]) for values in self._samples)
            for group in self._optimizer.param_groups:
                share = min(1.0, self.step / self._total)
                group["lr"] = self._fit.lr * (0.55 + 0.45 * float(np.cos(np.pi * share)))
            loss = self.network(latents, observed, actions)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self._optimizer.step()
            losses.append(float(loss.detach()))
            self.step += 1
        found = float(np.mean(losses[-max(1, len(losses) // 5) :]))
        if not np.isfinite(found):
            raise HandloomError(f"the student's loss is {found} after {self.step} steps", "lower fit.lr")
        return found

    def state(self) -> dict[str, Any]:
        """The optimiser's, for a checkpoint."""
        return {"optimizer": self._optimizer.state_dict()}


class Actor:
    """A trained student that acts: (B, L) latents and (B, O) observations to (B, A) actions.

    The noise from which it denoises is drawn once a seed and is the same for every row and step, so that an action
    depends on what is seen alone.
    """

    def __init__(self, network: Student, seed: int = 0) -> None:
        self._network = network.eval()
        generator = torch.Generator().manual_seed(seed)
        self._noise = torch.randn(1, len(network.action_mean), generator=generator)

    def __call__(self, latents: Floats, observed: Floats) -> Floats:
        self._network.eval()
        noise = self._noise.expand(len(latents), -1)
        with alone():
            return self._network.act(torch.from_numpy(latents), torch.from_numpy(observed), noise).numpy()

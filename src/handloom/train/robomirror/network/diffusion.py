"""From noise to data: flow matching and denoising diffusion, each as training targets and a sampler with few steps.

Sources: Lipman et al., Flow Matching for Generative Modeling (arXiv 2210.02747); Liu et al., Flow Straight and Fast
(arXiv 2209.03003); Nichol and Dhariwal, Improved DDPM (arXiv 2102.09672), the cosine schedule; Song et al., DDIM
(arXiv 2010.02502), with eta 0; Salimans and Ho (arXiv 2202.00512), prediction of the data; Karras et al. (arXiv
2206.00364), what the network adds to the best linear guess.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy (B, ...), time (B,) from 0, all noise, to 1, data) to what the process asks of the network, (B, ...)."""


class Process(Protocol):
    """A way from noise to data; times are from 0 (noise) to 1 (data)."""

    def noisy(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """(B, ...) data at times (B,)."""
        ...

    def target(self, data: Tensor, noise: Tensor) -> Tensor:
        """(B, ...) what the network predicts."""
        ...

    def best_linear(self, time: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of data (B, T, D) with mean 0 and deviations `spread` (D,), independent numbers: factors (B, 1, D) that bring
        noisy data to a deviation of 1, that make the best linear guess of the target of them, and the deviation of the
        target from that guess."""
        ...

    def sample(self, predict: Predict, noise: Tensor, steps: int) -> Tensor:
        """(B, ...) data from noise in so many calls of the network; with 1 the network's mean of all data."""
        ...


class Flow:
    """Straight paths from noise to data; the network predicts their direction, and Euler's rule follows it."""

    def noisy(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        share = _wide(time, data)
        return (1 - share) * noise + share * data

    def target(self, data: Tensor, noise: Tensor) -> Tensor:
        return data - noise

    def best_linear(self, time: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        share = time.view(-1, 1, 1)
        total = (share * spread).square() + (1 - share).square()
        return total.rsqrt(), (share * spread.square() - (1 - share)) / total, spread * total.rsqrt()

    def sample(self, predict: Predict, noise: Tensor, steps: int) -> Tensor:
        x = noise
        for step in range(steps):
            x = x + predict(x, torch.full_like(noise[:, 0, 0], step / steps)) / steps
        return x


class Diffusion:
    """Gaussian diffusion with a cosine schedule; the network predicts the data, and DDIM takes the steps."""

    def noisy(self, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        signal, spread = (_wide(share, data) for share in _cosine(time))
        return signal * data + spread * noise

    def target(self, data: Tensor, noise: Tensor) -> Tensor:
        return data

    def best_linear(self, time: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        signal, rest = (share.view(-1, 1, 1) for share in _cosine(time))
        total = (signal * spread).square() + rest.square()
        return total.rsqrt(), signal * spread.square() / total, spread * rest * total.rsqrt()

    def sample(self, predict: Predict, noise: Tensor, steps: int) -> Tensor:
        x = noise
        for step in range(steps):
            now, then = (torch.full_like(noise[:, 0, 0], (step + more) / steps) for more in (0, 1))
            (signal, spread), (next_signal, next_spread) = _cosine(now), _cosine(then)
            data = predict(x, now)
            left = (x - _wide(signal, x) * data) / _wide(spread, x)
            x = _wide(next_signal, x) * data + _wide(next_spread, x) * left
        return x


PROCESSES: dict[str, Process] = {"flow": Flow(), "ddpm": Diffusion()}


def noise_of(names: Sequence[str], shape: tuple[int, ...], seed: int, number: int = 0) -> Tensor:
    """(B, *shape) normal noise on the CPU: of each name the same in every batch and on every machine.

    number: of the sample, where several are drawn for a name.
    """
    drawn = []
    for name in names:
        digest = hashlib.blake2b(f"{seed}:{number}:{name}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        drawn.append(torch.randn(shape, generator=generator))
    return torch.stack(drawn)


def _cosine(time: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of data and of noise at times from 0 (a little data is left in the noise) to 1."""
    angle = (1 - time) * (math.pi / 2) * 0.995
    return torch.cos(angle), torch.sin(angle)


def _wide(share: Tensor, like: Tensor) -> Tensor:
    return share.view(-1, *(1,) * (like.ndim - 1))

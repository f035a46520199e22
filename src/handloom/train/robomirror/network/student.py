"""The student of "imitate": actions denoised from a motion's latent, the robot's state and its last actions.

Sizes are those of RoboGhost's released student: latent encoder 64 -> 128 -> 64 (ELU), condition to 256, a perceptron of
4 residual blocks of width 256 with adaLN that starts at zero, cosine schedule, prediction of x0, 2 DDIM steps without
noise between them. Ours: the number of diffusion steps in training.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from handloom.schemas.settings import Frozen


class StudentSettings(Frozen):
    """The network; `width` and `blocks` are RoboGhost's."""

    width: int = Field(256, ge=8, le=4096)
    """Of the denoiser and of the condition."""
    blocks: int = Field(4, ge=1, le=64)
    """Residual blocks of the denoiser."""
    history: int = Field(5, ge=1, le=100)
    """Steps of the robot's state and actions that the student sees."""
    diffusion_steps: int = Field(100, ge=2, le=10_000)
    """Of noise in training."""
    ddim_steps: int = Field(2, ge=1, le=100)
    """Of denoising, when it acts."""


class Block(nn.Module):
    """(B, width) plus a perceptron of its normalised self, shifted, scaled and gated by the condition (adaLN-Zero).

    Source: Peebles and Xie, Scalable diffusion models with transformers, ICCV 2023, section 3.2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.inner = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        shifts = nn.Linear(width, 3 * width)
        nn.init.zeros_(shifts.weight)
        nn.init.zeros_(shifts.bias)
        self.modulation = nn.Sequential(nn.SiLU(), shifts)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        return hidden + gate * self.inner(self.norm(hidden) * (1 + scale) + shift)


class Student(nn.Module):
    """Actions (B, A) from latents (B, L) and observations (B, O).

    Buffers hold mean and deviation of observations and actions: `set_scales` once, before training. Units are the
    caller's; latents are standardised by it.
    """

    kept: Tensor
    observed_mean: Tensor
    observed_std: Tensor
    action_mean: Tensor
    action_std: Tensor

    def __init__(self, settings: StudentSettings, num_latent: int, num_observed: int, num_actions: int) -> None:
        super().__init__()
        self.settings = settings
        width = settings.width
        self.encoder = nn.Sequential(nn.Linear(num_latent, 128), nn.ELU(), nn.Linear(128, 64), nn.ELU())
        self.condition = nn.Linear(64 + num_observed, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Linear(num_actions, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(settings.blocks)])
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        shifts = nn.Linear(width, 2 * width)
        self.last_modulation = nn.Sequential(nn.SiLU(), shifts)
        self.last = nn.Linear(width, num_actions)
        for layer in (shifts, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("kept", kept_signal(settings.diffusion_steps))
        for name, size in (("observed", num_observed), ("action", num_actions)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))

    def set_scales(self, observed: Tensor, actions: Tensor) -> None:
        """Take mean and deviation from (N, O) observations and (N, A) actions; what never changes is divided by 1."""
        for name, values in (("observed", observed), ("action", actions)):
            std = values.std(dim=0, correction=0)
            getattr(self, f"{name}_mean").copy_(values.mean(dim=0))
            getattr(self, f"{name}_std").copy_(torch.where(std > 1e-4, std, 1.0))

    def forward(self, latents: Tensor, observed: Tensor, actions: Tensor) -> Tensor:
        """The loss, mean of ||a - a'||^2 in deviations of the actions; draws noise and its step from torch's state."""
        clean = (actions - self.action_mean) / self.action_std
        step = torch.randint(self.settings.diffusion_steps, (len(actions),), device=actions.device)
        kept = self.kept[step][:, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * torch.randn_like(clean)
        found = self._denoised(noisy, step, self._seen(latents, observed))
        return (found - clean).square().mean()

    @torch.inference_mode()
    def act(self, latents: Tensor, observed: Tensor, noise: Tensor) -> Tensor:
        """(B, A) actions; noise: (B, A), normal, from which denoising begins (DDIM, eta 0)."""
        seen, steps = self._seen(latents, observed), self.settings.diffusion_steps
        times = torch.linspace(steps - 1, 0, self.settings.ddim_steps + 1).round().long().tolist()
        x = noise
        for now, after in pairwise(times):
            clean = self._denoised(x, torch.full((len(x),), now, device=x.device), seen)
            if after > 0:
                rest = (x - self.kept[now].sqrt() * clean) / (1 - self.kept[now]).sqrt()
                x = self.kept[after].sqrt() * clean + (1 - self.kept[after]).sqrt() * rest
            else:
                x = clean
        return self.action_mean + self.action_std * x

    def _seen(self, latents: Tensor, observed: Tensor) -> Tensor:
        scaled = (observed - self.observed_mean) / self.observed_std
        return self.condition(torch.cat([self.encoder(latents), scaled.clamp(-10, 10)], dim=-1))

    def _denoised(self, noisy: Tensor, step: Tensor, seen: Tensor) -> Tensor:
        condition = seen + self.time(sinusoids(step, self.settings.width))
        hidden = self.first(noisy)
        for block in self.blocks:
            hidden = block(hidden, condition)
        shift, scale = self.last_modulation(condition).chunk(2, dim=-1)
        return self.last(self.norm(hidden) * (1 + scale) + shift)


def kept_signal(steps: int) -> Tensor:
    """(steps,) the share of the signal's power that is left at each step of noise, falling (cosine schedule).

    Source: Nichol and Dhariwal, Improved denoising diffusion probabilistic models, ICML 2021, equation 17.
    """
    at = (torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008
    kept = torch.cos(at * math.pi / 2).square()
    betas = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - betas, dim=0).float()


def sinusoids(step: Tensor, width: int) -> Tensor:
    """(B,) steps to (B, width) sines and cosines of frequencies from 1 to 1/10,000."""
    half = width // 2
    angle = step[:, None] * torch.exp(-math.log(10_000) * torch.arange(half, device=step.device) / half)
    found = torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)
    return nn.functional.pad(found, (0, width - found.shape[-1]))

"""The causal variational auto-encoder of motion: the numbers of a frame to a latent a frame, and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from handloom.train.parts.baselines import mean_square, pair
from handloom.train.robomirror.data.motion import MotionLayout, mirrored
from handloom.train.robomirror.network.causal import CausalStack
from handloom.train.robomirror.network.errors import motion_sums
from handloom.train.robomirror.settings import RobomirrorSettings

MOMENTUM = 0.01
"""Of the running mean and deviation of the latents, per batch."""
START_LOG_VARIANCE = -4.0
"""Of a new network's latents: with the standard normal's, it would first learn to give them up."""


class MotionVae(nn.Module):
    """Latents of a motion, frame by frame; neither way looks ahead.

    Unknown numbers enter as their mean, with a number for each part (each hand, the head's place and rotation, each
    keypoint of a body) that says whether it is known. Nothing is learned from them.

    layout: which parts, D numbers in all, a motion has. scale: what differences of each number are divided by in the
    loss. latent_mean, latent_variance: (latent,) of the latents of training windows.
    """

    components: Tensor
    mean: Tensor
    scale: Tensor
    rate_hz: Tensor
    latent_mean: Tensor
    latent_variance: Tensor
    num_batches: Tensor

    def __init__(self, settings: RobomirrorSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = settings
        self.layout = MotionLayout(settings.body)
        width, layers, latent, dim = settings.vae_width, settings.vae_layers, settings.latent, self.layout.dim
        self.encoder = CausalStack(dim + len(self.layout.parts), 2 * latent, width, layers)
        self.decoder = CausalStack(latent, dim, width, layers)
        # What a linear map can do need not be learned by the convolutions: it starts as the principal components.
        components = torch.zeros(latent, dim)
        found = torch.tensor(facts["motion_components"], dtype=torch.float32).reshape(-1, dim)[:latent]
        components[: len(found)] = found
        self.to_latent = nn.Parameter(components.clone())
        self.from_latent = nn.Parameter(components)
        self.register_buffer("components", components.clone(), persistent=False)
        for name in ("mean", "scale"):
            self.register_buffer(name, torch.tensor(facts[f"motion_{name}"], dtype=torch.float32))
        self.register_buffer("rate_hz", torch.tensor(settings.rate_hz))
        self.register_buffer("latent_mean", torch.zeros(latent))
        self.register_buffer("latent_variance", torch.ones(latent))
        self.register_buffer("num_batches", torch.zeros(()))

    @property
    def reach(self) -> int:
        """How many frames before its own a frame's latent depends on."""
        return self.encoder.reach

    def encode(self, motion: Tensor) -> Tensor:
        """(B, T, D) or (T, D) motion, NaN where unknown, to its latents (..., T, latent): the posterior's mean."""
        return self._posterior(motion)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """(B, T, latent) or (T, latent) to the motion (..., T, D), complete also where it was not known."""
        alone = latents.ndim == 2
        latents = latents[None] if alone else latents
        found = self.mean + self.scale * (self.decoder(latents) + latents @ self.from_latent)
        return found[0] if alone else found

    def by_components(self, motion: Tensor) -> Tensor:
        """(B, T, D) the motion by as many principal components of one frame as the latent has numbers: what the
        auto-encoder starts from."""
        values = torch.nan_to_num((motion - self.mean) / self.scale)
        return self.mean + self.scale * (values @ self.components.T @ self.components)

    @property
    def latent_std(self) -> Tensor:
        """One number: the root mean square difference of latents from their mean, over all their numbers."""
        return self.latent_variance.mean().clamp(min=1e-12).sqrt()

    @property
    def spread(self) -> Tensor:
        """(latent,) deviation of each number of standardised latents; most of them hardly vary."""
        return (self.latent_variance.sqrt() / self.latent_std).clamp(min=1e-3)

    def standardised(self, latents: Tensor) -> Tensor:
        """Latents of mean 0 and of deviation 1 over all their numbers; each keeps its weight. `restored` is the way
        back."""
        return (latents - self.latent_mean) / self.latent_std

    def restored(self, latents: Tensor) -> Tensor:
        return self.latent_mean + self.latent_std * latents

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of `MotionSample`s to `{"loss", "sums", "prediction"}`; prediction: (B, T, D)."""
        motion = batch["motion"]
        if self.training and self.settings.mirror:
            turned = torch.rand(len(motion), 1, 1, device=motion.device) < self.settings.mirror
            motion = torch.where(turned, mirrored(motion), motion)
        mean, log_variance = self._posterior(motion)
        latents = mean
        if self.training:
            self._remember(mean.detach(), batch["valid"])
            latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        predicted = self.decode(latents)
        rebuilt, counted = mean_square(predicted / self.scale, motion / self.scale)
        apart = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        valid = batch["valid"]
        divergence = torch.where(valid, apart, 0.0).sum() / valid.sum().clamp(min=1)
        sums = {"loss": counted, "kl": pair(torch.where(valid, apart, 0.0), valid)}
        if not self.training:
            sums |= motion_sums(predicted, motion, {"principal_components": self.by_components(motion)})
        return {"loss": rebuilt + self.settings.kl * divergence, "sums": sums, "prediction": predicted}

    def _posterior(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of each frame's latent."""
        alone = motion.ndim == 2
        motion = motion[None] if alone else motion
        known = torch.stack([motion[..., part].isfinite().all(-1) for part in self.layout.parts], dim=-1)
        values = torch.nan_to_num((motion - self.mean) / self.scale)
        hidden = self.encoder(torch.cat([values, known.to(values.dtype)], dim=-1))
        mean, log_variance = hidden.chunk(2, dim=-1)
        mean, log_variance = mean + values @ self.to_latent.T, (log_variance + START_LOG_VARIANCE).clamp(-12, 4)
        return (mean[0], log_variance[0]) if alone else (mean, log_variance)

    @torch.no_grad()
    def _remember(self, latents: Tensor, valid: Tensor) -> None:
        found = latents[valid]
        if len(found) > 1:
            self.num_batches += 1
            share = max(MOMENTUM, 1 / float(self.num_batches))  # at first the mean of all batches
            self.latent_mean.lerp_(found.mean(0), share)
            self.latent_variance.lerp_((found - self.latent_mean).square().mean(0), share)


class MotionStream:
    """Frames that come one after the other to latents, or latents to frames, as if the whole sequence were there.

    It keeps the last frames that matter and computes them again: a sequence's values do not depend on its division.
    """

    def __init__(self, vae: MotionVae) -> None:
        self._vae = vae
        self._motion: deque[Tensor] = deque(maxlen=vae.encoder.reach + 1)
        self._latents: deque[Tensor] = deque(maxlen=vae.decoder.reach + 1)

    @torch.inference_mode()
    def encode(self, motion: Tensor) -> Tensor:
        """The next frame's (D,) motion, NaN where unknown, to its latent (latent,)."""
        self._motion.append(motion)
        return self._vae.encode(torch.stack(list(self._motion)))[-1]

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """The next frame's latent to its (D,) motion."""
        self._latents.append(latent)
        return self._vae.decode(torch.stack(list(self._latents)))[-1]

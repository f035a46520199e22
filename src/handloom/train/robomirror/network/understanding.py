"""Latents of motion from the intent of a clip, without any pose: by reconstruction, and by alignment beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.train.parts.baselines import pair
from handloom.train.robomirror.data.motion import HANDS_AND_HEAD, MotionLayout
from handloom.train.robomirror.network.diffusion import PROCESSES, noise_of
from handloom.train.robomirror.network.errors import hand_sums
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.network.transformer import FrameTransformer
from handloom.train.robomirror.settings import RobomirrorSettings

START_TEMPERATURE = 0.07
WRISTS = {"wrist": 1.0, "wrist_turn": 0.5}
"""Weights of groups of numbers in the part of the loss that is of the wrists."""


class Understanding(nn.Module):
    """The trained auto-encoder, which stays as it is, and what both ways share.

    vae: its weights are buffers here, so that they are in the checkpoint and are not trained.
    """

    mean_motion: Tensor
    slow: Tensor

    def __init__(self, settings: RobomirrorSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = settings
        dim = MotionLayout(settings.body).dim
        plain = {"motion_mean": [0.0] * dim, "motion_scale": [1.0] * dim, "motion_components": []}
        self.vae = MotionVae(settings, plain)
        for module in self.vae.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach())
        self.register_buffer("mean_motion", torch.tensor(facts["motion_mean"], dtype=torch.float32))
        slow = slow_part(settings.steps, settings.rate_hz, settings.highest_hz)
        self.register_buffer("slow", slow, persistent=False)

    @torch.no_grad()
    def latents(self, motion: Tensor) -> Tensor:
        """(B, T, latent) standardised latents of a motion (B, T, D)."""
        return self.vae.standardised(self.vae.encode(motion))

    @torch.no_grad()
    def motion(self, latents: Tensor) -> Tensor:
        """(B, T, D) motion of standardised latents."""
        return self.vae.decode(self.vae.restored(latents))

    def understood(self, batch: Mapping[str, Any], number: int = 0, steps: int | None = None) -> Tensor:
        """(B, T, latent) standardised latents from the intent alone; no number of `batch["motion"]` is used.

        number: of the sample, where several are drawn. steps: of the sampler, by default the settings'.
        """
        raise NotImplementedError

    def _errors(self, latents: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        true = batch["motion"]
        guesses = {"error": self.motion(latents), "mean_motion": self.mean_motion.expand_as(true)}
        return hand_sums(guesses, true)


class Reconstruction(Understanding):
    """RoboMirror's way: a diffusion transformer makes the latents from noise, conditioned on the intent.

    Noise and latents have no frequencies above `highest_hz`: independent noise of each frame is what a short training
    does not take away, and makes a motion jagged.
    """

    def __init__(self, settings: RobomirrorSettings, facts: Mapping[str, Any]) -> None:
        super().__init__(settings, facts)
        self.process = PROCESSES[settings.process]
        self.denoiser = FrameTransformer(settings, facts, settings.latent, settings.layers)

    def understood(self, batch: Mapping[str, Any], number: int = 0, steps: int | None = None) -> Tensor:
        noise = self.slow @ self._noise(batch, number)
        return self.process.sample(partial(self._predict, batch), noise, steps or self.settings.sampling_steps)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of `IntentSample`s to `{"loss", "sums"}`."""
        data, valid = self.slow @ self.latents(batch["motion"]), batch["valid"]
        if self.training:
            noise, time = torch.randn_like(data), torch.rand(len(data), device=data.device)
        else:
            noise = self._noise(batch, -1)
            time = (noise[:, 0, 0].double() * 1e4 % 1).float()  # any numbers that depend on the window alone
        noise = self.slow @ noise
        apart = self._predict(batch, self.process.noisy(data, noise, time), time) - self.process.target(data, noise)
        squares = apart.square().mean(-1)
        counted = pair(torch.where(valid, squares, 0.0), valid)
        loss = torch.where(valid, squares, 0.0).sum() / valid.sum().clamp(min=1)
        loss = loss + self.settings.wrist_weight * self._of_wrists(apart, batch["motion"].isfinite())
        sums = {"loss": counted}
        if not self.training:
            sums |= self._errors(self.understood(batch), batch)
        return {"loss": loss, "sums": sums}

    def _predict(self, batch: Mapping[str, Any], noisy: Tensor, time: Tensor) -> Tensor:
        """The best guess without the intent, numbers of a normal distribution each, and what the network adds: a new
        one makes the mean motion."""
        into, linear, rest = self.process.best_linear(time, self.vae.spread)
        return linear * noisy + rest * (self.slow @ self.denoiser(batch, into * noisy, time))

    def _of_wrists(self, apart: Tensor, known: Tensor) -> Tensor:
        """The weighted mean square of what errors of latents (B, T, latent) are in the wrists' numbers, in their scale,
        by the linear part of the auto-encoder.

        The network's best answer, the mean of all that fit, is the same for any such weight; a short training gives
        most to what weighs most.
        """
        numbers = self.vae.latent_std * apart @ self.vae.from_latent
        total = numbers.new_zeros(())
        for name, weight in WRISTS.items():
            for part in HANDS_AND_HEAD.groups[name]:
                squares = torch.where(known[..., part], numbers[..., part].square(), 0.0)
                total = total + weight / len(HANDS_AND_HEAD.groups[name]) * squares.sum() / known[
                    ..., part
                ].sum().clamp(min=1)
        return total

    def _noise(self, batch: Mapping[str, Any], number: int) -> Tensor:
        names = [f"{clip}:{float(now):.3f}" for clip, now in zip(batch["clip_id"], batch["now_s"], strict=True)]
        shape = (batch["motion"].shape[1], self.settings.latent)
        return noise_of(names, shape, self.settings.seed, number).to(batch["motion"].device)


class Alignment(Understanding):
    """The way that RoboMirror argues against: an adaptor brings the intent near the latents of its own motion and away
    from those of others (InfoNCE), as in RoboPerform (arXiv 2512.23650); the aligned latents stand for the motion's.

    A window's vector holds the latents of all its frames, of unit length. What is decoded has the length that latents
    of training windows have, which the loss does not teach.
    """

    def __init__(self, settings: RobomirrorSettings, facts: Mapping[str, Any]) -> None:
        super().__init__(settings, facts)
        self.adaptor = FrameTransformer(settings, facts, 0, settings.adaptor_layers)
        nn.init.normal_(self.adaptor.last.weight, std=settings.dim**-0.5)  # a zero vector has no direction
        self.log_temperature = nn.Parameter(torch.tensor(START_TEMPERATURE).log())

    def understood(self, batch: Mapping[str, Any], number: int = 0, steps: int | None = None) -> Tensor:
        """number and steps change nothing: nothing is drawn."""
        found = self.slow @ self.adaptor(batch)
        # Standardised latents have a deviation of 1.
        return found / found.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-6)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of `IntentSample`s to `{"loss", "sums"}`; windows of one clip do not count as others."""
        valid = batch["valid"]
        found = self.understood(batch)
        similar = vectors_of(found, valid) @ vectors_of(self.latents(batch["motion"]), valid).T
        counted = torch.ones(len(found), device=found.device)
        if not self.training:
            sums = {"cosine": pair(similar.diagonal(), counted)}
            return {"loss": similar.sum() * 0, "sums": sums | self._errors(found, batch)}
        ids = {name: number for number, name in enumerate(dict.fromkeys(batch["clip_id"]))}
        clip = torch.tensor([ids[name] for name in batch["clip_id"]], device=found.device)
        same = (clip[:, None] == clip) & ~torch.eye(len(clip), dtype=torch.bool, device=found.device)
        logits = (similar / self.log_temperature.exp().clamp(0.01, 1)).masked_fill(same, -torch.inf)
        own = torch.arange(len(found), device=found.device)
        losses = (F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")) / 2
        return {"loss": losses.mean(), "sums": {"loss": pair(losses, counted)}}


def vectors_of(latents: Tensor, valid: Tensor) -> Tensor:
    """(B, T, latent) latents and (B, T) to (B, T * latent) vectors of unit length; frames that do not exist are 0."""
    return F.normalize(torch.where(valid[..., None], latents, 0.0).flatten(1), dim=-1)


def slow_part(num: int, rate_hz: float, highest_hz: float) -> Tensor:
    """(num, num) projection of values at `rate_hz` to the cosines over their time up to a frequency (DCT-II); of all
    there are, it is the identity.

    Source of cosines for a person's motion: Mao et al., Learning Trajectory Dependencies for Human Motion Prediction,
    ICCV 2019.
    """
    kept = torch.arange(min(num, int(2 * num / rate_hz * highest_hz + 1e-6) + 1), dtype=torch.float64)
    at = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    cosines = torch.cos(math.pi * kept[:, None] * at) * (2 / num) ** 0.5
    cosines[0] /= 2**0.5
    return (cosines.T @ cosines).float()

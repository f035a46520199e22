"""ARM4R's network: three tokens a step (instruction, state, action); the prediction is read at the state token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.train.arm4r.network.batches import Targets, control_targets, point_targets, sums_of
from handloom.train.arm4r.network.command import MotionCommand
from handloom.train.arm4r.network.skip import DeltaSkip
from handloom.train.arm4r.network.turning import PLACE_AND_ROTATION, POSE, changed
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.encoders import EncoderSpec, image_encoder, text_encoder
from handloom.train.parts.llama import Llama
from handloom.train.parts.mlp import Mlp, MlpHead
from handloom.train.parts.pooling import AttentionPool

CROP_AREA = (0.65, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
CONTRAST = (0.8, 1.2)
BRIGHTNESS = (-0.1, 0.1)
FRESH_FOR_CONTROL = ("proprio_encoder.", "action_encoder.", "action_decoder.", "skip.")
"""Parts that a control network does not take from a network of points, as in the released code; `skip` is ours."""
POOLS = "pools."
"""Without images these are such a part, too (ours): they then pool nothing but the encoded state, and what they have
learned of points makes of every state of a robot nearly the same token, six to thirty times as long as a new one."""
COMMAND = "command."
"""The part that only a network has that clips tell its task."""


def augmented(images: Tensor) -> Tensor:
    """(B, T, cameras, h, w, 3) uint8 images, cropped, with other contrast and brightness; per sample and camera.

    The ranges are those of the released loader. That all steps of a sample share their crop is ours (not known of the
    released loader). Points do not move with the crop.
    """
    size, cameras = images.shape[0], images.shape[2]
    flat = images.transpose(1, 2).flatten(0, 1)  # (B * cameras, T, h, w, 3)
    num, steps = flat.shape[:2]
    device = images.device
    area = _uniform(CROP_AREA, num, device)
    aspect = torch.exp(_uniform(tuple(torch.tensor(CROP_ASPECT).log().tolist()), num, device))
    extent = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1).clamp(max=1.0)
    centre = (2 * torch.rand(num, 2, device=device) - 1) * (1 - extent)
    theta = torch.zeros(num, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = extent[:, 0], extent[:, 1], centre
    pixels = flat.permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 255
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    contrast, brightness = (_uniform(r, num, device)[:, None, None, None] for r in (CONTRAST, BRIGHTNESS))
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = ((pixels - mean) * contrast + mean + brightness).clamp(0, 1)
    back = (255 * pixels).round().to(torch.uint8).unflatten(1, (steps, 3)).permute(0, 1, 3, 4, 2)
    return back.unflatten(0, (size, cameras)).transpose(1, 2)


def _uniform(bounds: tuple[float, float], num: int, device: torch.device) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(num, device=device)


class Scaled(nn.Module):
    """A module whose input is first brought to mean 0 and deviation 1; `mean` and `std` are saved with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, inner: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, values: Tensor) -> Tensor:
        """values: (..., D), NaN where unknown: an unknown number becomes 0 after the scaling."""
        return self.inner(torch.nan_to_num((values - self.mean) / self.std))


class Head(nn.Module):
    """(..., dim) state tokens to (..., P, A) predicted deltas in the units of the targets. std: (P, A)."""

    std: Tensor

    def __init__(self, dim: int, hidden: int, std: Tensor) -> None:
        super().__init__()
        self.mlp = MlpHead(dim, std.numel(), hidden)
        self.register_buffer("std", std)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mlp(tokens).unflatten(-1, self.std.shape) * self.std


class Arm4rNetwork(nn.Module):
    """Collated samples to predicted deltas; see `forward` and `predict`.

    Sizes follow from the settings and from the facts of the windows (`Arm4r.data`): `proprio_dim`, `action_dim`, and
    with `standardise` the lists `proprio_mean`, `proprio_std`, `action_std` and, of all predicted steps, `target_std`.

    Source: arXiv 2502.13142 and its released code, which names proprio_encoder, action_encoder and action_decoder and
    gives the sizes. The image encoder's CLS token is pooled with its patches: whether the authors do so is not known.
    """

    def __init__(self, settings: Arm4rSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = settings
        self.things: tuple[str, ...] = tuple(facts.get("things_told", ()))
        self.hidden = _hidden(settings, self.things)
        width, layers, heads = settings.transformer()
        mean, std, action_std, target_std = _scales(facts, settings.predicted_steps())
        # ARM4R's hidden layer has as many units as there are inputs: of a few places it loses whole axes.
        units = width if settings.things else None
        self.proprio_encoder = Scaled(Mlp(len(mean), width, units), mean, std)
        self.action_encoder = Scaled(Mlp(len(action_std), width), torch.zeros_like(action_std), action_std)
        self.action_decoder = Head(width, settings.head_hidden, target_std)
        self.text_encoder = text_encoder(text_spec(settings))
        self.instruction_encoder = Mlp(self.text_encoder.width, width)
        self.image_encoder = None if settings.image_encoder == "none" else image_encoder(image_spec(settings))
        if self.image_encoder is not None:
            seen = self.image_encoder.width
            self.image_norm = nn.LayerNorm(seen, eps=1e-6)
            self.image_width = nn.Identity() if seen == width else nn.Linear(seen, width)
        num_pools = settings.num_cameras if self.image_encoder is not None else 1
        self.pools = nn.ModuleList(AttentionPool(width, width // num_pools) for _ in range(num_pools))
        self.command = None
        if settings.is_told_by_motion():
            self.command = MotionCommand(facts["command"], width)
        self.transformer = Llama(width, layers, heads)
        self.skip = None
        if settings.skip != "none" and settings.stage != "control":
            around, metric = settings.skip == "neighbours", settings.frame == "world"
            self.skip = DeltaSkip(width, settings.skip_steps, around, metric)
        if settings.token_length:
            self._lengthen(settings.token_length)

    @torch.no_grad()
    def _lengthen(self, length: float) -> None:
        """Scale the layers that make tokens of states and actions, so that their mean length over numbers at random, of
        mean 0 and deviation 1, is `length`."""
        draw = torch.Generator().manual_seed(0)
        state, action = self.proprio_encoder.inner, self.action_encoder.inner
        assert isinstance(state, Mlp)
        assert isinstance(action, Mlp)
        states = torch.randn(256, state.inner.in_features, generator=draw)
        actions = torch.randn(256, action.inner.in_features, generator=draw)
        pool = self.pools[0]
        assert isinstance(pool, AttentionPool)
        for last, tokens in ((pool.out, pool(state(states)[:, None])), (action.outer, action(actions))):
            for values in (last.weight, last.bias):
                values *= length / tokens.norm(dim=1).mean()

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Collated samples to `{"loss", "sums", "prediction"}`; prediction: (B, T, P, A) deltas as the targets."""
        targets = self.targets(batch)
        if self.training and (self.settings.turned or self.settings.scaled > 1):
            targets = changed(targets, self.things, self.settings.turned, self.settings.scaled)
        predicted = self.predict(batch, targets)
        wrong = torch.where(targets.known, (predicted.float() - targets.delta).abs(), 0.0)
        weighed = wrong / self.action_decoder.std if self.settings.balanced_loss else wrong
        loss = weighed.sum() / targets.known.sum().clamp(min=1)
        return {"loss": loss, "sums": sums_of(wrong.detach(), targets), "prediction": predicted}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`torch.compile` the transformer alone: the encoders take strings and images of any size."""
        self.transformer.compile(*args, **kwargs)

    def targets(self, batch: Mapping[str, Any]) -> Targets:
        """Inputs and targets of a batch, in the form of the stage."""
        if self.settings.stage == "control":
            return control_targets(batch)
        return point_targets(batch, metric=self.settings.frame == "world")

    def predict(self, batch: Mapping[str, Any], targets: Targets) -> Tensor:
        """(B, T, P, A) predicted deltas to the state of each step. The prediction at step t depends on the states up to
        t and on the actions before t."""
        proprio, seen = self._augmented(targets)
        state = self._state_tokens(batch, proprio)
        action = self.action_encoder(seen)
        instruction = self._instruction(batch).to(state)[:, None].expand_as(state)
        tokens = torch.stack([instruction, state, action], dim=2).flatten(1, 2)
        read = self.transformer(tokens)[:, 1::3]
        predicted = self.action_decoder(read)
        if self.skip is None:
            return predicted
        return predicted + self.skip(read, targets.proprio, targets.action)[:, :, None]

    def _instruction(self, batch: Mapping[str, Any]) -> Tensor:
        """(B, width): what the words say, or empty words without them, and what the clip of a person says."""
        texts = list(batch["text"])
        if self.settings.command in ("motion", "none"):
            texts = [""] * len(texts)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.text_encoder.frozen):
            words = self.text_encoder.encode(texts)
        told = self.instruction_encoder(words.to(self.instruction_encoder.inner.weight))
        return told if self.command is None else told + self.command(batch)

    def _augmented(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """States and actions for the encoders: while training, states of robots with noise, and a random share of the
        points hidden."""
        proprio, action, settings = targets.proprio, targets.action, self.settings
        if self.hidden:
            proprio = proprio.clone()
            proprio[..., self.hidden] = torch.nan
        if not self.training:
            return proprio, action
        if settings.stage == "control":
            return proprio + settings.proprio_noise * self.proprio_encoder.std * torch.randn_like(proprio), action
        if not settings.point_dropout:
            return proprio, action
        size, num = len(proprio), proprio.shape[-1] // 3
        share = settings.point_dropout * torch.rand(size, 1, device=proprio.device)
        hidden = torch.rand(size, num, device=proprio.device) < share
        hidden = hidden.repeat_interleave(3, dim=-1)[:, None]
        return proprio.masked_fill(hidden, torch.nan), action.masked_fill(hidden, torch.nan)

    def _state_tokens(self, batch: Mapping[str, Any], proprio: Tensor) -> Tensor:
        """(B, T, width): for each camera its patches pooled with the encoded state, concatenated."""
        encoded = self.proprio_encoder(proprio)
        size = encoded.shape[:2]
        encoded = encoded.flatten(0, 1)[:, None]
        if self.image_encoder is None:
            return self.pools[0](encoded).unflatten(0, size)
        patches = self._patches(batch["images"])
        pooled = [
            pool(torch.cat([patches[min(number, len(patches) - 1)], encoded], dim=1))
            for number, pool in enumerate(self.pools)
        ]
        return torch.cat(pooled, dim=-1).unflatten(0, size)

    def _patches(self, images: Tensor) -> list[Tensor]:
        """For each camera of (B, T, cameras, h, w, 3) uint8 images: (B * T, patches, width)."""
        if self.training and self.settings.augment:
            images = augmented(images)
        eyes = self.image_encoder
        if eyes is None:
            raise ValueError("this network takes no images")
        out = []
        for number in range(images.shape[2]):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not eyes.frozen):
                tokens = eyes(images[:, :, number].flatten(0, 1))
            out.append(self.image_width(self.image_norm(tokens)))
        return out


def image_spec(settings: Arm4rSettings) -> EncoderSpec:
    """The image encoder that the settings name."""
    return EncoderSpec(kind=settings.image_encoder, model=settings.image_model, image_size=settings.image_size)


def text_spec(settings: Arm4rSettings) -> EncoderSpec:
    """The text encoder that the settings name."""
    return EncoderSpec(kind=settings.text_encoder, model=settings.text_model)


def _hidden(settings: Arm4rSettings, things: Sequence[str]) -> list[int]:
    """The numbers of a state that the network never gets."""
    if settings.stage != "control":
        return []
    pose = [] if settings.hand_pose else list(range(PLACE_AND_ROTATION))
    return pose + [at for at, name in enumerate(things, POSE) if name.rpartition(".")[0] in settings.things_hidden]


def _scales(facts: Mapping[str, Any], num_pred_steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and deviation of the state, deviations of the action and of all predicted steps (P, A); zeros and ones (the
    paper's) where the facts have no values."""
    mean = torch.tensor(facts.get("proprio_mean") or [0.0] * facts["proprio_dim"])
    std = torch.tensor(facts.get("proprio_std") or [1.0] * facts["proprio_dim"])
    action_std = torch.tensor(facts.get("action_std") or [1.0] * facts["action_dim"])
    target_std = torch.tensor(facts.get("target_std") or action_std.tolist() * num_pred_steps)
    return mean, std, action_std, target_std.view(num_pred_steps, -1)

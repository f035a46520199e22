"""The part that both stages share: encoders of text and images, the causal transformer over [z_l, z_o1, z_k1, ..]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.encoders import EncoderSpec, image_encoder, text_encoder
from handloom.train.parts.gpt import Gpt
from handloom.train.parts.mlp import Mlp
from handloom.train.parts.pooling import PerceiverResampler


class ImageTokens(nn.Module):
    """Images (B, T, h, w, 3) to observation tokens z_o (B, T, 1 + latents, dim): CLS, then the resampled patches."""

    def __init__(self, settings: ArvrmSettings) -> None:
        super().__init__()
        self.encoder = image_encoder(image_spec(settings))
        width = self.encoder.width
        sizes = (settings.latents, settings.resampler_depth, settings.resampler_heads, settings.resampler_head_dim)
        self.resampler = PerceiverResampler(width, *sizes)
        self.whole, self.parts = nn.Linear(width, settings.dim), nn.Linear(width, settings.dim)
        self.missing = nn.Parameter(0.02 * torch.randn(1 + settings.latents, settings.dim))

    def forward(self, images: Tensor, valid: Tensor) -> Tensor:
        """valid: (B, T); a step without an image has learned tokens instead."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder.frozen):
            seen = self.encoder(images.flatten(0, 1))
        tokens = torch.cat([self.whole(seen[:, :1]), self.parts(self.resampler(seen[:, 1:]))], dim=1)
        tokens = tokens.unflatten(0, images.shape[:2])
        return torch.where(valid[..., None, None], tokens, self.missing.to(tokens.dtype))


class Backbone(nn.Module):
    """The parts whose weights stage 2 takes from stage 1: encoders of text and images, and the transformer.

    A token's position is a learned vector of its step plus one of its kind (text, CLS, latents, and the stage's own
    tokens). Ours: so a robot's two state tokens a step can take the place of one keypoint token.
    """

    def __init__(self, settings: ArvrmSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.words = text_encoder(text_spec(settings))
        self.text = Mlp(self.words.width, dim)
        self.eyes = ImageTokens(settings) if settings.image_encoder != "none" else None
        self.num_seen = 0 if self.eyes is None else 1 + settings.latents
        self.text_place = nn.Parameter(0.02 * torch.randn(dim))
        self.step_place = nn.Parameter(0.02 * torch.randn(settings.steps, 1, dim))
        self.seen_place = nn.Parameter(0.02 * torch.randn(self.num_seen, dim))
        self.gpt = Gpt(dim, settings.layers, settings.heads, dropout=settings.dropout)

    def forward(self, texts: list[str | None], images: tuple[Tensor, Tensor] | None, tokens: Tensor) -> Tensor:
        """(B, T, S, dim) outputs at the stage's own tokens; each depends on all tokens before it.

        Args:
            texts: B texts, None for none.
            images: images (B, T, h, w, 3) uint8 and which of them exist (B, T) bool; None without an image encoder.
            tokens: (B, T, S, dim), the stage's own tokens; they come last in every step.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.words.frozen):
            words = self.words.encode(texts).to(tokens)
        first = (self.text(words) + self.text_place)[:, None]
        if self.eyes is not None and images is not None:
            seen = self.eyes(*images) + self.seen_place
            tokens = torch.cat([seen.to(tokens.dtype), tokens], dim=2)
        size = tokens.shape
        stream = (tokens + self.step_place[: size[1]]).flatten(1, 2)
        out = self.gpt(torch.cat([first.to(stream.dtype), stream], dim=1))[:, 1:]
        return out.unflatten(1, size[1:3])[:, :, self.num_seen :]


def past_images(batch: Mapping[str, Any], prefix: str = "") -> tuple[Tensor, Tensor] | None:
    """The batch's images of all steps but the last, and which of them exist; None where samples have no images."""
    name = f"{prefix}images"
    return (batch[name][:, :-1], batch[f"{name}_valid"][:, :-1]) if name in batch else None


def image_spec(settings: ArvrmSettings) -> EncoderSpec:
    """The image encoder that the settings name."""
    return EncoderSpec(
        kind=settings.image_encoder,
        model=settings.image_model,
        image_size=settings.image_size,
        width=settings.image_width,
    )


def text_spec(settings: ArvrmSettings) -> EncoderSpec:
    """The text encoder that the settings name; the small one is as wide as the transformer."""
    return EncoderSpec(kind=settings.text_encoder, model=settings.text_model, width=settings.dim)

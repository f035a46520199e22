"""The encoders of pictures and text that recipes share: frozen published ones, or small ones that are trained along.

A picture encoder is a module with `forward(images (B, h, w, 3) uint8 of any size) -> (B, num_tokens, width)`, CLS
first; a text encoder has `encode(list of str or None) -> (B, width)` float32. Both have `width`, `name`, `frozen` and
`note`, a sentence for reports. docs/encoders.md says more.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from handloom.models.hub.files import CACHE
from handloom.schemas.settings import Frozen
from handloom.train.parts.small_encoders import SmallImageEncoder, SmallTextEncoder


class EncoderSpec(Frozen):
    """Which encoder."""

    kind: Literal["small", "hub"] = "small"
    """`hub`: a published encoder, frozen. `small`: handloom's own, trained with the network; it takes the other's place
    where none is to be had."""
    model: str = ""
    """`hub`: a Hugging Face id, a local folder, a `.pth` file in timm's key layout, or an s3:// URI of either."""
    image_size: int | None = Field(None, ge=16, le=1024)
    """Pictures are resized to this square; by default the model's own, 64 for the small encoder."""
    width: int = Field(128, ge=8, le=4096)
    """`small`: numbers per token or text; a published encoder has its own."""
    cache: str = CACHE
    """Where encoders from S3 are kept."""


def image_encoder(spec: EncoderSpec) -> nn.Module:
    """A picture encoder. Raises ConfigError where a published one cannot be had (see `load_image_encoder`)."""
    if spec.kind == "small":
        return SmallImageEncoder(spec.width, spec.image_size or SmallImageEncoder.IMAGE_SIZE)
    from handloom.models.hub.encoders import load_image_encoder

    encoder = load_image_encoder(spec.model, spec.image_size, spec.cache)
    encoder.note = f"Pictures are encoded by {spec.model}, frozen."
    return encoder


def text_encoder(spec: EncoderSpec) -> nn.Module:
    """A text encoder. Raises ConfigError where a published one cannot be had (see `load_text_encoder`)."""
    if spec.kind == "small":
        return SmallTextEncoder(spec.width)
    from handloom.models.hub.encoders import load_text_encoder

    encoder = load_text_encoder(spec.model, spec.cache)
    encoder.note = f"Texts are encoded by {spec.model}, frozen."
    return encoder

"""The encoders of images and text that recipes share: published ones, frozen, or small ones trained with the network.

An image encoder is a module with `forward(images (B, h, w, 3) uint8 of any size) -> (B, num_tokens, width)`, CLS
first; a text encoder has `encode(list of str or None) -> (B, width)` float32. Both have `width`, `name`, `frozen` and
`note`, a sentence for reports. docs/encoders.md says more.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from handloom.errors import ConfigError
from handloom.models.hub.files import CACHE
from handloom.schemas.settings import Frozen

if TYPE_CHECKING:
    from handloom.models.hub.encoders import HubImageEncoder, HubTextEncoder

ImageEncoder: TypeAlias = "SmallImageEncoder | HubImageEncoder"
TextEncoder: TypeAlias = "SmallTextEncoder | HubTextEncoder"


class EncoderSpec(Frozen):
    """Which encoder of images or text a recipe uses."""

    kind: Literal["small", "hub"] = "small"
    """`hub`: a published encoder, frozen. `small`: handloom's own, trained with the network, for machines without a
    published one."""
    model: str = ""
    """`hub`: a Hugging Face id, a local folder, a `.pth` file in timm's key layout, or an s3:// URI of either."""
    image_size: int | None = Field(None, ge=16, le=1024)
    """Images are resized to this square; by default the model's own, 64 for the small encoder."""
    width: int = Field(128, ge=8, le=4096)
    """`small`: numbers per token or text; a published encoder has its own."""
    cache: str = CACHE
    """Where encoders from S3 are kept."""


def image_encoder(spec: EncoderSpec) -> ImageEncoder:
    """An image encoder. Raises ConfigError where a published one cannot be loaded (see `load_image_encoder`)."""
    if spec.kind == "small":
        return SmallImageEncoder(spec.width, spec.image_size or SmallImageEncoder.IMAGE_SIZE)
    from handloom.models.hub.encoders import load_image_encoder

    encoder = load_image_encoder(spec.model, spec.image_size, spec.cache)
    encoder.note = f"Images are encoded by {spec.model}, frozen."
    return encoder


def text_encoder(spec: EncoderSpec) -> TextEncoder:
    """A text encoder. Raises ConfigError where a published one cannot be loaded (see `load_text_encoder`)."""
    if spec.kind == "small":
        return SmallTextEncoder(spec.width)
    from handloom.models.hub.encoders import load_text_encoder

    encoder = load_text_encoder(spec.model, spec.cache)
    encoder.note = f"Texts are encoded by {spec.model}, frozen."
    return encoder


class SmallImageEncoder(nn.Module):
    """(B, h, w, 3) uint8 images to (B, P + 1, width): four strided convolutions give one token per 16 x 16 pixels of
    the resized square; before them, in the place of CLS, stands their mean through a linear layer."""

    IMAGE_SIZE = 64
    PATCH = 16
    frozen = False
    note = "No published image encoder was given: a small one, trained with the network, takes the frozen ViT's place."

    def __init__(self, width: int = 128, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        if image_size % self.PATCH:
            raise ConfigError(f"image_size is {image_size}, expected a multiple of {self.PATCH}")
        widths = (3, max(8, width // 8), max(8, width // 4), max(8, width // 2), width)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            layers += [nn.GroupNorm(1, after), nn.GELU()] if number < 3 else []
        self.layers = nn.Sequential(*layers)
        num_patches = (image_size // self.PATCH) ** 2
        self.positions = nn.Parameter(0.02 * torch.randn(1, num_patches, width))
        self.whole = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.width, self.num_tokens, self.image_size = width, num_patches + 1, image_size
        self.name = f"small image encoder, {image_size} px, width {width}"

    def forward(self, images: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        patches = self.layers(images).flatten(2).transpose(1, 2) + self.positions
        return self.norm(torch.cat([self.whole(patches.mean(1, keepdim=True)), patches], dim=1))


class SmallTextEncoder(nn.Module):
    """Texts to (B, width): the mean of learned vectors of a text's words and of their groups of three letters.

    The CRC-32 of a word or group, the same on every machine, chooses its vector: there is no vocabulary file, and a new
    word shares vectors with words that resemble it. No text and an empty text have one learned vector.

    Source: Bojanowski et al., Enriching Word Vectors with Subword Information (2017).
    """

    BUCKETS = 4096
    frozen = False
    note = (
        "No published text encoder was given: a small one of hashed words, trained with the network, replaces CLIP's."
    )

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(self.BUCKETS, width, mode="mean")
        self.unknown = nn.Parameter(torch.zeros(width))
        self.width = width
        self.name = f"small text encoder, width {width}"

    def encode(self, texts: Sequence[str | None]) -> Tensor:
        """(B, width) float32."""
        parts = [pieces(text or "") for text in texts]
        counts = torch.tensor([0, *(len(part) for part in parts)])
        device = self.unknown.device
        ids = torch.tensor([zlib.crc32(piece.encode()) % self.BUCKETS for part in parts for piece in part])
        found = self.bag(ids.long().to(device), counts.cumsum(0)[:-1].to(device))
        empty = (counts[1:] == 0).to(device)
        return torch.where(empty[:, None], self.unknown, found).float()


def pieces(text: str) -> list[str]:
    """The words of a text in lower case, and their groups of three letters with marked ends: `cup <cu cup up>`."""
    words = re.findall(r"\w+", text.casefold())
    marked = [f"<{word}>" for word in words]
    return words + [word[i : i + 3] for word in marked for i in range(len(word) - 2)]

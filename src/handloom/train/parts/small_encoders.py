"""Small encoders of pictures and text, trained with the network they feed: for machines without the published ones."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.errors import ConfigError


class SmallImageEncoder(nn.Module):
    """(B, h, w, 3) uint8 pictures to (B, P + 1, width): four strided convolutions, one token per 16 x 16 pixels of the
    resized square, and before them the mean of all through a linear layer in the place of CLS."""

    IMAGE_SIZE = 64
    PATCH = 16
    frozen = False
    note = "No published picture encoder was given: a small one, trained along, took the frozen ViT's place."

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
        self.name = f"small picture encoder, {image_size} px, width {width}"

    def forward(self, images: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        pictures = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        if pictures.shape[-2:] != size:
            pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True)
        patches = self.layers(pictures).flatten(2).transpose(1, 2) + self.positions
        return self.norm(torch.cat([self.whole(patches.mean(1, keepdim=True)), patches], dim=1))


class SmallTextEncoder(nn.Module):
    """Texts to (B, width): the mean of learned vectors of a text's words and of their groups of three letters.

    Words and groups find their vectors by CRC-32 (the same on every machine), so there is no vocabulary file, and a new
    word shares what it is made of with those it resembles. No text and an empty text have a learned vector of their
    own.

    Source of the idea: Bojanowski et al., Enriching Word Vectors with Subword Information (2017).
    """

    BUCKETS = 4096
    frozen = False
    note = "No published text encoder was given: a small one of hashed words, trained along, took the place of CLIP."

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
    """The words of a text in small letters, and their groups of three letters with edges marked: `cup <cu cup up>`."""
    words = re.findall(r"\w+", text.casefold())
    marked = [f"<{word}>" for word in words]
    return words + [word[i : i + 3] for word in marked for i in range(len(word) - 2)]

"""A vision transformer that reads state dicts in timm's key layout, such as CrossMAE's `cross-mae-rtx-vitb.pth`.

Sources: Dosovitskiy et al., An Image is Worth 16x16 Words (2021); He et al., Masked Autoencoders (2022); Fu et al.,
CrossMAE (2024). The layout: `cls_token`, `pos_embed`, `patch_embed.proj`, `blocks.I.{norm1,attn.qkv,attn.proj,norm2,
mlp.fc1,mlp.fc2}`, `norm`; a decoder beside it is left out.
"""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.errors import ConfigError

HEAD_DIM = 64
"""Numbers per head of every published ViT; the weights do not say it."""
PLAIN = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")


class TimmVit(nn.Module):
    """(B, 3, h, w) normalised pictures to (B, P + 1, D) tokens, CLS first. The names are those of the state dict."""

    def __init__(self, width: int, layers: int, patch: int, hidden: int, num_tokens: int, with_norm: bool) -> None:
        """num_tokens: of the stored position embedding, CLS included. with_norm: a layer norm at the end."""
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, stride=patch)
        self.blocks = nn.ModuleList(_Block(width, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-6) if with_norm else nn.Identity()
        self.patch = patch
        self.image_size = patch * round((num_tokens - 1) ** 0.5)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embed.proj(pictures)
        positions = self._positions(patches.shape[-2], patches.shape[-1])
        tokens = patches.flatten(2).transpose(1, 2) + positions[:, 1:]
        first = (self.cls_token + positions[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The stored grid of positions, resampled where the picture has another one."""
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attn.qkv(self.norm1(x)).unflatten(-1, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        x = x + self.attn.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


def timm_vit(weights: Mapping[str, Tensor], where: str) -> TimmVit:
    """The network whose sizes the weights tell, with these weights. `norm` may be absent (then there is none).

    Raises:
        ConfigError: the keys are not those of a plain ViT with a CLS token, or tensors are missing or of other shapes.
    """
    missing = [name for name in PLAIN if name not in weights]
    if missing:
        some = ", ".join(list(weights)[:4])
        raise ConfigError(f"{where} is no plain ViT in timm's key layout: it lacks {', '.join(missing)}, it has {some}")
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    hidden = len(weights.get("blocks.0.mlp.fc1.weight", ()))
    if width % HEAD_DIM:
        raise ConfigError(f"{where} is {width} wide, expected a multiple of {HEAD_DIM}, the width of a head")
    network = TimmVit(width, layers, patch, hidden, weights["pos_embed"].shape[1], "norm.weight" in weights)
    own = network.state_dict()
    wrong = [n for n, value in own.items() if n not in weights or weights[n].shape != value.shape]
    if wrong:
        raise ConfigError(f"{where} does not fit a plain ViT: {', '.join(wrong[:5])} missing or of another shape")
    network.load_state_dict({name: weights[name].float() for name in own})
    return network


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Weights of a .pth/.pt file: the state dict itself, or what it holds under `model` or `state_dict`.

    Only tensors and plain values are unpickled, never code. Raises ConfigError where the file is something else.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # where MAE's trainers keep their options
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read as weights: {str(error).splitlines()[0][:300]}") from error
    for name in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} holds {type(content).__name__}, expected a dict of tensors")
    found = {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
    if not found:
        raise ConfigError(f"{path} holds no tensors")
    return found

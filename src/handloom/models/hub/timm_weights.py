"""Weights of a vision transformer in timm's key layout, such as CrossMAE's `cross-mae-rtx-vitb.pth`, for transformers.

The package timm is not used: it needs torchvision, and PyPI's torchvision is built for CUDA. Beside a torch for CPUs it
cannot be imported, and then transformers' models cannot be imported either (torch 2.13.0, torchvision 0.28.0).
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handloom.errors import ConfigError

HEAD_DIM = 64
"""Width of a head in every published ViT; the weights do not show it."""
PLAIN = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight")
# timm's names, and those of ViTs on the Hugging Face hub. What has no name here, such as a decoder, is left out.
_RENAMED = (
    (r"(cls_token)", r"embeddings.\1"),
    (r"pos_embed", r"embeddings.position_embeddings"),
    (r"patch_embed\.proj\.(\w+)", r"embeddings.patch_embeddings.projection.\1"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"encoder.layer.\1.attention.attention.{}.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"encoder.layer.\1.attention.output.dense.\2"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"encoder.layer.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"encoder.layer.\1.layernorm_after.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"encoder.layer.\1.intermediate.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"encoder.layer.\1.output.dense.\2"),
    (r"norm\.(\w+)", r"layernorm.\1"),
)


def vit_config(weights: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Arguments of `transformers.ViTConfig`, from the shapes of the weights. where: the file's name, for errors.

    Raises:
        ConfigError: the keys are not those of a plain ViT with a CLS token.
    """
    missing = [name for name in PLAIN if name not in weights]
    if missing:
        some = ", ".join(list(weights)[:4])
        raise ConfigError(f"{where} is no plain ViT in timm's key layout: it lacks {', '.join(missing)}, it has {some}")
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    if width % HEAD_DIM:
        raise ConfigError(f"{where} is {width} wide, expected a multiple of {HEAD_DIM}, the width of a head")
    return {
        "hidden_size": width,
        "num_hidden_layers": 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
        "num_attention_heads": width // HEAD_DIM,
        "intermediate_size": len(weights["blocks.0.mlp.fc1.weight"]),
        "image_size": patch * round((weights["pos_embed"].shape[1] - 1) ** 0.5),
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
    }


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights, float32, under the names of ViTs on the Hugging Face hub."""
    out: dict[str, Tensor] = {}
    for name, value in weights.items():
        for pattern, theirs in _RENAMED:
            found = re.fullmatch(pattern, name)
            if found:
                new, kinds = found.expand(theirs), ("query", "key", "value")
                parts = value.float().chunk(3) if "{}" in new else (value.float(),)
                out |= {new.format(kind): part for kind, part in zip(kinds, parts, strict=False)}
    return out


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

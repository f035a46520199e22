"""Frozen, published encoders of pictures and text: MAE, ViT, CLIP (transformers), and ViTs in timm's key layout.

A model is a hub id, a folder that `save_pretrained` wrote, a checkpoint file (`.pth`), or an s3:// URI of either.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.errors import ConfigError, with_extra
from handloom.models.hub.files import CACHE, local_model
from handloom.models.hub.vit_timm import read_state_dict, timm_vit

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and deviation of the colours for which models of a kind were trained, where their folder does not say."""
IMAGE_TYPES = {"vit_mae": IMAGENET, "vit": HALF, "clip": CLIP_COLOURS, "clip_vision_model": CLIP_COLOURS}
TEXT_TYPES = ("clip", "clip_text_model")
CHUNK = 256
"""Pictures that go through a frozen network at once."""


class FrozenEncoder(nn.Module):
    """A network that is never trained: no gradients, and always in eval mode."""

    frozen = True

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenEncoder:
        return super().train(False)


class HubImageEncoder(FrozenEncoder):
    """(B, h, w, 3) uint8 pictures of any size to (B, P + 1, width) tokens after the last layer norm, CLS first.

    Pictures are resized to a square of `image_size` (bicubic, antialiased; the models' own preprocessing would crop a
    square from the middle and lose the sides), then normalised with the model's colours. A size that is not the
    model's own has its positions interpolated.
    """

    def __init__(self, network: nn.Module, kind: str, name: str, image_size: int, colours) -> None:
        super().__init__()
        self.network = network
        self.kind = kind
        self.name = name
        sizes = (network.image_size, network.patch) if kind == "timm" else None
        own_size, patch = sizes or (network.config.image_size, network.config.patch_size)
        self.image_size = image_size or own_size
        if self.image_size % patch:
            raise ConfigError(f"image_size is {self.image_size}, expected a multiple of {patch}, the patch of {name}")
        self._resampled = self.image_size != own_size
        self.num_tokens = (self.image_size // patch) ** 2 + 1
        self.width = network.pos_embed.shape[-1] if kind == "timm" else network.config.hidden_size
        self.register_buffer("mean", torch.tensor(colours[0]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(colours[1]).view(3, 1, 1), persistent=False)
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._tokens(part) for part in images.split(CHUNK)])

    def _tokens(self, images: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        pictures = images.permute(0, 3, 1, 2).float() / 255
        if pictures.shape[-2:] != size:
            pictures = F.interpolate(pictures, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        pictures = (pictures - self.mean) / self.std
        if self.kind == "timm":
            return self.network(pictures)
        options: dict[str, Any] = {"interpolate_pos_encoding": self._resampled}
        if self.kind == "vit_mae":  # it sorts the patches by this noise before it masks some: in order, none masked
            options["noise"] = torch.arange(self.num_tokens - 1.0, device=images.device).expand(len(images), -1)
        tokens = self.network(pixel_values=pictures, **options).last_hidden_state
        return self.network.post_layernorm(tokens) if self.kind.startswith("clip") else tokens


class HubTextEncoder(FrozenEncoder):
    """Texts to (B, width) CLIP embeddings, float32, as the projection gives them: not of unit norm (as ARM4R wants
    them; a cosine does not care). No text and an empty text give zeros."""

    def __init__(self, text_model: nn.Module, projection: nn.Module, tokenizer: Any, name: str) -> None:
        super().__init__()
        self.text_model, self.projection = text_model, projection
        self._tokenizer = tokenizer
        self.name = name
        self.width = projection.out_features
        self._known: dict[str, Tensor] = {}
        self.freeze()

    @torch.no_grad()
    def encode(self, texts: Sequence[str | None]) -> Tensor:
        """(B, width) float32. Texts longer than the model's context are cut there."""
        device = self.projection.weight.device
        new = sorted({text for text in texts if text and text not in self._known})
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            for text, vector in zip(part, self._embed(part, device), strict=True):
                self._known[text] = vector.cpu()
        nothing = torch.zeros(self.width)
        return torch.stack([self._known[text] if text else nothing for text in texts]).to(device)

    def _embed(self, texts: list[str], device: torch.device) -> Tensor:
        longest = self.text_model.config.max_position_embeddings
        ids = self._tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(device)
        with torch.autocast(device.type, enabled=False):
            return self.projection(self.text_model(**ids).pooler_output).float()


def load_image_encoder(model: str, image_size: int | None = None, cache: str = CACHE) -> HubImageEncoder:
    """A frozen picture encoder. `image_size`: of the square; None: the model's own.

    Raises:
        ConfigError: the model is not there, cannot be fetched, lacks weights or is of another kind.
    """
    path = local_model(model, cache)
    if Path(path).is_file():
        return HubImageEncoder(timm_vit(read_state_dict(Path(path)), model), "timm", model, image_size or 0, IMAGENET)
    from transformers import CLIPModel, CLIPVisionModel, ViTMAEModel, ViTModel

    config = _config(model, path)
    kind = config.model_type
    if kind not in IMAGE_TYPES:
        raise ConfigError(f"{model} is of the type {kind}, expected one of {', '.join(IMAGE_TYPES)}")
    if kind == "vit_mae":
        config.mask_ratio = 0.0
    types = {"vit_mae": ViTMAEModel, "vit": ViTModel, "clip": CLIPModel, "clip_vision_model": CLIPVisionModel}
    options = {"add_pooling_layer": False} if kind == "vit" else {}
    network = _load(types[kind], model, path, config=config, **options)
    network = getattr(network, "vision_model", network) if kind.startswith("clip") else network
    return HubImageEncoder(network, kind, model, image_size or 0, _colours(path, IMAGE_TYPES[kind]))


def load_text_encoder(model: str, cache: str = CACHE) -> HubTextEncoder:
    """A frozen CLIP text encoder. Raises ConfigError as `load_image_encoder` does."""
    path = local_model(model, cache)
    from transformers import AutoTokenizer, CLIPModel, CLIPTextModelWithProjection

    kind = _config(model, path).model_type
    if kind not in TEXT_TYPES:
        raise ConfigError(f"{model} is of the type {kind}, expected one of {', '.join(TEXT_TYPES)}")
    network = _load(CLIPModel if kind == "clip" else CLIPTextModelWithProjection, model, path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unavailable(model, f"its tokenizer: {error}") from error
    return HubTextEncoder(network.text_model, network.text_projection, tokenizer, model)


def _config(model: str, path: str) -> Any:
    try:
        from transformers import AutoConfig
    except ImportError as error:
        problem = f"the encoder {model} needs {error.name}, which is not installed"
        raise ConfigError(problem, f"{with_extra('models')}; or take the small encoder") from None
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(model, str(error)) from error


def _load(kind: type, model: str, path: str, **options: Any) -> nn.Module:
    """The model with all of its weights; transformers itself would start missing ones at random."""
    try:
        network, found = kind.from_pretrained(path, dtype=torch.float32, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unavailable(model, str(error)) from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise ConfigError(f"{model} lacks weights of {kind.__name__}: {', '.join(missing[:5])} ({len(missing)} in all)")
    return network


def _colours(path: str, otherwise):
    """Mean and deviation from the model's own preprocessing file, where it has one."""
    from transformers.utils import cached_file

    found = cached_file(path, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    content = json.loads(Path(found).read_text()) if found else {}
    return content.get("image_mean", otherwise[0]), content.get("image_std", otherwise[1])


def _unavailable(model: str, why: str) -> ConfigError:
    return ConfigError(
        f"the encoder {model} cannot be loaded: {' '.join(why.split())[:300]}",
        f"fetch it once where there is a network (`huggingface-cli download {model}`), name a folder or an s3:// URI "
        "with its files, or take the small encoder that is trained along (kind = small)",
    )

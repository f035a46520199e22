"""Frozen, published encoders of images and text: MAE, ViT and CLIP, by transformers; ViTs in timm's key layout, too.

A model is a hub id, a folder that `save_pretrained` wrote, a checkpoint file (`.pth`), or an s3:// URI of either.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handloom.errors import ConfigError, with_extra
from handloom.models.hub.colours import CLIP_COLOURS, HALF, IMAGENET
from handloom.models.hub.files import CACHE, local_model
from handloom.models.hub.pretrained import load_network
from handloom.models.hub.timm_weights import read_state_dict, renamed, vit_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMAGE_TYPES = {"vit_mae": IMAGENET, "vit": HALF, "clip": CLIP_COLOURS, "clip_vision_model": CLIP_COLOURS}
TEXT_TYPES = ("clip", "clip_text_model")
CHUNK = 256
"""Images per batch of a frozen network."""


class FrozenEncoder(nn.Module):
    """A network that is never trained: no gradients, and always in eval mode."""

    frozen = True
    note = ""
    """A sentence for reports: which network it is."""

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenEncoder:
        return super().train(False)


class HubImageEncoder(FrozenEncoder):
    """(B, h, w, 3) uint8 images of any size to (B, P + 1, width) tokens after the last layer norm, CLS first.

    Images are resized to a square of `image_size` (bicubic, antialiased; the models' own preprocessing would crop a
    square from the middle and lose the sides), then normalised with the model's colours. A size that is not the
    model's own has its positions interpolated.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: PreTrainedModel, kind: str, name: str, image_size: int, colours) -> None:
        super().__init__()
        self.network = network
        self.kind = kind
        self.name = name
        own_size, patch = network.config.image_size, network.config.patch_size
        self.image_size = image_size or own_size
        if self.image_size % patch:
            raise ConfigError(f"image_size is {self.image_size}, expected a multiple of {patch}, the patch of {name}")
        self._resampled = self.image_size != own_size
        self.num_tokens = (self.image_size // patch) ** 2 + 1
        self.width = network.config.hidden_size
        self.register_buffer("mean", torch.tensor(colours[0]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(colours[1]).view(3, 1, 1), persistent=False)
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._tokens(part) for part in images.split(CHUNK)])

    def _tokens(self, images: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        images = images.permute(0, 3, 1, 2).float() / 255
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        images = (images - self.mean) / self.std
        options: dict[str, Any] = {"interpolate_pos_encoding": self._resampled}
        if self.kind == "vit_mae":  # MAE sorts the patches by this noise before it masks some; so they stay in order
            options["noise"] = torch.arange(self.num_tokens - 1.0, device=images.device).expand(len(images), -1)
        tokens = self.network(pixel_values=images, **options).last_hidden_state
        return self.network.post_layernorm(tokens) if self.kind.startswith("clip") else tokens


class HubTextEncoder(FrozenEncoder):
    """Texts to (B, width) CLIP embeddings, float32, straight from the projection: not of unit norm, as ARM4R uses them.
    None and an empty text give zeros."""

    def __init__(self, text_model: PreTrainedModel, projection: nn.Linear, tokenizer: Any, name: str) -> None:
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
    """A frozen image encoder. image_size: side of the square; None: the model's own.

    Raises:
        ConfigError: the model does not exist, cannot be fetched, lacks weights or is of another kind.
    """
    path = local_model(model, cache)
    _check_transformers(model)
    from transformers import CLIPModel, CLIPVisionModel, ViTMAEModel, ViTModel

    if Path(path).is_file():
        return HubImageEncoder(_timm_vit(Path(path), model), "vit", model, image_size or 0, IMAGENET)
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
    _check_transformers(model)
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


def _check_transformers(model: str) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        problem = f"the encoder {model} needs {error.name}, which is not installed"
        raise ConfigError(problem, f"{with_extra('models')}; or take the small encoder") from None


def _config(model: str, path: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(model, str(error)) from error


def _timm_vit(path: Path, model: str) -> nn.Module:
    """A ViT from a file in timm's key layout; without a last norm where the file has none."""
    from transformers import ViTConfig, ViTModel

    weights = read_state_dict(path)
    config, given = ViTConfig(**vit_config(weights, model)), renamed(weights)
    if "norm.weight" not in weights:
        given |= {"layernorm.weight": torch.ones(config.hidden_size), "layernorm.bias": torch.zeros(config.hidden_size)}
    network = _load(ViTModel, model, None, config=config, state_dict=given, add_pooling_layer=False)
    if "norm.weight" not in weights:
        network.layernorm = nn.Identity()
    return network


def _load(kind: type, model: str, path: str | None, **options: Any) -> Any:
    """The model with all of its weights."""
    try:
        return load_network(kind, model, path, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unavailable(model, str(error)) from error


def _colours(path: str, otherwise):
    """Mean and standard deviation from the model's preprocessing file, if it has one."""
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

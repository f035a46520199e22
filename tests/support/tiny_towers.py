"""Tiny random networks of transformers, saved to a folder as their authors save theirs, with their preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIDE, WIDTH = 32, 16
_VIT = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}
_MLP = {"intermediate_size": 24}
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_RGB = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CUT = {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}}
_SQUARE = {"size": {"height": SIDE, "width": SIDE}}
KINDS = (
    "siglip", "naflex", "dinov2", "registers", "dinov3", "convnext", "clip", "vjepa2", "videomae", "videomae_classes",
)  # fmt: skip


def _made(kind: str) -> tuple[Any, dict[str, Any]]:
    import transformers as t

    text = _MLP | {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    text["eos_token_id"] = 3  # of tiny_texts: CLIP takes the vector of this token
    video = {"num_frames": 4, "tubelet_size": 2, **_VIT, **_MLP, "decoder_num_hidden_layers": 1}
    video |= {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 8}
    if kind == "siglip":  # as google/siglip2-base-patch16-224: with its text network
        return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=_VIT | _MLP)), _SQUARE | _HALF
    if kind == "naflex":
        vision = {**_VIT, **_MLP, "num_patches": 16}
        config = t.Siglip2Config(text_config=text, vision_config=vision)
        return t.Siglip2Model(config), _HALF | {"max_num_patches": 12, "patch_size": 8, "resample": 2}
    if kind == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(**_VIT)), _CUT | _RGB | {"resample": 3}
    if kind == "registers":
        return t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**_VIT)), _CUT | _RGB | {"resample": 3}
    if kind == "dinov3":
        return t.DINOv3ViTModel(t.DINOv3ViTConfig(**_VIT, **_MLP, num_register_tokens=2)), _SQUARE | _RGB
    if kind == "convnext":
        sizes = {"hidden_sizes": [4, 8, 8, WIDTH], "depths": [1, 1, 1, 1], "image_size": SIDE}
        return t.DINOv3ConvNextModel(t.DINOv3ConvNextConfig(**sizes)), _SQUARE | _RGB
    if kind == "clip":
        config = t.CLIPConfig(text_config=text, vision_config=_VIT | _MLP, projection_dim=12)
        return t.CLIPModel(config), _CUT | {"resample": 3}
    if kind == "vjepa2":
        vit = {name: value for name, value in _VIT.items() if name != "image_size"}
        vit["num_attention_heads"] = 1  # its positions need six numbers a head
        vit["hidden_size"] = 24
        few = {"pred_hidden_size": 24, "pred_num_attention_heads": 1, "pred_num_hidden_layers": 1}
        config = t.VJEPA2Config(**vit, **few, crop_size=SIDE, frames_per_clip=6, num_pooler_layers=1)
        return t.VJEPA2Model(config), _CUT | _RGB | {"crop_size": SIDE}
    config = t.VideoMAEConfig(**video, use_mean_pooling=kind == "videomae_classes")
    model = t.VideoMAEForVideoClassification if kind == "videomae_classes" else t.VideoMAEForPreTraining
    return model(config), _CUT | _RGB


def save_tower(folder: Path, kind: str, licence: str | None = "apache-2.0", seed: int = 0) -> Any:
    """Write the model's folder; return the model."""
    import torch

    torch.manual_seed(seed)
    model, preprocessing = _made(kind)
    with torch.no_grad():
        for weights in model.parameters():  # as they start out, many networks give nearly the same for every image
            weights.add_(0.2 * torch.randn_like(weights))
    model.save_pretrained(folder)
    name = "video_preprocessor_config.json" if kind == "vjepa2" else "preprocessor_config.json"
    (folder / name).write_text(json.dumps(preprocessing))
    if licence is not None:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# A model\n")
    return model.eval()

"""What a learned embedding will be, known before any network is loaded: its kind, width, frames, files and licence."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from PIL.Image import Resampling

from handloom.errors import ConfigError
from handloom.models.embeddings.learned.pixels import Patches, Preprocessing, Square, read_preprocessing
from handloom.models.hub.colours import CLIP_COLOURS, HALF, IMAGENET
from handloom.models.hub.licences import licence_of_folder
from handloom.models.hub.pretrained import PretrainedFiles, find_with_config
from handloom.schemas.towers import TowerSettings
from handloom.schemas.version_policy import counted

VERSION = "1"
IMAGE_FRAMES = 8
"""Frames that an image network sees by default."""


@dataclass(frozen=True)
class Kind:
    """A `model_type` of transformers. network: its class. usual: its preprocessing. is_video: it takes all frames of a
    clip at once."""

    network: str
    usual: Square
    is_video: bool = False


_SIGLIP = Square(HALF, Resampling.BICUBIC, cuts=False)
_NAFLEX = Square(HALF, Resampling.BILINEAR, cuts=False)
_DINOV2 = Square(IMAGENET, Resampling.BICUBIC, cuts=True, short_share=256 / 224)
_DINOV3 = Square(IMAGENET, Resampling.BILINEAR, cuts=False)
_CLIP = Square(CLIP_COLOURS, Resampling.BICUBIC, cuts=True)
KINDS = {
    "siglip": Kind("SiglipVisionModel", _SIGLIP),
    "siglip_vision_model": Kind("SiglipVisionModel", _SIGLIP),
    "siglip2": Kind("Siglip2VisionModel", _NAFLEX),
    "siglip2_vision_model": Kind("Siglip2VisionModel", _NAFLEX),
    "dinov2": Kind("Dinov2Model", _DINOV2),
    "dinov2_with_registers": Kind("Dinov2WithRegistersModel", _DINOV2),
    "dinov3_vit": Kind("DINOv3ViTModel", _DINOV3),
    "dinov3_convnext": Kind("DINOv3ConvNextModel", _DINOV3),
    "clip": Kind("CLIPVisionModelWithProjection", _CLIP),
    "clip_vision_model": Kind("CLIPVisionModelWithProjection", _CLIP),
    "vjepa2": Kind("VJEPA2Model", Square(IMAGENET, Resampling.BILINEAR, cuts=True, short_share=256 / 224), True),
    "videomae": Kind("VideoMAEModel", Square(IMAGENET, Resampling.BILINEAR, cuts=True), True),
}
"""SigLIP and SigLIP 2 with fixed sizes are both `siglip`; SigLIP 2 NaFlex is `siglip2`."""


@dataclass(frozen=True)
class TowerPlan:
    """One learned embedding.

    where: what comes before the settings' names in errors. dim: its width. num_frames: how many frames of a clip it
    sees. config: of the network that sees them, as
    transformers reads it. architecture: the class whose weights the files hold.
    licence: of the weights, None where their files do not say it.
    """

    settings: TowerSettings
    where: str
    files: PretrainedFiles
    kind: Kind
    config: Any
    architecture: str
    dim: int
    num_frames: int
    preprocessing: Preprocessing | Patches
    licence: str | None

    def identity(self) -> dict[str, str]:
        """What can change the embedding and is no setting: code, weights by digest, libraries."""
        libraries = counted({name: version(name) for name in ("torch", "transformers", "pillow")})
        return {"tower": VERSION, "weights": self.files.digest(), **libraries}


def plan_tower(settings: TowerSettings, where: str = "") -> TowerPlan:
    """Find the model's files, fetching them if need be, and check the settings against them. No network is loaded.

    where: what comes before the settings' names in errors, such as `stages.siglip2.settings.`.

    Raises:
        ConfigError: the model is not available or of a kind that is not supported, or the settings do not fit it.
    """
    name = f"{where}model"
    files, config = find_with_config(name, settings.model, settings.revision)
    kind = KINDS.get(config.model_type)
    if kind is None:
        problem = f"{name}: {settings.model!r} is of the type {config.model_type}, expected one of {', '.join(KINDS)}"
        raise ConfigError(problem, "take one of these, or write a stage of your own (docs/stages.md)")
    vision = getattr(config, "vision_config", config)
    return TowerPlan(
        settings=settings,
        where=where,
        files=files,
        kind=kind,
        config=vision,
        architecture=(config.architectures or [""])[0],
        dim=_width(vision, kind),
        num_frames=_num_frames(vision, kind, settings, where),
        preprocessing=_preprocessing(files, vision, kind, settings, where),
        licence=settings.licence or licence_of_folder(files.folder),
    )


def _width(vision: Any, kind: Kind) -> int:
    if kind.network == "CLIPVisionModelWithProjection":
        return vision.projection_dim
    sizes = getattr(vision, "hidden_sizes", None)
    return sizes[-1] if sizes else vision.hidden_size


def _num_frames(vision: Any, kind: Kind, settings: TowerSettings, where: str) -> int:
    if not kind.is_video:
        return settings.frames or IMAGE_FRAMES
    own = vision.num_frames if kind.network == "VideoMAEModel" else vision.frames_per_clip
    asked = settings.frames or own
    if kind.network == "VideoMAEModel" and asked != own:
        raise ConfigError(f"{where}frames is {asked}, but {settings.model!r} takes {own} frames, no other number")
    if asked % vision.tubelet_size:
        problem = f"{where}frames is {asked}, expected a multiple of {vision.tubelet_size}, the frames in one token"
        raise ConfigError(f"{problem} of {settings.model!r}")
    return asked


def _preprocessing(
    files: PretrainedFiles, vision: Any, kind: Kind, settings: TowerSettings, where: str
) -> Preprocessing | Patches:
    content, asked = files.preprocessing(), settings.image_size
    own = getattr(vision, "image_size", None) or getattr(vision, "crop_size", None) or 224
    own = own if isinstance(own, int) else min(own)
    patch = getattr(vision, "patch_size", 32)  # ConvNeXt has none, and halves the image five times
    patch = patch if isinstance(patch, int) else max(patch)
    if kind.network == "Siglip2VisionModel":
        if asked or settings.fit == "whole":
            problem = (
                f"{where}image_size and fit do not apply to {settings.model!r}: it takes images of their own shape"
            )
            raise ConfigError(problem, "leave them out")
        base = read_preprocessing({**content, "size": None, "do_center_crop": False}, kind.usual, patch)
        return Patches(base, patch, int(content.get("max_num_patches") or vision.num_patches))
    if asked % patch:
        problem = f"{where}image_size is {asked}, expected a multiple of {patch}, the patch of {settings.model!r}"
        raise ConfigError(problem)
    if kind.network == "VideoMAEModel" and asked not in (0, own):
        raise ConfigError(f"{where}image_size is {asked}, but {settings.model!r} takes images of {own}, no other size")
    return read_preprocessing(content, kind.usual, own, image_size=asked, whole=settings.fit == "whole")

"""Metric depth maps, in metres, by a learned model from the transformers library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError, with_extra
from handloom.models.devices import check_device
from handloom.models.hub.fingerprints import files_digest, hub_revision
from handloom.models.hub.pretrained import fetch_card
from handloom.models.protocols import ClipFrames
from handloom.schemas.clip import Clip
from handloom.schemas.settings import DepthConfig
from handloom.schemas.values import Camera, DepthMaps, VideoInfo

BATCH = 4
SHRINK = 2
"""Maps are stored at half the working size: these networks resolve no more."""
METRIC_MODELS = {"zoedepth", "depth_pro", "glpn"}
"""Model types that always give metres; Depth Anything says in its configuration whether it does."""


class TransformersDepth:
    """Depth Anything V2 (metric) and similar models: each frame alone, on `depth.device`.

    `depth.model` is a Hugging Face id (fetched once into the hub's cache) or a folder that `save_pretrained` wrote.
    The default model is Apache-2.0; the larger Depth Anything V2 models are CC BY-NC 4.0.

    Source: Yang et al., Depth Anything V2 (NeurIPS 2024).

    Raises:
        ConfigError: torch or transformers are not installed, there is no such device, or the model is not available or
            does not give metres.
    """

    def __init__(self, config: DepthConfig) -> None:
        self._name = config.model
        self._torch, self._processor, self._model = _load(config.model)
        self._device = config.device
        check_device("depth.device", self._device)
        self._model.to(self._device).eval()

    def maps(self, clip: Clip, info: VideoInfo, frames: ClipFrames, camera: Camera) -> DepthMaps:
        """(T, h, w) float16 of half the working size, NaN where the model gives nothing positive."""
        height, width = frames.rgb(0).shape[:2]
        size = (max(1, height // SHRINK), max(1, width // SHRINK))
        depth = np.empty((len(frames), *size), np.float16)
        for start in range(0, len(frames), BATCH):
            images = [frames.rgb(t) for t in range(start, min(start + BATCH, len(frames)))]
            try:
                found = self._predict(images)
            except (RuntimeError, ValueError) as error:
                problem = f"{self._name} failed on frames of {width} x {height}: {error}"
                hint = "a GPU out of memory: lower video.short_side_px"
                raise ClipError(clip.clip_id, "depth", "model_failed", problem, hint) from None
            depth[start : start + len(found)] = [_fit(one, size) for one in found]
        return DepthMaps(depth, "metric", f"transformers {self._name}")

    def _predict(self, images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Metres at the images' size."""
        with self._torch.inference_mode():
            inputs = self._processor(images=images, return_tensors="pt").to(self._device)
            outputs = self._model(**inputs)
        sizes = [image.shape[:2] for image in images]
        found = self._processor.post_process_depth_estimation(outputs, target_sizes=sizes)
        return [one["predicted_depth"].float().cpu().numpy() for one in found]


def model_identity(config: DepthConfig) -> str:
    """The revision of a model from the hub, or the digest of a folder's files.

    Uses no network if the model has been fetched before; else fetches it.

    Raises:
        ConfigError: as `TransformersDepth` does.
    """
    folder = Path(config.model)
    if folder.is_dir():
        try:
            return f"files {files_digest(folder, ['*'])}"
        except OSError as error:
            problem = f"the depth model's folder {config.model!r} cannot be read: {error}"
            raise ConfigError(problem, "check who may read its files") from None
    if not _is_cached(config.model):
        _load(config.model)
        fetch_card(config.model)
    return f"revision {hub_revision(config.model)}"


def _is_cached(model: str) -> bool:
    try:
        return hub_revision(model) is not None
    except ImportError:
        return False  # loading reports what is not installed


def _fit(depth: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The map at (h, w), by the nearest sample: a mean over an edge would be between near and far."""
    small = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(small) & (small > 0), small, np.nan)


def _load(name: str) -> tuple[Any, Any, Any]:
    """torch, the image processor and the model."""
    try:
        import torch
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation
    except ImportError as error:
        problem = f"depth.provider is transformers, but {error.name} is not installed"
        raise ConfigError(problem, f"{with_extra('models')}; or set depth.provider = geometry") from None
    revision = (
        {} if Path(name).is_dir() else {"revision": hub_revision(name) or "main"}
    )  # the one that `model_identity` reports
    try:
        processor = AutoImageProcessor.from_pretrained(name, **revision)
        model = AutoModelForDepthEstimation.from_pretrained(name, dtype=torch.float32, **revision)
    except (OSError, ValueError, KeyError) as error:
        what = "folder" if Path(name).is_dir() else "Hugging Face id"
        problem = f"the depth model {name!r} cannot be loaded as a {what}: {str(error)[:300]}"
        raise ConfigError(problem, "give depth.model a folder with the model's files, or go online once") from None
    kind = model.config.model_type
    gives = getattr(model.config, "depth_estimation_type", "metric" if kind in METRIC_MODELS else "unknown")
    if gives != "metric":
        problem = f"the depth model {name!r} ({kind}) gives {gives} depth, expected metres"
        raise ConfigError(
            problem, "use a metric model, such as depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
        )
    return torch, processor, model

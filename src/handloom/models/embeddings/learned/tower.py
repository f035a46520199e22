"""Learned image and video networks as embedders of clips: SigLIP 2, DINOv2 and v3, CLIP, V-JEPA 2, VideoMAE.

An image network describes each frame alone. Its frames' unit vectors are averaged, and the mean has unit length again:
Luo et al., CLIP4Clip (arXiv 2104.08860), section 3.3, mean pooling. A video network takes all frames at once; its
tokens are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.devices import check_device
from handloom.models.embeddings.learned.plan import TowerPlan
from handloom.models.hub.pretrained import load_network, unavailable

UNNEEDED = ("predictor", "embeddings.mask_token", "classifier", "vision_model.embeddings.position_ids")
"""Weights that an embedding does not use, and that a folder may lack."""


class Tower:
    """One network, loaded on its device.

    Raises:
        ConfigError: there is no such device; the weights cannot be read, do not fit or are not all there.
    """

    def __init__(self, plan: TowerPlan) -> None:
        import torch

        self.plan, self._torch = plan, torch
        self._device = plan.settings.device
        check_device(f"{plan.where}device", self._device)
        self._dtype = getattr(torch, plan.settings.dtype)
        self._network = self._load().to(self._device).eval().requires_grad_(False)

    def embed(self, clips: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Frames of clips, each (n, h, w, 3), to (B, dim) of unit length; NaN where the network gives nothing finite.

        The network sees one clip at a time: in a batch of several, a clip's last digits would depend on its neighbours.

        Raises:
            RuntimeError: the device ran out of memory.
        """
        if not clips:
            return np.empty((0, self.plan.dim), np.float32)
        return np.stack([self._embed(frames[self.chosen(len(frames))]) for frames in clips])

    def chosen(self, num_frames: int) -> NDArray[np.int64]:
        """Which of a clip's frames the network sees: the middles of equal parts; some twice in a short clip."""
        wanted = self.plan.num_frames
        return ((np.arange(wanted) + 0.5) * num_frames / wanted).astype(np.int64)

    def _embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        torch, prepared = self._torch, self.plan.preprocessing(frames)
        with torch.inference_mode():
            features = self._features(prepared).float()
            features = features / features.norm(dim=-1, keepdim=True)
            mean = features.mean(0)
            found = (mean / mean.norm()).cpu().numpy()
        return found if np.isfinite(found).all() else np.full_like(found, np.nan)

    def _features(self, prepared: Any) -> Any:
        """(frames, dim), or (1, dim) of a video network."""
        kind = self.plan.kind.network
        if isinstance(prepared, dict):
            return self._pooled(self._network(**{name: self._tensor(value) for name, value in prepared.items()}))
        pixels = self._tensor(prepared)
        if kind == "VJEPA2Model":
            return self._network(pixel_values_videos=pixels[None], skip_predictor=True).last_hidden_state.mean(1)
        if kind == "VideoMAEModel":
            base = getattr(self._network, "videomae", self._network)
            mean = base(pixel_values=pixels[None]).last_hidden_state.mean(1)
            norm = getattr(self._network, "fc_norm", None)
            return mean if norm is None else norm(mean)
        if kind == "CLIPVisionModelWithProjection":
            return self._network(pixel_values=pixels, **self._positions()).image_embeds
        return self._pooled(self._network(pixel_values=pixels, **self._positions()))

    def _pooled(self, out: Any) -> Any:
        return out.last_hidden_state.mean(1) if out.pooler_output is None else out.pooler_output

    def _positions(self) -> dict[str, bool]:
        """SigLIP and CLIP resample their positions for another size when asked; the others do so by themselves."""
        asks = self.plan.kind.network in ("SiglipVisionModel", "CLIPVisionModelWithProjection")
        return {"interpolate_pos_encoding": True} if asks and self.plan.settings.image_size else {}

    def _tensor(self, value: NDArray[Any]) -> Any:
        tensor = self._torch.from_numpy(np.ascontiguousarray(value)).to(self._device)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _load(self) -> Any:
        import transformers

        plan = self.plan
        name = plan.kind.network
        if plan.architecture == "VideoMAEForVideoClassification":
            name = "VideoMAEForVideoClassification"  # its norm after the mean is part of the network
        kind = getattr(transformers, name, None)
        if kind is None:
            problem = f"{plan.settings.model!r} needs {name}, which transformers {transformers.__version__} lacks"
            raise ConfigError(problem, "install a newer transformers, on every node")
        options = {"dtype": self._dtype, "config": plan.config}
        try:
            return load_network(kind, plan.settings.model, str(plan.files.folder), UNNEEDED, **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise unavailable(f"{plan.where}model", plan.settings.model, str(error)) from error

"""Learned networks as encoders of texts: CLIP and SigLIP 2, whose texts lie beside images, and sentence encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.devices import check_device
from handloom.models.hub.pretrained import load_network, unavailable
from handloom.models.language.plan import TextPlan

UNNEEDED = ("embeddings.position_ids", "text_model.embeddings.position_ids", "pooler.")
"""Weights that an embedding does not use, and that a folder may lack."""


class TextTower:
    """One network with its tokenizer, loaded on its device.

    Raises:
        ConfigError: there is no such device; weights or tokenizer cannot be read, do not fit or are not all there.
    """

    def __init__(self, plan: TextPlan) -> None:
        import torch

        self.plan, self._torch = plan, torch
        self._device = plan.settings.device
        check_device(f"{plan.where}device", self._device)
        self._tokenizer = self._load_tokenizer()
        self._network = self._load().to(self._device).eval().requires_grad_(False)

    @property
    def dim(self) -> int:
        return self.plan.dim

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) of unit length. Each text alone: in a batch the last digits depend on the others.

        Raises:
            ConfigError: a text is empty; the network gives numbers that are not finite.
        """
        if any(not text.strip() for text in texts):
            raise ConfigError("an empty text has no embedding", "give one or more words")
        found = [self._encode(self.plan.settings.prefix + text) for text in texts]
        return np.stack(found) if found else np.empty((0, self.plan.dim), np.float32)

    def _encode(self, text: str) -> NDArray[np.float32]:
        torch, kind = self._torch, self.plan.kind
        options = {"padding": "max_length"} if kind.fills else {}
        text = text.lower() if kind.fills else text  # SigLIP saw small letters alone
        given = self._tokenizer(
            [text], truncation=True, max_length=self.plan.num_tokens, return_tensors="pt", **options
        ).to(self._device)
        mask = given.get("attention_mask")
        inputs = {"input_ids": given["input_ids"]} | ({} if kind.fills or mask is None else {"attention_mask": mask})
        with torch.inference_mode():
            vector = self._pooled(self._network(**inputs)).float()
            found = (vector / vector.norm()).cpu().numpy()
        if not np.isfinite(found).all():
            settings = self.plan.settings
            problem = f"{settings.model} gave numbers that are not finite for {text!r}, with dtype = {settings.dtype}"
            raise ConfigError(problem, "set dtype to float32")
        return found

    def _pooled(self, out: Any) -> Any:
        if self.plan.kind.pools == "projected":
            return out.text_embeds[0]
        if self.plan.kind.pools == "pooled":
            return out.pooler_output[0]
        return out.last_hidden_state[0, 0] if self.plan.takes_first else out.last_hidden_state[0].mean(0)

    def _load_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.plan.files.folder)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            raise unavailable(f"{self.plan.where}model", self.plan.settings.model, f"its tokenizer: {error}") from error

    def _load(self) -> Any:
        import transformers

        plan = self.plan
        kind = getattr(transformers, plan.kind.network, None)
        if kind is None:
            problem = f"{plan.settings.model!r} needs {plan.kind.network}, which transformers lacks"
            raise ConfigError(problem, f"install a newer transformers than {transformers.__version__}, on every node")
        options = {"dtype": getattr(self._torch, plan.settings.dtype), "config": plan.config}
        try:
            return load_network(kind, plan.settings.model, str(plan.files.folder), UNNEEDED, **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise unavailable(f"{plan.where}model", plan.settings.model, str(error)) from error

"""A recipe small enough for tests: a linear layer that predicts the next keypoints of a hand from the last ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handloom.schemas.training import Example, TrainSettings
from handloom.train.recipe import RecipeData

PAST, WIDTH = 2, 21 * 3


class TinySettings(TrainSettings):
    drop: float = 0.1
    """Share of inputs that dropout hides."""
    slow_s: float = 0.0
    """Every step takes this much longer, so that it can be interrupted."""
    spoilt_clip: str = ""
    """A window of this clip makes the loss NaN."""


class TinyNetwork(nn.Module):
    """From the right hand's last two steps to its next one, metres."""

    def __init__(self, settings: TinySettings) -> None:
        super().__init__()
        self.settings = settings
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.drop = nn.Dropout(settings.drop)
        self.step = nn.Linear(PAST * WIDTH, WIDTH)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        time.sleep(self.settings.slow_s)
        points = batch["hand_keypoints_cam_m"][:, :, 1].flatten(2)  # (B, 3, 63)
        known = points.isfinite()
        given, target = torch.nan_to_num(points[:, :PAST]), torch.nan_to_num(points[:, PAST])
        predicted = given[:, -1] + self.step(self.drop(given.flatten(1)))
        if self.settings.spoilt_clip in batch["clip_id"]:
            predicted = predicted * float("nan")
        valid = known.all(1)
        error = torch.where(valid, (predicted - target).abs(), 0)
        sums = {"loss": error, "l1": error, "zero_motion": torch.where(valid, (given[:, -1] - target).abs(), 0)}
        count = valid.sum()
        return {
            "loss": error.sum() / count.clamp(min=1),
            "sums": {name: torch.stack([e.detach().double().sum(), count.double()]) for name, e in sums.items()},
        }


class TinyRecipe:
    name = "tiny"
    settings_type = TinySettings
    sizes = ()

    def data(self, db, settings: TinySettings, version: int | None = None) -> RecipeData:
        options = {"past": PAST, "future": 1, "fields": ["hand_keypoints_cam_m"], "version": version}
        options |= {"where": settings.where or None, "held_out_share": settings.held_out_share}
        train, held_out = (db.windows(split=split, **options) for split in ("train", "held_out"))
        return RecipeData(train, held_out, train.version, {"width": WIDTH})

    def network(self, settings: TinySettings, facts: Mapping[str, Any]) -> nn.Module:
        return TinyNetwork(settings)

    def load_init(
        self, network: nn.Module, weights: Mapping[str, Tensor], settings: TinySettings, start=None
    ) -> list[str]:
        network.load_state_dict(dict(weights), strict=False)
        return []

    def variants(self, settings: TinySettings) -> dict[str, TinySettings]:
        return {"asked": settings, "half the rate": settings.model_copy(update={"lr": settings.lr / 2})}

    def report(self, network: nn.Module, data: RecipeData, settings: TinySettings) -> dict[str, Any]:
        way = np.cumsum(np.full((3, 4, 2), 5, np.float32), axis=0) + np.arange(8, dtype=np.float32).reshape(4, 2) * 9
        frame = np.full((60, 80, 3), 128, np.uint8)
        return {
            "examples": [Example("test:v0:0-1", 0.5, frame, way, way + 2, "four points")],
            "notes": ["Nothing here is a paper's."],
            "figures": {"A map": (np.array([[1.0, -0.5], [np.nan, 0.0]]), ["arm", "gripper"], ["wrist", "thumb"])},
            "numbers": {"l1_mm": 1.5},
        }


RECIPE = TinyRecipe()

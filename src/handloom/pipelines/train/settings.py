"""The settings of a training job, from the recipe's settings file, the user's file and `--set key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handloom.pipelines.configure import checked, merged_values
from handloom.schemas.training import TrainResources, TrainSettings
from handloom.train.recipe import Recipe
from handloom.train.registry import settings_file

EXAMPLE = "lr=0.0003"
RESOURCES = "resources"
LISTED = "`handloom train ... --show-settings` prints all settings, the recipe's page in docs explains them"


@dataclass(frozen=True)
class TrainConfig:
    """settings: of the recipe's own type. resources: settings that only change the cost."""

    settings: TrainSettings
    resources: TrainResources

    def shown(self) -> dict[str, Any]:
        """As JSON values, in the form of a `--config` file."""
        return self.settings.model_dump(mode="json") | {RESOURCES: self.resources.model_dump(mode="json")}


def load_train_config(
    recipe: Recipe, size: str | None, config: Path | None, assignments: Sequence[str], workers: int | None = None
) -> TrainConfig:
    """Settings from the recipe's file of that size (its first one by default), then `config`, then the assignments.

    Resources are under `[resources]`; `workers` replaces what they say.

    Raises:
        ConfigError: there is no such size; a file cannot be read; a name or value is wrong.
    """
    paths = [settings_file(recipe, size or recipe.sizes[0])] if recipe.sizes or size else []
    values = merged_values([*paths, *([config] if config else [])], assignments, EXAMPLE)
    given = values.pop(RESOURCES, {}) | ({} if workers is None else {"workers": workers})
    resources = checked(TrainResources, given, LISTED, f"{RESOURCES}.")
    settings = checked(recipe.settings_type, values, LISTED)
    if settings.init and "://" not in settings.init:  # workers run in other folders
        settings = settings.model_copy(update={"init": str(Path(settings.init).expanduser().absolute())})
    return TrainConfig(settings, resources)

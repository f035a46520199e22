"""Recipes by name, as in `handloom train NAME`. A recipe of your own has the name `package.module:ATTRIBUTE`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from handloom.errors import ConfigError
from handloom.named import load_named
from handloom.train.checkpoint import Checkpoint, load_weights, put_weights
from handloom.train.recipe import Recipe

RECIPES = {
    "arm4r": "handloom.train.arm4r.recipe:RECIPE",
    "arvrm": "handloom.train.arvrm.recipe:RECIPE",
    "robomirror": "handloom.train.robomirror.recipe:RECIPE",
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises ConfigError, with the known names, where there is no such recipe."""
    if name not in RECIPES and ":" not in name:
        raise ConfigError(
            f"there is no recipe {name!r}",
            f"give one of {', '.join(RECIPES)}, vlmimic, or package.module:ATTRIBUTE for one of your own",
        )
    found: Recipe = load_named(f"the recipe {name}", RECIPES.get(name, name))
    if isinstance(found, type) or not all(hasattr(found, part) for part in ("name", "sizes", "settings_type", "data")):
        hint = "name an instance, not a class; docs/training.md shows what a recipe of your own must have"
        raise ConfigError(f"the recipe {name} is a {type(found).__name__}, not a recipe", hint)
    return found


def open_network(
    uri: str, storage_options: Mapping[str, str] | None = None, recipe: Recipe | None = None
) -> tuple[nn.Module, Checkpoint]:
    """A trained network, ready to predict, and its checkpoint (`facts`: settings, version, ...).

    Args:
        uri: a checkpoint, a variant's folder, or an `--out`.
        recipe: the checkpoint's recipe; by default looked up by its name.

    Raises:
        ConfigError: there is no checkpoint, or no recipe of its name.
    """
    found = load_weights(uri, storage_options or {})
    return network_of(found, recipe), found


def network_of(found: Checkpoint, recipe: Recipe | None = None) -> nn.Module:
    """The network of a checkpoint that was read, ready to predict. Raises as `open_network`."""
    name = found.facts.recipe
    if recipe is None and name not in RECIPES and ":" not in name:
        raise ConfigError(f"{found.uri} is a checkpoint of {name}, not of `handloom train`", f"of {', '.join(RECIPES)}")
    recipe = recipe or find_recipe(name)
    network = recipe.network(found.settings_as(recipe.settings_type), found.facts.facts)
    put_weights(network, found.network, found.uri)
    return network.eval()


def settings_file(recipe: Recipe, size: str) -> Path:
    """The settings file of a size, beside the recipe's module. Raises ConfigError where the recipe has no such size."""
    if size not in recipe.sizes:
        raise ConfigError(f"the recipe {recipe.name} has no size {size!r}", f"give one of {', '.join(recipe.sizes)}")
    return Path(str(sys.modules[type(recipe).__module__].__file__)).parent / f"{size}.toml"

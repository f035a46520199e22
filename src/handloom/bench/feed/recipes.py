"""How long the recipes wait for windows, over a few steps of each with its small settings."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.pipelines.train.settings import load_train_config
from handloom.train.history import loader_wait_share, steps_of
from handloom.train.loop import train
from handloom.train.registry import find_recipe

RECIPES = ("arm4r", "arvrm")
STEPS = 120


def loader_waits(
    db: Database,
    say: Callable[[str], None],
    into: dict[str, Any],
    num_steps: int = STEPS,
    recipes: Sequence[str] = RECIPES,
    assignments: Sequence[str] = (),
) -> None:
    """Write `{recipe: {"loader_wait_share", "step_s", "loader_wait_s", "steps", ...}}` to `into`; medians.

    Trains in this process, without Ray. assignments: settings on top of the small ones, as for `--set`.
    """
    for name in recipes:
        say(f"{name}: {num_steps} steps with the small settings")
        recipe = find_recipe(name)
        size = "small" if "small" in recipe.sizes else None
        config = load_train_config(recipe, size, None, [f"max_steps={num_steps}", *assignments])
        try:
            with tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
                outcome = train(recipe, db, config.settings, Folder.parse(str(Path(folder) / "run")))
        except ConfigError as error:  # usually too few clips; the readers' results are kept
            say(f"{name}: not measured: {error.problem}")
            into[name] = {"not_measured": error.problem}
            continue
        steps = steps_of(outcome.history)
        into[name] = {
            "loader_wait_share": loader_wait_share(outcome.history),
            "step_s": round(statistics.median(step["step_s"] for step in steps), 4),
            "loader_wait_s": round(statistics.median(step["loader_wait_s"] for step in steps), 5),
            "steps": len(steps),
            "batch_size": config.settings.batch_size,
            "loader_workers": config.settings.loader_workers,
        }

"""The settings of `handloom train vlmimic`: a settings file of its own, the user's, and `--set key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from handloom.errors import ConfigError
from handloom.pipelines.configure import checked, merged_values
from handloom.schemas.settings import Frozen
from handloom.schemas.towers import AskSettings
from handloom.sim.tabletop.draw import HOWS, How
from handloom.sim.tabletop.episodes import ROUNDS
from handloom.sim.tabletop.plans import MODES, Mode

RECIPE = "vlmimic"
SIZES = ("small", "full")
RESOURCES = "resources"
LISTED = f"`handloom train {RECIPE} ... --show-settings` prints all settings, docs/vlmimic.md explains them"
EXAMPLE = "episodes=20"
COSTS = frozenset({"episodes", "replace", "video"})
"""Settings that an interrupted job may be resumed with other values of."""


class VlmimicSettings(Frozen):
    """What is learned of which clips, and in how many episodes it is tried. All are kept in `job.json`."""

    seed: int = Field(0, ge=0)
    """Seed of the split into clips that teach and clips that are held out, and of the scenes."""
    where: str = ""
    """SQL filter on the clips; empty: all clips of people."""
    version: int | None = Field(None, ge=1)
    """Version of the table; by default the newest when the job starts, also when it is resumed."""
    held_out_share: float = Field(0.2, ge=0, lt=1)
    """Share of the videos of each task that teach nothing, at least one of two."""
    videos: int = Field(5, ge=1, le=200)
    """Clips that teach a task, at most (the paper's 5); what is left of other videos is held out, too."""
    least_clips: int = Field(3, ge=1)
    """A verb with a thing that has fewer clips is no task of its own: all such things of a verb are one."""
    tasks: int | None = Field(None, ge=1)
    """Tasks, those with most clips first; null: all."""
    judged: int = Field(50, ge=1)
    """Held-out clips of a task that are judged, at most."""
    prefix: str = Field("", max_length=40)
    """Before the names of the skills in the table `skills`."""
    replace: bool = False
    """Take the place of skills of the same names that another job, or `handloom skill learn`, has left."""
    episodes: int = Field(10, ge=0, le=1000)
    """Of each skill, kind of scene and mode; 0: no robot."""
    scenes: tuple[How, ...] = HOWS
    """Kinds of scenes."""
    modes: tuple[Mode, ...] = MODES
    """What is used of a skill, the first one is the robot's; the others are the ablation."""
    rounds: int = Field(ROUNDS, ge=0, le=10)
    """Of failure reasoning for each thing."""
    weld: bool = False
    """Fix held things to the hand in place of friction."""
    video: bool = True
    """Write a video of the best and of the worst episode of each skill, in the last of `scenes`, by the first mode."""
    reader: AskSettings | None = None
    """A vision-language model that reads the clips; null: rules do."""


class VlmimicResources(Frozen):
    """What changes only the cost."""

    workers: int | None = Field(None, ge=1)
    """Processes that run episodes; null: one per core."""


class VlmimicConfig(Frozen):
    """Settings of a job, and what changes only its cost."""

    settings: VlmimicSettings
    resources: VlmimicResources

    def shown(self) -> dict[str, Any]:
        """As JSON values, in the form of a `--config` file."""
        return self.settings.model_dump(mode="json") | {RESOURCES: self.resources.model_dump(mode="json")}


def load_config(
    size: str | None, config: Path | None, assignments: Sequence[str], workers: int | None = None
) -> VlmimicConfig:
    """The settings file of a size, then `config`, then the assignments; `workers` replaces what they say.

    Raises ConfigError: there is no such size; a file cannot be read; a name or value is wrong.
    """
    if size is not None and size not in SIZES:
        raise ConfigError(f"the recipe {RECIPE} has no size {size!r}", f"give one of {', '.join(SIZES)}")
    paths = [Path(__file__).parent / f"{size or SIZES[0]}.toml", *([config] if config else [])]
    values = merged_values(paths, assignments, EXAMPLE)
    given = values.pop(RESOURCES, {}) | ({} if workers is None else {"workers": workers})
    resources = checked(VlmimicResources, given, LISTED, f"{RESOURCES}.")
    settings = checked(VlmimicSettings, values, LISTED)
    if settings.episodes and not (settings.scenes and settings.modes):
        raise ConfigError("no scenes or no modes for the robot's episodes", "give some, or --set episodes=0")
    return VlmimicConfig(settings=settings, resources=resources)

"""What tells a policy its task instead of words: clips of people who do the same, as RoboMirror's latents (ours)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.train.arm4r.settings import Arm4rSettings
    from handloom.train.robomirror.commands import CommandMaker

Floats = NDArray[np.float32]
TRAIN, HELD_OUT = "train", "held_out"
DECIMALS = 4


@dataclass(frozen=True)
class Commands:
    """Clips by the task that they tell, each with its latents.

    key: of the auto-encoder that the latents are of (`CommandMaker.key`). by_task: {task in words: {clip id: (D,)}}.
    """

    key: str
    by_task: Mapping[str, Mapping[str, Floats]]

    def drawn(self, task: str, seed: int) -> tuple[str, Floats]:
        """A clip of a task, and its latents; the same for the same seed. Raises ConfigError: there is none."""
        found = self.by_task.get(task)
        if not found:
            told = ", ".join(repr(one) for one in self.by_task)
            problem = f"no clip tells the task {task!r}; there are clips for {told}"
            raise ConfigError(problem, "tell it with a clip: `handloom sim evaluate --command-clip ID`")
        name = sorted(found)[int(np.random.default_rng(seed).integers(len(found)))]
        return name, found[name]


def commands_of(facts: Mapping[str, Any], split: str) -> Commands:
    """The clips of a split in a checkpoint's facts, `facts["command"]`."""
    clips = facts["clips"].items()
    return Commands(
        facts["key"],
        {task: {name: np.array(one, np.float32) for name, one in found[split].items()} for task, found in clips},
    )


def command_facts(db: Database, settings: Arm4rSettings, tasks: Collection[str]) -> dict[str, Any]:
    """The latents of the settings' clips, as JSON values: with them a checkpoint trains and acts without the clips.

    `clips`: by task its filter `where`, and the latents of its clips in `train` and `held_out`, which are the split of
    RoboMirror's own training: no held-out clip has been seen by any of the networks.

    Args:
        db: of the episodes, and of the clips unless `command_db` names another. tasks: of the episodes, in words.

    Raises:
        ConfigError: a task has no filter; none of its clips is trained on, or none is held out; the checkpoint of
            `command_motion` is of another recipe.
    """
    clips, version, maker = _opened(db, settings, tasks)
    found: dict[str, dict[str, Any]] = {}
    for task in sorted(tasks):
        where = settings.command_clips[task]
        found[task] = {"where": where}
        for split in (TRAIN, HELD_OUT):
            made = maker.of_clips(clips, where, split, version)
            if not made:
                raise _no_clip(task, where, split, clips, maker)
            found[task][split] = {name: np.round(one, DECIMALS).tolist() for name, one in made.items()}
    return {
        "motion": maker.uri,
        "stage": maker.stage,
        "key": maker.key,
        "width": maker.width,
        "parts": maker.parts,
        "db": clips.uri,
        "version": version,
        "clips": found,
    }


def check_commands(db: Database, settings: Arm4rSettings, tasks: Collection[str]) -> None:
    """Raise ConfigError as `command_facts` does, without the latents: a clip that is too short is not found."""
    clips, version, maker = _opened(db, settings, tasks)
    for task in sorted(tasks):
        where = settings.command_clips[task]
        for split in (TRAIN, HELD_OUT):
            if not maker.num_clips(clips, where, split, version):
                raise _no_clip(task, where, split, clips, maker)


def _opened(db: Database, settings: Arm4rSettings, tasks: Collection[str]) -> tuple[Database, int, CommandMaker]:
    """The clips' database, its version, and what makes commands of them."""
    from handloom.api import Database
    from handloom.train.robomirror.commands import CommandMaker

    if missing := sorted(set(tasks) - settings.command_clips.keys()):
        told = ", ".join(repr(one) for one in settings.command_clips)
        problem = f"command_clips has no clips for the task {missing[0]!r}; it has {told}"
        raise ConfigError(problem, "add it, or leave its episodes out with `where`")
    clips = db if not settings.command_db else Database.open(settings.command_db, storage_options=db.storage_options)
    version = settings.command_version or clips.version
    if version is None:
        problem = f"there are no clips in {clips.uri}, and command = {settings.command} tells tasks with them"
        raise ConfigError(problem, "extract some with `handloom run`, or set command_db")
    return clips, version, CommandMaker(settings.command_motion, settings.command_parts)


def _no_clip(task: str, where: str, split: str, clips: Database, maker: CommandMaker) -> ConfigError:
    side = "trained on" if split == TRAIN else "held out"
    problem = f"of the clips of {task!r} ({where}) in {clips.uri} none with a motion is {side}"
    hint = f"a wider filter, more clips, or another seed or held_out_share of the training of {maker.uri}"
    return ConfigError(problem, hint)

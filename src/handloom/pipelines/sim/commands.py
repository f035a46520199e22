"""Which clips of people tell a trained policy its tasks, in `handloom sim evaluate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.sim.tasks import Task
from handloom.store.filters import quoted
from handloom.store.location import storage_options_from

if TYPE_CHECKING:
    from handloom.train.arm4r.data.commands import Commands

TRAIN_SO = "train ARM4R with command = motion, or both (docs/human-video.md)"


@dataclass(frozen=True)
class FromClips:
    """What tells the tasks in place of what the checkpoint keeps: its held-out clips.

    clip: its id; it tells all tasks. None: the held-out clips of each task, by the checkpoint's own filters. db: where
    clips are; None: where they were in training. motion: a checkpoint of RoboMirror that makes their latents, of either
    stage; None: that of the training.
    """

    clip: str | None = None
    db: str | None = None
    motion: str | None = None


def told_clips(policy: str, tasks: Sequence[Task], asked: FromClips) -> Commands:
    """The clips that tell each task, with their latents.

    Raises:
        ConfigError: the policy is none that clips tell; it was trained with latents of another auto-encoder; there is
            no such clip, or it has no motion; no clip of a task is held out.
        StoreError: there is no such database.
    """
    kind, _, uri = policy.partition(":")
    if kind != "arm4r":
        raise ConfigError(f"--policy {policy} is not told its task by clips", TRAIN_SO)
    from handloom.train.arm4r.data.commands import HELD_OUT, Commands
    from handloom.train.parts.acting import checkpoint_to_act
    from handloom.train.robomirror.commands import CommandMaker

    facts = checkpoint_to_act(uri, kind, "control", TRAIN_SO).facts.facts.get("command")
    if facts is None:
        raise ConfigError(f"--policy {policy} is not told its task by clips", TRAIN_SO)
    maker = CommandMaker(asked.motion or facts["motion"], facts["parts"])
    if maker.key != facts["key"]:
        problem = f"{maker.uri} makes latents of another auto-encoder than {facts['motion']}, which {policy} knows"
        raise ConfigError(problem, "give that one, or one of stage understand whose `init` it was")
    db = Database.open(asked.db or facts["db"], storage_options_from(os.environ))
    found = {}
    for task in tasks:
        if asked.clip is None:
            where = facts["clips"].get(task.text, {}).get("where", "false")
            found[task.text] = maker.of_clips(db, where, HELD_OUT)
            problem = f"no clip of {task.text!r} ({where}) in {db.uri} is held out"
        else:
            found[task.text] = maker.of_clips(db, f"clip_id = {quoted(asked.clip)}", None)
            lacks = "shows no hand" if maker.stage == "motion" else "has no intent"
            problem = f"{db.uri} has no clip {asked.clip} of a person, or it {lacks}"
        if not found[task.text]:
            raise ConfigError(problem, "--command-clip names a clip by its id, --command-db its database")
    return Commands(maker.key, found)

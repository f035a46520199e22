"""The tasks of Meta-World: their names, what a policy is told to do, and the seeds of their scenes.

Source: Yu et al., Meta-World: A Benchmark and Evaluation for Multi-Task and Meta Reinforcement Learning, CoRL 2019;
`metaworld` 3.1.1, whose names end in `-v3`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from handloom.errors import ConfigError

TEXTS = {
    "assembly": "pick up the nut and put it onto the peg",
    "basketball": "dunk the ball into the basket",
    "bin-picking": "move the cube from one bin to the other",
    "box-close": "put the lid onto the box",
    "button-press": "press the button",
    "button-press-topdown": "press the button from above",
    "button-press-topdown-wall": "reach over the wall and press the button from above",
    "button-press-wall": "reach over the wall and press the button",
    "coffee-button": "press the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial",
    "disassemble": "take the nut off the peg",
    "door-close": "close the door",
    "door-lock": "lock the door",
    "door-open": "open the door",
    "door-unlock": "unlock the door",
    "drawer-close": "close the drawer",
    "drawer-open": "open the drawer",
    "faucet-close": "turn the faucet clockwise",
    "faucet-open": "turn the faucet counter-clockwise",
    "hammer": "hammer the nail into the block",
    "hand-insert": "put the hand into the hole",
    "handle-press": "press the handle down",
    "handle-press-side": "press the handle down from the side",
    "handle-pull": "pull the handle up",
    "handle-pull-side": "pull the handle up from the side",
    "lever-pull": "pull the lever up",
    "peg-insert-side": "insert the peg into the hole from the side",
    "peg-unplug-side": "unplug the peg",
    "pick-out-of-hole": "pick the puck out of the hole",
    "pick-place": "pick up the puck and carry it to the goal",
    "pick-place-wall": "pick up the puck and carry it over the wall to the goal",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-back": "slide the plate out of the cabinet",
    "plate-slide-back-side": "slide the plate out of the cabinet to the side",
    "plate-slide-side": "slide the plate into the cabinet from the side",
    "push": "push the puck to the goal",
    "push-back": "push the block back to the goal",
    "push-wall": "push the puck around the wall to the goal",
    "reach": "reach the goal",
    "reach-wall": "reach the goal behind the wall",
    "shelf-place": "put the block onto the shelf",
    "soccer": "kick the ball into the goal",
    "stick-pull": "pull the box with the stick",
    "stick-push": "push the box with the stick",
    "sweep": "sweep the block off the table",
    "sweep-into": "sweep the block into the hole",
    "window-close": "close the window",
    "window-open": "open the window",
}
"""What to do, by the name of the task. Whether the scripted experts do it is measured (docs/sim.md)."""

MAX_STEPS = 500
"""The horizon of Meta-World."""


@dataclass(frozen=True)
class Task:
    """One task. name: as handloom and Meta-World say it, without `-v3`. text: what a policy is told to do."""

    name: str
    text: str


class Use(IntEnum):
    """What a scene is for: scenes that are recorded are never those that are evaluated."""

    record = 0
    evaluate = 1


def find_task(name: str) -> Task:
    """The task of this name, with or without `-v3`. Raises ConfigError, with all names, where there is none."""
    short = name.removesuffix("-v3")
    if short not in TEXTS:
        raise ConfigError(f"there is no task {name!r}", f"one of: {', '.join(TEXTS)}")
    return Task(short, TEXTS[short])


def find_tasks(names: str) -> list[Task]:
    """The tasks of `NAME[,NAME]`. Raises ConfigError: an unknown name, or one that is named twice."""
    tasks = [find_task(name.strip()) for name in names.split(",")]
    if twice := [task.name for number, task in enumerate(tasks) if task in tasks[:number]]:
        raise ConfigError(f"--task names {twice[0]} twice", "name each task once")
    return tasks


def scene_seed(task: Task, use: Use, seed: int, number: int) -> int:
    """The seed of the scene `number` of a task: the same everywhere, another for each of these values."""
    words = [seed, int(use), zlib.crc32(task.name.encode()), number]
    return int(np.random.SeedSequence(words).generate_state(1)[0])

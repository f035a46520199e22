"""What trained recipes that act share: the interface of a predictor of a robot's states, and reading its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.train.checkpoint import Checkpoint, load_weights


class Predictor(Protocol):
    """A checkpoint that is asked step by step: from what was seen so far to the states that it predicts.

    network: in eval mode. rate_hz: steps per second at which it sees, None: every step of the dataset. num_seen: the
    last so many of these are seen. ahead: (P,) how many of these steps after the last one each prediction is.
    cameras: names, none without pictures. image_size: pictures are resized to this square. picture_size: width and
    height of the dataset's pictures, None where that is not known. robot_types: of the episodes of its last
    training, not of the checkpoint with which that began (`init`).
    things: names of the numbers that follow the robot's own in a state, such as `goal.x`.
    """

    network: Any
    rate_hz: float | None
    num_seen: int
    ahead: NDArray[np.int64]
    cameras: tuple[str, ...]
    image_size: int
    picture_size: tuple[int, int] | None
    robot_types: tuple[str, ...]
    things: tuple[str, ...]

    def sample(self, states: NDArray[Any], pictures: NDArray[np.uint8] | None, text: str) -> dict[str, Any]:
        """What was seen as the training's windows hold it: what is later than it is unknown.

        Args:
            states: (T, S) as the dataset has them, the last T steps at the recipe's rate, 1 <= T <= num_seen.
            pictures: (T, h, w, 3) as the dataset has them; None without cameras.
        """

    def predict(self, states: NDArray[Any], pictures: NDArray[np.uint8] | None, text: str) -> NDArray[np.float32]:
        """(P, D) predicted states, in the units of the dataset; a pose has x, y, z first and the gripper last. See
        `sample`."""


def checkpoint_to_act(uri: str, recipe: str, stage: str, hint: str) -> Checkpoint:
    """The checkpoint at `uri`: its folder or a file in it, a variant's folder, or an `--out`.

    Raises:
        ConfigError: there is no checkpoint, or it is of another recipe or stage; `hint` says how to train one.
    """
    place = Path(uri)
    found = load_weights(str(place.parent) if place.is_file() else uri, {})
    if found.facts.recipe != recipe:
        raise ConfigError(f"{found.uri} is a checkpoint of the recipe {found.facts.recipe}, not of {recipe}", hint)
    if found.facts.settings["stage"] != stage:
        problem = f"{found.uri} is of the stage {found.facts.settings['stage']}, which predicts no states of a robot"
        raise ConfigError(problem, hint)
    return found


def of_another_robot(uri: str, wants: str, state_names: tuple[str, ...], num: int) -> ConfigError:
    """The error of a checkpoint whose robot has another state. num: numbers of a state here, as the recipe has them."""
    problem = f"{uri} is of a robot with {wants}; here a state is {', '.join(state_names)}: {num} numbers"
    return ConfigError(problem, "train on episodes of this robot")


@contextmanager
def one_core() -> Iterator[None]:
    """The same numbers with any number of cores and processes. For small networks it is also the cheapest: torch's
    threads wait for each other at every layer, and take a core while they do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def alone() -> Iterator[None]:
    """No gradients, and `one_core`."""
    with one_core(), torch.inference_mode():
        yield

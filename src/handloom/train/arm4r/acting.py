"""A trained third stage that is asked step by step: from what was seen so far to the states that it predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.train.arm4r.data.control_sample import ControlSample
from handloom.train.arm4r.data.robot_state import StateForm, form_of
from handloom.train.arm4r.network.network import Arm4rNetwork
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.checkpoint import load_weights
from handloom.train.registry import network_of


class Predictor:
    """A checkpoint of the stage `control`, and how its windows hold what was seen.

    settings, facts, network: of the checkpoint. cameras: names of the cameras it sees, none without pictures.
    """

    def __init__(
        self, network: Arm4rNetwork, settings: Arm4rSettings, facts: dict[str, Any], names: tuple[str, ...]
    ) -> None:
        self.settings, self.facts, self.network = settings, facts, network
        self.cameras: tuple[str, ...] = tuple(facts["cameras"])
        form: StateForm | None = form_of(names, facts["euler"]) if facts["has_pose"] else None
        self._fields = tuple(f"images:{name}" for name in self.cameras)
        self._sample = ControlSample(settings.context, settings.predicted_steps(), form, facts["target"], self._fields)

    def sample(self, states: NDArray[Any], pictures: NDArray[np.uint8] | None, text: str) -> dict[str, Any]:
        """What was seen as the training's windows hold it: what is later than it is unknown.

        Args:
            states: (T, S) as the dataset has them, the last T steps at the recipe's rate, 1 <= T <= context.
            pictures: (T, h, w, 3) of each camera, as the dataset has them; None without cameras.
        """
        num, steps = len(states), self.settings.context + self.settings.predicted_steps()
        valid = np.arange(steps) < num
        rows = np.full((steps, states.shape[1]), np.nan, np.float32)
        rows[:num] = states
        window = {"episode_id": "", "now_s": 0.0, "task": text, "valid": valid, "state": rows}
        if pictures is not None:
            shown = np.zeros((steps, *pictures.shape[1:]), np.uint8)
            shown[:num] = pictures
            window |= {name: shown for name in self._fields} | {f"{name}_valid": valid for name in self._fields}
        return self._sample(window)

    def predict(self, states: NDArray[Any], pictures: NDArray[np.uint8] | None, text: str) -> NDArray[np.float32]:
        """(P, D) the states that follow the last one, in the units of the dataset; see `sample`. On one core: the same
        numbers with any number of processes."""
        sample, last = self.sample(states, pictures, text), len(states) - 1
        names = ("state", "target", *(["images"] if self.cameras else []))
        batch: dict[str, Any] = {name: torch.from_numpy(sample[name])[None] for name in names} | {"text": [text]}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                delta = self.network.predict(batch, self.network.targets(batch))[0, last]
        finally:
            torch.set_num_threads(threads)
        return np.asarray(sample["state"][last] + delta.float().numpy())


def open_predictor(uri: str, state_names: tuple[str, ...]) -> Predictor:
    """The predictor of a checkpoint: its folder or a file in it, a variant's folder, or an `--out`.

    Args:
        state_names: of the robot's state, as in the dataset that it was trained on.

    Raises:
        ConfigError: there is no checkpoint, or it is of another recipe or stage, or its robot's state is another one.
    """
    place = Path(uri)
    found = load_weights(str(place.parent) if place.is_file() else uri, {})
    facts = found.facts
    if facts.recipe != "arm4r":
        raise ConfigError(f"{found.uri} is a checkpoint of the recipe {facts.recipe}, not of arm4r", _HINT)
    settings = Arm4rSettings(**facts.settings)
    if settings.stage != "control":
        problem = f"{found.uri} is of the stage {settings.stage}, which predicts points, not states of a robot"
        raise ConfigError(problem, _HINT)
    form = form_of(state_names, facts.facts["euler"]) if facts.facts["has_pose"] else None
    width = len(form.convert(np.zeros(len(state_names)))) if form is not None else len(state_names)
    sizes = (facts.facts["proprio_dim"], facts.facts["action_dim"])
    if (form is None) == facts.facts["has_pose"] or sizes != (width, width):
        raise ConfigError(
            f"{found.uri} is of a robot with {sizes[0]} numbers in a state ({', '.join(facts.facts['state_names'])}) "
            f"and {sizes[1]} in a prediction; here a state is {', '.join(state_names)}: {width} numbers",
            "train on episodes of this robot",
        )
    network = network_of(found)
    assert isinstance(network, Arm4rNetwork)
    return Predictor(network, settings, facts.facts, state_names)


_HINT = "give one of `handloom train arm4r --set stage=control`"

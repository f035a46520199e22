"""A trained third stage that is asked step by step: from what was seen so far to the states that it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.train.arm4r.data.commands import HELD_OUT, Commands, Floats, commands_of
from handloom.train.arm4r.data.control_sample import ControlSample
from handloom.train.arm4r.network.network import Arm4rNetwork
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.acting import alone, checkpoint_to_act, of_another_robot
from handloom.train.parts.robot_state import form_of
from handloom.train.registry import network_of

HINT = "give one of `handloom train arm4r --set stage=control`"


class Arm4rPredictor:
    """A checkpoint of the stage `control`, a `Predictor` (`train/parts/acting.py`).

    command: the facts of the clips that tell it its task (`command_facts`), None where words do, or nothing; with it
    `tell` must be called before it is asked. clips: its held-out ones.

    Args:
        uri: its folder or a file in it, a variant's folder, or an `--out`.
        state_names: of the robot's state, as in the dataset that it was trained on.

    Raises:
        ConfigError: there is no checkpoint; it is of another recipe or stage; it predicts recorded actions; its robot's
            state is another one.
    """

    def __init__(self, uri: str, state_names: tuple[str, ...]) -> None:
        found = checkpoint_to_act(uri, "arm4r", "control", HINT)
        facts: dict[str, Any] = found.facts.facts
        settings = found.settings_as(Arm4rSettings)
        if facts["target"] != "next_state":
            problem = f"{found.uri} predicts a robot's recorded actions, not the states that follow"
            raise ConfigError(problem, "train with control_target = next_state")
        self.things: tuple[str, ...] = tuple(facts.get("things", ()))
        self.command: dict[str, Any] | None = facts.get("command")
        self.clips: Commands | None = None if self.command is None else commands_of(self.command, HELD_OUT)
        self._latents: Floats | None = None
        given = (*state_names, *self.things)
        form = form_of(given, facts["euler"], settings.things) if facts["has_pose"] else None
        width = form.width if form is not None else len(state_names)
        sizes = (facts["proprio_dim"], facts["action_dim"])
        told = facts.get("things_told", self.things)
        if (form is None) == facts["has_pose"] or sizes != (width, width - len(told)):
            names = ", ".join([*facts["state_names"], *told])
            wants = f"{sizes[0]} numbers in a state ({names}) and {sizes[1]} in a prediction"
            raise of_another_robot(found.uri, wants, state_names, width)
        network = network_of(found)
        assert isinstance(network, Arm4rNetwork)
        self.settings, self.num_seen = settings, settings.context
        self.network: Any = network
        self.rate_hz: float | None = settings.rate_hz
        self.ahead = np.arange(1, settings.predicted_steps() + 1)
        self.cameras: tuple[str, ...] = tuple(facts["cameras"])
        self.image_size = settings.image_size
        width_height = facts.get("picture_size")
        self.picture_size: tuple[int, int] | None = tuple(width_height) if width_height else None
        self.robot_types: tuple[str, ...] = tuple(facts.get("robot_types", ()))
        self._fields = tuple(f"images:{name}" for name in self.cameras)
        self._sample = ControlSample(settings.context, settings.predicted_steps(), form, facts["target"], self._fields)

    def tell(self, clips: Commands, task: str, seed: int) -> None:
        """Be told a task by one of its clips, which the seed chooses; until it is told another.

        Raises ConfigError: the network was not trained to be told by clips; the latents are of another auto-encoder; no
        clip tells the task.
        """
        if self.command is None:
            problem = f"this checkpoint is told its task by {self.settings.command}, not by a clip"
            raise ConfigError(problem, "train with command = motion, or both")
        if clips.key != self.command["key"]:
            problem = f"the clips' latents are of another auto-encoder than those of {self.command['motion']}"
            raise ConfigError(problem, "give that checkpoint, or one of stage understand whose `init` it was")
        self._latents = clips.drawn(task, seed)[1]

    def sample(self, states: NDArray[Any], pictures: NDArray[np.uint8] | None, text: str) -> dict[str, Any]:
        """See `Predictor`."""
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
        """See `Predictor`."""
        sample, last = self.sample(states, pictures, text), len(states) - 1
        names = ("state", "target", *(["images"] if self.cameras else []))
        batch: dict[str, Any] = {name: torch.from_numpy(sample[name])[None] for name in names} | {"text": [text]}
        if self._latents is not None:
            batch["command"] = torch.from_numpy(self._latents)[None]
        with alone():
            delta = self.network.predict(batch, self.network.targets(batch))[0, last]
        return np.asarray(sample["state"][last, : delta.shape[-1]] + delta.float().numpy())

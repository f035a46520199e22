"""A trained second stage that is asked step by step: from what was seen so far to the state that it predicts.

No human clip is retrieved for it: retrieved clips add to the loss of training, and predictions never depend on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.train.arvrm.data.robot_sample import RobotSample, image_name
from handloom.train.arvrm.network.robot_network import RobotNetwork
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.acting import alone, checkpoint_to_act, of_another_robot
from handloom.train.parts.robot_state import form_of
from handloom.train.registry import network_of

HINT = "give one of `handloom train arvrm --size small-finetune`"


class ArvrmPredictor:
    """A checkpoint of the stage `finetune`, a `Predictor` (`train/parts/acting.py`).

    It is asked `phases` times a step of its own: of what was seen every `phases`-th is in its window, from the last
    backwards, and it predicts the state `phases` later.

    Args:
        uri: its folder or a file in it, a variant's folder, or an `--out`.
        state_names: of the robot's state, as in the dataset that it was trained on.

    Raises:
        ConfigError: there is no checkpoint; it is of another recipe or stage; its robot's state is another one; it saw
            pictures of an unknown camera, or at some of its steps only.
    """

    def __init__(self, uri: str, state_names: tuple[str, ...]) -> None:
        found = checkpoint_to_act(uri, "arvrm", "finetune", HINT)
        facts: dict[str, Any] = found.facts.facts
        settings = found.settings_as(ArvrmSettings)
        names, things = facts["state_names"], tuple(facts.get("things", ()))
        if tuple(names) != state_names:
            wants = f"{len(names)} numbers in a state ({', '.join(names)})"
            raise of_another_robot(found.uri, wants, state_names, len(state_names))
        sees = settings.image_encoder != "none"
        if sees and not facts.get("camera"):
            problem = f"{found.uri} does not say which camera it saw: it was trained by handloom {found.facts.handloom}"
            raise ConfigError(problem, "train again")
        if sees and facts["picture_share"] < 1:
            share = f"{facts['picture_share']:.0%}"
            raise ConfigError(
                f"{found.uri} had a picture at {share} of its steps; here it sees one at every step",
                f"record with --picture-hz {settings.rate_hz * settings.phases:g}: rate_hz times phases",
            )
        network = network_of(found)
        assert isinstance(network, RobotNetwork)
        self._phases = settings.phases
        self.network: Any = network
        self.rate_hz: float | None = settings.rate_hz * settings.phases
        self.things: tuple[str, ...] = things
        self.num_seen = (settings.steps - 2) * settings.phases + 1
        self.ahead = np.array([settings.phases])
        self.cameras: tuple[str, ...] = (facts["camera"],) if sees else ()
        self.image_size = settings.image_size if sees else 0
        width_height = facts.get("picture_size")
        self.picture_size: tuple[int, int] | None = tuple(width_height) if width_height else None
        self.robot_types: tuple[str, ...] = tuple(facts.get("robot_types", ()))
        self._camera = settings.camera
        form = form_of((*state_names, *things), things=True) if things else None
        self._sample = RobotSample(settings.camera, 1, self.image_size, form=form)

    def sample(self, states: NDArray[Any], pictures: NDArray[np.uint8] | None, text: str) -> dict[str, Any]:
        """See `Predictor`. Its last step is the one that is predicted; the window begins no earlier than it can."""
        chosen = slice((len(states) - 1) % self._phases, None, self._phases)
        num = len(states[chosen])
        rows = np.full((num + 1, states.shape[1]), np.nan, np.float32)
        rows[:num] = states[chosen]
        window: dict[str, Any] = {"episode_id": "", "now_s": 0.0, "task": text, "state": rows}
        if pictures is not None:
            shown = np.zeros((num + 1, *pictures.shape[1:]), np.uint8)
            shown[:num] = pictures[chosen]
            name = image_name(self._camera)
            window |= {name: shown, f"{name}_valid": np.arange(num + 1) < num}
        return self._sample(window)

    def predict(self, states: NDArray[Any], pictures: NDArray[np.uint8] | None, text: str) -> NDArray[np.float32]:
        """See `Predictor`."""
        sample = self.sample(states, pictures, text)
        names = ("state", *(["things"] if self.things else []), *(["images", "images_valid"] if self.cameras else []))
        batch: dict[str, Any] = {name: torch.from_numpy(sample[name])[None] for name in names} | {"text": [text]}
        with alone():
            predicted = self.network.predict(batch).state
        return np.asarray(predicted[0, -1:].float().numpy())

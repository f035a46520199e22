"""Trained recipes as policies: ARM4R's third stage and AR-VRM's second, whose predicted states the hand follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.ingest.robot.images import stored_jpeg
from handloom.schemas.tables.robot import HUMAN_HAND
from handloom.sim.rendering import CAMERAS, Camera, backend
from handloom.sim.tasks import MAX_STEPS, Task
from handloom.sim.world import HZ, ROBOT_TYPE, STATE_NAMES, Observation, World
from handloom.train.arm4r.acting import Arm4rPredictor
from handloom.train.arm4r.data.commands import Commands
from handloom.train.arvrm.acting import ArvrmPredictor
from handloom.train.parts.acting import Predictor
from handloom.windows.rows.images import decode_jpeg
from handloom.windows.sample import frames_of_steps

PREDICTORS: dict[str, type[Arm4rPredictor | ArvrmPredictor]] = {"arm4r": Arm4rPredictor, "arvrm": ArvrmPredictor}
"""The recipes that act, by name."""
AHEAD_S = 0.05
"""How far ahead the state is that the hand goes to: at 20 Hz the next one (measured, docs/sim.md)."""
STEP_M = 0.01
"""By how much an action of 1 moves the hand's goal."""
SHARE = 0.5
"""Of the way to the target that an action goes."""
OPEN, CLOSING = 0.85, 0.01
"""A gripper that shall be below `OPEN`, or more closed than it is by `CLOSING`, is closed."""


def action_to(target: NDArray[np.floating], state: NDArray[np.floating]) -> NDArray[np.float64]:
    """(4,) the action that leads towards a state, not clipped; NaN where the target is.

    Args:
        target: (D,) x, y, z in metres first, the gripper last. state: (8,) as it is now, `STATE_NAMES`.
    """
    towards = SHARE * (np.asarray(target[:3], np.float64) - state[:3]) / STEP_M
    gripper = float(target[-1])
    close = np.nan if np.isnan(gripper) else 1.0 if gripper < max(OPEN, state[-1] - CLOSING) else -1.0
    return np.append(towards, close)


class Asked:
    """A predictor that is asked at the steps of its own rate: it gets what was seen at them, as its training had it.

    At the steps between, its last prediction counts. Nothing is drawn at random.

    Args:
        hz, max_steps: of the simulation. ahead_s: how far ahead the state shall be that is aimed at. things: which
            numbers of `Observation.environment` it is told; None: none.
    """

    def __init__(
        self,
        predictor: Predictor,
        hz: float,
        max_steps: int,
        ahead_s: float,
        things: NDArray[np.intp] | None = None,
    ) -> None:
        self.predictor, self._things = predictor, things
        rate_hz = predictor.rate_hz or hz
        frame_s = np.arange(max_steps) / hz
        steps = np.arange(int(frame_s[-1] * rate_hz) + 1)
        self._due = frozenset(frames_of_steps(frame_s, steps, rate_hz).tolist())
        ahead = predictor.ahead / rate_hz
        self._chosen = int(np.abs(ahead - ahead_s).argmin())
        self.share = ahead_s / float(ahead[self._chosen])
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self._states: list[NDArray[np.float32]] = []
        self._pictures: list[NDArray[np.uint8]] = []
        self._predicted = np.empty(0, np.float32)

    def looks(self, step: int) -> bool:
        """Whether the step is one of the recipe's rate: it is asked there."""
        return step in self._due

    def predicted(
        self, observation: Observation, picture: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.float32], bool]:
        """(D,) the predicted state nearest to `ahead_s`, and whether it is new. `share` of the way is `ahead_s`."""
        if not self.looks(observation.step):
            return self._predicted, False
        num = self.predictor.num_seen
        things = () if self._things is None else observation.environment[self._things]
        self._states = [*self._states, np.array([*observation.state, *things], np.float32)][-num:]
        if picture is not None:
            self._pictures = [*self._pictures, self._as_stored(picture)][-num:]
        self._predicted = self.predictor.predict(*self.seen(), observation.task)[self._chosen]
        return self._predicted, True

    def seen(self) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """(T, S) states, with the things if it is told of them, and (T, h, w, 3) pictures of the last steps, as the
        dataset has them; None without pictures."""
        return np.stack(self._states), np.stack(self._pictures) if self._pictures else None

    def _as_stored(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture with what storing it as JPEG and reading it for training do to it."""
        size = self.predictor.image_size
        return decode_jpeg(stored_jpeg(picture), (size, size), "the simulation")


class Trained:
    """A checkpoint of a recipe that acts, as a policy.

    It sees the states, and with an image encoder the pictures of one camera, at the rate of its training, in the
    windows of its training; at the steps between it goes on to the same predicted state. predictor: the checkpoint.
    Where its last training was on people alone, whose place is between their fingertips, so is the hand's.

    Args:
        recipe: a key of `PREDICTORS`. uri: a run's `--out`, a variant's folder, or one checkpoint. task: what it is to
            do.

    Raises:
        ConfigError: there is no checkpoint; it is of another recipe, stage or robot; its pictures cannot be drawn.
        ModuleNotFoundError: torch is not installed.
    """

    def __init__(self, recipe: str, uri: str, task: Task) -> None:
        self.predictor: Predictor = PREDICTORS[recipe](uri, STATE_NAMES)
        check_robot(self.predictor, f"{recipe}:{uri}", ROBOT_TYPE)
        asked = _things_asked(self.predictor, f"{recipe}:{uri}", task)
        self.camera = _camera(self.predictor, f"{recipe}:{uri}")
        self._asked = Asked(self.predictor, HZ, MAX_STEPS, AHEAD_S, asked)
        self.looks, self.seen = self._asked.looks, self._asked.seen
        self._task, self._clips = task, getattr(self.predictor, "clips", None)
        self._target = np.full(len(STATE_NAMES), np.nan)

    def tell_by_clips(self, clips: Commands | None) -> None:
        """Which clips tell tasks from now on; None: those of the checkpoint that are held out, if clips tell it at all.

        Raises ConfigError: the checkpoint is told by words, the latents are of another auto-encoder, or no clip tells
        the task.
        """
        self._clips = clips or getattr(self.predictor, "clips", None)
        self._tell(self._task.text, 0)

    def reset(self, task: str, seed: int) -> None:
        """Forget what was seen. Where clips tell the task, the seed chooses which one; nothing else is drawn."""
        self._asked.reset()
        self._target = np.full(len(STATE_NAMES), np.nan)
        self._tell(task, seed)

    def _tell(self, task: str, seed: int) -> None:
        if self._clips is None:
            return
        if not isinstance(self.predictor, Arm4rPredictor):
            raise ConfigError("clips tell a task to ARM4R alone", "give --policy arm4r:CHECKPOINT, or leave clips out")
        self.predictor.tell(self._clips, task, seed)

    def act(self, observation: Observation) -> NDArray[np.float64]:
        """One action, (1, 4), towards the predicted state."""
        if _is_of_people(self.predictor) and observation.fingers is not None:
            observation = replace(observation, state=np.append(observation.fingers, observation.state[3:]))
        predicted, is_new = self._asked.predicted(observation, observation.picture)
        if is_new:
            self._target = self._at_once(predicted, observation.state)
        return action_to(self._target, observation.state)[None]

    def _at_once(self, predicted: NDArray[np.floating], state: NDArray[np.floating]) -> NDArray[np.float64]:
        """The predicted state with the place at `AHEAD_S` on the straight line to it."""
        target = np.asarray(predicted, np.float64).copy()
        target[:3] = state[:3] + self._asked.share * (target[:3] - state[:3])
        return target


def check_robot(predictor: Predictor, name: str, robot_type: str) -> None:
    """Refuse a checkpoint of another robot, where it says which robots it is of; people's hands pass."""
    others = sorted(set(predictor.robot_types) - {robot_type, HUMAN_HAND})
    if others:
        problem = f"{name} is of the robot {', '.join(others)}, not of {robot_type}"
        raise ConfigError(problem, "train on recorded demonstrations")


def _is_of_people(predictor: Predictor) -> bool:
    """Whether its last training was on people alone: states mean what they meant there, whatever `init` had seen."""
    return set(predictor.robot_types) == {HUMAN_HAND}


def _things_asked(predictor: Predictor, name: str, task: Task) -> NDArray[np.intp]:
    """Which of the task's numbers the checkpoint is told of. Refuse one that was told of other things than the task's,
    or, of a robot, of fewer."""
    there = World(task).environment_names if predictor.things else ()
    is_told = set(predictor.things) <= set(there) if _is_of_people(predictor) else there == predictor.things
    if not is_told:
        problem = f"{name} was told of {', '.join(predictor.things)}; {task.name} has {', '.join(there)}"
        raise ConfigError(problem, f"train it on demonstrations of {task.name} alone")
    return np.array([there.index(one) for one in predictor.things], np.intp)


def _camera(predictor: Predictor, policy: str) -> Camera | None:
    """The camera whose pictures the checkpoint sees, of the size that its dataset stored."""
    if not predictor.cameras:
        return None
    name = predictor.cameras[0].rpartition(".")[2]
    if len(predictor.cameras) > 1 or name not in CAMERAS:
        problem = f"{policy} sees the cameras {', '.join(predictor.cameras)}"
        raise ConfigError(problem, f"a policy here sees one camera, of: {', '.join(CAMERAS)}")
    try:
        backend()
    except ConfigError as error:
        raise ConfigError(f"{policy} sees pictures of {name}, and {error.problem}", error.hint) from error
    size = predictor.image_size
    width, height = predictor.picture_size or (size, size)
    return Camera(name, 2 * round(width / 2), 2 * round(height / 2))

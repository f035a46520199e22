"""Trained recipes as policies for CALVIN: relative actions that lead to the states they predict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.errors import ConfigError
from handloom.ingest.robot.calvin import CAMERAS, EULER, ROBOT_TYPE, STATE_NAMES, continued
from handloom.sim.calvin.installation import HZ, CalvinObservation
from handloom.sim.calvin.rollouts import MAX_STEPS
from handloom.sim.recipes import PREDICTORS, Asked, check_robot
from handloom.sim.world import Observation
from handloom.train.parts.acting import Predictor

STEP_M, STEP_RAD = 0.02, 0.05
"""What an action of 1 adds to the pose that the arm is to go to."""
AHEAD_S = 0.1
"""How far ahead the state is that is aimed at: three actions (measured, docs/calvin.md)."""
SHARE = 0.35
"""Of the way to it that one action adds."""
OPEN_M, CLOSING_M = 0.07, 0.001
"""A gripper that shall be narrower than `OPEN_M`, or than it is by `CLOSING_M`, is closed; wide open it is 8 cm."""


class CalvinTrained:
    """A checkpoint of a recipe that acts, trained on episodes of `handloom ingest calvin`.

    Args:
        recipe: a key of `sim.recipes.PREDICTORS`. uri: a run's `--out`, a variant's folder, or one checkpoint.

    Raises:
        ConfigError: there is no checkpoint; it is of another recipe, stage or robot, or of pictures that CALVIN lacks.
        ModuleNotFoundError: torch is not installed.
    """

    def __init__(self, recipe: str, uri: str) -> None:
        name = f"{recipe}:{uri}"
        self.predictor: Predictor = PREDICTORS[recipe](uri, STATE_NAMES)
        check_robot(self.predictor, name, ROBOT_TYPE)
        if self.predictor.things:
            problem = f"{name} was told of {', '.join(self.predictor.things)} beside the pose"
            raise ConfigError(problem, "train with things=false: the benchmark's policies see pictures and the robot")
        if getattr(self.predictor, "clips", None) is not None:
            problem = f"{name} is told its task by clips of people, and CALVIN tells it in words"
            raise ConfigError(problem, "train with command = words")
        cameras = [camera.rpartition(".")[2] for camera in self.predictor.cameras]
        if len(cameras) > 1 or not set(cameras) <= set(CAMERAS):
            raise ConfigError(
                f"{name} sees the cameras {', '.join(cameras)}", f"train with one of {', '.join(CAMERAS)}"
            )
        self._camera = cameras[0] if cameras else None
        self._asked = Asked(self.predictor, HZ, MAX_STEPS, AHEAD_S)
        self.looks, self.seen = self._asked.looks, self._asked.seen

    def reset(self, task: str, seed: int) -> None:
        """Forget what was seen. Nothing is drawn at random."""
        self._asked.reset()
        self._goal = np.full(7, np.nan)
        self._angles: NDArray[np.float64] | None = None

    def act(self, observation: Observation) -> NDArray[np.float64]:
        """One action, (1, 7), towards the predicted state."""
        assert isinstance(observation, CalvinObservation)
        observation = self._as_ingested(observation)
        picture = None if self._camera is None else observation.pictures[self._camera]
        predicted, is_new = self._asked.predicted(observation, picture)
        if is_new:
            self._goal = goal_of(predicted, observation.state, self._asked.share)
        return action_to(self._goal, observation.state)[None]

    def _as_ingested(self, observation: CalvinObservation) -> CalvinObservation:
        """With the angles as the table's episodes have them."""
        state = observation.state.copy()
        state[EULER] = self._angles = continued(state[None, EULER], self._angles)[0]
        return replace(observation, state=state)


def goal_of(predicted: NDArray[np.floating], state: NDArray[np.floating], share: float = 1.0) -> NDArray[np.float64]:
    """(7,) where to go: position in metres, Euler angles about fixed axes, and the gripper, -1 closed or 1 open.

    Args:
        predicted: (15,) a state of CALVIN's, whose last number is the gripper's action; or (10,) a pose, with the first
            two columns of the rotation and the gripper's width in metres. NaN stays NaN.
        state: (15,) as it is now, `STATE_NAMES`. share: of the way from it to the predicted pose.
    """
    values, now = np.asarray(predicted, np.float64), np.asarray(state, np.float64)
    if len(values) == len(STATE_NAMES):
        pose, gripper = values[:6], float(values[14])
        gripper = gripper if np.isnan(gripper) else 1.0 if gripper > 0 else -1.0
    else:
        pose, width = np.concatenate([values[:3], _euler(values[3:9])]), float(values[9])
        is_closed = width < OPEN_M or width < now[6] - CLOSING_M
        gripper = width if np.isnan(width) else -1.0 if is_closed else 1.0
    return np.append(now[:6] + share * _apart(pose, now[:6]), gripper)


def action_to(goal: NDArray[np.floating], state: NDArray[np.floating]) -> NDArray[np.float64]:
    """(7,) the relative action towards a goal (`goal_of`), not clipped. state: (15,) as it is now."""
    units = np.repeat([STEP_M, STEP_RAD], 3)
    return np.append(SHARE * _apart(goal[:6], np.asarray(state, np.float64)[:6]) / units, goal[6])


def _apart(pose: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """(6,) difference of two poses; of angles the short way round."""
    apart = np.asarray(pose, np.float64) - other
    apart[3:] = (apart[3:] + np.pi) % (2 * np.pi) - np.pi
    return apart


def _euler(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) Euler angles about fixed axes of a rotation whose first two columns are (6,), nearly unit and upright."""
    if not np.isfinite(columns).all():
        return np.full(3, np.nan)
    first = columns[:3] / np.linalg.norm(columns[:3])
    second = columns[3:] - first * (first @ columns[3:])
    second = second / np.linalg.norm(second)
    matrix = np.stack([first, second, np.cross(first, second)], axis=1)
    return np.asarray(Rotation.from_matrix(matrix).as_euler("xyz"))

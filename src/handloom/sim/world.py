"""A task of Meta-World as a world that policies act in: the only module that opens the simulator.

The arm is moved by its hand: an action shifts the hand's goal by up to 1 cm and opens or closes the gripper, 80 times a
second. Frame: Meta-World's (x right, y away from the robot, z up; metres), as in `metaworld/sawyer_xyz_env.py`.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.sim.tasks import Task

HZ = 80.0
STATE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")
ACTION_NAMES = ("dx", "dy", "dz", "close")
ROBOT_TYPE = "metaworld_sawyer"
ACTION_WIDTH = len(ACTION_NAMES)
_STACKED = 18  # Meta-World's observation: the hand and the objects now, the same one step before, the goal
_LIBRARIES = ("metaworld", "mujoco", "gymnasium")


@dataclass(frozen=True)
class Observation:
    """What a policy may know at one step.

    task: what to do, in words. step: from 0. state: (8,) float64, `STATE_NAMES`: the hand's position in metres, its
    orientation as a unit quaternion, and the gripper, 0 closed to 1 open. environment: (E,) float64, positions and
    orientations of things and the position of the goal, `World.environment_names`. vector: (39,) Meta-World's own
    observation, with the goal. picture: (h, w, 3) uint8 RGB for a policy that has a `camera`, else None. fingers: (3,)
    metres, the middle between the tips of the gripper's fingers, by which Meta-World judges success: 4.5 cm below
    the hand's position where the gripper points down; None in other worlds.
    """

    task: str
    step: int
    state: NDArray[np.float64]
    environment: NDArray[np.float64]
    vector: NDArray[np.float64]
    picture: NDArray[np.uint8] | None = None
    fingers: NDArray[np.float64] | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Step:
    """What one action led to. reward: Meta-World's, 0 to 10. diverged: what MuJoCo warned of, empty if nothing."""

    after: Observation
    reward: float
    success: bool
    diverged: str = ""


class World:
    """One task; `reset` before the first step. What happens depends on the seed of the scene and the actions alone.

    Raises:
        ModuleNotFoundError: the simulator is not installed.
    """

    def __init__(self, task: Task) -> None:
        require_simulator()
        import mujoco
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        mujoco.set_mju_user_warning(_no_log)
        self.task = task
        self._fatal = mujoco.FatalError
        self._warnings = {
            int(kind): name.removeprefix("mjWARN_")
            for name, kind in mujoco.mjtWarning.__members__.items()
            if name not in ("mjNWARNING", "mjWARN_VGEOMFULL", "mjWARN_INERTIA")  # of drawing, and of the model
        }
        self._env: Any = ALL_V3_ENVIRONMENTS[f"{task.name}-v3"]()
        # A new scene at every reset, from a seed; and the goal in the observation. Meta-World does this for the list of
        # scenes of its benchmarks (`metaworld._make_tasks`); here there are as many scenes as seeds.
        self._env._partially_observable = False
        del self._env.sawyer_observation_space  # its bounds hold the goal's
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._env._set_task_called = True
        self._num = 0
        self._env.seed(0)
        vector, _ = self._env.reset()
        self._parts, self.environment_names = _environment(vector, len(self._env._get_pos_objects()) // 3)

    @property
    def model(self) -> Any:
        """MuJoCo's model, to draw it."""
        return self._env.model

    @property
    def data(self) -> Any:
        """MuJoCo's state, to draw it."""
        return self._env.data

    def reset(self, scene_seed: int) -> Observation:
        """Put the hand at its start, and things and goal where the seed says."""
        self._env.seed(scene_seed)
        vector, _ = self._env.reset()
        for name, place in self._env._target_site_config:  # Meta-World draws goals elsewhere until the first step
            self._env._set_pos_site(name, place)
        self._num = 0
        return self._observed(vector)

    def step(self, action: NDArray[np.floating[Any]]) -> Step:
        """Do one action, (4,) finite; what is beyond -1 and 1 is clipped. A world that diverged must be reset."""
        self._num += 1
        try:
            with np.errstate(all="ignore"):  # of a state that is not finite
                vector, reward, _, _, info = self._env.step(np.clip(action, -1, 1).astype(np.float32))
        except self._fatal as error:
            return Step(self._observed(np.full(39, np.nan)), 0.0, False, str(error))
        diverged = self._diverged(vector)
        return Step(self._observed(vector), float(reward), not diverged and bool(info["success"] > 0), diverged)

    def _diverged(self, vector: NDArray[np.float64]) -> str:
        found = [name for kind, name in self._warnings.items() if self._env.data.warning[kind].number]
        if found:
            return f"MuJoCo warns of {', '.join(found)}"
        is_finite = np.isfinite(vector).all() and np.isfinite(self._env.data.qpos).all()
        return "" if is_finite else "the state is not finite"

    def _observed(self, vector: NDArray[np.float64]) -> Observation:
        w, x, y, z = self._env.data.body("hand").xquat
        sign = -1.0 if w < 0 else 1.0
        state = np.array([*vector[:3], sign * x, sign * y, sign * z, sign * w, vector[3]])
        fingers = np.array(self._env.tcp_center)
        return Observation(self.task.text, self._num, state, vector[self._parts], vector, fingers=fingers)


def require_simulator() -> None:
    """Raise ModuleNotFoundError, with the name, if a library of the simulator is missing; opens none."""
    for name in _LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def scripted_expert(task: Task) -> Any:
    """Meta-World's scripted policy of a task: `get_action(vector)` gives an action (4,), which may exceed 1."""
    require_simulator()
    from metaworld.policies import ENV_POLICY_MAP

    warnings.filterwarnings("ignore", "Constant.s. may be too high", UserWarning)  # it says that actions are clipped
    experts: dict[str, Any] = ENV_POLICY_MAP
    return experts[f"{task.name}-v3"]()


def _environment(vector: NDArray[np.float64], num_objects: int) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Where in Meta-World's observation things and goal are, and the names of these numbers.

    Of a thing whose orientation Meta-World does not give (four zeros), there is the position alone.
    """
    index: list[int] = []
    names: list[str] = []
    for number in range(num_objects):
        at = 4 + 7 * number
        has_turn = bool(np.any(vector[at + 3 : at + 7]))
        words = ("x", "y", "z", "q0", "q1", "q2", "q3")[: 7 if has_turn else 3]
        index += range(at, at + len(words))
        names += [f"object{number}.{word}" for word in words]
    index += range(2 * _STACKED, 2 * _STACKED + 3)
    names += [f"goal.{word}" for word in "xyz"]
    return np.array(index), tuple(names)


def _no_log(message: str) -> None:
    """MuJoCo's warnings are counted in its data; by default it also writes MUJOCO_LOG.TXT into the working folder."""

"""CALVIN's side of an evaluation: a program that the Python of a CALVIN installation runs, without handloom.

CALVIN needs Python 3.8 and libraries of its time; policies live where handloom is installed. So this file imports
nothing of handloom, is written for Python 3.8, and answers requests over a pipe: `python server.py DATASET`. A request
is a pickled tuple (name of a method of `Server`, arguments), an answer {"result": ...} or {"error": ..., "trace": ...}.

Source: mees/calvin, `calvin_agent/evaluation/evaluate_policy.py` (`evaluate_sequence`, `rollout`).
"""

from __future__ import annotations

import os
import pickle
import platform
import sys
import traceback
from pathlib import Path
from typing import IO, Any

NUM_SEQUENCES = 1000
"""How many sequences the benchmark has. Another number given to CALVIN would draw other ones."""
CONFIG = ".hydra/merged_config.yaml"
"""Of the environment, beside the recorded frames of `validation/`."""
PICKLE_PROTOCOL = 4  # of Python 3.8


class Server:
    """CALVIN's environment, task oracle, instructions and sequences. dataset: the folder that has `validation/`."""

    def __init__(self, dataset: str) -> None:
        self._folder = Path(dataset) / "validation"
        self._env: Any = None
        self._task = ""
        self._start_info: Any = None

    def versions(self) -> dict:
        """Versions of what decides the results, and which of CALVIN's four tables stands there; None where unknown.

        Raises ImportError: a library is not installed.
        """
        import calvin_agent
        import calvin_env
        import numpy
        from omegaconf import OmegaConf

        table = OmegaConf.select(OmegaConf.load(self._folder / CONFIG), "scene.objects.fixed_objects.table.file")
        return {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "calvin_env": getattr(calvin_env, "__version__", None),
            "calvin_agent": getattr(calvin_agent, "__version__", None),
            "table": None if table is None else str(table).split("/")[0],
        }

    def sequences(self) -> list:
        """The benchmark's sequences, as CALVIN draws them: (initial state, names of five tasks)."""
        from calvin_agent.evaluation.multistep_sequences import get_sequences

        found = get_sequences(NUM_SEQUENCES)
        return [(_plain(dict(state)), [str(task) for task in tasks]) for state, tasks in found]

    def start(self, state: dict) -> None:
        """Put the robot and the scene into the initial state of a sequence."""
        from calvin_agent.evaluation.utils import get_env_state_for_initial_condition

        if self._env is None:
            self._open()
        robot_obs, scene_obs = get_env_state_for_initial_condition(state)
        self._env.reset(robot_obs=robot_obs, scene_obs=scene_obs)

    def instruct(self, task: str) -> tuple:
        """(instruction in words, observation) where the next task of a sequence begins."""
        observation = self._env.get_obs()
        self._task, self._start_info = task, self._env.get_info()
        return str(self._annotations[task][0]), _sent(observation)

    def step(self, action: list) -> tuple:
        """(observation, whether the task is done) after one relative action of seven numbers."""
        import numpy

        observation, _, _, info = self._env.step(numpy.asarray(action, numpy.float64))
        done = self._oracle.get_task_info_for_set(self._start_info, info, {self._task})
        return _sent(observation), len(done) > 0

    def _open(self) -> None:
        import calvin_agent
        import hydra
        from calvin_env.envs.play_table_env import get_env
        from omegaconf import OmegaConf

        conf = Path(calvin_agent.__file__).absolute().parents[1] / "conf"
        self._oracle = hydra.utils.instantiate(
            OmegaConf.load(conf / "callbacks" / "rollout" / "tasks" / "new_playtable_tasks.yaml")
        )
        self._annotations = OmegaConf.load(conf / "annotations" / "new_playtable_validation.yaml")
        self._env = get_env(self._folder, show_gui=False)


def _sent(observation: dict) -> dict:
    """What a policy may see: the colour cameras, the robot's state and the scene's."""
    import numpy

    pictures = {name: numpy.asarray(image) for name, image in observation["rgb_obs"].items()}
    state, scene = (numpy.asarray(observation[name], numpy.float64) for name in ("robot_obs", "scene_obs"))
    return {"pictures": pictures, "robot_obs": state, "scene_obs": scene}


def _plain(values: dict) -> dict:
    """numpy's numbers and words as Python's."""
    return {str(name): value.item() if hasattr(value, "item") else value for name, value in values.items()}


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message, at once."""
    pickle.dump(message, stream, protocol=PICKLE_PROTOCOL)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message. Raises EOFError where the other side has ended."""
    return pickle.load(stream)


def main() -> None:
    """Answer requests of stdin on stdout until stdin ends. What libraries print goes to stderr."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [place for place in sys.path if os.path.abspath(place) != here]  # its modules are handloom's
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # PyBullet prints from C
    server = Server(sys.argv[1])
    while True:
        try:
            name, arguments = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = {"result": getattr(server, name)(*arguments)}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - CALVIN's own; its loader of cameras calls sys.exit
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
            if isinstance(error, ImportError):
                answer["missing"] = error.name or str(error)
        send(answers, answer)


if __name__ == "__main__":
    main()

"""An installation of CALVIN as the world that policies act in: a process of its own Python, asked over a pipe."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, HandloomError
from handloom.sim.calvin import server
from handloom.sim.world import Observation

ACTION_NAMES = ("rel_x", "rel_y", "rel_z", "rel_euler_x", "rel_euler_y", "rel_euler_z", "gripper_action")
"""CALVIN's relative action: one unit is 2 cm, or 0.05 rad about a fixed axis; the gripper opens at 1, closes at -1."""
HZ = 30.0
INSTALL = "install CALVIN as its page says (github.com/mees/calvin) and give its Python: --calvin-python PATH"
_LAST_LINES = 12


@dataclass(frozen=True)
class Sequence:
    """One of the benchmark's sequences. number: from 0. state: where things are at its start. tasks: five names."""

    number: int
    state: Mapping[str, str | int]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class CalvinObservation(Observation):
    """What a policy may know at one step of CALVIN.

    state: (15,) `robot_obs`, named as in `ingest.robot.calvin.STATE_NAMES` (m, rad). environment: (24,) `scene_obs`,
    which the benchmark's policies do not read. vector: (39,) both. picture: (200, 200, 3) uint8 of `rgb_static`.
    pictures: those of all colour cameras by name; `rgb_gripper` is (84, 84, 3).
    """

    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


class Calvin:
    """CALVIN's environment, its oracle of tasks and its instructions, in a process of their own.

    Args:
        dataset: a CALVIN dataset's folder; its `validation/` says which environment it is.
        python: an interpreter that has `calvin_env` and `calvin_agent`; None: the one that runs this.

    Raises:
        ConfigError: no such dataset or interpreter, or a library is missing there.
        HandloomError: the process died, or CALVIN raised an error; with what it wrote last.
    """

    def __init__(self, dataset: str, python: str | None = None) -> None:
        self.python = _interpreter(python)
        folder = Path(dataset).absolute()
        config = folder / "validation" / server.CONFIG
        if not config.is_file():
            hint = (
                "give the folder of a CALVIN dataset, task_D_D or calvin_debug_dataset, with its hidden .hydra folders"
            )
            raise ConfigError(f"--calvin {dataset}: there is no file {config}", hint)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [self.python, server.__file__, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True,
        )  # fmt: skip
        self._step = 0
        self._text = ""
        try:
            self.versions: dict[str, str | None] = self._ask("versions")
        except HandloomError:
            self.close()
            raise

    def sequences(self, num: int) -> list[Sequence]:
        """The first `num` of the benchmark's 1,000 sequences. CALVIN draws them anew, which takes it minutes of CPU."""
        found = self._ask("sequences")[:num]
        return [Sequence(number, state, tuple(tasks)) for number, (state, tasks) in enumerate(found)]

    def start(self, sequence: Sequence) -> None:
        """Put robot and things to where the sequence begins."""
        self._ask("start", dict(sequence.state))

    def instruct(self, task: str) -> CalvinObservation:
        """Begin a task of the sequence; the observation has its instruction in words, and step 0."""
        self._text, seen = self._ask("instruct", task)
        self._step = 0
        return self._observed(seen)

    def step(self, action: NDArray[np.floating[Any]]) -> tuple[CalvinObservation, bool]:
        """Do one action, (7,), finite (`ACTION_NAMES`); whether the task is done then. The gripper's sign counts, and
        what is beyond -1 and 1 is clipped."""
        moved = [float(value) for value in np.clip(action[:6], -1, 1)]
        seen, done = self._ask("step", [*moved, 1 if action[6] > 0 else -1])
        self._step += 1
        return self._observed(seen), bool(done)

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _observed(self, seen: dict[str, Any]) -> CalvinObservation:
        state, scene, pictures = seen["robot_obs"], seen["scene_obs"], seen["pictures"]
        both = np.concatenate([state, scene])
        return CalvinObservation(self._text, self._step, state, scene, both, pictures.get("rgb_static"), pictures)

    def _ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            server.send(self._process.stdin, (name, arguments))
            answer = server.receive(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            code = self._process.wait()
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            problem = f"CALVIN's process ({self.python}) ended with {ended}\n{self._last_lines()}"
            raise HandloomError(problem, "a signal while it opens its cameras: EGL does not work there") from error
        if "missing" in answer:
            raise ConfigError(f"{self.python} cannot import {answer['missing']}: {answer['error']}", INSTALL)
        if "error" in answer:
            problem = f"CALVIN raised an error in `{name}`\n{answer['trace'].rstrip()}"
            raise HandloomError(problem, f"{self.python} ran it; {INSTALL}")
        return answer["result"]

    def _last_lines(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-_LAST_LINES:])


def _interpreter(python: str | None) -> str:
    """The interpreter's path. Raises ConfigError: there is none."""
    if python is None:
        return sys.executable
    found = shutil.which(python)
    if found is None:
        raise ConfigError(f"--calvin-python {python}: there is no such program", INSTALL)
    return found

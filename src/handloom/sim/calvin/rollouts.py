"""One sequence of CALVIN's benchmark: five instructions, one after the other, until one is not done in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from handloom.sim.calvin.installation import ACTION_NAMES, Calvin, CalvinObservation, Sequence
from handloom.sim.failures import ACTION_NOT_FINITE, SHARED
from handloom.sim.policies import Policy, actions_of

MAX_STEPS = 360
"""Actions that the benchmark allows for one instruction (EP_LEN)."""
SEQUENCE_TASKS = 5
FAILURES = {
    "not_done": "the instruction was not done in the steps allowed",
    ACTION_NOT_FINITE: SHARED[ACTION_NOT_FINITE],
}
"""Why a sequence ended before its end."""


@dataclass(frozen=True)
class SequenceOutcome:
    """What came of one sequence. done: instructions that were done in a row, 0 to 5. steps: actions of each that was
    begun. failure: a key of `FAILURES`, empty where all were done; detail: more of it."""

    sequence: Sequence
    seed: int
    done: int
    steps: tuple[int, ...]
    failure: str = ""
    detail: str = ""


def roll_out(
    calvin: Calvin,
    policy: Policy,
    sequence: Sequence,
    seed: int,
    max_steps: int = MAX_STEPS,
    look: Callable[[CalvinObservation], None] = lambda observation: None,
) -> SequenceOutcome:
    """Run one sequence. At each task the policy is reset, with its words; the scene stays as the last task left it.

    Args:
        seed: of all that the policy draws. look: called with each observation.

    Raises:
        ConfigError: the policy returns something that is no action of seven numbers.
    """
    calvin.start(sequence)
    steps: list[int] = []
    for number, task in enumerate(sequence.tasks):
        num, failure, detail = _follow(calvin, policy, task, _seed_of(seed, number), max_steps, look)
        steps.append(num)
        if failure:
            return SequenceOutcome(sequence, seed, number, tuple(steps), failure, detail)
    return SequenceOutcome(sequence, seed, len(sequence.tasks), tuple(steps))


def _follow(
    calvin: Calvin, policy: Policy, task: str, seed: int, max_steps: int, look: Callable[[CalvinObservation], None]
) -> tuple[int, str, str]:
    """(actions made, failure, detail) of one instruction; no failure where it was done."""
    observation = calvin.instruct(task)
    look(observation)
    policy.reset(observation.task, seed)
    num = 0
    while num < max_steps:
        for action in actions_of(policy, observation, len(ACTION_NAMES))[: max_steps - num]:
            if not np.isfinite(action).all():
                return num, ACTION_NOT_FINITE, str(action)
            observation, done = calvin.step(action)
            look(observation)
            num += 1
            if done:
                return num, "", ""
    return num, "not_done", f"{max_steps} steps"


def _seed_of(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])

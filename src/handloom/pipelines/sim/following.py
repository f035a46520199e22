"""A student on held-out motions, beside what it is compared with: groups of episodes, in several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from handloom.pipelines.sim.jobs import Jobs, Where, in_order
from handloom.sim.humanoid.dagger import Group, StudentPolicy, at_steps, groups_of, run_group
from handloom.sim.humanoid.episodes import Expert, Hold, Outcome, Policy, Task
from handloom.sim.humanoid.experts import Teacher
from handloom.sim.humanoid.motions import PersonMotion
from handloom.sim.humanoid.robot import Body
from handloom.sim.humanoid.settings import ImitateSettings
from handloom.train.robomirror.latents import UnderstoodLatents

WORTH = 8
"""Groups for which a process of its own is worth its start, with torch and the robot."""


@dataclass(frozen=True)
class Run:
    """One policy on the motions of one source."""

    source: str
    policy_name: str
    policy: Policy
    tasks: Sequence[Task]


@dataclass(frozen=True)
class _Job:
    run: Run
    body: Body
    group: Group
    settings: ImitateSettings

    def name(self) -> str:
        motions = sorted(task.name for task in self.group.tasks)
        return (
            f"{self.run.policy_name} with {len(motions)} motions side by side, {motions[0]} to {motions[-1]}, "
            f"seed {self.group.seed}"
        )


def runs_of(
    source: str, tasks: Sequence[Task], student: StudentPolicy, body: Body, settings: ImitateSettings
) -> list[Run]:
    """The student beside what it is compared with, of the same starts."""
    policies: dict[str, Policy] = {
        "student": student, "teacher": Expert(Teacher(body, settings.experts)), "hold": Hold(),
    }  # fmt: skip
    runs = [Run(source, name, policy, tasks) for name, policy in policies.items()]
    return [*runs, Run(source, "other_motion", student, exchanged(tasks))] if len(tasks) > 1 else runs


def follow(
    runs: Sequence[Run], body: Body, settings: ImitateSettings, where: Where
) -> dict[str, dict[str, list[Outcome]]]:
    """The episodes of each run, by source and policy: each task `repeats` times, in the order of the tasks' lengths.

    They do not depend on the number of processes. Raises HandloomError: processes died.
    """
    jobs = [_Job(run, body, group, settings) for run in runs for group in groups_of(run.tasks, settings)]
    found: dict[str, dict[str, list[Outcome]]] = {}
    results = in_order(Jobs(_followed, _Job.name, worth=WORTH), jobs, len(jobs), where)
    for job, outcomes in zip(jobs, results, strict=True):
        found.setdefault(job.run.source, {}).setdefault(job.run.policy_name, []).extend(outcomes)
    return found


def _followed(job: _Job) -> list[Outcome]:
    return run_group(job.body, job.group, job.run.policy, job.settings)


def exchanged(tasks: Sequence[Task]) -> list[Task]:
    """Each task with the latents of the next one, repeated to its length."""
    return [
        replace(task, latents=np.resize(other.latents, task.latents.shape))
        for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True)
    ]


def understood_tasks(
    motions: Sequence[PersonMotion], by_name: Mapping[str, Task], understood: UnderstoodLatents
) -> list[Task]:
    """The tasks of motions with an intent, with the latents that are made of it."""
    found = []
    for motion in motions:
        if motion.intent is None or motion.intent_s is None:
            continue
        task = by_name[motion.name]
        encoded = understood.encode(motion.name, motion.intent, motion.intent_s, motion.num_frames)
        found.append(replace(task, latents=at_steps(motion, encoded, task.reference.num_steps)))
    return found

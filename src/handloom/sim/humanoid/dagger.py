"""DAgger: the student acts, the teacher says what it would have done, the student is fitted to that; again and again.

Source: Ross, Gordon and Bagnell, A reduction of imitation learning and structured prediction to no-regret online
learning, AISTATS 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.sim.humanoid.episodes import Expert, Outcome, Policy, Seen, Task, in_groups, run_episodes
from handloom.sim.humanoid.experts import Teacher
from handloom.sim.humanoid.goals import Frame, goals_of
from handloom.sim.humanoid.motions import PersonMotion, at_times
from handloom.sim.humanoid.reference import KinematicsSettings, reference_of
from handloom.sim.humanoid.robot import POLICY_HZ, Body
from handloom.sim.humanoid.settings import ImitateSettings
from handloom.train.robomirror.imitation import Actor, Imitator
from handloom.train.robomirror.latents import Latents

Array = NDArray[np.float64]


class StudentPolicy:
    """A student that sees the motion's latent, and the robot's state and actions of the last steps, nothing else."""

    def __init__(self, actor: Actor, body: Body) -> None:
        self._actor, self._body = actor, body

    def act(self, seen: Seen) -> Array:
        return self.goals(seen.latents, observed_of(seen))

    def goals(self, latents: NDArray[np.float32], observed: NDArray[np.float32]) -> Array:
        """(B, J) radians from latents (B, D) and `observed_of` (B, H * 3 J)."""
        return self._body.rest + self._actor(latents, observed).astype(np.float64)


def observed_of(seen: Seen) -> NDArray[np.float32]:
    """(B, H * 3 J) what a student observes."""
    return np.ascontiguousarray(seen.history.reshape(len(seen.history), -1))


def tasks_of(
    motions: Sequence[PersonMotion],
    body: Body,
    kinematics: KinematicsSettings,
    latents: Latents,
    frame: Frame = "head",
    progress: Callable[[int, int], None] | None = None,
) -> list[Task]:
    """The tasks of motions: the reference by inverse kinematics, the latents at each step of the policy."""
    tasks = []
    for number, motion in enumerate(motions):
        reference = reference_of(goals_of(motion, body, frame), body, kinematics)
        encoded = latents.encode(motion.keypoints_cam_m, motion.world_from_camera)
        tasks.append(Task(motion.name, reference, at_steps(motion, encoded, reference.num_steps)))
        if progress is not None:
            progress(number + 1, len(motions))
    return tasks


def at_steps(motion: PersonMotion, encoded: NDArray[np.float32], num_steps: int) -> NDArray[np.float32]:
    """(num_steps, D) latents at the policy's steps, of those (T, D) of a motion's frames: linear between two."""
    return at_times(motion.frame_s, encoded, np.arange(num_steps) / POLICY_HZ).astype(np.float32)


@dataclass
class Round:
    """What a round of training came to. loss: of the fit's end. teacher_share: of its steps."""

    number: int
    teacher_share: float
    success_rate: float
    mpkpe_mm: float
    samples: int
    loss: float


@dataclass
class Trained:
    """The student and the course of its training."""

    imitator: Imitator
    rounds: list[Round] = field(default_factory=list)


def train(
    body: Body,
    tasks: Sequence[Task],
    settings: ImitateSettings,
    told: Callable[[Round], None] | None = None,
) -> Trained:
    """Train a student on tasks.

    Raises:
        ConfigError: no task; an unknown expert.
        HandloomError: the loss is not finite.
    """
    if not tasks:
        raise ConfigError("there are no motions to train on", "give --db, or set scripted above 0")
    teacher = Teacher(body, settings.experts)
    joints = body.num_joints
    widths = (tasks[0].latents.shape[1], settings.student.history * 3 * joints, joints)
    steps = settings.rounds * settings.fit_steps
    trained = Trained(Imitator(settings.student, settings.fit, widths, steps, settings.seed))
    rng = np.random.default_rng([settings.seed, 2])
    for number in range(settings.rounds):
        share = 1.0 if number == 0 else settings.teacher_share**number
        acting: Policy = Expert(teacher) if number == 0 else StudentPolicy(Actor(trained.imitator.network), body)
        outcomes = []
        for group in in_groups(_drawn(tasks, settings.episodes, rng), settings.side_by_side):
            watch = _Watch(teacher, body, share, settings.action_noise_rad, rng)
            outcomes += run_episodes(
                body,
                group,
                acting,
                seed=int(rng.integers(2**31)),
                history=settings.student.history,
                allowed_m=settings.allowed_m,
                start_noise_rad=settings.start_noise_rad,
                watch=watch,
            )
            trained.imitator.add(*watch.samples())
        loss = trained.imitator.fit(settings.fit_steps)
        done = [one.success for one in outcomes]
        mpkpe = float(np.nanmean([one.mpkpe_mm for one in outcomes]))
        trained.rounds.append(Round(number, share, float(np.mean(done)), mpkpe, trained.imitator.num_samples, loss))
        if told is not None:
            told(trained.rounds[-1])
    return trained


@dataclass(frozen=True)
class Group:
    """Episodes of an evaluation that run side by side. seed: of the noise at their starts."""

    tasks: Sequence[Task]
    seed: int


def groups_of(tasks: Sequence[Task], settings: ImitateSettings) -> list[Group]:
    """The episodes of an evaluation: each task `repeats` times with other starts, in the order of their lengths."""
    return [
        Group(group, int(np.random.SeedSequence([settings.seed, 3, repeat, number]).generate_state(1)[0]))
        for repeat in range(settings.repeats)
        for number, group in enumerate(in_groups(tasks, settings.side_by_side))
    ]


def run_group(body: Body, group: Group, policy: Policy, settings: ImitateSettings) -> list[Outcome]:
    """The episodes of a group. They depend on what is given alone."""
    return run_episodes(
        body,
        group.tasks,
        policy,
        seed=group.seed,
        history=settings.student.history,
        allowed_m=settings.allowed_m,
        start_noise_rad=settings.evaluation_noise_rad,
    )


def _drawn(tasks: Sequence[Task], num: int, rng: np.random.Generator) -> list[Task]:
    """`num` tasks: all of them as often, as far as that goes, the rest at random."""
    order = [rng.permutation(len(tasks)) for _ in range(-(-num // len(tasks)))]
    return [tasks[number] for number in np.concatenate(order)[:num]]


class _Watch:
    """Takes what was seen and what the teacher says, and decides who acts."""

    def __init__(self, teacher: Teacher, body: Body, share: float, noise_rad: float, rng: np.random.Generator) -> None:
        self._teacher, self._body, self._share, self._noise, self._rng = teacher, body, share, noise_rad, rng
        self._kept: list[tuple[Any, Any, Any]] = []

    def __call__(self, seen: Seen, actions: Array) -> Array:
        pairs = zip(seen.states, seen.tasks, strict=True)
        said = np.stack([self._teacher.act(data, task.reference, seen.step) for data, task in pairs])
        self._kept.append((seen.latents, observed_of(seen), (said - self._body.rest).astype(np.float32)))
        is_teacher = self._rng.random(len(actions)) < self._share
        made = np.where(is_teacher[:, None], said, actions)
        return made + self._rng.normal(0, self._noise, made.shape)

    def samples(self) -> tuple[NDArray[np.float32], ...]:
        return tuple(np.concatenate(parts) for parts in zip(*self._kept, strict=True))

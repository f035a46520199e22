"""`handloom sim evaluate`: how often a policy does its tasks, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from handloom.errors import ConfigError, HandloomError
from handloom.io.folder import local_folder
from handloom.machine import installed
from handloom.pipelines.sim.jobs import as_far_as_it_goes, blocks, in_order, on_cluster, workers_for, world_of
from handloom.sim.policies import Policy, find_policy
from handloom.sim.rendering import Camera, backend
from handloom.sim.rollouts import Outcome, roll_out, shown_again
from handloom.sim.scores import best_and_worst, scores_of
from handloom.sim.tasks import MAX_STEPS, Task, Use, find_tasks, scene_seed
from handloom.sim.world import HZ, require_simulator
from handloom.video.write import write_video

BLOCK = 5
"""Episodes of a job: few enough that processes end together, many enough that a world is opened seldom."""
VIDEO_CAMERA, VIDEO_HZ = Camera("corner4", 320, 320, shadows=True), 20.0


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured. tasks: by name, see `scores.scores_of`. videos: paths, by task and `best`, `worst`.

    error: what ended it before all episodes were run, empty if nothing did; `tasks` then has those that were finished,
    and no task without one.
    """

    policy: str
    episodes: int
    seeds: int
    max_steps: int
    hz: float
    tasks: dict[str, dict[str, Any]]
    videos: dict[str, dict[str, str]]
    versions: dict[str, str | None]
    error: str = ""


def evaluate(
    task_names: str,
    policy: str,
    num_episodes: int = 50,
    num_seeds: int = 3,
    *,
    max_steps: int = MAX_STEPS,
    workers: int | None = None,
    ray_address: str | None = None,
    video: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run a policy on tasks: `num_episodes` of each seed, each in a scene of its own that no dataset has.

    An episode that diverges, or in which an action is not finite, is a counted failure. The numbers do not depend on
    the number of processes. An error of the policy ends the evaluation; what was finished before it is returned.

    Args:
        task_names: `NAME[,NAME]`. policy: see `sim.policies.FORMS`.
        max_steps: after which an episode has failed, 1 to 500.
        workers: processes; None: one per core. ray_address: a Ray cluster that runs them instead, one on each core.
        video: folder for the best and the worst episode of each task, as MP4.
        progress: called with the numbers of episodes that are done, and of all.

    Raises:
        ConfigError: an unknown task or policy, one that does not fit its task, a number out of range, or videos on a
            machine that draws no pictures.
        HandloomError: a process died, or the policy raised an error, before any episode was finished.
        ModuleNotFoundError: the simulator is not installed.
    """
    tasks = find_tasks(task_names)
    _check(num_episodes, num_seeds, max_steps)
    require_simulator()
    gl = None if video is None else backend()
    if video is not None:
        local_folder(video, "--video")
    for task in tasks:
        policy_of(policy, task)  # what is wrong with it is said before anything is computed
    found = {task.name: {seed: [] for seed in range(num_seeds)} for task in tasks}
    done, told = 0, ""
    pairs = [(task, policy) for task in tasks]
    try:
        for task, seed, outcomes in run_blocks(pairs, num_episodes, num_seeds, max_steps, workers, ray_address):
            found[task.name][seed] += outcomes
            done += len(outcomes)
            if progress is not None:
                progress(done, len(tasks) * num_seeds * num_episodes)
    except HandloomError as error:
        if not done:
            raise
        told = str(error)
    finished = {name: {seed: some for seed, some in by_seed.items() if some} for name, by_seed in found.items()}
    finished = {name: by_seed for name, by_seed in finished.items() if by_seed}
    videos = {}
    if video is not None and gl is not None:
        shown = [task for task in tasks if task.name in finished]
        videos = {task.name: _film(task, list(finished[task.name].values()), video, gl) for task in shown}
    scores = {name: scores_of(by_seed) for name, by_seed in finished.items()}
    versions = {name: installed(name) for name in ("metaworld", "mujoco")}
    return Evaluation(policy, num_episodes, num_seeds, max_steps, HZ, scores, videos, versions, told)


def run_blocks(
    pairs: Sequence[tuple[Task, str]],
    num_episodes: int,
    num_seeds: int,
    max_steps: int,
    workers: int | None,
    ray_address: str | None = None,
) -> Iterator[tuple[Task, int, list[Outcome]]]:
    """(task, seed, outcomes) of a few episodes at a time, in order. pairs: tasks and policies.

    Raises HandloomError after what was finished before the policy raised an error, or a process died; or as `evaluate`.
    """
    parts = [(*pair, s, part) for pair in pairs for s in range(num_seeds) for part in blocks(num_episodes, BLOCK)]
    jobs = ((task, policy, seed, part, max_steps) for task, policy, seed, part in parts)
    num_workers = workers_for(workers, len(parts))
    on_ray = ray_address is not None
    results = on_cluster(jobs, run_episodes, ray_address) if on_ray else in_order(jobs, run_episodes, num_workers)
    for (task, _, seed, _), (outcomes, error) in zip(parts, results, strict=True):
        if outcomes:
            yield task, seed, outcomes
        if error is not None:
            raise error


def run_episodes(
    task: Task, policy: str, seed: int, numbers: range, max_steps: int
) -> tuple[list[Outcome], HandloomError | None]:
    """Some episodes of one seed, up to one in which the policy raises an error, and that error.

    Raises ConfigError: there is no such policy.
    """
    world, acting = world_of(task), policy_of(policy, task)

    def run(number: int) -> Outcome:
        scene = scene_seed(task, Use.evaluate, seed, number)
        return roll_out(
            world, acting, scene, int(np.random.SeedSequence([scene, seed]).generate_state(1)[0]), max_steps
        )

    def place(number: int) -> str:
        scene = scene_seed(task, Use.evaluate, seed, number)
        return f"{task.name}, seed {seed}, episode {number} (scene_seed {scene})"

    again = "`--workers 1 --episodes N` comes to the same place"
    return as_far_as_it_goes(numbers, run, policy, place, again)


@lru_cache(maxsize=4)
def policy_of(name: str, task: Task) -> Policy:
    """A policy, made once in a process: its weights may be large."""
    return find_policy(name, task)


def _check(num_episodes: int, num_seeds: int, max_steps: int) -> None:
    for option, value in (("--episodes", num_episodes), ("--seeds", num_seeds)):
        if value < 1:
            raise ConfigError(f"{option} {value}", "at least 1")
    if not 1 <= max_steps <= MAX_STEPS:
        raise ConfigError(f"--max-steps {max_steps}", f"1 to {MAX_STEPS}, where Meta-World ends an episode")


def _film(task: Task, by_seed: Sequence[Sequence[Outcome]], folder: Path, gl: str) -> dict[str, str]:
    """Write the best and the worst episode of a task; paths."""
    every = [one for outcomes in by_seed for one in outcomes]
    paths = {}
    for name, outcome in zip(("best", "worst"), best_and_worst(every), strict=True):
        path = folder / f"{task.name}_{name}.mp4"
        pictures = list(shown_again(world_of(task), outcome, VIDEO_CAMERA, VIDEO_HZ, gl))
        write_video(path, pictures, np.arange(len(pictures)) / VIDEO_HZ)
        paths[name] = str(path)
    return paths

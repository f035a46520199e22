"""`handloom sim evaluate`: how often a policy does its tasks, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handloom.errors import ConfigError, HandloomError
from handloom.io.folder import Folder, local_folder
from handloom.machine import installed
from handloom.pipelines.sim.commands import FromClips, told_clips
from handloom.pipelines.sim.jobs import INTERRUPTED, Jobs, Lost, Where, in_order, or_error, world_of
from handloom.sim.failures import WORKER_DIED
from handloom.sim.policies import Policy, find_policy
from handloom.sim.rendering import Camera, backend
from handloom.sim.rollouts import Outcome, roll_out, shown_again
from handloom.sim.scores import scores_of, shown_ones
from handloom.sim.tasks import MAX_STEPS, Task, Use, find_tasks, scene_seed
from handloom.sim.world import ACTION_WIDTH, HZ, require_simulator
from handloom.video.write import write_video

if TYPE_CHECKING:
    from handloom.train.arm4r.data.commands import Commands

WORTH = 5
"""Episodes for which a process of its own is worth its start."""
VIDEO_CAMERA, VIDEO_HZ = Camera("corner4", 320, 320, shadows=True), 20.0


REPORT = "evaluate.json"


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured. episodes: of each task and seed. tasks: by name, see `scores.scores_of`.

    videos: paths, by task and name (`scores.shown_of`). error: what ended it before all episodes were run, empty if
    nothing did; `tasks` then has those that were finished, and no task without one. clips: by task the clips that told
    it, where `from_clips` named some.
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
    clips: dict[str, list[str]] = field(default_factory=dict)


def evaluate(
    task_names: str,
    policy: str,
    num_episodes: int = 50,
    num_seeds: int = 3,
    *,
    max_steps: int = MAX_STEPS,
    workers: int | None = None,
    ray_address: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    videos: bool = False,
    from_clips: FromClips | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run a policy on tasks: `num_episodes` of each seed, each in a scene of its own that no dataset has.

    An episode that diverges, or in which an action is not finite, is a counted failure. The numbers do not depend on
    the number of processes. An error of the policy, or Ctrl-C, ends the evaluation; what was finished before it is
    returned.

    Args:
        task_names: `NAME[,NAME]`. policy: see `sim.policies.FORMS`.
        max_steps: after which an episode has failed, 1 to 500.
        workers: processes; None: one per core. ray_address: a Ray cluster that runs them instead.
        out: a local folder for `evaluate.json`, the same as is returned, and for videos. overwrite: replace the
            evaluation that is there, with its videos, when this one has ended.
        videos: of two episodes of each task (`scores.shown_ones`), as MP4; they need `out`.
        from_clips: which clips tell the policy its tasks; None: what it was trained to be told by.
        progress: called with the numbers of episodes that are done, and of all.

    Raises:
        ConfigError: an unknown task or policy, one that does not fit its task, a number out of range, or videos on a
            machine that draws no pictures; as `told_clips` and `check_out`.
        HandloomError: processes died, or the policy raised an error, before any episode was finished.
        ModuleNotFoundError: the simulator is not installed.
    """
    tasks = find_tasks(task_names)
    _check(num_episodes, num_seeds, max_steps)
    where = Where(workers, ray_address)
    require_simulator()
    gl = backend() if out is not None and videos else None
    check_out(out, overwrite)
    clips = None if from_clips is None else told_clips(policy, tasks, from_clips)
    for task in tasks:
        policy_told(policy, task, clips)  # what is wrong with it is said before anything is computed
    found: dict[str, dict[int, list[Outcome]]] = {task.name: {n: [] for n in range(num_seeds)} for task in tasks}
    done, told = 0, ""
    pairs = [(task, policy) for task in tasks]
    try:
        for task, seed, outcome in run_episodes(pairs, num_episodes, num_seeds, max_steps, where, clips):
            found[task.name][seed].append(outcome)
            done += 1
            if progress is not None:
                progress(done, len(tasks) * num_seeds * num_episodes)
    except HandloomError as error:
        if not done:
            raise
        told = str(error)
    except KeyboardInterrupt:
        if not done:
            raise
        told = INTERRUPTED
    finished = {name: {seed: some for seed, some in by_seed.items() if some} for name, by_seed in found.items()}
    finished = {name: by_seed for name, by_seed in finished.items() if by_seed}
    scores = {name: scores_of(by_seed) for name, by_seed in finished.items()}
    versions = {name: installed(name) for name in ("metaworld", "mujoco")}
    told_by = {} if clips is None else {task.name: list(clips.by_task[task.text]) for task in tasks}
    result = Evaluation(policy, num_episodes, num_seeds, max_steps, HZ, scores, {}, versions, told, told_by)
    keep_evaluation(result, out)  # before minutes of drawing, which may fail
    if out is not None and gl is not None:
        shown = [task for task in tasks if task.name in finished]
        films = {task.name: _film(task, list(finished[task.name].values()), out, gl) for task in shown}
        result = replace(result, videos=films)
        keep_evaluation(result, out)
    return result


@dataclass(frozen=True)
class EpisodeJob:
    """One episode: the scene and what the policy draws at random follow from task, seed and number. clips: that tell
    the policy its task."""

    task: Task
    policy: str
    seed: int
    number: int
    max_steps: int
    clips: Commands | None = None

    @property
    def scene_seed(self) -> int:
        return scene_seed(self.task, Use.evaluate, self.seed, self.number)

    @property
    def policy_seed(self) -> int:
        return int(np.random.SeedSequence([self.scene_seed, self.seed]).generate_state(1)[0])

    def name(self) -> str:
        return f"{self.task.name}, seed {self.seed}, episode {self.number} (scene_seed {self.scene_seed})"


def run_episodes(
    pairs: Sequence[tuple[Task, str]],
    num_episodes: int,
    num_seeds: int,
    max_steps: int,
    where: Where,
    clips: Commands | None = None,
) -> Iterator[tuple[Task, int, Outcome]]:
    """(task, seed, outcome) of each episode, in order. pairs: tasks and policies.

    Raises HandloomError after what was finished before the policy raised an error, or processes died; or as `evaluate`.
    """
    jobs = [
        EpisodeJob(task, policy, seed, number, max_steps, clips)
        for task, policy in pairs
        for seed in range(num_seeds)
        for number in range(num_episodes)
    ]
    results = in_order(Jobs(run_episode, EpisodeJob.name, _lost, WORTH), jobs, len(jobs), where)
    for job, (outcome, error) in zip(jobs, results, strict=True):
        if outcome is None:
            raise error or HandloomError(f"no outcome of {job.name()}")
        yield job.task, job.seed, outcome


def run_episode(job: EpisodeJob) -> tuple[Outcome | None, HandloomError | None]:
    """What came of an episode, or the error that the policy raised. Raises ConfigError: there is no such policy."""
    world, acting = world_of(job.task), policy_told(job.policy, job.task, job.clips)

    def run() -> Outcome:
        return roll_out(world, acting, job.scene_seed, job.policy_seed, job.max_steps)

    return or_error(run, job.policy, job.name(), "`--workers 1 --episodes N` comes to the same place")


def _lost(job: EpisodeJob, lost: Lost) -> tuple[Outcome, None]:
    """The failure of an episode on which processes died."""
    actions = np.empty((0, ACTION_WIDTH), np.float32)
    return Outcome(job.scene_seed, job.policy_seed, False, None, 0, WORKER_DIED, lost.how, np.nan, actions), None


@lru_cache(maxsize=4)
def policy_of(name: str, task: Task) -> Policy:
    """A policy, made once in a process: its weights may be large."""
    return find_policy(name, task)


def policy_told(name: str, task: Task, clips: Commands | None) -> Policy:
    """The same policy, which these clips tell its task from now on; None: as it was trained."""
    policy = policy_of(name, task)
    tell = getattr(policy, "tell_by_clips", None)
    if tell is not None:
        tell(clips)
    return policy


def _check(num_episodes: int, num_seeds: int, max_steps: int) -> None:
    for option, value in (("--episodes", num_episodes), ("--seeds", num_seeds)):
        if value < 1:
            raise ConfigError(f"{option} {value}", "at least 1")
    if not 1 <= max_steps <= MAX_STEPS:
        raise ConfigError(f"--max-steps {max_steps}", f"1 to {MAX_STEPS}, where Meta-World ends an episode")


def check_out(out: Path | None, overwrite: bool) -> None:
    """Make the folder of an evaluation, before anything is computed.

    Raises ConfigError: as `local_folder`, or it has an evaluation and `overwrite` is false.
    """
    if out is None:
        return
    local_folder(out, "--out")
    if (out / REPORT).exists() and not overwrite:
        problem = f"--out {out} has an evaluation already ({REPORT})"
        raise ConfigError(problem, "name another folder, or replace it with --overwrite")


def keep_evaluation(found: Any, out: Path | None) -> None:
    """Write an evaluation, a dataclass, as `evaluate.json` in its folder, if it has one. Videos of the one that was
    there, which this one has not, are removed."""
    if out is None:
        return
    folder, content = Folder.parse(out), asdict(found)
    before = folder.read_json(REPORT)
    old = _videos(before.get("videos")) if isinstance(before, dict) else set()
    folder.write_json(REPORT, content)
    folder.remove_files(sorted(old - _videos(content["videos"])))


def _videos(named: Any) -> set[str]:
    """Names of the files that a report's `videos` has, of tasks or of sequences."""
    if isinstance(named, dict | list):
        return set().union(*map(_videos, named.values() if isinstance(named, dict) else named))
    return {Path(named).name} if isinstance(named, str) and named.endswith(".mp4") else set()


def _film(task: Task, by_seed: Sequence[Sequence[Outcome]], folder: Path, gl: str) -> dict[str, str]:
    """Write two episodes of a task (`shown_ones`); paths. None where nothing is known of any."""
    every = [one for outcomes in by_seed for one in outcomes if one.failure != WORKER_DIED]
    paths = {}
    for name, outcome in (shown_ones(every) if every else {}).items():
        path = folder / f"{task.name}_{name}.mp4"
        pictures = list(shown_again(world_of(task), outcome, VIDEO_CAMERA, VIDEO_HZ, gl))
        write_video(path, pictures, np.arange(len(pictures)) / VIDEO_HZ)
        paths[name] = str(path)
    return paths

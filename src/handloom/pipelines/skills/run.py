"""`handloom skill run`: how often a skill succeeds on a robot arm in simulated scenes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.io.folder import Folder, local_folder
from handloom.machine import installed
from handloom.pipelines.sim.jobs import Jobs, Lost, Where, in_order
from handloom.pipelines.skills.skill import executions_of, show_skill
from handloom.sim.descriptions import find_description
from handloom.sim.failures import WORKER_DIED
from handloom.sim.rendering import backend
from handloom.sim.scores import wilson
from handloom.sim.tabletop.draw import HOWS, How, goals_of, skill_scene
from handloom.sim.tabletop.episodes import ROUNDS, Episode, run_episode
from handloom.sim.tabletop.film import FILM_HZ, film
from handloom.sim.tabletop.model import require_room
from handloom.sim.tabletop.plans import MODES, Mode, check_things, handlings_of, replay_of
from handloom.sim.tabletop.scene import PAGE, Scene, read_scene
from handloom.sim.world import require_simulator
from handloom.skills.execution import Execution
from handloom.skills.skill import Skill
from handloom.video.write import write_video

MOST_ROUNDS = 10
REPORT = "run.json"


@dataclass(frozen=True)
class Job:
    """One episode: what to execute where. executions: of the demonstrations, for `replay`."""

    skill: Skill
    scene: Scene
    seed: int
    mode: Mode
    rounds: int
    weld: bool
    executions: tuple[Execution, ...] = ()

    def name(self) -> str:
        return f"skill {self.skill.name!r}, {self.mode}, the scene of seed {self.seed}"


@dataclass(frozen=True)
class SkillRun:
    """What `run_skill` measured; `interval` is Wilson's, at 95 %.

    failures: of the episodes, by reason; attempts: failed attempts by reason, also those after which another succeeded.
    constraints_met: share of the episodes in which each thing ended within the skill's bounds; None: none known.
    videos: paths of `best` and `worst`. episodes: each with its scene.
    """

    skill: str
    task: str
    mode: str
    scene: str
    seed: int
    rounds: int
    weld: bool
    num_episodes: int
    successes: int
    success_rate: float
    interval: tuple[float, float]
    failures: dict[str, int]
    attempts: dict[str, int]
    constraints_met: float | None
    seconds_median: float | None
    episodes: list[dict[str, Any]]
    videos: dict[str, str]
    versions: dict[str, str | None]


def run_skill(
    db: Database,
    name: str,
    scene: str = "seen",
    num_episodes: int = 50,
    seed: int = 0,
    *,
    mode: str = "hierarchical",
    rounds: int = ROUNDS,
    weld: bool = False,
    out: Path | None = None,
    video: bool = True,
    workers: int | None = None,
    ray_address: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SkillRun, list[str]]:
    """Execute a skill of a database in `num_episodes` scenes; and sentences about what should be known of it.

    The numbers depend on skill, scene, seed and options, not on the number of processes.

    Args:
        scene: `seen`, `unseen`: another scene for each episode, by the seed; or a JSON file: the same for all.
        mode: `sim.tabletop.plans.MODES`. rounds: of failure reasoning for each thing, 0 to 10.
        weld: held things are fixed to the hand in place of friction.
        out: folder for `run.json`, and for videos of the best and the worst episode if `video`.
        workers: processes; None: one per core. ray_address: a Ray cluster that runs them instead. progress: called with
            the numbers of episodes that are done, and of all.

    Raises:
        ConfigError: an option that is out of range; a skill that moves nothing; a scene that cannot be read or lacks a
            thing; videos on a machine that draws none; `out` cannot be written.
        StoreError: there is no such skill, or, for `replay`, none of its clips has a row.
        ModuleNotFoundError: the simulator, or the description of the arm, is not installed.
    """
    where = Where(workers, ray_address)
    require_simulator()
    find_description("panda")  # what is missing is said before anything is computed
    its_mode = _checked(mode, num_episodes, rounds)
    skill, notes = show_skill(db, name)
    gl = backend() if out is not None and video else None
    if out is not None:
        local_folder(out, "--out")
    fixed = None if scene in HOWS else _scene_in(Path(scene), skill)
    executions = executions_of(db, skill) if its_mode == "replay" else ()
    jobs = [
        Job(skill, _scene_of(skill, scene, fixed, seed, number), seed + number, its_mode, rounds, weld, executions)
        for number in range(num_episodes)
    ]
    found = run_jobs(jobs, where, progress)
    run = summary(skill, scene, its_mode, seed, rounds, weld, jobs, found, {})
    if out is not None:
        _keep(out, run)  # before the videos, which may fail
        if gl is not None:
            chosen = best_and_worst(jobs, found)
            run = replace(run, videos={which: _film(out / f"{which}.mp4", *one, gl) for which, one in chosen.items()})
            _keep(out, run)
    return run, notes


def run_jobs(
    jobs: Sequence[Job], where: Where | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Episode]:
    """The episodes in the order of the jobs. Raises as `run_episode`, `replay_of` and `in_order`."""
    found = []
    for episode in in_order(Jobs(run_job, Job.name, _lost), jobs, len(jobs), where or Where()):
        found.append(episode)
        if progress is not None:
            progress(len(found), len(jobs))
    return found


def _lost(job: Job, lost: Lost) -> Episode:
    """The failure of an episode on which processes died."""
    return Episode(False, None, WORKER_DIED, lost.how, (), float("nan"), float("nan"), np.empty((0, 0), np.float32))


def run_job(job: Job) -> Episode:
    """One episode. Raises as `run_episode` and `replay_of`."""
    is_replay = job.mode == "replay"
    skill = replay_of(job.skill, job.executions, job.scene) if is_replay else job.skill
    return run_episode(skill, job.scene, job.seed, job.mode, 0 if is_replay else job.rounds, job.weld)


def scores_of(found: Sequence[Episode]) -> dict[str, Any]:
    """`successes`, `success_rate`, `interval`, `failures`, `attempts`, `constraints_met`, `seconds_median`."""
    successes = sum(one.success for one in found)
    seconds = [one.seconds for one in found if np.isfinite(one.seconds)]
    met = [one.constraints_met for one in found if one.constraints_met is not None]
    attempts = Counter(attempt.reason for one in found for attempt in one.attempts if attempt.reason)
    return {
        "successes": successes,
        "success_rate": successes / len(found),
        "interval": wilson(successes, len(found)),
        "failures": dict(sorted(Counter(one.failure for one in found if one.failure).items())),
        "attempts": dict(sorted(attempts.items())),
        "constraints_met": sum(met) / len(met) if met else None,
        "seconds_median": round(float(np.median(seconds)), 2) if seconds else None,
    }


def summary(
    skill: Skill, scene: str, mode: Mode, seed: int, rounds: int, weld: bool, jobs: Sequence[Job],
    found: Sequence[Episode], videos: dict[str, str],
) -> SkillRun:  # fmt: skip
    """All of a run's numbers."""
    episodes = [
        {
            "seed": job.seed,
            "success": one.success,
            "failure": one.failure,
            "detail": one.detail,
            "constraints_met": one.constraints_met,
            "error_m": None if np.isnan(one.error_m) else round(one.error_m, 4),
            "seconds": round(one.seconds, 2) if np.isfinite(one.seconds) else None,
            "attempts": [asdict(attempt) for attempt in one.attempts],
            "scene": job.scene.model_dump(mode="json"),
        }
        for job, one in zip(jobs, found, strict=True)
    ]
    versions = {name: installed(name) for name in ("mujoco", "robosuite")}
    rounds = 0 if mode == "replay" else rounds
    return SkillRun(
        skill.name, skill.task, mode, scene, seed, rounds, weld, len(found), **scores_of(found), episodes=episodes,
        videos=videos, versions=versions,
    )  # fmt: skip


def best_and_worst(jobs: Sequence[Job], found: Sequence[Episode]) -> dict[str, tuple[Scene, Episode]]:
    """The success that ends nearest to its goal, and the failure that ends farthest; by name, with their scenes."""
    order = sorted(range(len(found)), key=lambda i: (not found[i].success, np.nan_to_num(found[i].error_m, nan=np.inf)))
    return {which: (jobs[at].scene, found[at]) for which, at in (("best", order[0]), ("worst", order[-1]))}


def _keep(out: Path, run: SkillRun) -> None:
    """Write the report, whole or not at all. Raises StoreError."""
    Folder.parse(out).write(REPORT, json.dumps(asdict(run), indent=1, allow_nan=False).encode() + b"\n")


def _film(path: Path, scene: Scene, episode: Episode, gl: str) -> str:
    pictures = list(film(scene, episode.states, gl))
    write_video(path, pictures, np.arange(len(pictures)) / FILM_HZ)
    return str(path)


def _scene_in(path: Path, skill: Skill) -> Scene:
    """The scene of a file; without goals the skill's own. Raises ConfigError: it is no scene of this skill."""
    scene = read_scene(path)
    check_things(skill, scene, handlings_of(skill, "hierarchical"))
    require_room(scene)
    if scene.goals:
        return scene
    if goals := goals_of(skill, scene):
        return scene.model_copy(update={"goals": goals})
    raise ConfigError(f"--scene {path} has no goals, and skill {skill.name!r} knows none", "give `goals`; " + PAGE)


def _scene_of(skill: Skill, scene: str, fixed: Scene | None, seed: int, number: int) -> Scene:
    if fixed is not None:
        return fixed
    how: How = "seen" if scene == "seen" else "unseen"
    return skill_scene(skill, how, seed + number)


def _checked(mode: str, num_episodes: int, rounds: int) -> Mode:
    if num_episodes < 1:
        raise ConfigError(f"--episodes {num_episodes}", "at least 1")
    if not 0 <= rounds <= MOST_ROUNDS:
        raise ConfigError(f"--rounds {rounds}", f"0 to {MOST_ROUNDS}")
    for one in MODES:
        if one == mode:
            return one
    raise ConfigError(f"--mode {mode!r} is not known", f"one of: {', '.join(MODES)}")

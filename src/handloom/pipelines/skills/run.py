"""`handloom skill run`: how often a skill succeeds on a robot arm in simulated scenes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.io.folder import Folder, local_folder
from handloom.io.wrong_path import names_in
from handloom.machine import installed
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.skills.episodes import (
    SHOWN,
    EpisodeLog,
    Job,
    run_jobs,
    scores_of,
    shown_ones,
    write_film,
)
from handloom.pipelines.skills.reading import cost_of, model_reasoner
from handloom.pipelines.skills.skill import executions_of, show_skill
from handloom.plural import plural
from handloom.schemas.towers import AskSettings
from handloom.sim.descriptions import find_description
from handloom.sim.rendering import backend
from handloom.sim.tabletop.draw import HOWS, How, goals_of, skill_scene
from handloom.sim.tabletop.episodes import ROUNDS, Episode
from handloom.sim.tabletop.model import require_room
from handloom.sim.tabletop.plans import MODES, Mode, check_things, handlings_of, not_executed
from handloom.sim.tabletop.reasoning import ModelReasoner, Rules
from handloom.sim.tabletop.scene import PAGE, Scene, read_scene
from handloom.sim.world import require_simulator
from handloom.skills.skill import Skill

MOST_ROUNDS, MOST_ERROR_M = 10, 0.2
REPORT, JOB = "run.json", "job.json"
"""The second is that of `train vlmimic`, whose folder has episodes, too."""


@dataclass(frozen=True)
class SkillRun:
    """What `run_skill` measured; `interval` is Wilson's, at 95 %.

    error_m: what things were seen off, horizontally (median). reasoner: what chose remedies; `none`: no rounds.
    failures: of the episodes, by reason; attempts: failed attempts by reason, also those after which another succeeded.
    constraints_met: share of the episodes in which each thing ended within the skill's bounds; None: none known.
    videos: paths by name (`pipelines.skills.episodes.shown_ones`). episodes: each with its scene.
    """

    skill: str
    task: str
    mode: str
    scene: str
    seed: int
    rounds: int
    weld: bool
    error_m: float
    reasoner: str
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
    error_m: float = 0.0,
    model: AskSettings | None = None,
    resume: bool = True,
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
        out: folder for `run.json`, and for videos of the best and the worst episode if `video`. Each episode is kept
            there as soon as it ends: the same run in the same folder goes on with those that are missing.
        error_m: what the robot sees the places of things off, horizontally (median), up to 0.2.
        model: a vision-language model that chooses what is changed after a failure, with the episodes one after the
            other in this process; None: rules.
        resume: False: begin anew.
        workers: processes; None: one per core. ray_address: a Ray cluster that runs them instead. progress: called with
            the numbers of episodes that are done, and of all.

    Raises:
        ConfigError: an option that is out of range; a skill that moves nothing; a scene that cannot be read or lacks a
            thing; videos on a machine that draws none; `out` cannot be written, or holds other files or another run's.
        StoreError: there is no such skill, or, for `replay`, none of its clips has a row.
        NoAnswer: the model has answered no question; the episode of the question is not kept.
        ModuleNotFoundError: the simulator, or the description of the arm, is not installed.
    """
    where = Where(workers, ray_address)
    require_simulator()
    find_description("panda")  # what is missing is said before anything is computed
    its_mode = _checked(mode, num_episodes, rounds, error_m)
    skill, notes = show_skill(db, name)
    notes += [told] if (told := not_executed(skill)) else []
    counts: Counter[str] = Counter()
    reasoner = None if model is None else model_reasoner(model, counts)
    gl = backend() if reasoner is not None or (out is not None and video) else ""
    if out is not None:
        local_folder(out, "--out")
        _check_own(out)
    fixed = None if scene in HOWS else _scene_in(Path(scene), skill)
    executions = executions_of(db, skill) if its_mode == "replay" else ()
    chooser = Rules.name if reasoner is None else reasoner.name
    identity = {
        "skill": skill.name, "skill's constraints": digest_of(skill), "mode": its_mode, "rounds": rounds, "weld": weld,
        "error_m": error_m, "reasoner": chooser,
        "scene": scene if fixed is None else json.loads(fixed.to_json()), "versions": versions(),
    }  # fmt: skip
    with ExitStack() as closing:  # before scenes are drawn: a folder of another run is refused at once
        log = None if out is None else closing.enter_context(EpisodeLog(out, identity, resume))
        jobs = [
            Job(
                skill,
                _scene_of(skill, scene, fixed, seed, number),
                seed + number,
                its_mode,
                rounds,
                weld,
                executions,
                error_m,
            )
            for number in range(num_episodes)
        ]
        by_seed = {job.seed: job for job in jobs}
        found = list(run_jobs(by_seed, log, where, progress, reasoner, gl).values())
    if reasoner is not None:
        notes = [*notes, *cost_of(reasoner.name, counts), _refused(reasoner)]
    run = summary(skill, scene, its_mode, seed, rounds, weld, error_m, chooser, jobs, found)
    if out is not None:
        _keep(out, run)  # before the videos, which may fail
        if video:
            for which in SHOWN:  # of an earlier run with fewer episodes
                (out / f"{which}.mp4").unlink(missing_ok=True)
            chosen = shown_ones(found)
            films = {which: write_film(out / f"{which}.mp4", jobs[at], found[at], gl) for which, at in chosen.items()}
            run = replace(run, videos=films)
            _keep(out, run)
    return run, notes


def _check_own(out: Path) -> None:
    """Raise ConfigError for a folder with files that are no run's: `run.json` and videos would take their places."""
    there = names_in(str(out))
    if there and (EpisodeLog.FILE not in there or JOB in there):
        problem = f"--out {out} holds other files: {', '.join(there[:5])}"
        raise ConfigError(problem, "give --out a folder of its own: a new one, or one of an earlier `skill run`")


def _refused(reasoner: ModelReasoner) -> str:
    asked, refused = reasoner.counts["asked"], reasoner.counts["refused"]
    after = f"; after {refused} it gave none that can be used, and rules chose" if refused else ""
    return f"{reasoner.name} chose remedies after {plural(asked, 'failure')}{after}"


def versions() -> dict[str, str | None]:
    """Of the packages on which episodes depend."""
    return {name: installed(name) for name in ("handloom", "mujoco", "robosuite")}


def digest_of(skill: Skill) -> str:
    """A hash of all that a skill says."""
    return hashlib.sha256(skill.to_json().encode()).hexdigest()[:16]


def summary(
    skill: Skill, scene: str, mode: Mode, seed: int, rounds: int, weld: bool, error_m: float, reasoner: str,
    jobs: Sequence[Job], found: Sequence[Episode],
) -> SkillRun:  # fmt: skip
    """All of a run's numbers, without videos."""
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
    rounds = 0 if mode == "replay" else rounds
    reasoner = reasoner if rounds else "none"
    return SkillRun(
        skill.name, skill.task, mode, scene, seed, rounds, weld, error_m, reasoner, len(found), **scores_of(found),
        episodes=episodes, videos={}, versions=versions(),
    )  # fmt: skip


def _keep(out: Path, run: SkillRun) -> None:
    """Write the report, whole or not at all. Raises StoreError."""
    Folder.parse(out).write(REPORT, json.dumps(asdict(run), indent=1, allow_nan=False).encode() + b"\n")


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


def _checked(mode: str, num_episodes: int, rounds: int, error_m: float) -> Mode:
    if not 0 <= error_m <= MOST_ERROR_M:
        raise ConfigError(f"--error-m {error_m:g}", f"0 to {MOST_ERROR_M:g} metres")
    if num_episodes < 1:
        raise ConfigError(f"--episodes {num_episodes}", "at least 1")
    if not 0 <= rounds <= MOST_ROUNDS:
        raise ConfigError(f"--rounds {rounds}", f"0 to {MOST_ROUNDS}")
    for one in MODES:
        if one == mode:
            return one
    raise ConfigError(f"--mode {mode!r} is not known", f"one of: {', '.join(MODES)}")

"""The learned skills on a robot arm: episodes of each in each kind of scene and mode, kept as they end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError, HandloomError
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.skills.episodes import EpisodeLog, Job, run_jobs, scores_of, shown_ones, write_film
from handloom.pipelines.skills.run import digest_of, versions
from handloom.pipelines.skills.training.learning import Learned
from handloom.pipelines.skills.training.settings import VlmimicSettings
from handloom.sim.descriptions import find_description
from handloom.sim.tabletop.draw import skill_scene
from handloom.sim.tabletop.episodes import Episode
from handloom.sim.tabletop.plans import replay_of
from handloom.sim.world import require_simulator

VIDEOS = "videos"

Cell = tuple[str, str, str]
"""Skill, kind of scene, mode."""


@dataclass(frozen=True)
class Tried:
    """Episodes of each cell in the order of their seeds, the jobs that they come from, and why other cells, or all,
    have none."""

    episodes: Mapping[Cell, Sequence[Episode]]
    jobs: Mapping[Cell, Sequence[Job]]
    problems: Mapping[Cell, str]


def why_no_robot() -> str:
    """What this machine lacks to run skills; empty: nothing."""
    try:
        require_simulator()
        find_description("panda")
    except ModuleNotFoundError as error:
        return f"the package {error.name} is not installed: pip install 'handloom[sim]'"
    return ""


def jobs_of(learned: Sequence[Learned], settings: VlmimicSettings) -> tuple[dict[Cell, list[Job]], dict[Cell, str]]:
    """The episodes to run, the same scenes for all modes of a skill; and why cells have none."""
    jobs: dict[Cell, list[Job]] = {}
    problems: dict[Cell, str] = {}
    for one in learned:
        for skill in one.skills:
            own = tuple(each for each in one.executions if each.clip_id in skill.clip_ids)
            for how in settings.scenes:
                try:
                    scenes = [skill_scene(skill, how, settings.seed + number) for number in range(settings.episodes)]
                except HandloomError as error:  # no step moves a thing; no room for the things
                    problems |= {(skill.name, how, mode): error.problem for mode in settings.modes}
                    continue
                for mode in settings.modes:
                    cell = (skill.name, how, mode)
                    shown = own if mode == "replay" else ()
                    try:
                        if mode == "replay":
                            replay_of(skill, shown, scenes[0])
                    except ConfigError as error:
                        problems[cell] = error.problem
                        continue
                    jobs[cell] = [
                        Job(skill, scene, settings.seed + number, mode, settings.rounds, settings.weld, shown)
                        for number, scene in enumerate(scenes)
                    ]
    return jobs, problems


def try_skills(
    out: Path,
    learned: Sequence[Learned],
    settings: VlmimicSettings,
    where: Where,
    progress: Callable[[int, int], None] | None,
) -> Tried:
    """Run all episodes that the folder lacks. Raises as `run_jobs` and `EpisodeLog`."""
    jobs, problems = jobs_of(learned, settings)
    flat = {f"{'/'.join(cell)}/{job.seed}": (cell, job) for cell, its in jobs.items() for job in its}
    identity = {
        "rounds": settings.rounds, "weld": settings.weld, "versions": versions(),
        "skills": {skill.name: digest_of(skill) for one in learned for skill in one.skills},
    }  # fmt: skip
    found: dict[Cell, list[Episode]] = defaultdict(list)
    with EpisodeLog(out, identity) as log:
        episodes = run_jobs({key: job for key, (_, job) in flat.items()}, log, where, progress)
    for key, (cell, _) in flat.items():
        found[cell].append(episodes[key])
    return Tried(found, jobs, problems)


def scores(tried: Tried, settings: VlmimicSettings, skills: Sequence[str] | None = None) -> dict[str, Any]:
    """By kind of scene and mode: the scores of all episodes of these skills, or of all; null where there are none."""
    out: dict[str, Any] = {}
    for how in settings.scenes:
        for mode in settings.modes:
            episodes = [
                episode
                for (skill, one_how, one_mode), its in tried.episodes.items()
                if (one_how, one_mode) == (how, mode) and (skills is None or skill in skills)
                for episode in its
            ]
            told = {"episodes": len(episodes), **scores_of(episodes)} if episodes else None
            out.setdefault(how, {})[mode] = told
    return out


def film(out: Path, tried: Tried, settings: VlmimicSettings, gl: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Videos of the best and the worst episode of each skill in the last kind of scene: `{skill: {best: {path (below
    `out`), seed, success, failure}}}`. One that is there is not drawn again."""
    told: dict[str, dict[str, dict[str, Any]]] = {}
    how, mode = settings.scenes[-1], settings.modes[0]
    for (skill, its_how, its_mode), episodes in tried.episodes.items():
        if (its_how, its_mode) != (how, mode):
            continue
        for which, at in shown_ones(episodes).items():
            job = tried.jobs[skill, how, mode][at]
            name = f"{VIDEOS}/{skill}-{how}-{job.seed}.mp4"
            if not (out / name).exists():
                (out / VIDEOS).mkdir(exist_ok=True)
                draft = out / VIDEOS / ".draft.mp4"
                write_film(draft, job, episodes[at], gl)
                draft.replace(out / name)
            one = episodes[at]
            told.setdefault(skill, {})[which] = {
                "path": name, "seed": job.seed, "success": one.success, "failure": one.failure, "detail": one.detail,
            }  # fmt: skip
    return told

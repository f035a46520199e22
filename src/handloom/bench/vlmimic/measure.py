"""`handloom bench vlmimic`: how often skills succeed on a robot arm that 1, 3 or 5 scripted videos taught.

Five tasks, in scenes like those of the demonstrations (`seen`), and with other sizes, places and obstacles (`unseen`).
With five videos also by one level of the constraints alone, without a second try, and by replay of the most similar
video. Other videos teach each of `DRAWS` skills of a task; the scenes are the same for all modes and numbers. Goals are
the script's, not the skill's. A draw that teaches no skill counts as `not_learned`, for all its episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handloom.bench.report import describe, goal
from handloom.bench.vlmimic.finished import Key, can_run, kept_segments, measured_episodes
from handloom.bench.vlmimic.tasks import TASKS
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.machine import installed
from handloom.pipelines.sim.jobs import Jobs, Where, in_order
from handloom.pipelines.skills.episodes import NO_STATES, Job, scores_of
from handloom.sim.tabletop.draw import HOWS, How
from handloom.sim.tabletop.episodes import ROUNDS, Episode
from handloom.sim.tabletop.plans import Mode
from handloom.sim.world import require_simulator
from handloom.skills.execution import Execution, read_execution
from handloom.skills.learn import learn
from handloom.skills.reader import RuleReader
from handloom.skills.skill import Skill

SEED = 8100
NUMBERS, MOST = (5, 1, 3), 5
"""In the order in which they are measured."""
DRAWS = 5
EPISODES, QUICK_EPISODES = 10, 2
"""Of each of the five tasks, kind of scene, mode and number of videos."""
MODES: Mapping[str, tuple[Mode, int]] = {
    "hierarchical": ("hierarchical", ROUNDS),
    "geometric": ("geometric", ROUNDS),
    "semantic": ("semantic", ROUNDS),
    "one try": ("hierarchical", 0),
    "replay": ("replay", 0),
}
"""By name: the mode, and rounds of failure reasoning."""
FEWER = ("hierarchical", "replay")
"""What is measured with fewer videos, too."""
NOT_LEARNED = "not_learned"

Taught = Skill | None
Cell = tuple[int, How, str, str]
"""Number of videos, kind of scene, mode, task."""


def bench_vlmimic(data: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure on all cores.

    data: a folder that keeps demonstrations and episodes as they end, for the next time; None: nothing is kept.

    Raises ModuleNotFoundError: the simulator or the arm's description is not installed.
    """
    require_simulator()
    names = list(TASKS)[:2] if watch.quick else list(TASKS)
    episodes = QUICK_EPISODES if watch.quick else EPISODES

    def jobs_of(folder: Path) -> dict[Key, Job]:
        videos = _videos(names, folder, watch)
        jobs: dict[Key, Job] = {}
        for cell in cells_of(names):
            jobs |= _jobs(cell, taught(cell[-1], videos[cell[-1]], cell[0]), episodes)
        return jobs

    ran = measured_episodes("vlmimic", jobs_of, data, watch)
    results: dict[str, Any] = {
        "seed": SEED,
        "episodes": episodes,
        "draws": DRAWS,
        "tasks": {name: TASKS[name].words for name in names},
        "versions": {name: installed(name) for name in ("mujoco", "robosuite")},
    }
    whole = ran.finished({cell: [(*cell, number) for number in range(episodes)] for cell in cells_of(names)})
    if whole:
        results["videos"] = results_of(whole)
    return describe("vlmimic", results, goals_of(results), watch)


def _videos(names: Sequence[str], folder: Path, watch: Watch) -> dict[str, list[Execution]]:
    """The demonstrations of each task, in order."""
    watch.part("demonstrations")
    asked = [Shown(folder, name, number) for name in names for number in range(DRAWS * MOST)]
    watch.expect(len(asked))
    out: dict[str, list[Execution]] = {name: [] for name in names}
    jobs = Jobs(demonstration, Shown.words)
    for one, execution in zip(asked, in_order(jobs, asked, len(asked), Where()), strict=True):
        out[one.name].append(execution)
        watch.did(one.name)
    return out


@dataclass(frozen=True)
class Shown:
    """A demonstration of a task, and the folder that keeps what was seen of it."""

    folder: Path
    name: str
    number: int

    def words(self) -> str:
        return f"demonstration {self.number} of {self.name}"


def demonstration(one: Shown) -> Execution:
    """What a demonstration shows."""
    asked = {"seed": SEED, "task": one.name, "number": one.number}
    cells = kept_segments(
        one.folder, f"{one.name}-{one.number:03d}", asked, lambda: TASKS[one.name].segments(SEED, one.number)
    )
    return read_execution(f"{one.number:03d}", cells)


def taught(name: str, videos: Sequence[Execution], num: int) -> list[tuple[Taught, tuple[Execution, ...]]]:
    """The skill of each draw of `num` videos, and these; None where they teach none. Fewer videos are the first of
    more."""
    out: list[tuple[Taught, tuple[Execution, ...]]] = []
    for draw in range(DRAWS):
        some = tuple(videos[draw * MOST : draw * MOST + num])
        try:
            out.append((learn(name, TASKS[name].words, some, RuleReader()).skills[0], some))
        except ConfigError:
            out.append((None, some))
    return out


def cells_of(names: Sequence[str]) -> list[Cell]:
    """All cells of these tasks."""
    return [
        (num, how, mode, name)
        for num in NUMBERS
        for how in HOWS
        for mode in (MODES if num == MOST else FEWER)
        for name in names
    ]


def _jobs(cell: Cell, skills: Sequence[tuple[Taught, tuple[Execution, ...]]], episodes: int) -> dict[Key, Job]:
    """The episodes of a cell that can be run, by the skills of its draws in turn."""
    _, how, mode, name = cell
    its_mode, rounds = MODES[mode]
    out: dict[Key, Job] = {}
    for number in range(episodes):
        skill, executions = skills[number % DRAWS]
        if skill is not None:
            job = Job(skill, TASKS[name].scene(how, number), number, its_mode, rounds, False, executions)
            if can_run(job):
                out[*cell, number] = job
    return out


def results_of(found: Mapping[Cell, Sequence[Episode | None]]) -> dict[str, Any]:
    """By number of videos, kind of scene and mode: scores over all tasks, and of each. found: whole cells."""
    out: dict[str, Any] = {}
    for (num, how, mode, name), episodes in found.items():
        cell = out.setdefault(str(num), {}).setdefault(how, {}).setdefault(mode, {"all": [], "by_task": {}})
        cell["all"] += episodes
        cell["by_task"][name] = scores_with_nothing(episodes)
    for by_how in out.values():
        for by_mode in by_how.values():
            for cell in by_mode.values():
                cell["all"] = scores_with_nothing(cell["all"])
    return out


def scores_with_nothing(episodes: Sequence[Episode | None]) -> dict[str, Any]:
    """The scores of episodes; None counts as `not_learned`."""
    whole = [one if one is not None else _nothing() for one in episodes]
    return {"episodes": len(whole), **scores_of(whole)}


def _nothing() -> Episode:
    return Episode(False, None, NOT_LEARNED, "", (), float("nan"), 0.0, NO_STATES)


def goals_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """With five videos: shares of seen and unseen scenes, and how much above each level alone, over both."""
    told = results.get("videos", {}).get(str(MOST), {})

    def share(how: str, mode: str) -> float | None:
        return told.get(how, {}).get(mode, {}).get("all", {}).get("success_rate")

    def above(mode: str) -> float | None:
        both = [(share(how, "hierarchical"), share(how, mode)) for how in HOWS]
        gains = [ours - other for ours, other in both if ours is not None and other is not None]
        return float(np.mean(gains)) if len(gains) == len(HOWS) else None

    return [
        goal("seen_success", share("seen", "hierarchical"), "share", 0.7),
        goal("unseen_success", share("unseen", "hierarchical"), "share", 0.6),
        *(goal(f"above_{mode}", above(mode), "share", 0.01) for mode in ("geometric", "semantic", "replay")),
    ]

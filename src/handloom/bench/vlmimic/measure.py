"""`handloom bench vlmimic`: how often skills succeed on a robot arm that 1, 3 or 5 scripted videos taught.

Five tasks, in scenes like those of the demonstrations (`seen`), and with other sizes, places and obstacles (`unseen`).
With five videos also by one level of the constraints alone, without a second try, and by replay of the most similar
video. Other videos teach each of `DRAWS` skills of a task; the scenes are the same for all modes and numbers. Goals are
the script's, not the skill's. A draw that teaches no skill counts as `not_learned`, for all its episodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handloom.bench.report import describe, goal
from handloom.bench.vlmimic.tasks import TASKS
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.machine import installed
from handloom.pipelines.sim.jobs import Jobs, Lost, Where, as_they_end, in_order
from handloom.pipelines.skills.episodes import NO_STATES, Job, scores_of, without_states
from handloom.sim.failures import WORKER_DIED
from handloom.sim.tabletop.draw import HOWS
from handloom.sim.tabletop.episodes import ROUNDS, Episode
from handloom.sim.tabletop.plans import Mode
from handloom.sim.world import require_simulator
from handloom.skills.execution import Execution
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
Cell = tuple[int, str, str, str]
"""Number of videos, kind of scene, mode, task."""


def bench_vlmimic(watch: Watch) -> dict[str, Any]:
    """Measure on all cores. Raises ModuleNotFoundError: the simulator or the arm's description is not installed."""
    require_simulator()
    names = list(TASKS)[:2] if watch.quick else list(TASKS)
    episodes = QUICK_EPISODES if watch.quick else EPISODES
    found: dict[Cell, list[Episode | None]] = {}
    waiting: Counter[Cell] = Counter()
    with watch.measuring():
        videos = _videos(names, watch)
        jobs: list[_Asked] = []
        for cell in _cells(names):
            skills = taught(cell[-1], videos[cell[-1]], cell[0])
            found[cell] = [None] * episodes
            for number in range(episodes):
                skill, executions = skills[number % DRAWS]
                if skill is not None:
                    jobs.append(_Asked(cell, number, skill, executions))
                    waiting[cell] += 1
        watch.expect(watch.num_done + len(jobs))
        watch.part("episodes")
        for at, episode in as_they_end(Jobs(_episode, _Asked.name, _lost), jobs, Where()):
            cell = jobs[at].cell
            found[cell][jobs[at].number] = episode
            waiting[cell] -= 1
            watch.did(f"{cell[3]}, {cell[2]}")
    results: dict[str, Any] = {
        "seed": SEED,
        "episodes": episodes,
        "draws": DRAWS,
        "tasks": {name: TASKS[name].words for name in names},
        "versions": {name: installed(name) for name in ("mujoco", "robosuite")},
    }
    whole = {cell: episodes for cell, episodes in found.items() if not waiting[cell]}
    if whole:
        results["videos"] = results_of(whole)
    return describe("vlmimic", results, goals_of(results), watch)


def _videos(names: Sequence[str], watch: Watch) -> dict[str, list[Execution]]:
    """The demonstrations of each task, in order."""
    watch.part("demonstrations")
    asked = [(name, number) for name in names for number in range(DRAWS * MOST)]
    out: dict[str, list[Execution]] = {name: [] for name in names}
    jobs = Jobs(demonstration, lambda one: f"demonstration {one[1]} of {one[0]}")
    for (name, _), execution in zip(asked, in_order(jobs, asked, len(asked), Where()), strict=True):
        out[name].append(execution)
        watch.did(name)
    return out


def demonstration(asked: tuple[str, int]) -> Execution:
    """A demonstration: of which task, and its number."""
    name, number = asked
    return TASKS[name].execution(SEED, number)


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


def _cells(names: Sequence[str]) -> list[Cell]:
    return [
        (num, how, mode, name)
        for num in NUMBERS
        for how in HOWS
        for mode in (MODES if num == MOST else FEWER)
        for name in names
    ]


@dataclass(frozen=True)
class _Asked:
    """One episode of a cell, by the skill of one draw."""

    cell: Cell
    number: int
    skill: Skill
    executions: tuple[Execution, ...]

    def name(self) -> str:
        num, how, mode, name = self.cell
        return f"{name}, {how}, {mode}, {num} videos, episode {self.number}"


def _episode(asked: _Asked) -> Episode | None:
    """One episode, without its states; None: nothing can be replayed, or the skill does not know the task's things."""
    _, how, mode, name = asked.cell
    scene = TASKS[name].scene("seen" if how == "seen" else "unseen", asked.number)
    its_mode, rounds = MODES[mode]
    try:
        return without_states(Job(asked.skill, scene, asked.number, its_mode, rounds, False, asked.executions))
    except ConfigError:
        return None


def _lost(asked: _Asked, lost: Lost) -> Episode:
    """The failure of an episode on which processes died."""
    return Episode(False, None, WORKER_DIED, lost.how, (), float("nan"), float("nan"), NO_STATES)


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

"""`handloom bench sim`: what experts, chance and replay achieve in the simulated tasks.

Experts do all fifty tasks; random actions and the replay of the most similar of 1, 5 and 25 demonstrations six of
them. So one sees which tasks have demonstrations to learn from, and what a policy must beat. Fifty scenes a task, the
same for all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.machine import installed
from handloom.pipelines.sim.evaluate import run_episodes
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.sim.record import record
from handloom.sim.rollouts import Outcome
from handloom.sim.scores import scores_of
from handloom.sim.tasks import MAX_STEPS, TEXTS, Task, find_task
from handloom.sim.world import require_simulator

TASKS = ("reach", "push", "pick-place", "drawer-open", "button-press", "door-open")
NUMBERS = (1, 5, 25)
EPISODES, QUICK_EPISODES = 50, 4
GOAL = 0.95


def bench_sim(watch: Watch) -> dict[str, Any]:
    """Measure on all cores. Raises ModuleNotFoundError: the simulator is not installed."""
    require_simulator()
    tasks = [find_task(name) for name in (TASKS[:2] if watch.quick else TASKS)]
    every = tasks if watch.quick else [find_task(name) for name in TEXTS]
    numbers = NUMBERS[:2] if watch.quick else NUMBERS
    num = QUICK_EPISODES if watch.quick else EPISODES
    results: dict[str, Any] = {
        "versions": {name: installed(name) for name in ("metaworld", "mujoco", "gymnasium")},
        "episodes": num,
        "max_steps": MAX_STEPS,
    }
    with watch.measuring(num * (len(every) + len(tasks) * (1 + len(numbers)))):
        results["expert"], results["random"], results["replay"] = {}, {}, {}
        _measure([(task, "expert") for task in every], num, watch, "experts", results["expert"])
        _measure([(task, "random") for task in tasks], num, watch, "random actions", results["random"])
        for number in numbers:
            with tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
                pairs = [(task, _recorded(task, number, Path(folder))) for task in tasks]
                results["replay"][str(number)] = {}
                text = f"replay of the most similar of {number}"
                _measure(pairs, num, watch, text, results["replay"][str(number)])
    return describe("sim", results, goals_of(results), watch)


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One for the expert of each of the six tasks."""
    found = results.get("expert", {})
    return [goal(f"expert of {name}", found.get(name, {}).get("success_rate"), "share", GOAL) for name in TASKS]


def _recorded(task: Task, number: int, folder: Path) -> str:
    """The policy that replays `number` demonstrations; those of fewer are the first of those of more."""
    out = folder / task.name
    record(task.name, str(out), number, workers=1)
    return f"replay:{out}"


def _measure(
    pairs: Sequence[tuple[Task, str]], num: int, watch: Watch, part: str, scores: dict[str, dict[str, Any]]
) -> None:
    """Put the scores of each task into `scores` as soon as its episodes are run, so that an interruption keeps them;
    without the list of failed episodes: their scenes follow from their numbers."""
    watch.part(part)
    outcomes: dict[str, list[Outcome]] = {task.name: [] for task, _ in pairs}
    for task, _, outcome in run_episodes(pairs, num, 1, MAX_STEPS, Where()):
        found = outcomes[task.name]
        found.append(outcome)
        if len(found) == num:
            score = scores_of({0: found})
            scores[task.name] = {key: score[key] for key in score if key not in ("by_seed", "failed")}
        watch.did(task.name)

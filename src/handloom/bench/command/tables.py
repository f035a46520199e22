"""What episodes look like, whether it is what was told, and tables of it over all seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.bench.loop.compare import difference
from handloom.bench.report import goal
from handloom.sim.scores import wilson

REACH, PUSH, PICK = "reach", "push", "pick-place"
NOT_ANY = "nothing of these"
WORDS, MOTION, UNDERSTOOD, NOTHING = "words", "motion", "understood", "none"
SEEN = "seen"
"""As `UNDERSTOOD`, and trained with such latents, too."""
NEAR_M, MOVED_M = 0.1, 0.04
"""How near the hand must come to the goal, and how far the puck must move or rise, to count."""
GOAL = 0.7


def done_of(hand_m: NDArray[np.floating], thing_m: NDArray[np.floating], goal_m: NDArray[np.floating]) -> str:
    """Which task an episode looks like, whatever it was told and whether or not it succeeded.

    `pick-place`: the puck rose; else `push`: it moved; else `reach`: the hand came near to the goal. Where the goal is
    low, a puck need not rise to be brought there: of the expert's pick-place a third look like pushing.

    Args:
        hand_m, thing_m: (T, 3) places. goal_m: (3,).
    """
    moved = thing_m - thing_m[0]
    if moved[:, 2].max() > MOVED_M:
        return PICK
    if np.linalg.norm(moved, axis=1).max() > MOVED_M:
        return PUSH
    near = np.linalg.norm(hand_m - goal_m, axis=1).min() <= NEAR_M
    return REACH if near else NOT_ANY


def follows(done: str, told: str) -> bool:
    """Whether what was done is what was told: to leave the puck and go to the goal, or to take the puck somewhere.
    Pushing and carrying count as the same (`done_of`)."""
    return done == told if told == REACH else done in (PUSH, PICK)


def told_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By what tells the tasks, over all seeds.

    `success`: by task, told the scene's own task: the share of Meta-World's successes, with Wilson's interval at 95 %
    and that of each seed. `done`: by the scene's task and the task that was told, what was done and how often.
    `followed`: the share of all episodes that `follow` what was told, with its interval; told by nothing, where nothing
    can be followed, the scene's own task. `own`, `other`: the same of episodes that were told the scene's own task, and
    of those that were told another. `errors_mm`: the mean over seeds.
    """
    found: dict[str, dict[str, Any]] = {}
    for told_by in _names(cells):
        ours = [cell for cell in cells if cell["told_by"] == told_by]
        episodes = [_judged(one) | {"seed": cell["seed"]} for cell in ours for one in cell["episodes"]]
        done: dict[str, dict[str, Counter[str]]] = {}
        for one in episodes:
            by_told = done.setdefault(one["scene"], {})
            by_told.setdefault(one["told"], Counter())[one["done"]] += 1
        own = [one for one in episodes if one["told"] == one["scene"]]
        other = [one for one in episodes if one["told"] != one["scene"]]
        success = {task: _share([one for one in own if one["scene"] == task], "success") for task in done}
        errors = [cell["errors_mm"] for cell in ours]
        mean = {
            scene: {told: float(np.mean([one[scene][told] for one in errors])) for told in by_told}
            for scene, by_told in errors[0].items()
        }
        found[told_by] = {"success": success, "done": done, "errors_mm": mean, "followed": _share(episodes, "followed")}
        found[told_by] |= {"own": _share(own, "followed")} | ({"other": _share(other, "followed")} if other else {})
    return found


def added_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By what tells the tasks, told the scene's own one: how much more often than told by nothing, in the same scenes
    with the same seeds, it was `followed` and it was a `success`, with an interval at 95 % (`difference`)."""
    found: dict[str, dict[str, Any]] = {}
    for told_by in _names(cells):
        for what in ("followed", "success"):
            ours, base = _own(cells, told_by, what), _own(cells, NOTHING, what)
            seeds = sorted(ours.keys() & base.keys())
            if told_by != NOTHING and seeds:
                added = [np.stack([ours[seed][task] - base[seed][task] for seed in seeds]) for task in ours[seeds[0]]]
                found.setdefault(told_by, {})[what] = difference(added)
    return found


def _own(cells: Sequence[Mapping[str, Any]], told_by: str, what: str) -> dict[int, dict[str, NDArray[np.float64]]]:
    """By seed and scene's task, told that task: (scenes,) 1 where it was `what`, else 0."""
    found: dict[int, dict[str, NDArray[np.float64]]] = {}
    for cell in cells:
        if cell["told_by"] == told_by:
            own = [_judged(one) for one in cell["episodes"] if one["told"] == one["scene"]]
            tasks = dict.fromkeys(one["scene"] for one in own)
            found[cell["seed"]] = {
                task: np.array([one[what] for one in own if one["scene"] == task], np.float64) for task in tasks
            }
    return found


def _judged(episode: Mapping[str, Any]) -> dict[str, Any]:
    return {**episode, "followed": follows(episode["done"], episode["told"])}


def _names(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(cell["told_by"] for cell in cells))


def _share(episodes: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    hits = sum(one[name] for one in episodes)
    by_seed: dict[str, list[bool]] = {}
    for one in episodes:
        by_seed.setdefault(str(one["seed"]), []).append(one[name])
    return {
        "rate": hits / len(episodes),
        "interval": list(wilson(hits, len(episodes))),
        "episodes": len(episodes),
        "by_seed": {seed: sum(some) / len(some) for seed, some in by_seed.items()},
    }


def goals_of(told: Mapping[str, Mapping[str, Any]], added: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of following clips, by hands and by images alone; and that a right clip is worth more than nothing."""
    rates = {name: told.get(name, {}).get("followed", {}).get("rate") for name in (MOTION, SEEN)}
    goals = [goal(f"does what the clip shows, {name}", rate, "share", GOAL) for name, rate in rates.items()]
    low = added[MOTION]["followed"]["interval"][0] if MOTION in added else None
    return [*goals, goal("the right clip adds to nothing, lower end", low, "share", 0.0)]

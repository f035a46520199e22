"""`handloom bench vlmimic_controls`: what skills of five scripted videos lose to other cameras, to perception, and
without failure reasoning.

The five tasks of `bench vlmimic` in unseen scenes, each time with one thing changed: where the videos were taken from,
how wrongly they were seen, how wrongly the robot sees the scene, and scenes in which the first attempt fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from handloom.bench.report import describe, goal
from handloom.bench.segments.exact import Viewpoint
from handloom.bench.vlmimic.finished import Key, can_run, kept_segments, measured_episodes
from handloom.bench.vlmimic.measure import MOST, SEED, Taught, scores_with_nothing
from handloom.bench.vlmimic.tasks import TASKS
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.pipelines.sim.jobs import Jobs, Where, as_they_end
from handloom.pipelines.skills.episodes import Job
from handloom.pipelines.skills.run import versions
from handloom.sim.tabletop.episodes import ROUNDS
from handloom.sim.tabletop.scene import Scene, Thing, box_distance
from handloom.sim.world import require_simulator
from handloom.skills.execution import read_execution
from handloom.skills.learn import learn
from handloom.skills.reader import RuleReader

DRAWS, EPISODES, QUICK_EPISODES = 2, 10, 1
PLACE_M, TURN_DEG = 0.018, 8.5
"""Median errors of held things in rendered clips (`handloom bench segments`)."""
MEDIAN_OF_THREE = 1.538
"""The median length of three normal numbers, of their standard deviation."""
SMOOTH, HEAVY = 0.12, 2000.0
"""Friction between fingers and thing, and kilograms in a cubic metre: things of a third of a litre and more slip."""
BLOCK_M = (0.04, 0.04, 0.14)


@dataclass(frozen=True)
class Change:
    """What is other than usual. viewpoint: degrees around the table (least, most), either side; worn: that is how far a
    head is turned. noise: times the errors of rendered clips. error_m: of the robot's eyes. family: `blocked` or
    `smooth`."""

    viewpoint: tuple[float, float] | None = None
    worn: bool = False
    noise: float = 0.0
    error_m: float = 0.0
    family: str = ""
    rounds: int = ROUNDS

    @property
    def videos(self) -> tuple[Any, ...]:
        return self.viewpoint, self.worn, self.noise


CHANGES: Mapping[str, Change] = {
    "usual": Change(),
    "cameras 45 to 135 degrees beside": Change((45.0, 135.0)),
    "cameras opposite": Change((150.0, 180.0)),
    "heads turned by up to 20 degrees": Change((0.0, 20.0), True),
    "videos seen as rendered ones are": Change(noise=1.0),
    "videos seen twice as wrongly": Change(noise=2.0),
    "places seen 0.5 cm off": Change(error_m=0.005),
    "places seen 1 cm off": Change(error_m=0.01),
    "places seen 2 cm off": Change(error_m=0.02),
    "blocked": Change(family="blocked"),
    "blocked, one try": Change(family="blocked", rounds=0),
    "smooth and heavy": Change(family="smooth"),
    "smooth and heavy, one try": Change(family="smooth", rounds=0),
}


def bench_vlmimic_controls(data: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure on all cores.

    data: a folder that keeps demonstrations and episodes as they end, for the next time; None: nothing is kept.

    Raises ModuleNotFoundError: the simulator or the arm's description is not installed.
    """
    require_simulator()
    names = list(TASKS)[:2] if watch.quick else list(TASKS)
    episodes = QUICK_EPISODES if watch.quick else EPISODES

    def jobs_of(folder: Path) -> dict[Key, Job]:
        skills = _skills(names, folder, watch)
        jobs: dict[Key, Job] = {}
        for label, one in CHANGES.items():
            for name in names:
                its = [skills[one.videos, name, draw] for draw in range(DRAWS)]
                jobs |= _jobs(label, name, its, episodes)
        return jobs

    ran = measured_episodes("vlmimic_controls", jobs_of, data, watch)
    whole = ran.finished({label: [(label, name, n) for name in names for n in range(episodes)] for label in CHANGES})
    results = {
        "seed": SEED,
        "episodes": episodes,
        "draws": DRAWS,
        "scenes": "unseen",
        "versions": versions(),
        "changes": {
            label: {
                "all": scores_with_nothing(of_all),
                "by_task": {
                    name: scores_with_nothing(of_all[at * episodes : (at + 1) * episodes])
                    for at, name in enumerate(names)
                },
            }
            for label, of_all in whole.items()
        },
    }
    return describe("vlmimic_controls", results, goals_of(results), watch)


def _skills(names: Sequence[str], folder: Path, watch: Watch) -> dict[Any, Taught]:
    """By how the videos are seen, task and draw."""
    watch.part("demonstrations")
    ways = {each.videos: each for each in CHANGES.values()}.values()
    asked = [_Shown(folder, one, name, draw) for one in ways for name in names for draw in range(DRAWS)]
    watch.expect(len(asked))
    out: dict[Any, Taught] = {}
    for at, skill in as_they_end(Jobs(taught_by, _Shown.name), asked, Where()):
        out[asked[at].change.videos, asked[at].task, asked[at].draw] = skill
        watch.did(asked[at].task)
    return out


def _jobs(label: str, name: str, skills: Sequence[Taught], episodes: int) -> dict[Key, Job]:
    """The episodes of a change and task that can be run, by the skills of the draws in turn."""
    change = CHANGES[label]
    out: dict[Key, Job] = {}
    for number in range(episodes):
        if (skill := skills[number % DRAWS]) is not None:
            scene = in_family(TASKS[name].scene("unseen", number), change.family)
            job = Job(skill, scene, number, "hierarchical", change.rounds, False, error_m=change.error_m)
            if can_run(job):
                out[label, name, number] = job
    return out


def goals_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cameras beside and opposite: as good as VLMimic's unseen scenes; and what failure reasoning adds."""

    def share(label: str) -> float | None:
        return results.get("changes", {}).get(label, {}).get("all", {}).get("success_rate")

    def gain(label: str) -> float | None:
        with_, without = share(label), share(f"{label}, one try")
        return None if with_ is None or without is None else with_ - without

    return [
        goal("cameras_beside", share("cameras 45 to 135 degrees beside"), "share", 0.6),
        goal("cameras_opposite", share("cameras opposite"), "share", 0.6),
        goal("gain_blocked", gain("blocked"), "share", 0.01),
        goal("gain_smooth", gain("smooth and heavy"), "share", 0.01),
    ]


@dataclass(frozen=True)
class _Shown:
    """Five videos of a task, seen as a change says, and the folder that keeps what was seen of them."""

    folder: Path
    change: Change
    task: str
    draw: int

    def name(self) -> str:
        return f"demonstrations of {self.task}, draw {self.draw}"


def taught_by(asked: _Shown) -> Taught:
    """The skill that five videos teach; None: none."""
    rng = np.random.default_rng([SEED, asked.draw, *asked.task.encode()])
    shown = []
    for number in range(asked.draw * MOST, (asked.draw + 1) * MOST):
        cells = _segments(asked, number, viewpoint_of(asked.change, rng))
        shown.append(read_execution(f"{number:03d}", disturbed(cells, asked.change.noise, rng)))
    try:
        return learn(asked.task, TASKS[asked.task].words, shown, RuleReader()).skills[0]
    except ConfigError:
        return None


def _segments(asked: _Shown, number: int, viewpoint: Viewpoint | None) -> list[dict[str, Any]]:
    """What is seen of a video from a viewpoint."""
    told = {"seed": SEED, "task": asked.task, "number": number}
    told |= {} if viewpoint is None else {"viewpoint": asdict(viewpoint)}
    turned = "" if viewpoint is None else f"-{'head' if viewpoint.is_worn else 'beside'}{viewpoint.turn_deg:+.1f}"
    name = f"{asked.task}-{number:03d}{turned}"
    return kept_segments(asked.folder, name, told, lambda: TASKS[asked.task].segments(SEED, number, viewpoint))


def viewpoint_of(change: Change, rng: np.random.Generator) -> Viewpoint | None:
    """Another one for each video."""
    if change.viewpoint is None:
        return None
    turn_deg = float(rng.uniform(*change.viewpoint) * rng.choice([-1, 1]))
    if change.worn:
        return Viewpoint(turn_deg, is_worn=True)
    return Viewpoint(turn_deg, float(rng.uniform(1.2, 1.6)), float(rng.uniform(0.0, 0.2)))


def disturbed(cells: Sequence[Mapping[str, Any]], noise: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Segments with poses of things and grasps that err by `noise` times the usual, smoothly over each segment."""
    place_m, turn = (noise * each / MEDIAN_OF_THREE for each in (PLACE_M, np.radians(TURN_DEG)))
    out = []
    for cell in cells:
        ends = rng.normal(size=(2, 6)) * [*[place_m] * 3, *[turn] * 3]
        path = np.array(cell["trajectory"] or [], float).reshape(-1, 4, 4)
        share = np.linspace(0.0, 1.0, len(path))[:, None]
        path = _moved(path, ends[0] + share * (ends[1] - ends[0]))
        one = {**cell, "trajectory": path.reshape(-1, 16).tolist()}
        if cell["grasp_pose"] is not None:
            grasp = np.array(cell["grasp_pose"], float).reshape(1, 4, 4)
            one["grasp_pose"] = _moved(grasp, ends[:1])[0].ravel().tolist()
        out.append(one if noise else dict(cell))
    return out


def _moved(poses: np.ndarray, by: np.ndarray) -> np.ndarray:
    out = poses.copy()
    out[:, :3, 3] += by[:, :3]
    out[:, :3, :3] = Rotation.from_rotvec(by[:, 3:]).as_matrix() @ poses[:, :3, :3] if len(poses) else out[:, :3, :3]
    return out


def in_family(scene: Scene, family: str) -> Scene:
    """`blocked`: tall blocks where a hand comes from, at the thing's right side and before it, as far as there is room.
    `smooth`: the thing that is taken last is smooth and heavy."""
    thing = scene.things[-1]
    if family == "smooth":
        changed = thing.model_copy(update={"grip_friction": SMOOTH, "density": HEAVY})
        return scene.model_copy(update={"things": (*scene.things[:-1], changed)})
    if family != "blocked":
        return scene
    (x, y), far = thing.place_m, 1.25 * (0.5 * max(thing.size_m[:2]) + 0.055)
    blocks = tuple(
        Thing(name=f"block_{number}", kind="box", size_m=BLOCK_M, place_m=(x + right * far, y + ahead * far))
        for number, (right, ahead) in enumerate(((1.0, 0.0), (0.0, -1.0), (0.7, -0.7)), 1)
    )
    others = scene.things[:-1]
    free = tuple(one for one in blocks if all(box_distance(one, other) > 0.02 for other in others))
    return scene.model_copy(update={"obstacles": free})

"""`handloom sim record`: demonstrations of a task by its scripted expert, as a LeRobot dataset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from handloom.errors import ConfigError, HandloomError
from handloom.export.card import Card, CardTally
from handloom.export.lerobot.dataset import Episode, LeRobotSummary, export_lerobot
from handloom.machine import installed
from handloom.pipelines.sim.jobs import Jobs, Lost, Where, in_order, world_of
from handloom.schemas.tables.robot import TABLE as ROBOT_EPISODES
from handloom.sim.demonstrations import Demonstration, Pictures, demonstrate, episode_of, layout_of
from handloom.sim.failures import WORKER_DIED
from handloom.sim.rendering import Camera, backend
from handloom.sim.tasks import Task, Use, find_task, scene_seed
from handloom.sim.world import HZ

SPARE = 10
"""Scenes beyond twice the wanted number in which the expert may fail."""
LICENCE = "mit"
READING = """`meta/info.json` describes the features. `observation.environment_state` has the things and the goal: leave
it out for a policy that sees pictures alone. `action` moves the hand's goal by up to 1 cm a step; `close` is the force
that closes the gripper. `meta/episodes` has the seed of each scene (`scene_seed`)."""
LIMITS = (
    "Episodes in which the expert failed are not among these; `index.json` counts them.",
    "`picture_valid`, where there are pictures, is false for a step that repeats the last picture.",
)


@dataclass(frozen=True)
class RecordSummary:
    """What `record` wrote. failures: reason of each scene in which the expert failed: how many; they are left out."""

    task: str
    num_episodes: int
    num_frames: int
    num_bytes: int
    num_scenes: int
    failures: dict[str, int]
    failed_scenes: list[dict[str, Any]]


@dataclass
class _Tally:
    num_scenes: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)

    def failures(self) -> dict[str, int]:
        reasons = [one["reason"] for one in self.failed]
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def record(
    task_name: str,
    out: str,
    num_episodes: int = 25,
    seed: int = 0,
    *,
    picture_hz: float = 0.0,
    camera: Camera | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RecordSummary:
    """Write `num_episodes` demonstrations into `out`, a folder or URI; the same seed gives the same values.

    Scenes come one after the other, and those in which the expert fails are counted and left out.

    Args:
        picture_hz: pictures a second, 0 to 80; 0: none. camera: which, and their size.
        workers: processes; None: one per core. ray_address: a Ray cluster that runs them instead. progress: called with
            episodes and frames written so far.

    Raises:
        ConfigError: an unknown task, a number out of range, pictures on a machine that draws none, or `out` is not
            empty.
        HandloomError: the expert failed in more than half of the scenes.
        ModuleNotFoundError: the simulator is not installed.
    """
    task, where = find_task(task_name), Where(workers, ray_address)
    if num_episodes < 1:
        raise ConfigError(f"--episodes {num_episodes}", "record at least one")
    pictures = _pictures(picture_hz, camera or Camera("corner4", 128, 128))
    layout = layout_of(world_of(task).environment_names, pictures)
    tally, card_tally = _Tally(), CardTally()
    scenes = (_Scene(task, scene_seed(task, Use.record, seed, number), pictures) for number in itertools.count())
    versions = {name: installed(name) for name in ("metaworld", "mujoco")}
    source = {"table": ROBOT_EPISODES, "task": task.name, "seed": seed, "versions": versions, "failures": tally.failed}
    card = Card("lerobot", f"Meta-World: {task.text}", READING, source, "data/*/*.parquet", LIMITS, ("LeRobot",))
    with closing(in_order(Jobs(_demonstrate, _Scene.name, _lost), scenes, num_episodes, where)) as found:
        episodes = _episodes(found, task, num_episodes, pictures, tally, card_tally)
        written: LeRobotSummary = export_lerobot(
            episodes,
            out,
            layout,
            card=lambda info: card.text(card_tally),
            metadata=source,
            overwrite=overwrite,
            progress=progress,
        )
    counts = (written.num_episodes, written.num_frames, written.num_bytes, tally.num_scenes)
    return RecordSummary(task.name, *counts, tally.failures(), tally.failed)


def _pictures(hz: float, camera: Camera) -> Pictures | None:
    if not 0.0 <= hz <= HZ:
        raise ConfigError(f"--picture-hz {hz:g}", f"0 (none) to {HZ:g}, the steps a second of the simulation")
    return Pictures(camera, max(1, round(HZ / hz)), backend()) if hz else None


@dataclass(frozen=True)
class _Scene:
    """What a process is to show the expert."""

    task: Task
    seed: int
    pictures: Pictures | None

    def name(self) -> str:
        return f"{self.task.name}, scene_seed {self.seed}"


def _demonstrate(scene: _Scene) -> Demonstration:
    return demonstrate(world_of(scene.task), scene.seed, scene.pictures)


def _lost(scene: _Scene, lost: Lost) -> Demonstration:
    """The failure of a scene on which processes died."""
    return Demonstration(scene.seed, WORKER_DIED, lost.how, 0, {}, None)


def _episodes(
    found: Iterator[Demonstration], task: Task, wanted: int, pictures: Pictures | None, tally: _Tally, card: CardTally
) -> Iterator[Episode]:
    """The first `wanted` demonstrations that succeed."""
    num = 0
    for one in found:
        tally.num_scenes += 1
        if one.failure:
            tally.failed.append({"scene_seed": one.scene_seed, "reason": one.failure, "detail": one.detail})
            if len(tally.failed) > wanted + SPARE:
                raise HandloomError(
                    f"the expert of {task.name} failed in {len(tally.failed)} of {tally.num_scenes} scenes",
                    "its demonstrations would show only the scenes that are easy for it; record another task",
                )
            continue
        episode = episode_of(one, task, pictures)
        card.add({
            "dataset": f"metaworld-{task.name}", "licence": LICENCE, "num_frames": episode.num_steps, "fps": HZ,
            "task": task.text,
        })  # fmt: skip
        yield episode
        num += 1
        if num == wanted:
            return

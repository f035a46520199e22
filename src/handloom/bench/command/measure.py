"""`handloom bench command`: does a policy do what a person shows in a clip, as well as what words say?

`reach`, `push` and `pick-place` have one scene: a puck and a goal. One ARM4R is trained on demonstrations of all three,
told where things are, and is told its task by words, by the motion in a clip of a person, or by nothing. In scenes
that no demonstration has it is told each task, also one that is not the scene's: what it then does shows what it
follows. The clips that tell it were held out of every training. The same network is also told by latents that
RoboMirror makes of these clips' images alone, and another one is trained with such latents. What clips can tell at
most is asked of a linear classifier of the same latents (`bench.command.probe`).
"""

from __future__ import annotations

import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.bench.command.probe import probe
from handloom.bench.command.tables import (
    MOTION,
    NOTHING,
    PICK,
    PUSH,
    REACH,
    SEEN,
    UNDERSTOOD,
    WORDS,
    added_of,
    done_of,
    goals_of,
    told_of,
)
from handloom.bench.kept import identity_of, init_of, kept, place_of, with_cpu_s
from handloom.bench.report import describe
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.machine import installed
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.sim.commands import FromClips, told_clips
from handloom.pipelines.sim.jobs import world_of
from handloom.pipelines.sim.record import record
from handloom.sim.demonstrations import STATE
from handloom.sim.policies import Expert, Policy
from handloom.sim.replay import ENVIRONMENT
from handloom.sim.rollouts import moves
from handloom.sim.tasks import Task, Use, find_task, scene_seed
from handloom.sim.world import Observation, require_simulator

if TYPE_CHECKING:
    from handloom.train.arm4r.settings import Arm4rSettings

CLIPS = {
    REACH: "verb = 'reach' AND (narration IS NULL OR narration NOT LIKE '%place%')",
    PUSH: "verb = 'push'",
    PICK: "verb = 'place'",
}
"""The clips that show a task; verbs as those of rendered clips (`handloom synth`) are. Who lifts and places what was
reached for shows more than reaching."""


@dataclass(frozen=True)
class Size:
    """What is measured. number: of demonstrations of each task. episodes: scenes of each task, told each task. every:
    one of so many windows of demonstrations that are not trained on counts."""

    number: int = 25
    seeds: int = 3
    steps: int = 1000
    episodes: int = 4
    max_steps: int = 150
    every: int = 8


QUICK = Size(2, 1, 10, 1, 30)


@dataclass(frozen=True)
class People:
    """Clips of people that tell tasks. db: where. clips: which they are (`identity_of`). motion, understand: the
    networks of RoboMirror, trained on them."""

    db: str
    clips: str
    motion: Path
    understand: Path


@dataclass(frozen=True)
class Cell:
    """One network that is trained, told in one way, in evaluation."""

    command: str
    told_by: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.told_by}-{self.seed}"


def bench_command(db: str | None, data: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure, one seed after the other.

    Args:
        db: a database with clips of people that show the tasks (`CLIPS`), with an intent, and which tells RoboMirror.
        data: a folder that keeps demonstrations, RoboMirror's networks, and finished cells; None: nothing is kept.
            `motion` and `understand` in it are the `--out` of runs of yours; without them they are trained here.

    Raises:
        ConfigError: there is no database, or it cannot be trained on; a run of yours has not ended.
        ModuleNotFoundError: the simulator or torch is not installed.
    """
    require_simulator()
    if db is None:
        raise ConfigError("benchmark 'command' needs clips of people", "give a database of rendered ones with --db")
    clips = identity_of(Database.open(db))
    size = QUICK if watch.quick else Size()
    results: dict[str, Any] = {"size": asdict(size), "clips": {}, "probes": {}}
    results |= {"versions": {name: installed(name) for name in ("metaworld", "mujoco", "torch")}}
    cells: list[dict[str, Any]] = []
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as scratch:
        folder = Path(scratch) if data is None else data
        finished = place_of(folder, watch.quick)
        asked = list(cells_of(size))
        watch.expect(len(asked) + 1)
        watch.part("experts")
        results["experts"] = _experts(size)
        watch.did()
        people = robomirror(db, clips, folder)
        for cell in asked:
            watch.part(cell.name)
            found = _kept(cell, size, people, finished)
            results["clips"] = found.get("clips") or results["clips"]
            if found.get("probe"):  # the same for all seeds
                results["probes"][cell.told_by] = found["probe"]
            apart = ("clips", "probe", "of")
            cells.append(asdict(cell) | {name: value for name, value in found.items() if name not in apart})
            watch.did()
    results |= {"told": told_of(cells), "added": added_of(cells), "cells": cells}
    return describe("command", results, goals_of(results["told"], results["added"]), watch)


def cells_of(size: Size) -> Iterator[Cell]:
    """All cells, one seed after the other; the network that is told by motion is asked twice. At last the networks that
    are trained with images."""
    for seed in range(size.seeds):
        yield from (Cell(WORDS, WORDS, seed), Cell(MOTION, MOTION, seed), Cell(MOTION, UNDERSTOOD, seed))
        yield Cell(NOTHING, NOTHING, seed)
    yield from (Cell(MOTION, SEEN, seed) for seed in range(size.seeds))


class _Told:
    """A policy that is told another task than the world's."""

    def __init__(self, policy: Policy, text: str) -> None:
        self._policy, self._text = policy, text

    def reset(self, task: str, seed: int) -> None:
        self._policy.reset(self._text, seed)

    def act(self, observation: Observation) -> NDArray[Any]:
        return self._policy.act(replace(observation, task=self._text))


def _episode(policy: Policy, scene: Task, told: Task, number: int, max_steps: int) -> dict[str, Any]:
    """One episode in a scene that no demonstration has, which goes on after a success."""
    seen = list(
        moves(world_of(scene), _Told(policy, told.text), scene_seed(scene, Use.evaluate, 0, number), number, max_steps)
    )
    hand = np.stack([one.before.state[:3] for one in seen])
    things = np.stack([one.before.environment for one in seen])
    done = done_of(hand, things[:, :3], things[0, -3:])
    success = any(one.success for one in seen)
    return {"scene": scene.name, "told": told.name, "number": number, "done": done, "success": success}


def _errors(cell: Cell, size: Size, settings: Arm4rSettings, policy: Any, clips: Any, folder: Path) -> dict[str, Any]:
    """By the task of demonstrations that were not trained on, and the task that is told: how far the predicted places
    of the hand are from the true ones in each axis, mm, the mean of 16 steps."""
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.parts.acting import alone
    from handloom.windows.loading.collate import collate

    windows = RECIPE.data(_demonstrations(size, folder, 1), settings.model_copy(update={"command": WORDS})).train
    every = [windows[number] for number in range(0, len(windows), size.every)]
    network = policy.predictor.network
    found: dict[str, Any] = {}
    for scene in map(find_task, CLIPS):
        own = [sample for sample in every if sample["text"] == scene.text]
        found[scene.name] = {}
        for told in [scene] if cell.told_by == NOTHING else map(find_task, CLIPS):
            latents = [{} if clips is None else {"command": clips.drawn(told.text, n)[1]} for n in range(len(own))]
            batch = collate([one | {"text": told.text} | more for one, more in zip(own, latents, strict=True)])
            targets = network.targets(batch)
            with alone():
                wrong = (network.predict(batch, targets) - targets.delta).abs()[..., :3]
            known = targets.known[..., :3]
            found[scene.name][told.name] = 1000 * float((wrong * known).sum() / known.sum())
    return found


def _experts(size: Size) -> dict[str, dict[str, int]]:
    """What the scripted experts do, by task: `done_of` must tell them apart."""
    found = {}
    for task in map(find_task, CLIPS):
        episodes = [_episode(Expert(task), task, task, number, size.max_steps) for number in range(size.episodes)]
        found[task.name] = dict(Counter(one["done"] for one in episodes))
    return found


def _kept(cell: Cell, size: Size, people: People, folder: Path) -> dict[str, Any]:
    """The numbers of a cell, from the folder if it was finished with these settings on these clips."""
    settings = _settings(cell, size, people)
    asked = {"settings": settings.settings_key(), "episodes_asked": size.episodes, "max_steps": size.max_steps}
    asked |= {"of": people.clips if cell.command == MOTION else None}
    place = folder / "cells" / f"{cell.name}.json"
    return kept(place, asked, lambda: with_cpu_s(lambda: _measured(cell, size, settings, people, folder)))


def _measured(cell: Cell, size: Size, settings: Arm4rSettings, people: People, folder: Path) -> dict[str, Any]:
    """Train a cell's network, unless the folder has it, and let it act."""
    from handloom.train.arm4r.data.commands import TRAIN, commands_of
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.loop import train

    name = f"{cell.command}-{cell.seed}-{settings.settings_key()}"
    out = Folder.parse(folder / "networks" / (f"{name}-{people.clips}" if cell.command == MOTION else name))
    made = train(RECIPE, _demonstrations(size, folder), settings, out)
    last = [line for line in made.history if line["kind"] == "step"][-1]
    command = made.data.facts.get("command", {}).get("clips", {})
    num_clips = {task: {split: len(one[split]) for split in ("train", "held_out")} for task, one in command.items()}
    policy, clips = _told_policy(cell, made.checkpoint, people)
    return {
        "steps": last["step"],
        "loss": last["loss"],
        "clips": num_clips,
        "probe": None if clips is None else probe(commands_of(policy.predictor.command, TRAIN).by_task, clips.by_task),
        "errors_mm": _errors(cell, size, settings, policy, clips, folder),
        "episodes": list(_episodes(cell, size, policy)),
    }


def _told_policy(cell: Cell, checkpoint: str, people: People) -> tuple[Any, Any]:
    """The policy, and the clips that tell it; None where none do."""
    from handloom.sim.recipes import Trained

    tasks = [find_task(name) for name in CLIPS]
    policy = Trained("arm4r", checkpoint, tasks[0])
    if cell.told_by != UNDERSTOOD:
        return policy, getattr(policy.predictor, "clips", None)
    clips = told_clips(f"arm4r:{checkpoint}", tasks, FromClips(motion=str(people.understand), db=people.db))
    policy.tell_by_clips(clips)
    return policy, clips


def _episodes(cell: Cell, size: Size, policy: Policy) -> Iterator[dict[str, Any]]:
    """In scenes of each task, told each task; told by nothing, each scene once."""
    tasks = [find_task(name) for name in CLIPS]
    for scene in tasks:
        for told in [scene] if cell.told_by == NOTHING else tasks:
            yield from (_episode(policy, scene, told, number, size.max_steps) for number in range(size.episodes))


def _settings(cell: Cell, size: Size, people: People) -> Arm4rSettings:
    """Of the training of a cell."""
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.arm4r.settings import Arm4rSettings
    from handloom.train.registry import settings_file

    values = tomllib.loads(settings_file(RECIPE, "small-sim").read_text())
    values |= {"held_out_share": 0.0, "batch_size": 16, "seed": cell.seed, "command": cell.command}
    values |= {"max_steps": size.steps, "epochs": size.steps, "warmup_epochs": 0.0, "keep_checkpoints": 1}
    values |= {"checkpoint_epochs": size.steps}
    if cell.command == MOTION:
        clips = {find_task(name).text: where for name, where in CLIPS.items()}
        network = people.understand if cell.told_by == SEEN else people.motion
        values |= {"command_clips": clips, "command_motion": str(network), "command_db": people.db}
        values |= {"command_version": Database.open(people.db).version}
    return Arm4rSettings(**values)


def _demonstrations(size: Size, folder: Path, seed: int = 0) -> Database:
    """The demonstrations of all tasks, in one database. seed: 0 of those that are trained on, others of fewer."""
    number = max(2, size.number // (1 if seed == 0 else 4))
    place = folder / f"demonstrations-{number}-{seed}"
    if not (place / "db" / "done").exists():
        db = Database.open(place / "db", create=True)
        for name in CLIPS:
            record(name, str(place / name), number, seed, workers=1, overwrite=True)
            lerobot(db, str(place / name), dataset=name, state=(STATE, ENVIRONMENT))
        (place / "db" / "done").touch()
    return Database.open(place / "db")


def robomirror(db: str, clips: str, folder: Path) -> People:
    """Both stages of RoboMirror: your runs in `folder`, or trained here on these clips, from where they were killed.

    Raises ConfigError where a run of yours has no checkpoint, or has not ended.
    """
    from handloom.train.checkpoint import find_start
    from handloom.train.loop import train
    from handloom.train.registry import settings_file
    from handloom.train.robomirror.recipe import RECIPE
    from handloom.train.robomirror.settings import RobomirrorSettings

    places: dict[str, Path] = {}
    for stage, size in (("motion", "small"), ("understand", "small-understand")):
        if (yours := folder / stage).exists():
            if not find_start(str(yours), {}, RECIPE.name)[0].finished:
                hint = "go on with it (`handloom train robomirror`), or remove it: it is trained here"
                raise ConfigError(f"{yours} has a training that has not ended", hint)
            places[stage] = yours
            continue
        places[stage] = folder / f"{stage}-{clips}"
        values = tomllib.loads(settings_file(RECIPE, size).read_text())
        if stage == "understand":
            values["init"] = init_of(places[stage], places["motion"])
        train(RECIPE, Database.open(db), RobomirrorSettings(**values), Folder.parse(places[stage]))
    return People(db, clips, **places)

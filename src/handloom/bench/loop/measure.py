"""`handloom bench loop`: how often ARM4R does tasks, by the number of demonstrations, from scratch and pre-trained.

Each cell is a task, a number of demonstrations, a variant and a seed. The seed chooses the demonstrations, of which
fewer are the first of more, and what training draws at random. All cells of a task are evaluated in the same scenes.
The network is told where things are (`things`), so that no pictures are needed. With a database of human clips,
`pre-trained` begins with the weights of a stage 1 on them; both variants have the same demonstrations, order of windows
and steps.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handloom.api import Database
from handloom.bench.kept import kept
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.io.folder import Folder
from handloom.machine import installed
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.sim.evaluate import run_episodes
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.sim.record import record
from handloom.sim.demonstrations import STATE
from handloom.sim.replay import ENVIRONMENT
from handloom.sim.scores import scores_of, wilson
from handloom.sim.tasks import find_task
from handloom.sim.world import require_simulator

if TYPE_CHECKING:
    from handloom.train.arm4r.settings import Arm4rSettings

SCRATCH, PRE_TRAINED = "scratch", "pre-trained"
GOAL = 0.7
CELLS = "cells.json"


@dataclass(frozen=True)
class Size:
    """What is measured. numbers: of demonstrations. steps, human_steps: of training and of stage 1.

    640 steps of 16 windows: after 300 the network did `reach` in 8 of 30 scenes from 25 demonstrations.
    """

    tasks: tuple[str, ...] = ("reach", "drawer-open")
    numbers: tuple[int, ...] = (25, 5, 1)
    seeds: int = 3
    steps: int = 640
    human_steps: int = 300
    episodes: int = 30
    max_steps: int = 200


QUICK = Size(("reach",), (5, 1), 1, 20, 10, 4, 100)


@dataclass(frozen=True)
class Cell:
    """One policy that is trained and evaluated."""

    task: str
    number: int
    seed: int
    variant: str

    @property
    def name(self) -> str:
        return f"{self.task}-{self.number}-{self.variant}-{self.seed}"


def bench_loop(human: str | None, data: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure, one seed after the other.

    Args:
        human: a database with clips of people; None: from scratch alone.
        data: a folder that keeps finished cells, demonstrations and checkpoints for the next time; None: nothing is
            kept.

    Raises:
        ConfigError: the human clips cannot be trained on.
        ModuleNotFoundError: the simulator or torch is not installed.
    """
    require_simulator()
    size = QUICK if watch.quick else Size()
    results: dict[str, Any] = {"size": asdict(size), "human_clips": human is not None}
    results |= {"versions": {name: installed(name) for name in ("metaworld", "mujoco", "torch")}}
    cells: dict[str, dict[str, Any]] = {}
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as scratch:
        folder = Path(scratch) if data is None else data
        folder.mkdir(parents=True, exist_ok=True)
        asked = list(cells_of(size, human is not None))
        watch.expect(len(asked))
        for cell in asked:
            watch.part(cell.name)
            cells[cell.name] = asdict(cell) | _kept(cell, size, human, folder)
            watch.did()
    results["cells"] = list(cells.values())
    results["curves"] = curves_of(list(cells.values()))
    return describe("loop", results, goals_of(results["curves"], size), watch)


def cells_of(size: Size, has_human: bool) -> Iterator[Cell]:
    """All cells, one seed after the other."""
    variants = (SCRATCH, PRE_TRAINED) if has_human else (SCRATCH,)
    for seed in range(size.seeds):
        for number in size.numbers:
            yield from (Cell(task, number, seed, variant) for task in size.tasks for variant in variants)


def curves_of(cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By task, variant and number of demonstrations: the success rate over all seeds with its interval at 95 %, and
    that of each seed."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in cells:
        by_number = found.setdefault(cell["task"], {}).setdefault(cell["variant"], {})
        one = by_number.setdefault(str(cell["number"]), {"episodes": 0, "successes": 0, "by_seed": {}})
        one["episodes"] += cell["episodes"]
        one["successes"] += cell["successes"]
        one["by_seed"][str(cell["seed"])] = cell["successes"] / cell["episodes"]
        one["success_rate"] = one["successes"] / one["episodes"]
        one["interval"] = list(wilson(one["successes"], one["episodes"]))
    return found


def goals_of(curves: dict[str, Any], size: Size) -> list[dict[str, Any]]:
    """From scratch, of the most demonstrations, on each task."""
    most = str(max(size.numbers))
    rates = {task: curves.get(task, {}).get(SCRATCH, {}).get(most, {}).get("success_rate") for task in size.tasks}
    return [goal(f"{task} from {most} demonstrations", rate, "share", GOAL) for task, rate in rates.items()]


def _kept(cell: Cell, size: Size, human: str | None, folder: Path) -> dict[str, Any]:
    """The numbers of a cell, from `CELLS` if it was finished with these settings."""
    settings = _settings(cell, size, human, folder)
    asked: dict[str, Any] = {"settings": settings.settings_key(), "episodes": size.episodes}
    asked |= {"max_steps": size.max_steps, "human": human if settings.init else None}
    return kept(folder / CELLS, cell.name, asked, lambda: _measured(cell, size, settings, folder))


def _settings(cell: Cell, size: Size, human: str | None, folder: Path) -> Arm4rSettings:
    """Of the training of a cell; stage 1 is trained for it where it is needed."""
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.arm4r.settings import Arm4rSettings
    from handloom.train.registry import settings_file

    values = tomllib.loads(settings_file(RECIPE, "small-sim").read_text())
    values |= {"held_out_share": 0.0, "batch_size": 16, "seed": cell.seed}
    values |= {"max_steps": size.steps, "epochs": size.steps, "warmup_epochs": 0.0}
    values |= {"where": f"episode_index < {cell.number}", "keep_checkpoints": 1}
    if cell.variant == PRE_TRAINED and human is not None:
        values["init"] = _stage_1(cell.seed, size, human, folder)
    return Arm4rSettings(**values)


def _stage_1(seed: int, size: Size, human: str, folder: Path) -> str:
    """The checkpoint of a stage 1 on human clips; one that is finished is not trained again."""
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.arm4r.settings import Arm4rSettings
    from handloom.train.loop import train
    from handloom.train.registry import settings_file

    values = tomllib.loads(settings_file(RECIPE, "small").read_text())
    values |= {"context": 8, "batch_size": 16, "seed": seed, "max_steps": size.human_steps, "epochs": size.human_steps}
    db = Database.open(human)
    out = Folder.parse(folder / f"human-{seed}-{size.human_steps}-version-{db.version}")
    return train(RECIPE, db, Arm4rSettings(**values, version=db.version), out).checkpoint


def _measured(cell: Cell, size: Size, settings: Arm4rSettings, folder: Path) -> dict[str, Any]:
    """Train and evaluate one cell."""
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.loop import train

    with tempfile.TemporaryDirectory(prefix="handloom-bench-") as place:
        out = Folder.parse(Path(place))
        made = train(RECIPE, _demonstrations(cell, size, folder), settings, out)
        steps = [line for line in made.history if line["kind"] == "step"]
        pair = (find_task(cell.task), f"arm4r:{made.checkpoint}")
        run = run_episodes([pair], size.episodes, 1, size.max_steps, Where(1))
        outcomes = [outcome for _, _, outcome in run]
    score = scores_of({0: outcomes})
    kept = ("successes", "success_rate", "interval", "steps_to_success", "failures")
    return {name: score[name] for name in kept} | {"steps": steps[-1]["step"], "loss": steps[-1]["loss"]}


def _demonstrations(cell: Cell, size: Size, folder: Path) -> Database:
    """The demonstrations of a task and seed, as many as the largest cell needs."""
    place = folder / f"demonstrations-{cell.task}-{cell.seed}-{max(size.numbers)}"
    if not (place / "db" / "done").exists():
        record(cell.task, str(place / "dataset"), max(size.numbers), cell.seed, workers=1, overwrite=True)
        db = Database.open(place / "db", create=True)
        lerobot(db, str(place / "dataset"), dataset=cell.task, state=(STATE, ENVIRONMENT))
        (place / "db" / "done").touch()
    return Database.open(place / "db")

"""`handloom bench arvrm`: what each part of AR-VRM is worth in the closed loop, by the number of demonstrations.

Each cell is a task, a number of demonstrations, a variant and a seed. The seed chooses the demonstrations, of which
fewer are the first of more, and what training draws at random. All cells of a task are evaluated in the same scenes,
told where things are (`things`). A variant is the whole of AR-VRM with one part taken away, or a control
(`VARIANTS`).
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from handloom.api import Database
from handloom.bench.kept import identity_of, kept, with_cpu_s
from handloom.bench.loop.compare import ALL, curves_of, differences_of
from handloom.bench.loop.measure import CELLS, SCRATCH, Cell, measured_cells, versions
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.sim.evaluate import run_episodes
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.sim.record import record
from handloom.sim.demonstrations import STATE
from handloom.sim.replay import ENVIRONMENT
from handloom.sim.scores import scores_of
from handloom.sim.tasks import find_task
from handloom.sim.world import require_simulator

WHOLE = "whole"
VARIANTS: dict[str, dict[str, Any]] = {
    WHOLE: {"retrieval": True, "init": True},
    "no-pretraining": {"retrieval": True},
    "random-clips": {"retrieval": True, "init": True, "retrieve": "random"},
    "no-map": {"retrieval": True, "init": True, "beta": 0.0},
    "pretraining-alone": {"init": True},
    SCRATCH: {},
    "no-hands": {"retrieval": True, "alpha": 1.0, "replay": 0.0},
    "goals": {"init": True, "goal_s": 1.0},
    "goals-scratch": {"goal_s": 1.0},
}
"""By name: its settings of stage 2. `init`: begin with the weights of a stage 1 on the hands of the clips.

The whole has pre-training, retrieval and the map; each is taken away. Without the map (`beta` 0) retrieved clips are
replayed alone. `no-hands` is a control: the map's loss without a hand in it (`alpha` 1), so that the last state is
predicted from the robot's own features. `goals` tells stage 1 where hands go (`goal_s`), and each place of things has
a token, as in `goals-scratch`.
"""
STAGE_1: tuple[str, ...]
STAGE_1 = ("dim", "layers", "heads", "latents", "resampler_depth", "resampler_heads", "resampler_head_dim")
STAGE_1 += ("keypoint_dim", "keypoint_layers", "rate_hz", "phases", "steps", "residual", "standardise", "motion")
STAGE_1 += ("image_encoder", "text_encoder", "batch_size")
"""What stage 1 takes from the file of stage 2."""


@dataclass(frozen=True)
class Size:
    """What is measured.

    numbers: of demonstrations: with `parts_at` of them all variants, else the whole and scratch. steps: of stage 2.
    human_steps: of stage 1, once for each seed.
    """

    tasks: tuple[str, ...] = ("reach", "drawer-open")
    numbers: tuple[int, ...] = (5, 25, 1)
    parts_at: int = 5
    seeds: int = 3
    steps: int = 400
    human_steps: int = 400
    topk: int = 5
    beta: float = 0.1
    episodes: int = 30
    max_steps: int = 150


WHICH_CELLS = ("tasks", "numbers", "parts_at", "seeds")
"""What of a size does not change a cell."""
QUICK = Size(("reach",), (2, 1), 2, 1, 10, 5, 2, 0.1, 2, 60)


def bench_arvrm(
    human: str | None, data: Path | None, watch: Watch, variants: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measure, one seed after the other.

    Args:
        human: a database on this machine with clips in which hands were found.
        data: a folder that keeps finished cells, demonstrations and checkpoints for the next time; None: nothing is
            kept.
        variants: some of `VARIANTS`; None: all.

    Raises:
        ConfigError: an unknown variant; no human clips were given, or they cannot be trained on.
        ModuleNotFoundError: the simulator or torch is not installed.
    """
    require_simulator()
    if human is None or not Path(human).is_dir():
        raise ConfigError(f"clips of people are needed, and --db is {human}", "give a folder: --db my-db")
    unknown = [name for name in variants or () if name not in VARIANTS]
    if unknown:
        raise ConfigError(f"there is no variant {unknown[0]!r}", f"some of: {', '.join(VARIANTS)}")
    clips = identity_of(Database.open(human))
    size, chosen = QUICK if watch.quick else Size(), variants or tuple(VARIANTS)
    results: dict[str, Any] = {"size": asdict(size), "variants": {name: VARIANTS[name] for name in chosen}}
    results |= {"versions": versions()}

    def measure(cell: Cell, folder: Path) -> dict[str, Any]:
        return measured(cell, size, human, clips, folder)

    def asked(folder: Path) -> list[Cell]:
        """Finished ones first: a report of an interrupted run has them all."""
        return sorted(cells_of(size, chosen), key=lambda cell: not _place(folder, cell).exists())

    cells = measured_cells(asked, measure, data, watch)
    looks = len(size.tasks) * len(size.numbers)
    results |= {"cells": cells, "curves": curves_of(cells), "differences": differences_of(cells, SCRATCH, looks)}
    results["taken_away"] = differences_of(cells, WHOLE, looks)
    return describe("arvrm", results, goals_of(results["differences"], size.parts_at), watch)


def cells_of(size: Size, variants: Sequence[str]) -> Iterator[Cell]:
    """All cells, one seed after the other."""
    for seed in range(size.seeds):
        for number in size.numbers:
            some = [name for name in variants if number == size.parts_at or name in (WHOLE, SCRATCH)]
            yield from (Cell(task, number, seed, variant) for task in size.tasks for variant in some)


def goals_of(differences: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """That the whole is better than from scratch, over all tasks together, with `number` demonstrations: one interval,
    chosen before. Those of single tasks and other numbers, in the report beside it, are many looks at chance."""
    found = differences.get(WHOLE, {}).get(ALL, {}).get(str(number))
    low = None if found is None else found["interval"][0]
    return [goal(f"the whole adds to scratch, all tasks, {number} demonstrations, lower end", low, "share", 0.0)]


def measured(cell: Cell, size: Size, human: str, clips: str, folder: Path) -> dict[str, Any]:
    """The numbers of a cell; those that were kept, if it was finished with the same settings on the same clips."""
    numbers = {name: value for name, value in asdict(size).items() if name not in WHICH_CELLS}
    asked: dict[str, Any] = {"size": numbers, "settings": VARIANTS[cell.variant], "of": clips}
    asked |= {"file": settings_of("small-sim")}
    found = kept(_place(folder, cell), asked, lambda: with_cpu_s(lambda: _trained(cell, size, human, clips, folder)))
    return {name: value for name, value in found.items() if name not in asked}


def _place(folder: Path, cell: Cell) -> Path:
    return folder / CELLS / f"{cell.name}.json"


def settings_of(name: str) -> dict[str, Any]:
    """The settings file of this name."""
    from handloom.train.arvrm.recipe import RECIPE
    from handloom.train.registry import settings_file

    return tomllib.loads(settings_file(RECIPE, name).read_text())


def _steps(seed: int, steps: int) -> dict[str, Any]:
    values = {"seed": seed, "max_steps": steps, "epochs": steps, "warmup_epochs": 0.0}
    return values | {"keep_checkpoints": 1, "checkpoint_epochs": steps}


def _trained(cell: Cell, size: Size, human: str, clips: str, folder: Path) -> dict[str, Any]:
    """Train and evaluate one cell."""
    from handloom.train.arvrm.recipe import RECIPE
    from handloom.train.arvrm.settings import ArvrmSettings
    from handloom.train.loop import train

    folder = folder / f"clips-{clips}"
    db = copy_of(cell, size, human, clips, folder)
    values = settings_of("small-sim") | _steps(cell.seed, size.steps) | {"topk": size.topk, "beta": size.beta}
    values |= {"held_out_share": 0.0, "where": f"dataset = '{_name(cell)}' AND episode_index < {cell.number}"}
    values |= VARIANTS[cell.variant]
    values["init"] = _stage_1(db, cell, size, folder) if values.get("init") else ""
    with tempfile.TemporaryDirectory(prefix="handloom-bench-") as place:
        made = train(RECIPE, db, ArvrmSettings(**values), Folder.parse(Path(place)))
        last = [line for line in made.history if line["kind"] == "step"][-1]
        pair = (find_task(cell.task), f"arvrm:{made.checkpoint}")
        run = run_episodes([pair], size.episodes, 1, size.max_steps, Where(1))
        outcomes = [outcome for _, _, outcome in run]
    score = scores_of({0: outcomes})
    names = ("successes", "success_rate", "interval", "steps_to_success", "failures")
    numbers = {name: score[name] for name in names} | {"episodes": size.episodes}
    numbers |= {"steps": last["step"], "loss": last["loss"]}
    return numbers | {"by_scene": "".join("1" if one.success else "0" for one in outcomes)}


def stage_1_of(variant: str) -> dict[str, Any]:
    """The settings of the stage 1 whose weights a variant can begin with."""
    fine = settings_of("small-sim")
    goal_s = VARIANTS[variant].get("goal_s", 0.0)
    return settings_of("small") | {name: fine[name] for name in STAGE_1} | {"goal_s": goal_s}


def _stage_1(db: Database, cell: Cell, size: Size, folder: Path) -> str:
    """The checkpoint of a stage 1 on the human clips; one that is finished is not trained again."""
    from handloom.train.arvrm.recipe import RECIPE
    from handloom.train.arvrm.settings import ArvrmSettings
    from handloom.train.loop import train

    values = stage_1_of(cell.variant) | _steps(cell.seed, size.human_steps) | {"version": db.version}
    out = folder / f"hands-{cell.seed}-{size.human_steps}-goal-{values['goal_s']:g}-version-{db.version}"
    return train(RECIPE, db, ArvrmSettings(**values), Folder.parse(out)).checkpoint


def _name(cell: Cell) -> str:
    """Of the dataset of a task and seed."""
    return f"{cell.task}-{cell.seed}"


def copy_of(cell: Cell, size: Size, human: str, clips: str, folder: Path) -> Database:
    """A copy of the human clips, with the demonstrations of a task and seed, as many as the largest cell needs.

    Stage 2 reads both tables of one database, and `human` shall stay as it is. folder: of these clips alone.

    Raises ConfigError where `human` has changed since `clips` was read.
    """
    place, number = folder / "db", max(size.numbers)
    done = folder / f"{_name(cell)}-{number}.done"
    if not done.exists():
        if not (folder / "copied").exists():
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(human, place)
            if identity_of(Database.open(place)) != clips:
                problem = f"the clips of {human} have changed since the benchmark began"
                raise ConfigError(problem, "wait until `handloom run` has ended, and start it again")
            (folder / "copied").touch()
        dataset = folder / "demonstrations" / _name(cell)
        record(cell.task, str(dataset), number, cell.seed, workers=1, overwrite=True)
        lerobot(Database.open(place), str(dataset), dataset=_name(cell), state=(STATE, ENVIRONMENT))
        done.touch()
    return Database.open(place)

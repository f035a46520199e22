"""`handloom bench loop`: what human video is worth to ARM4R in the closed loop, by the number of demonstrations.

Each cell is a task, a number of demonstrations, a variant and a seed. The seed chooses the demonstrations, of which
fewer are the first of more, and what training draws at random. All cells of a task are evaluated in the same scenes.
The network is told where things are (`things`), so that no pictures are needed.

Variants differ in the weights that they begin with; demonstrations, order of windows, steps and settings are the same,
and the settings are those of `small-people.toml` and of the task (`REACHING`, `TOUCHING`): `scratch`; `people`,
`truth`, `shuffled` and `scripted`, trained on what people do with things (`bench.loop.people` says how these differ),
of which the first three also act without any demonstration (number 0). `longer` is `scratch` for as many steps as both
trainings together; `plain` is `scratch` with samples that are turned about the vertical alone (`small-sim.toml`).
`scratch-quarter` and `people-quarter` are trained on demonstrations for a quarter of the steps. One training on people
is shared by the numbers of demonstrations, and by tasks with the same settings. What the paper trains on first, point
tracks, is in `bench.loop.stages`.

One comparison is confirmatory: what `people` adds to `scratch` with `few` demonstrations, the mean over the tasks. All
others explore; the intervals of single tasks and numbers are widened for how many there are (Bonferroni). Two explore
where `few` demonstrations are enough from scratch, so that the first can tell little: `people` beside `scratch` with
`more` demonstrations of `push`, and `people-quarter` beside `scratch-quarter`.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handloom.api import Database
from handloom.bench.kept import identity_of, kept, place_of, with_cpu_s
from handloom.bench.loop.compare import ALL, curves_of, differences_of
from handloom.bench.loop.people import PEOPLE, SCRIPTED, SHUFFLED, TRUTH, database_of
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.export.lerobot.interactions import CARRY, REACH
from handloom.io.folder import Folder
from handloom.machine import installed
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.sim.evaluate import run_episodes
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.sim.record import record
from handloom.plural import plural
from handloom.sim.demonstrations import STATE
from handloom.sim.replay import ENVIRONMENT
from handloom.sim.scores import scores_of
from handloom.sim.tasks import find_task
from handloom.sim.world import require_simulator

if TYPE_CHECKING:
    from handloom.train.arm4r.settings import Arm4rSettings

SCRATCH, LONGER, PLAIN = "scratch", "longer", "plain"
SCRATCH_QUARTER, PEOPLE_QUARTER = "scratch-quarter", "people-quarter"
QUARTERS = {SCRATCH_QUARTER: SCRATCH, PEOPLE_QUARTER: PEOPLE}
"""As these, with a quarter of the steps on demonstrations, of which there are `few`."""
VARIANTS = (SCRATCH, PEOPLE, TRUTH, SHUFFLED, LONGER, PLAIN, SCRIPTED, *QUARTERS)
OF_PEOPLE = (PEOPLE, SHUFFLED, TRUTH, SCRIPTED)
WITHOUT = (PEOPLE, TRUTH, SHUFFLED)
"""They also act without any demonstration."""
BESIDE = {LONGER: 3, PLAIN: 3, SCRIPTED: 3}
"""Measured on the first task with `few` demonstrations alone: how many seeds."""
REACHING: dict[str, Any] = {"things_hidden": ("object0",)}
"""Of `reach`: the puck lies about and does not matter. Of people it gets the ways to things alone, not those with
things: who carries something goes first to where it lies, and that is hidden."""
TOUCHING: dict[str, Any] = {"turned": True, "scaled": 1.0}
"""Of tasks in which a thing is touched: samples are turned about the vertical alone, as it is touched from above, and
not scaled, as fingers stay as long as they are."""
NEED_CLIPS = (PEOPLE, SHUFFLED, TRUTH, PEOPLE_QUARTER)
BASES = {SCRATCH: PEOPLE, LONGER: PEOPLE, SHUFFLED: PEOPLE, SCRATCH_QUARTER: PEOPLE_QUARTER}
"""What others are compared with, and which of those tells how many tasks and numbers are looked at."""
CELLS = "cells"


@dataclass(frozen=True)
class LoopSize:
    """What is measured. seeds: of each task. few: demonstrations in the confirmatory comparison. steps: of training on
    demonstrations, of 16 windows each. episodes, max_steps: of the evaluation. demonstrations: recorded for each task
    and seed."""

    seeds: Mapping[str, int] = field(default_factory=lambda: {"reach": 5, "push": 3, "drawer-open": 3})
    few: int = 1
    steps: int = 400
    episodes: int = 30
    max_steps: int = 150
    demonstrations: int = 5


@dataclass(frozen=True)
class Size(LoopSize):
    """numbers: of demonstrations. more: other numbers, of single tasks. quarters: tasks of `QUARTERS`. before_steps: of
    the training on people."""

    numbers: tuple[int, ...] = (1, 0)
    more: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"reach": (5,), "push": (5,)})
    quarters: tuple[str, ...] = ("reach", "drawer-open")
    before_steps: int = 1500


QUICK_LOOP: dict[str, Any] = {"steps": 20, "episodes": 4, "max_steps": 100, "demonstrations": 2}
QUICK = Size({"reach": 1}, **QUICK_LOOP, numbers=(0, 1), more={}, before_steps=10)


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


def bench_loop(
    human: str | None, data: Path | None, watch: Watch, variants: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measure, one seed after the other.

    Args:
        human: a database with clips of people; None: `scratch` and `scripted` alone.
        data: a folder that keeps finished cells, demonstrations and checkpoints for the next time, of which several
            runs may share one; None: nothing is kept.
        variants: some of `VARIANTS`; None: those for which there are clips.

    Raises:
        ConfigError: an unknown variant; no clips of people, or they cannot be trained on, or have no truth.
        ModuleNotFoundError: the simulator or torch is not installed.
    """
    size = QUICK if watch.quick else Size()
    chosen, clips, results = begun(size, variants, VARIANTS, NEED_CLIPS, human)

    def measure(cell: Cell, folder: Path) -> dict[str, Any]:
        return _kept(cell, size, human, clips, folder)

    cells = measured_cells(list(cells_of(size, chosen)), measure, data, watch)
    results |= {"cells": cells, "curves": curves_of(cells), "differences": compared(cells)}
    return describe("loop", results, goals_of(results["differences"], size.few), watch)


def begun(
    size: LoopSize,
    variants: Sequence[str] | None,
    known: Sequence[str],
    need_clips: Sequence[str],
    human: str | None,
) -> tuple[tuple[str, ...], str | None, dict[str, Any]]:
    """The variants that are measured (see `checked`), which clips of people they see, and the report's beginning.

    Raises ConfigError as `checked` does, and ModuleNotFoundError where the simulator is not installed.
    """
    require_simulator()
    chosen = checked(variants, known, need_clips, human)
    results: dict[str, Any] = {"size": asdict(size), "clips": clips_of(human), "versions": versions()}
    return chosen, None if human is None else identity_of(Database.open(human)), results


def versions() -> dict[str, str | None]:
    """Of what decides the numbers."""
    return {name: installed(name) for name in ("metaworld", "mujoco", "torch")}


def measured_cells(
    asked: Sequence[Cell] | Callable[[Path], Sequence[Cell]],
    measure: Callable[[Cell, Path], dict[str, Any]],
    data: Path | None,
    watch: Watch,
) -> list[dict[str, Any]]:
    """The cells with their numbers, one after the other; of an interrupted benchmark those before.

    asked: the cells, or what orders them. It and `measure` are given the folder of `data` that keeps finished ones
    (`place_of`).
    """
    cells: list[dict[str, Any]] = []
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as scratch:
        folder = place_of(Path(scratch) if data is None else data, watch.quick)
        asked = asked(folder) if callable(asked) else asked
        watch.expect(len(asked))
        for cell in asked:
            watch.part(cell.name)
            cells.append(asdict(cell) | measure(cell, folder))
            watch.did()
    return cells


def checked(
    variants: Sequence[str] | None, known: Sequence[str], need_clips: Sequence[str], human: str | None
) -> tuple[str, ...]:
    """Those of the variants `known` that are asked for, by default all for which there are clips (`human`).

    Raises ConfigError for an unknown one, and for one that needs clips where there are none.
    """
    possible = tuple(name for name in known if human is not None or name not in need_clips)
    for name in variants or ():
        if name not in known:
            raise ConfigError(f"there is no variant {name!r}", f"some of: {', '.join(known)}")
        if name not in possible:
            raise ConfigError(f"the variant {name} needs clips of people", "give --db, a database that has some")
    return possible if variants is None else tuple(name for name in possible if name in variants)


def cells_of(size: Size, variants: Sequence[str]) -> Iterator[Cell]:
    """All cells, one seed after the other."""
    for seed in range(max(size.seeds.values())):
        for task in (task for task, num in size.seeds.items() if seed < num):
            for number in (*size.numbers, *size.more.get(task, ())):
                cells = (Cell(task, number, seed, variant) for variant in variants)
                yield from (cell for cell in cells if _is_measured(cell, size))


def _is_measured(cell: Cell, size: Size) -> bool:
    if cell.variant in BESIDE:
        return cell.task == _first(size) and cell.number == size.few and cell.seed < BESIDE[cell.variant]
    if cell.variant in QUARTERS:
        return cell.task in size.quarters and cell.number == size.few
    return cell.number > 0 or cell.variant in WITHOUT


def _first(size: Size) -> str:
    return next(iter(size.seeds))


def compared(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What each variant adds to those of `BASES` with as many steps (`differences_of`), the intervals of single tasks
    and numbers widened for how many of them both have."""
    found = {}
    for base, other in BASES.items():
        some = [one for one in cells if (one["variant"] in QUARTERS) == (base in QUARTERS)]
        there = [{(one["task"], one["number"]) for one in some if one["variant"] == name} for name in (base, other)]
        found[base] = differences_of(some, base, max(len(there[0] & there[1]), 1))
    return found


def goals_of(differences: Mapping[str, Any], few: int) -> list[dict[str, Any]]:
    """That clips of people help: the lower end of what they add to `scratch`, the mean over the tasks."""
    pooled = differences[SCRATCH].get(PEOPLE, {}).get(ALL, {}).get(str(few))
    low = None if pooled is None else pooled["interval"][0]
    return [goal(f"people add to scratch with {plural(few, 'demonstration')}, all tasks, lower end", low, "share", 0.0)]


def _kept(cell: Cell, size: Size, human: str | None, clips: str | None, folder: Path) -> dict[str, Any]:
    """The numbers of a cell, from `CELLS` if it was finished with these settings."""
    settings = settings_of(cell, size, _before(cell, size, human, clips, folder))
    return kept_cell(cell, size, settings, clips if cell.variant in NEED_CLIPS else None, folder)


def kept_cell(
    cell: Cell, size: LoopSize, settings: Arm4rSettings, clips: str | None, folder: Path, cells: str = CELLS
) -> dict[str, Any]:
    """The numbers of a cell, from `cells` in `folder` if it was finished with these settings and clips."""
    asked: dict[str, Any] = {"settings": settings.settings_key(), "episodes": size.episodes}
    asked |= {"max_steps": size.max_steps, "clips": clips}

    def measure() -> dict[str, Any]:
        return _measured(cell, size, settings, folder)

    return kept(folder / cells / f"{cell.name}.json", asked, lambda: with_cpu_s(measure))


def clips_of(human: str | None) -> str | None:
    """Which clips they are, without saying where."""
    db = None if human is None else Database.open(human)
    return None if db is None else f"{db.count('clips')} clips, version {db.version}"


def values_of(size_name: str, seed: int, steps: int) -> dict[str, Any]:
    """The settings file of this name, for so many steps of 16 windows; all is trained on."""
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.registry import settings_file

    values = tomllib.loads(settings_file(RECIPE, size_name).read_text())
    values |= {"batch_size": 16, "seed": seed, "held_out_share": 0.0, "warmup_epochs": 0.0, "keep_checkpoints": 1}
    return values | {"max_steps": steps, "epochs": steps, "checkpoint_epochs": steps}


def settings_of(cell: Cell, size: Size, before: str) -> Arm4rSettings:
    """Of the training of a cell. before: the checkpoint that it begins with; empty: none."""
    steps = size.steps + (size.before_steps if cell.variant == LONGER else 0)
    steps = round(steps / 4) if cell.variant in QUARTERS else steps
    return control_settings(cell, steps, before, "small-sim" if cell.variant == PLAIN else "small-people")


def control_settings(cell: Cell, steps: int, before: str, size_name: str = "small-people") -> Arm4rSettings:
    """Of so many steps on a cell's demonstrations, from the checkpoint `before`; empty: from scratch."""
    from handloom.train.arm4r.settings import Arm4rSettings

    values = values_of(size_name, cell.seed, steps) | _own(cell.task)
    return Arm4rSettings(**values | {"where": f"episode_index < {cell.number}", "init": before})


def _own(task: str) -> dict[str, Any]:
    """What is set for a task beside `small-people.toml`, in both trainings."""
    return REACHING if task == "reach" else TOUCHING


def _before(cell: Cell, size: Size, human: str | None, clips: str | None, folder: Path) -> str:
    """The checkpoint of the training on people, empty where there is none; one that is finished is not made again.

    Its settings are those of the task, so that one is shared by tasks with the same.
    """
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.arm4r.settings import Arm4rSettings
    from handloom.train.loop import train

    source = QUARTERS.get(cell.variant, cell.variant)
    if source not in OF_PEOPLE:
        return ""
    people = None if human is None else Database.open(human)
    of_what = "any" if clips is None or source == SCRIPTED else clips
    own, steps = _own(cell.task), size.before_steps
    kinds = (REACH,) if own is REACHING else (REACH, CARRY)
    db = database_of(source, people, folder / "-".join([source, *kinds, of_what]), kinds)
    settings = Arm4rSettings(**values_of("small-people", cell.seed, steps) | own)
    name = ["before", source, *kinds, str(cell.seed), str(steps), of_what, settings.settings_key()]
    return train(RECIPE, db, settings, Folder.parse(folder / "-".join(name))).checkpoint


def _measured(cell: Cell, size: LoopSize, settings: Arm4rSettings, folder: Path) -> dict[str, Any]:
    """Train and evaluate one cell."""
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.loop import train

    numbers: dict[str, Any] = {"steps": 0, "loss": None}
    with tempfile.TemporaryDirectory(prefix="handloom-bench-") as place:
        checkpoint = settings.init
        if cell.number:
            made = train(RECIPE, _demonstrations(cell, size, folder), settings, Folder.parse(Path(place)))
            last = [line for line in made.history if line["kind"] == "step"][-1]
            checkpoint, numbers = made.checkpoint, {"steps": last["step"], "loss": last["loss"]}
        pair = (find_task(cell.task), f"arm4r:{checkpoint}")
        run = run_episodes([pair], size.episodes, 1, size.max_steps, Where(1))
        outcomes = [outcome for _, _, outcome in run]
    score = scores_of({0: outcomes})
    kept = ("successes", "success_rate", "interval", "steps_to_success", "failures")
    numbers |= {name: score[name] for name in kept}
    return numbers | {"by_scene": "".join("1" if one.success else "0" for one in outcomes)}


def _demonstrations(cell: Cell, size: LoopSize, folder: Path) -> Database:
    """The demonstrations of a task and seed."""
    place = folder / f"demonstrations-{cell.task}-{cell.seed}-{size.demonstrations}"
    if not (place / "db" / "done").exists():
        record(cell.task, str(place / "dataset"), size.demonstrations, cell.seed, workers=1, overwrite=True)
        db = Database.open(place / "db", create=True)
        lerobot(db, str(place / "dataset"), dataset=cell.task, state=(STATE, ENVIRONMENT))
        (place / "db" / "done").touch()
    return Database.open(place / "db")

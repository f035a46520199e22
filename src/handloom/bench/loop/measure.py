"""`handloom bench loop`: what human video is worth to ARM4R in the closed loop, by the number of demonstrations.

Each cell is a task, a number of demonstrations, a variant and a seed. The seed chooses the demonstrations, of which
fewer are the first of more, and what training draws at random. All cells of a task are evaluated in the same scenes.
The network is told where things are (`things`), so that no pictures are needed.

Variants differ in the weights that they begin with; demonstrations, order of windows, steps and settings are the same,
and in all of them samples are turned about any axis and scaled (`small-people.toml`): `scratch`; `people`, `truth`,
`shuffled` and `scripted`, trained on what people do with things (`bench.loop.people` says how these differ), which also
act without any demonstration (number 0); `points`, ARM4R's stage 1 on point tracks, of which the transformer alone is
handed over. `longer` is `scratch` for as many steps as both trainings together; `plain` is `scratch` with samples that
are turned about the vertical alone (`small-sim.toml`).
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handloom.api import Database
from handloom.bench.kept import identity_of, kept
from handloom.bench.loop.compare import curves_of, differences_of
from handloom.bench.loop.people import PEOPLE, SCRIPTED, SHUFFLED, TRUTH, database_of
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.machine import installed
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.sim.evaluate import run_episodes
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.sim.record import record
from handloom.sim.demonstrations import STATE
from handloom.sim.replay import ENVIRONMENT
from handloom.sim.scores import scores_of
from handloom.sim.tasks import find_task
from handloom.sim.world import require_simulator

if TYPE_CHECKING:
    from handloom.train.arm4r.settings import Arm4rSettings

SCRATCH, LONGER, PLAIN, POINTS = "scratch", "longer", "plain", "points"
VARIANTS = (SCRATCH, LONGER, PEOPLE, TRUTH, SHUFFLED, PLAIN, SCRIPTED, POINTS)
OF_PEOPLE = (PEOPLE, SHUFFLED, TRUTH, SCRIPTED)
HIDDEN = {"reach": ("object0",)}
"""Things that do not matter to a task: the puck, which lies about while `reach` is done."""
NEED_CLIPS = (PEOPLE, SHUFFLED, TRUTH, POINTS)
CELLS = "cells"


@dataclass(frozen=True)
class Size:
    """What is measured. numbers: of demonstrations. steps: of training on them, of 16 windows each. before_steps: of
    the training before, on people. demonstrations: recorded for each task and seed."""

    tasks: tuple[str, ...] = ("reach",)
    numbers: tuple[int, ...] = (1, 0)
    seeds: int = 3
    steps: int = 400
    before_steps: int = 1200
    episodes: int = 30
    max_steps: int = 150
    demonstrations: int = 25


QUICK = Size(("reach",), (0, 1), 1, 20, 10, episodes=4, max_steps=100, demonstrations=2)


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
    require_simulator()
    size = QUICK if watch.quick else Size()
    chosen = _checked(variants, human)
    clips = None if human is None else identity_of(Database.open(human))
    results: dict[str, Any] = {"size": asdict(size), "clips": _clips(human)}
    results |= {"versions": {name: installed(name) for name in ("metaworld", "mujoco", "torch")}}
    cells: list[dict[str, Any]] = []
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as scratch:
        folder = Path(scratch) if data is None else data
        folder.mkdir(parents=True, exist_ok=True)
        asked = list(cells_of(size, chosen))
        watch.expect(len(asked))
        for cell in asked:
            watch.part(cell.name)
            cells.append(asdict(cell) | _kept(cell, size, human, clips, folder))
            watch.did()
    results |= {"cells": cells, "curves": curves_of(cells), "differences": differences_of(cells, SCRATCH)}
    return describe("loop", results, goals_of(results["differences"]), watch)


def _checked(variants: Sequence[str] | None, human: str | None) -> tuple[str, ...]:
    possible = tuple(name for name in VARIANTS if human is not None or name not in NEED_CLIPS)
    for name in variants or ():
        if name not in VARIANTS:
            raise ConfigError(f"there is no variant {name!r}", f"some of: {', '.join(VARIANTS)}")
        if name not in possible:
            raise ConfigError(f"the variant {name} needs clips of people", "give --db, a database that has some")
    return possible if variants is None else tuple(name for name in possible if name in variants)


def cells_of(size: Size, variants: Sequence[str]) -> Iterator[Cell]:
    """All cells, one seed after the other."""
    for seed in range(size.seeds):
        for number in size.numbers:
            some = [name for name in variants if number or name in OF_PEOPLE]
            yield from (Cell(task, number, seed, variant) for task in size.tasks for variant in some)


def goals_of(differences: dict[str, Any]) -> list[dict[str, Any]]:
    """That clips of people help on one task at least: the lower end of the best interval of what they add."""
    found = differences.get(PEOPLE, {})
    lows = [one["interval"][0] for name, by_number in found.items() if name != "all" for one in by_number.values()]
    return [goal("people add to scratch, lower end", max(lows, default=None), "share", 0.0)]


def _kept(cell: Cell, size: Size, human: str | None, clips: str | None, folder: Path) -> dict[str, Any]:
    """The numbers of a cell, from `CELLS` if it was finished with these settings."""
    before = _before(cell, size, human, clips, folder)
    settings = _settings(cell, size, before)
    asked: dict[str, Any] = {"settings": settings.settings_key(), "episodes": size.episodes}
    asked |= {"max_steps": size.max_steps, "clips": clips if cell.variant in NEED_CLIPS else None}
    return kept(folder / CELLS / f"{cell.name}.json", asked, lambda: _measured(cell, size, settings, folder))


def _clips(human: str | None) -> str | None:
    """Which clips they are, without saying where."""
    db = None if human is None else Database.open(human)
    return None if db is None else f"{db.count('clips')} clips, version {db.version}"


def _values(size_name: str, seed: int, steps: int) -> dict[str, Any]:
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.registry import settings_file

    values = tomllib.loads(settings_file(RECIPE, size_name).read_text())
    values |= {"batch_size": 16, "seed": seed, "held_out_share": 0.0, "warmup_epochs": 0.0, "keep_checkpoints": 1}
    return values | {"max_steps": steps, "epochs": steps, "checkpoint_epochs": steps}


def _settings(cell: Cell, size: Size, before: str) -> Arm4rSettings:
    """Of the training of a cell. before: the checkpoint that it begins with; empty: none."""
    from handloom.train.arm4r.settings import Arm4rSettings

    steps = size.steps + (size.before_steps if cell.variant == LONGER else 0)
    values = _values("small-sim" if cell.variant == PLAIN else "small-people", cell.seed, steps)
    values |= {"where": f"episode_index < {cell.number}", "things_hidden": HIDDEN.get(cell.task, ()), "init": before}
    return Arm4rSettings(**values)


def _before(cell: Cell, size: Size, human: str | None, clips: str | None, folder: Path) -> str:
    """The checkpoint of the training on people, empty where there is none; one that is finished is not made again.

    It does not get what does not matter to the task, either.
    """
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.arm4r.settings import Arm4rSettings
    from handloom.train.loop import train

    if cell.variant not in (*OF_PEOPLE, POINTS):
        return ""
    people = None if human is None else Database.open(human)
    of_what = "any" if clips is None or cell.variant == SCRIPTED else clips
    db = people if cell.variant == POINTS else database_of(cell.variant, people, folder / f"{cell.variant}-{of_what}")
    assert db is not None  # `_checked`
    of_points = cell.variant == POINTS
    steps = size.before_steps // 2 if of_points else size.before_steps
    hidden = () if of_points else HIDDEN.get(cell.task, ())
    values = _values("small" if of_points else "small-people", cell.seed, steps)
    values |= {"version": db.version} if of_points else {"things_hidden": hidden}
    out = Folder.parse(folder / "-".join(["before", cell.variant, str(cell.seed), str(steps), *hidden, of_what]))
    return train(RECIPE, db, Arm4rSettings(**values), out).checkpoint


def _measured(cell: Cell, size: Size, settings: Arm4rSettings, folder: Path) -> dict[str, Any]:
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


def _demonstrations(cell: Cell, size: Size, folder: Path) -> Database:
    """The demonstrations of a task and seed."""
    place = folder / f"demonstrations-{cell.task}-{cell.seed}-{size.demonstrations}"
    if not (place / "db" / "done").exists():
        record(cell.task, str(place / "dataset"), size.demonstrations, cell.seed, workers=1, overwrite=True)
        db = Database.open(place / "db", create=True)
        lerobot(db, str(place / "dataset"), dataset=cell.task, state=(STATE, ENVIRONMENT))
        (place / "db" / "done").touch()
    return Database.open(place / "db")

"""`handloom bench robomirror`: latents of motion, and these made from what is seen, with three seeds.

A seed chooses the held-out videos and all that training draws at random. With each, the auto-encoder is trained, and on
it the three ways from the intent: a transformer by flow matching, the same by denoising diffusion, and the alignment
that RoboMirror argues against. Errors are those of the recipe's report (docs/robomirror.md).
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student_t

from handloom.api import Database
from handloom.bench.kept import identity_of, init_of, kept, place_of
from handloom.bench.report import describe, goal
from handloom.bench.retrieval import scenes
from handloom.bench.retrieval.data import make_rows, new_database
from handloom.bench.watch import Watch
from handloom.io.folder import Folder
from handloom.machine import installed
from handloom.schemas.settings import RunConfig, Settings

if TYPE_CHECKING:
    from handloom.train.robomirror.settings import RobomirrorSettings

CELLS = "cells"
MOTION, FLOW, DIFFUSION, ALIGNMENT = "motion", "flow matching", "diffusion", "alignment"
WAYS: dict[str, dict[str, str]] = {
    FLOW: {"process": "flow"}, DIFFUSION: {"process": "ddpm"}, ALIGNMENT: {"understand_by": "alignment"},
}  # fmt: skip
CAPTION = {
    "class": "handloom.stages.learned:RuleCaption",
    "settings": {"frames": 16, "grid": [2, 3]},
}
RENDERED = {"rate_hz": 10.0, "steps": 20, "batch_size": 16}
"""Rendered clips have 2.4 s, 10 frames a second."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Size:
    """What is measured. rendered: clips of each of twelve actions, where no database is given. epochs: None: as the
    settings `small` have them."""

    rendered: int = 6
    seeds: tuple[int, ...] = (1, 2, 3)
    epochs: int | None = None


QUICK = Size(1, (1,), 1)


@dataclass(frozen=True)
class Cell:
    """One network that is trained and measured."""

    seed: int
    what: str

    @property
    def name(self) -> str:
        return f"{self.what}-{self.seed}"


def bench_robomirror(db: str | None, data: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure, one seed after the other.

    Args:
        db: a database of clips of people with intents; None: clips are rendered.
        data: a folder that keeps rendered clips, finished cells and checkpoints for the next time; None: nothing is
            kept.

    Raises:
        ConfigError: the clips cannot be trained on.
        ModuleNotFoundError: torch is not installed.
    """
    size = QUICK if watch.quick else Size()
    results: dict[str, Any] = {"size": asdict(size), "rendered": db is None, "versions": {"torch": installed("torch")}}
    cells: list[dict[str, Any]] = []
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as scratch:
        folder = Path(scratch) / "data" if data is None else data
        trained = place_of(folder, watch.quick)
        people = _rendered(size, folder, Path(scratch), watch) if db is None else Database.open(db)
        results["clips"] = people.count("clips")
        # Rendered clips are put into a new database each time.
        clips = f"rendered-{size.rendered}" if db is None else identity_of(people)
        asked = list(cells_of(size))
        watch.expect(watch.num_done + len(asked))
        for cell in asked:
            watch.part(cell.name)
            cells.append(asdict(cell) | _kept(cell, size, people, clips, trained))
            watch.did()
    results |= {"cells": cells, "over_seeds": over_seeds(cells)}
    return describe("robomirror", results, goals_of(results["over_seeds"]), watch)


def cells_of(size: Size) -> Iterator[Cell]:
    """All cells, one seed after the other; the auto-encoder before what is trained on it."""
    for seed in size.seeds:
        yield from (Cell(seed, what) for what in (MOTION, *WAYS))


def over_seeds(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By what was trained and number: `mean` over seeds, `interval` of that mean (Student's t at 95 %; None of one
    seed), and `by_seed`. A number that a seed lacks is left out."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in cells:
        for name, value in cell["numbers"].items():
            if value is not None:
                one = found.setdefault(cell["what"], {}).setdefault(name, {"by_seed": {}})
                one["by_seed"][str(cell["seed"])] = value
    for numbers in found.values():
        for one in numbers.values():
            one |= _interval(list(one["by_seed"].values()))
    return found


def _interval(values: Sequence[float]) -> dict[str, Any]:
    mean, num = float(np.mean(values)), len(values)
    if num < 2:
        return {"mean": mean, "interval": None}
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, num - 1) * np.std(values, ddof=1) / num**0.5)
    return {"mean": mean, "interval": [mean - reach, mean + reach]}


def goals_of(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The error (mm) of reconstruction beside that of alignment and of the mean motion, of the same clips, the largest
    ratio of all seeds."""

    def worst(number: str, beside: str, other: str) -> float | None:
        ours = found.get(FLOW, {}).get(number, {}).get("by_seed", {})
        theirs = found.get(beside, {}).get(other, {}).get("by_seed", {})
        ratios = [value / theirs[seed] for seed, value in ours.items() if seed in theirs]
        return max(ratios) if ratios else None

    beside_alignment, beside_mean = worst("error", ALIGNMENT, "error"), worst("error", FLOW, "mean_motion")
    return [
        goal("error of reconstruction to alignment, worst seed", beside_alignment, "ratio", 1.0, at_least=False),
        goal("error of reconstruction to mean motion, worst seed", beside_mean, "ratio", 1.0, at_least=False),
    ]


def _kept(cell: Cell, size: Size, people: Database, clips: str, folder: Path) -> dict[str, Any]:
    """The numbers of a cell, from `CELLS` if it was finished on these clips with these settings."""
    settings, place = _settings(cell, size, people, clips, folder), _place(cell, clips, folder)
    asked = {"settings": settings.settings_key(), "of": clips, "version": people.version}
    found = kept(folder / CELLS / f"{cell.name}.json", asked, lambda: _measured(people, settings, place))
    return {name: value for name, value in found.items() if name != "of"}


def _place(cell: Cell, clips: str, folder: Path) -> Path:
    return folder / f"training-{cell.name.replace(' ', '-')}-{clips}"


def _settings(cell: Cell, size: Size, people: Database, clips: str, folder: Path) -> RobomirrorSettings:
    """Of a cell's training, whose folder is of these clips alone."""
    from handloom.train.recipe import Recipe
    from handloom.train.registry import settings_file
    from handloom.train.robomirror.recipe import RECIPE
    from handloom.train.robomirror.settings import RobomirrorSettings

    recipe: Recipe = RECIPE
    name = "small" if cell.what == MOTION else "small-understand"
    values = tomllib.loads(settings_file(recipe, name).read_text())
    values |= {"seed": cell.seed, "version": people.version, "keep_checkpoints": 1, "num_examples": 0}
    values |= RENDERED if clips.startswith("rendered") else {}
    values |= {} if size.epochs is None else {"epochs": size.epochs, "batch_size": 4, "warmup_epochs": 0.0}
    if cell.what != MOTION:
        motion = _place(Cell(cell.seed, MOTION), clips, folder)
        values |= WAYS[cell.what] | {"init": init_of(_place(cell, clips, folder), motion)}
    return RobomirrorSettings(**values)


def _measured(people: Database, settings: RobomirrorSettings, place: Path) -> dict[str, Any]:
    """Train, or go on with, one network, and measure it."""
    from handloom.train.loop import train
    from handloom.train.robomirror.recipe import RECIPE

    made = train(RECIPE, people, settings, Folder.parse(place))
    last = [line for line in made.history if line["kind"] == "held_out"][-1]
    steps = [line for line in made.history if line["kind"] == "step"]
    numbers = last["numbers"] | RECIPE.report(made.network, made.data, settings)["numbers"]
    windows = {side: len(getattr(made.data, side)) for side in ("train", "held_out")}
    clips = {side: getattr(made.data, side).counts["clips"] for side in ("train", "held_out")}
    return {"steps": len(steps), "windows": windows, "clips": clips, "numbers": numbers}


def _rendered(size: Size, folder: Path, scratch: Path, watch: Watch) -> Database:
    """The searched clips of `bench retrieval`, extracted with an intent."""
    settings: Settings = RunConfig(stages={"caption": CAPTION}).settings()
    clips = scenes.scenes_of(scenes.Size(searched=size.rendered, queries=0, long=0, pieces=0))
    made = make_rows(clips, (), folder, watch, settings)
    return new_database(scratch / "db", clips, (), made, folder / "videos", settings)

"""`handloom bench arm4r`: ARM4R's own stages 1 and 2, point tracks of people and of the robot, in the closed loop.

Each cell is a task, a variant and a seed, trained and evaluated as those of `handloom bench loop`
(`bench.loop.measure`), but for the length of tokens. Variants differ in the weights that stage 3 begins with, of which
it takes the transformer and what reads the words:

- `scratch`: none; `token_length` is 0 unless a variant says otherwise.
- `human`: of stage 1, on point tracks of the clips of people.
- `robot`: of stage 2, on point tracks of the robot's videos, from scratch.
- `both`: of stage 2 from the weights of stage 1, as in the paper.
- `scratch-long`, `both-long`: as `scratch` and `both`, but stage 3 begins with tokens `LONG` long (`token_length`).
- `scratch-quarter`, `both-quarter`: as these two, with a quarter of the steps of stage 3.

Stages 1 and 2 are those of `small.toml`. One training is shared by all cells of a seed. `HELD_OUT` of its clips are
held out: `pretraining` in the report says how well the next places of their points are predicted. The robot's videos
are of all tasks, filmed in other scenes than demonstrations and evaluation; of them only tracks and words are read, no
state and no action. Their camera stands still, so that depth is not known: stage 2 learns the two numbers of the image.

One comparison is confirmatory: what `both` adds to `scratch` with `few` demonstrations, the mean over the tasks. All
others explore: what other variants add to it, what stage 1 adds to stage 2 (`both` beside `robot`), and what both add
where tokens are long (`both-long` beside `scratch-long`, and with a quarter of the steps). Intervals of single tasks
are widened for how many there are (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handloom.api import Database
from handloom.bench.kept import kept, with_cpu_s
from handloom.bench.loop.compare import ALL, curves_of, differences_of
from handloom.bench.loop.measure import (
    QUICK_LOOP,
    SCRATCH,
    Cell,
    LoopSize,
    begun,
    control_settings,
    kept_cell,
    measured_cells,
    values_of,
)
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.run.driver import RunParts
from handloom.pipelines.run.run import run
from handloom.pipelines.sim.record import record
from handloom.plural import plural
from handloom.schemas.settings import RunConfig, TracksConfig, VideoConfig
from handloom.sim.rendering import Camera

if TYPE_CHECKING:
    from handloom.train.arm4r.settings import Arm4rSettings

HUMAN, ROBOT, BOTH = "human", "robot", "both"
SCRATCH_LONG, BOTH_LONG = "scratch-long", "both-long"
LONG = 50.0
"""About as long as the tokens of stages 1 and 2."""


@dataclass(frozen=True)
class How:
    """A variant. before: the training before stage 3; None: none. token_length: of stage 3, also where it is 0, which
    is not that of the settings file. share: of the steps of stage 3."""

    before: str | None = None
    token_length: float = 0.0
    share: float = 1.0

    @property
    def needs_clips(self) -> bool:
        return self.before in (HUMAN, BOTH)


VARIANTS = {
    SCRATCH: How(),
    HUMAN: How(HUMAN),
    ROBOT: How(ROBOT),
    BOTH: How(BOTH),
    SCRATCH_LONG: How(None, LONG),
    BOTH_LONG: How(BOTH, LONG),
    "scratch-quarter": How(None, LONG, 0.25),
    "both-quarter": How(BOTH, LONG, 0.25),
}
NEED_CLIPS = tuple(name for name, how in VARIANTS.items() if how.needs_clips)
BASES = {SCRATCH: VARIANTS, ROBOT: (BOTH,), SCRATCH_LONG: (BOTH_LONG,), "scratch-quarter": ("both-quarter",)}
"""What is compared with what."""
HELD_OUT = 0.15
PICTURES_HZ = 20.0
"""Of the robot's videos, as of stage 3."""
CAMERA = Camera("corner4", 192, 144)
VIDEO_SEED = 100
"""Of their scenes; demonstrations have those of the seeds from 0 on."""
TRACKED = RunConfig(video=VideoConfig(sample_hz=PICTURES_HZ), tracks=TracksConfig(grid=12, extra=0))
"""How they are extracted: the 12 x 12 points of `small.toml`."""
CELLS = "cells-of-stages"
"""Beside those of `bench loop`, whose `scratch` is another."""
PRETRAINING = "pretraining"
TOLD = ("l1", "constant_velocity", "zero_motion", "l1_moving", "constant_velocity_moving", "zero_motion_moving")


@dataclass(frozen=True)
class Size(LoopSize):
    """numbers: of demonstrations. human_steps, robot_steps: of stages 1 and 2, of 16 windows each. videos: of the
    robot, for each task."""

    seeds: Mapping[str, int] = field(default_factory=lambda: {"reach": 5, "drawer-open": 5})
    numbers: tuple[int, ...] = (1,)
    human_steps: int = 500
    robot_steps: int = 250
    videos: int = 20


QUICK = Size({"reach": 1}, **QUICK_LOOP, human_steps=5, robot_steps=5, videos=8)


def bench_arm4r(
    human: str | None, data: Path | None, watch: Watch, variants: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measure, one seed after the other.

    Args:
        human: a database with clips of people, whose tracks have depth; None: `scratch` and `robot` alone.
        data: a folder that keeps finished cells, demonstrations, videos and checkpoints for the next time; that of
            `bench loop` will do. Several runs may share one once the robot's videos are extracted, if they measure
            different variants. None: nothing is kept.
        variants: some of `VARIANTS`; None: those for which there are clips.

    Raises:
        ConfigError: an unknown variant; no clips of people; this machine cannot draw pictures.
        ModuleNotFoundError: the simulator or torch is not installed.
    """
    size = QUICK if watch.quick else Size()
    chosen, clips, results = begun(size, variants, tuple(VARIANTS), NEED_CLIPS, human)
    pretraining: dict[str, dict[str, Any]] = {}

    def measure(cell: Cell, folder: Path) -> dict[str, Any]:
        how = VARIANTS[cell.variant]
        found = {} if how.before is None else pretrained(how.before, cell.seed, size, human, clips, folder)
        watch.take_signals()  # Ray, where the robot's videos were extracted, has replaced the handlers
        if how.before is not None:
            pretraining.setdefault(how.before, {})[str(cell.seed)] = found
        settings = stage_3_of(cell, size, found.get("checkpoint", ""))
        return kept_cell(cell, size, settings, clips if how.needs_clips else None, folder, CELLS)

    cells = measured_cells(list(cells_of(size, chosen)), measure, data, watch)
    results |= {PRETRAINING: told_of(pretraining), "cells": cells, "curves": curves_of(cells)}
    looks = len(size.seeds) * len(size.numbers)
    results["differences"] = {
        base: differences_of([one for one in cells if one["variant"] in (base, *others)], base, looks)
        for base, others in BASES.items()
    }
    return describe("arm4r", results, goals_of(results["differences"], size.few), watch)


def cells_of(size: Size, variants: Sequence[str]) -> Iterator[Cell]:
    """All cells, one seed after the other."""
    for seed in range(max(size.seeds.values())):
        tasks = [task for task, num in size.seeds.items() if seed < num]
        for number in size.numbers:
            yield from (Cell(task, number, seed, variant) for task in tasks for variant in variants)


def stage_3_of(cell: Cell, size: Size, init: str) -> Arm4rSettings:
    """The settings of a cell. init: the checkpoint that it begins with; empty: none."""
    how = VARIANTS[cell.variant]
    settings = control_settings(cell, round(size.steps * how.share), init)
    return settings.model_copy(update={"token_length": how.token_length})


def goals_of(differences: Mapping[str, Any], few: int) -> list[dict[str, Any]]:
    """That the paper's stages help: the lower end of what `both` adds to `scratch`, the mean over the tasks."""
    pooled = differences[SCRATCH].get(BOTH, {}).get(ALL, {}).get(str(few))
    low = None if pooled is None else pooled["interval"][0]
    return [goal(f"both stages add to scratch with {plural(few, 'demonstration')}, lower end", low, "share", 0.0)]


def told_of(pretraining: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By variant and seed: what is told of its last training (`pretrained`)."""
    return {
        variant: {
            seed: {name: value for name, value in one.items() if name != "checkpoint"} for seed, one in seeds.items()
        }
        for variant, seeds in pretraining.items()
    }


def pretrained(
    variant: str, seed: int, size: Size, human: str | None, clips: str | None, folder: Path
) -> dict[str, Any]:
    """The last training before stage 3; one that is finished is not made again.

    `checkpoint`; `cpu_s`, of this training alone; `windows` that were held out, and on them the mean absolute error of
    the next places (`TOLD`, in the units of docs/arm4r.md; `_moving`: of points that move in the world, where that is
    known).
    """
    init = "" if variant != BOTH else pretrained(HUMAN, seed, size, human, clips, folder)["checkpoint"]
    stage = "human" if variant == HUMAN else "robot_points"
    if variant == HUMAN:
        assert human is not None  # `checked`
        db, steps, name = Database.open(human), size.human_steps, f"{HUMAN}-{seed}-{size.human_steps}-{clips}"
    else:
        db, steps, name = robots_of(size, folder), size.robot_steps, f"{variant}-{seed}-{size.robot_steps}"
        name += f"-{size.videos}" + (f"-{size.human_steps}-{clips}" if init else "")
    values = values_of("small", seed, steps) | {"stage": stage, "version": db.version, "init": init}
    values |= {"held_out_share": HELD_OUT} | ({} if variant == HUMAN else {"depth": "none", "stride": 1})

    from handloom.train.arm4r.settings import Arm4rSettings

    settings = Arm4rSettings(**values)
    place = folder / PRETRAINING / name
    asked = {"settings": settings.settings_key()}
    return kept(place / "told.json", asked, lambda: with_cpu_s(lambda: _trained(db, settings, place)))


def _trained(db: Database, settings: Arm4rSettings, place: Path) -> dict[str, Any]:
    from handloom.train.arm4r.recipe import RECIPE
    from handloom.train.loop import train

    made = train(RECIPE, db, settings, Folder.parse(place))
    last = [line for line in made.history if line["kind"] == "held_out"][-1]
    numbers = {name: last["numbers"][name] for name in TOLD if name in last["numbers"]}
    return {"checkpoint": made.checkpoint, "steps": last["step"], "windows": last["windows"]} | numbers


def robots_of(size: Size, folder: Path, parts: RunParts | None = None) -> Database:
    """The robot's videos, `size.videos` of each task, with their tracks; those that are finished are not made again.

    parts: of `handloom run`. Raises ConfigError where one of them could not be extracted.
    """
    place = folder / "-".join(["robots", *size.seeds, str(size.videos)])
    db = Database.open(place / "db", create=True)
    for task in size.seeds:
        dataset, done = place / task, place / f"{task}.done"
        if not done.exists():
            options: dict[str, Any] = {"picture_hz": PICTURES_HZ, "camera": CAMERA, "workers": 1, "overwrite": True}
            record(task, str(dataset), size.videos, VIDEO_SEED, **options)
            lerobot(db, str(dataset), dataset=task)
            done.touch()
    wanted = size.videos * len(size.seeds)
    if (db.count("clips") if db.table("clips") is not None else 0) < wanted:
        done_of = run(db, TRACKED, parts=parts)
        if done_of.exit == "interrupted":
            raise KeyboardInterrupt  # `run` handled the signal itself
        if db.count("clips") < wanted:
            problem = f"{done_of.num_rejects} of the robot's {wanted} videos could not be extracted: {done_of.reasons}"
            raise ConfigError(problem, f"`handloom status --db {db.uri}` tells why")
    return db

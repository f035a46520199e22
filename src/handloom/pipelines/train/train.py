"""`handloom train`: the variants of a recipe trained with Ray Train, resumed after crashes, and their report."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.pipelines.cluster.connect import joined
from handloom.pipelines.cluster.reservation import reserve_resources
from handloom.pipelines.run.interrupts import Interrupts
from handloom.pipelines.train.attempts import End, bundles, check_could_fit, run_attempts, settled
from handloom.pipelines.train.progress import TrainProgress, announce
from handloom.pipelines.train.report import write_report
from handloom.pipelines.train.settings import TrainConfig
from handloom.plural import plural
from handloom.schemas.training import TrainResources
from handloom.train import checkpoint as checkpoints
from handloom.train.checkpoint import JOB
from handloom.train.history import FILE, held_out_of, parse_lines
from handloom.train.recipe import CheckedRecipe, Recipe
from handloom.workers.training.ledger import start_training_ledger
from handloom.workers.training.training import BOARD, RESULT, TrainingPlan

log = logging.getLogger(__name__)

STOPPING = b"\nstopping: the workers write a checkpoint first (once more to stop at once)\n"


@dataclass(frozen=True)
class TrainSummary:
    """The result of a job. exit: `done` or `interrupted`. variants: {name: {"step", "epoch", "checkpoint", "numbers"
    (the last held-out ones), "train_s"}}, and "why_none" where nothing was held out. report: URI of the page; empty
    if the job was interrupted. deaths: how often workers crashed."""

    recipe: str
    exit: str
    out: str
    variants: dict[str, dict[str, Any]]
    report: str
    deaths: int


def train(
    db: Database,
    recipe: Recipe,
    recipe_name: str,
    config: TrainConfig,
    out: Folder,
    *,
    ray_address: str | None = None,
    resume: bool = True,
    quiet: bool = False,
    watch: Callable[[ray.actor.ActorHandle], None] | None = None,
) -> TrainSummary:
    """Train `recipe` and the variants that its report compares with; write checkpoints and the report below `out`.

    Args:
        recipe_name: as `handloom.train.registry.find_recipe` takes it; each worker looks it up.
        resume: resume from the newest checkpoint in `out`; False removes the files of an earlier job.
        watch: called with the job's ledger when it has started (for tests).

    Raises:
        ConfigError: the table lacks what the recipe needs; `out` holds another job; the cluster lacks resources.
        StoreError: `out` or the database cannot be read or written.
        HandloomError: the loss is not finite; workers crashed more often than `max_failures`.
    """
    variants = _variants(recipe, config)
    plan = _prepare(db, recipe, recipe_name, config, variants, out, resume)
    end = End("done", 0)
    if not all(_is_finished(out.sub(name)) for name in variants):
        announce(recipe_name, variants, ray_address, quiet)
        is_own = ray_address is None and not ray.is_initialized()
        with Interrupts(STOPPING) as interrupts, joined(ray_address):
            interrupts.install()
            resources = settled(config.resources, is_own)
            ledger = start_training_ledger()
            if watch is not None:
                watch(ledger)
            end = _run(plan, resources, ledger, TrainProgress(ledger, recipe_name, quiet))
    ended = {name: _ended(out.sub(name)) for name in variants}
    report = write_report(out, recipe.name, list(variants), config, end.num_crashes) if end.exit == "done" else ""
    return TrainSummary(recipe.name, end.exit, out.uri, ended, report, end.num_crashes)


def _run(plan: TrainingPlan, resources: TrainResources, ledger, progress: TrainProgress) -> End:
    """Wait for resources, which a running extraction frees, and train."""
    check_could_fit(resources)
    name = f"training {plan.recipe}"
    try:
        with reserve_resources(bundles(resources), name, resources.wait_s, strategy=resources.placement):
            return run_attempts(plan, resources, ledger, progress)
    except KeyboardInterrupt:  # while waiting: there is nothing to save
        return End("interrupted", 0)


def _variants(recipe: Recipe, config: TrainConfig) -> dict[str, dict[str, Any]]:
    """`{folder name: settings}` of the variants, the asked one first; only that one if `compare` is off."""
    found = recipe.variants(config.settings)
    kept = found if config.settings.compare else dict(list(found.items())[:1])
    return {re.sub(r"[^\w.-]+", "-", name): settings.model_dump(mode="json") for name, settings in kept.items()}


def _prepare(db, recipe, recipe_name, config, variants, out: Folder, resume: bool) -> TrainingPlan:
    """Check `out` and its checkpoints before Ray starts, and write `job.json`."""
    out.check_writable()
    job = out.read_json(JOB)
    others = [name for name in out.names() if not name.startswith(".")]
    if job is None and others:
        raise ConfigError(f"{out.uri} holds other files: {', '.join(others[:5])}", "give --out a folder of its own")
    has_begun = False
    if resume:
        for name, values in variants.items():
            found = checkpoints.peek(out.sub(name))
            if found is not None:
                has_begun = True
                settings = recipe.settings_type(**values)
                checkpoints.check_fits(*found, recipe.name, settings, config.resources.workers)
    if not has_begun:
        if config.settings.init:
            checkpoints.find_start(config.settings.init, out.storage_options, recipe.name)
        if isinstance(recipe, CheckedRecipe):
            recipe.check(db, config.settings, config.settings.version)
    if not resume:
        for name in (job or {}).get("variants", []):
            out.remove(name)
            out.remove(f"{BOARD}/{name}")
    token = secrets.token_hex(8)
    out.write_json(JOB, {"recipe": recipe_name, "variants": list(variants), **config.shown(), "token": token})
    return TrainingPlan(recipe_name, db.uri, db.storage_options, out, variants, token)


def _is_finished(folder: Folder) -> bool:
    found = checkpoints.peek(folder)
    return found is not None and found[0].finished and folder.read_json(RESULT) is not None


def _ended(folder: Folder) -> dict[str, Any]:
    """A variant's entry of the summary, from its newest checkpoint; empty where it has none."""
    found = checkpoints.peek(folder)
    if found is None:
        return {}
    facts, uri = found
    held_out = held_out_of(parse_lines(folder.read(FILE)))
    names = ("step", "epoch", "finished", "data_version", "train_s")
    last = held_out[-1] if held_out else {}
    ended = {name: getattr(facts, name) for name in names} | {"checkpoint": uri, "numbers": last.get("numbers", {})}
    return ended | ({"why_none": last["why_none"]} if last.get("why_none") else {})


def train_text(summary: TrainSummary) -> str:
    """The summary as text for a reader."""
    lines = []
    for name, ended in summary.variants.items():
        numbers = (f"{key} {value:.5g}" for key, value in ended.get("numbers", {}).items() if value is not None)
        counts = f"{plural(ended.get('step', 0), 'step')}, {plural(ended.get('epoch', 0), 'epoch')}"
        where = f"{counts}, {ended.get('train_s', 0.0):.1f} s"
        nothing = f"nothing: {ended['why_none']}" if "why_none" in ended else "nothing"
        lines.append(f"{summary.recipe}/{name}: {where}; held out: {', '.join(numbers) or nothing}")
    if summary.exit == "interrupted":
        lines.append(f"stopped; the same command resumes from the checkpoints in {summary.out}")
    return "\n".join([*lines, *([f"report: {summary.report}"] if summary.report else [])])

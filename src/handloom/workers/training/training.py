"""What Ray Train runs on every worker: the jobs of `handloom train`, one after the other, and reports to the driver."""

from __future__ import annotations

import io
import math
import os
import platform
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder
from handloom.train.checkpoint import JOB, frozen_parts
from handloom.train.machine import hardware, versions
from handloom.workers.training.peers import detect_lost_ranks

if TYPE_CHECKING:
    from handloom.train.loop import Outcome

RESULT, EXAMPLES, BOARD = "result.json", "examples.npz", "tensorboard"
POLL_S = 1.0
PARENT_S = 0.2


@dataclass(frozen=True)
class TrainingPlan:
    """The workers' input. variants: {name: settings as JSON}, trained in this order, each in `out/NAME`.

    token: of this start of the job; it is in `out/job.json`, so that a worker can check that it sees the same folder.
    """

    recipe: str
    db_uri: str
    db_options: dict[str, str]
    out: Folder
    variants: dict[str, dict[str, Any]]
    token: str


def training_worker(config: Mapping[str, Any]) -> str:
    """One rank, from start to end: `{"plan": TrainingPlan, "ledger": handle}`; returns "done" or "stopped".

    Raises:
        HandloomError: as `handloom.train.loop.train` does; the driver prints them.
        RankLost: another rank has crashed; the driver starts the job again.
    """
    from ray.train.torch import get_device

    from handloom.api import Database
    from handloom.train import ranks
    from handloom.train.registry import find_recipe

    end_with_parent()
    plan, ledger = config["plan"], config["ledger"]
    # Waits for the reply: if this rank crashes in the next instant, the others must know its actor.
    ray.get(ledger.enter.remote(ranks.rank(), os.getpid(), ray.get_runtime_context().current_actor))
    _check_same_folder(plan)
    recipe = find_recipe(plan.recipe)
    try:
        db = Database.open(plan.db_uri, plan.db_options)
    except StoreError as error:
        raise StoreError(f"on the worker's node {platform.node()}: {error.problem}", error.hint) from error
    with _StopListener(ledger) as stop, detect_lost_ranks(ledger):
        first = None
        for name, values in plan.variants.items():
            settings = recipe.settings_type(**values)
            outcome = _train_one(plan, name, settings, recipe, db, ledger, stop, get_device(), first)
            if outcome.stopped:
                return "stopped"
            first = first or outcome.data
    return "done"


def end_with_parent() -> None:
    """From now on this process ends as soon as the one that started it has: of a worker, its node's Ray.

    A local Ray ends with its driver, also with one that is killed, and then the next job may write into the same
    folder. Ray itself ends a worker some seconds later, and a busy one after more. The kernel's signal is not used: it
    comes when the *thread* ends that started this process.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def _train_one(plan: TrainingPlan, name: str, settings, recipe, db, ledger, stop, device, first) -> Outcome:
    """Train one variant and write its results. first: the data of the first variant, whose versions of the tables all
    others read; None: this is it."""
    from handloom.train import ranks
    from handloom.train.loop import train

    folder = plan.out.sub(name)

    def report(line: Mapping[str, Any], checkpoint: str | None) -> None:
        if ranks.rank() == 0:
            ledger.report.remote(name, dict(line) | ({"checkpoint": checkpoint} if checkpoint else {}))
        # For Ray's own dashboard. Every rank must take part, and Ray takes a second for each: short epochs have none.
        if line["kind"] == "held_out" and line["epoch"] % settings.checkpoint_epochs == 0:
            numbers = {k: v for k, v in line["numbers"].items() if v is not None}
            if numbers:
                ray.train.report({"variant": name, "step": line["step"], "epoch": line["epoch"], **numbers})

    outcome = train(
        recipe,
        db,
        settings,
        folder,
        tensorboard=plan.out.sub(BOARD).sub(name),
        report=report,
        device=device,
        should_stop=stop.is_stopped,
        beside=first,
    )
    if not outcome.stopped and ranks.rank() == 0 and folder.read_json(RESULT) is None:
        _write_result(folder, recipe, outcome, settings, device)
    return outcome


def _write_result(folder: Folder, recipe, outcome, settings, device) -> None:
    """Write `result.json` and `examples.npz`: what the training page shows besides the curves."""
    shown = recipe.report(outcome.network, outcome.data, settings)
    arrays: dict[str, Any] = {}
    texts = []
    for number, example in enumerate(shown.get("examples", ())):
        arrays |= {f"{number}_frame": example.frame, f"{number}_true_px": example.true_px}
        arrays[f"{number}_predicted_px"] = example.predicted_px
        texts.append({"clip_id": example.clip_id, "now_s": float(example.now_s), "title": example.title})
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    folder.write(EXAMPLES, packed.getvalue())
    figures = {
        title: {
            "values": [[_number(v) for v in row] for row in np.asarray(values, float)],
            "rows": list(rows),
            "columns": list(columns),
        }
        for title, (values, rows, columns) in shown.get("figures", {}).items()
    }
    content = {
        "frozen": frozen_parts(outcome.network),
        "examples": texts,
        "figures": figures,
        "notes": list(shown.get("notes", ())),
    }
    content |= {"data": _jsonable(shown.get("data", {}))}
    content |= {"numbers": {name: _number(value) for name, value in shown.get("numbers", {}).items()}}
    content |= {"counts": _jsonable(getattr(outcome.data.train, "counts", {})), "checkpoint": outcome.checkpoint}
    folder.write_json(RESULT, content | {"hardware": hardware(device), "versions": versions()})


def _check_same_folder(plan: TrainingPlan) -> None:
    job = plan.out.read_json(JOB)
    if not isinstance(job, dict) or job.get("token") != plan.token:
        raise ConfigError(
            f"the worker on {platform.node()} does not see the folder {plan.out.uri} that the job writes into",
            "give an s3:// URI, or a folder on a disk that all nodes share",
        )


def _number(value: Any) -> Any:
    """A JSON value: no NumPy types, null for NaN."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _number(value) for name, value in values.items()}


class _StopListener:
    """Polls the ledger, in a thread, for the request to stop."""

    def __init__(self, ledger: ray.actor.ActorHandle) -> None:
        self._ledger = ledger
        self._stopped = threading.Event()
        self._left = threading.Event()

    def __enter__(self) -> _StopListener:
        threading.Thread(target=self._listen, daemon=True, name="stop-listener").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def _listen(self) -> None:
        while not self._left.wait(POLL_S):
            try:
                if ray.get(self._ledger.is_stopped.remote()):
                    return self._stopped.set()
            except ray.exceptions.RayError:
                return None  # the driver has exited, and Ray is about to end this worker
        return None

"""The loop that trains every recipe, in one process or as one rank of several; it does not use Ray.

For a trial without a cluster::

    from handloom.io.folder import Folder
    from handloom.train.loop import train
    outcome = train(recipe, handloom.open(DB), settings, Folder.parse("trial"))
    print(outcome.history[-1]["numbers"])      # the last held-out numbers; `outcome.network` is the trained network

The network of a recipe must do the following. `forward(batch)` returns `{"loss": scalar, "sums": {name: tensor of (sum,
count)}}`; the loss of a batch without a valid element is 0, not 0/0 (divide by the count, at least 1); the count of
`sums["loss"]`, if present, is the batch's weight. A network that computes on strings, or that should be compiled in
part, overrides `nn.Module.compile`. Transforms do not use the global random generators.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder
from handloom.schemas.training import TrainSettings
from handloom.train import checkpoint as checkpoints
from handloom.train import ranks
from handloom.train.checkpoint import Checkpoint, CheckpointFacts, random_state, seed_all, set_random_state
from handloom.train.history import History
from handloom.train.recipe import Recipe, RecipeData
from handloom.train.step import Stepper, end_position, held_out_sums, lr_factor

log = logging.getLogger(__name__)

Report = Callable[[Mapping[str, Any], str | None], None]
"""Called on every rank with a line of the history (see `handloom.train.history`) and None; after a checkpoint is
written with `{"kind": "checkpoint", "step": ...}` and its URI; at the start with the numbers of training and held-out
windows and rows, `{"kind": "begins", ...}`, which is not in the history."""


@dataclass(frozen=True)
class Outcome:
    """The result of a job. stopped: it was asked to stop; when it is started again, it resumes from `checkpoint`.

    network: on its device, in eval mode. history: the lines of all ranks' steps (times are rank 0's).
    """

    network: nn.Module
    data: RecipeData
    history: list[dict[str, Any]]
    checkpoint: str
    stopped: bool


def train(
    recipe: Recipe,
    db: Database,
    settings: TrainSettings,
    folder: Folder,
    *,
    tensorboard: Folder | None = None,
    report: Report | None = None,
    resume: bool = True,
    device: str | torch.device = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
    beside: RecipeData | None = None,
) -> Outcome:
    """Train `recipe` to the end, resuming from the newest checkpoint in `folder` if there is one.

    With `torch.distributed` initialised this is one rank of several; all must call it with the same arguments.

    Args:
        folder: gets `checkpoints/` and `history.jsonl`; of one job only.
        tensorboard: folder for TensorBoard's files; none by default.
        resume: False removes existing checkpoints.
        should_stop: called after every step; once it is true on a rank, all ranks write a checkpoint and end.
        beside: of a job that this one is compared with: the same versions of the tables are read, unless the settings
            name others or follow the newest.

    Raises:
        ConfigError: the checkpoint is of another job; the table lacks what the recipe needs; too few windows.
        StoreError: `folder` cannot be written; the version of the table that the checkpoint needs no longer exists.
        LossNotFinite: with the step and its clips.
    """
    if ranks.rank() == 0:
        folder.check_writable()
    found = _find(folder, resume)
    if found is not None:
        checkpoints.check_fits(found.facts, found.uri, recipe.name, settings, ranks.world_size())
    data = _data(recipe, db, settings, found, beside)
    job = _Job(recipe, db, settings, folder, tensorboard, report, torch.device(device), found, data)
    stopped = job.run(should_stop)
    return Outcome(job.network.eval(), job.data, job.history.lines, job.checkpoint, stopped)


class _Job:
    """The state of one rank: network, optimiser, windows, position and history."""

    def __init__(
        self, recipe, db, settings, folder, tensorboard, report, device, found: Checkpoint | None, data: RecipeData
    ) -> None:
        self.recipe: Recipe = recipe
        self.db: Database = db
        self.settings: TrainSettings = settings
        self.folder: Folder = folder
        self.device: torch.device = device
        self.step = self.epoch = self.batches = self.epoch_began = 0
        self.train_s = 0.0
        self.checkpoint = found.uri if found else ""
        self.finished = found is not None and found.facts.finished
        self.data = data
        # The facts that the network was built from: a newer version of the table may have others.
        self.facts: Mapping[str, Any] = found.facts.facts if found else self.data.facts
        self._load_windows()
        self._build(found)
        here = ranks.rank() == 0
        self._report = report or (lambda line, uri: None)
        self.history = History(folder if here else None, tensorboard if here else None, found.history if found else ())
        if found is not None:
            self._resume(found)

    def run(self, should_stop: Callable[[], bool]) -> bool:
        """Train to the end, or until a rank is asked to stop; returns whether it was stopped."""
        stopped = False
        try:
            if not self.finished:
                self._report(self._begins(), None)
            if not self.finished and not self.step:
                self._evaluate()
            while not self.finished and not stopped:
                stopped = self._run_epoch(should_stop)
                if not stopped or self.batches >= len(self.loader):
                    self._end_epoch(stopped)
                else:
                    self._save()
        finally:
            self.history.close()
        return stopped and not self.finished

    def _begins(self) -> dict[str, Any]:
        line: dict[str, Any] = {"kind": "begins", "step": self.step, "table": self.data.train.spec.table}
        for side, windows in (("train", self.data.train), ("held_out", self.data.held_out)):
            line |= {f"{side}_windows": len(windows), f"{side}_rows": windows.counts["clips"]}
        return line

    def _load_windows(self) -> None:
        options = {"rank": ranks.rank(), "world_size": ranks.world_size(), "num_workers": self.settings.loader_workers}
        options |= {"batch_size": self.settings.batch_size, "seed": self.settings.seed}
        self.loader = self.data.train.loader(shuffle=True, drop_last=True, **options)
        held_out = self.data.held_out
        self.held_out = held_out.loader(shuffle=False, drop_last=False, **options) if len(held_out) else ()
        self.steps_per_epoch = -(-len(self.loader) // self.settings.accumulate)
        if not len(self.loader):
            needed, there = self.settings.batch_size * ranks.world_size(), len(self.data.train)
            fitting = f"--set batch_size={there // ranks.world_size()} or less, fewer --workers, " if there else ""
            raise ConfigError(
                f"{there} windows to train on, but one step takes {needed}",
                self.data.train.why_empty() or f"{fitting}shorter windows, or more clips",
            )

    def _build(self, found: Checkpoint | None) -> None:
        settings = self.settings
        seed_all(settings.seed)
        self.network = self.recipe.network(settings, self.facts)
        if found is not None:
            checkpoints.put_weights(self.network, found.network, found.uri)
        elif settings.init:
            start = checkpoints.load_start(settings.init, self.folder.storage_options, self.recipe.name)
            kept = self.recipe.load_init(self.network, start.network, settings, start.facts)
            log.info("weights loaded from %s; %d parameters keep their initial values", start.uri, len(kept))
        self.network.to(self.device)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        options: dict[str, Any] = {
            "lr": settings.lr,
            "betas": tuple(settings.betas),
            "weight_decay": settings.weight_decay,
        }
        self.optimizer = torch.optim.AdamW(parameters, **options)
        if settings.compile:
            self.network.compile()
        model = self.network
        if ranks.is_parallel():
            ids = [self.device] if self.device.type == "cuda" else None
            model = nn.parallel.DistributedDataParallel(model, device_ids=ids, find_unused_parameters=True)
        self.stepper = Stepper(model, self.optimizer, settings, self.device)
        seed_all(settings.seed, 1 + ranks.rank())

    def _resume(self, found: Checkpoint) -> None:
        """Restore optimiser, loader, random generators and position from a checkpoint."""
        facts, training = found.facts, found.training
        self.step, self.epoch, self.batches, self.train_s = facts.step, facts.epoch, facts.batches, facts.train_s
        self.epoch_began = training["epoch_began"]
        self.optimizer.load_state_dict(training["optimizer"])
        self.loader.load_state_dict(training["loaders"][ranks.rank()])
        set_random_state(training["random"][ranks.rank()], self.device)
        if not self.finished:
            line = {"kind": "resumed", "step": self.step, "checkpoint": found.uri, "workers": ranks.world_size()}
            self._add(line, report=True)

    def _run_epoch(self, should_stop: Callable[[], bool]) -> bool:
        """Train for the rest of the epoch or up to `max_steps`; returns whether a rank was asked to stop."""
        last_saved = self.step
        batches = iter(self.loader)
        while self.step != self.settings.max_steps and (group := self._take(batches)):
            began, wait_s, samples = group
            if self._take_step(began, wait_s, samples, should_stop()):
                return True
            every = self.settings.checkpoint_every
            if every and self.step - last_saved >= every and self.batches < len(self.loader):
                self._save()
                last_saved = self.step
        return False

    def _take(self, batches: Iterator[Mapping[str, Any]]) -> tuple[float, float, list[Mapping[str, Any]]] | None:
        """(start time of the step, seconds waited for its batches, batches); None at the epoch's end."""
        began = time.perf_counter()
        samples = [batch for _, batch in zip(range(self.settings.accumulate), batches, strict=False)]
        return (began, time.perf_counter() - began, samples) if samples else None

    def _take_step(self, began: float, wait_s: float, samples: list[Mapping[str, Any]], stop: bool) -> bool:
        settings = self.settings
        position = self.epoch + (self.batches + len(samples) / 2) / len(self.loader)
        end = end_position(settings.epochs, settings.max_steps, self.epoch_began, self.epoch, self.steps_per_epoch)
        lr = settings.lr * lr_factor(position, end, settings.warmup_epochs)
        numbers = self.stepper.step(samples, lr, self.step + 1, stop)
        self.step, self.batches = self.step + 1, self.batches + len(samples)
        step_s = time.perf_counter() - began
        self.train_s += step_s
        line = {"kind": "step", "step": self.step, "epoch": self.epoch, "loss": numbers.loss, "lr": lr}
        line |= {"grad_norm": numbers.grad_norm, "loader_wait_s": wait_s, "step_s": step_s, "windows": numbers.windows}
        line |= {"at_s": self.train_s}
        self._add(line, report=self.step % settings.log_every == 0)
        return numbers.stop

    def _end_epoch(self, stopped: bool) -> None:
        """Compute held-out numbers, look for a newer version of the table, and write a checkpoint where one is due."""
        whole = self.batches >= len(self.loader)
        self.finished = self.epoch + 1 >= self.settings.epochs or self.step == self.settings.max_steps
        if whole:
            self.epoch, self.batches, self.epoch_began = self.epoch + 1, 0, self.step
        self._evaluate()
        if whole and not self.finished:
            if self.settings.follow_versions:
                self._follow()
            self.loader.set_epoch(self.epoch)
        if stopped or self.finished or self.epoch % self.settings.checkpoint_epochs == 0:
            self._save()

    def _evaluate(self) -> None:
        began = time.perf_counter()
        sums, windows = held_out_sums(self.network, self.held_out, self.settings, self.device)
        seconds = time.perf_counter() - began
        self.train_s += seconds
        line = {"kind": "held_out", "step": self.step, "epoch": self.epoch, "version": self.data.version}
        line |= {"windows": windows, "numbers": {name: s / n if n else None for name, (s, n) in sums.items()}}
        line |= {"counts": {name: n for name, (_, n) in sums.items()}, "seconds": seconds, "at_s": self.train_s}
        if not windows:
            line["why_none"] = self.data.held_out.why_empty()
        self._add(line, report=True)

    def _follow(self) -> None:
        """Switch to the newest version of the table, the same on every rank."""
        table = self.data.train.spec.table
        newest = ranks.broadcast(self.db.existing_table(table).version if ranks.rank() == 0 else None)
        if newest == self.data.version:
            return
        self.data = self.recipe.data(self.db, self.settings.pinned(self.facts), newest)
        self._load_windows()
        line = {"kind": "version", "epoch": self.epoch, "step": self.step, "version": newest}
        self._add(line | {"windows": len(self.data.train)}, report=True)

    def _save(self) -> None:
        """Write a checkpoint, on rank 0; every rank contributes the state of its loader and of its generators."""
        loaders = ranks.gathered(self.loader.state_dict())
        states = ranks.gathered(random_state(self.device))
        self.history.flush(with_remote=True)
        if ranks.rank() == 0:
            training: dict[str, Any] = {"optimizer": self.optimizer.state_dict(), "loaders": loaders, "random": states}
            training["epoch_began"] = self.epoch_began
            keep = self.settings.keep_checkpoints
            text = self.history.text()
            self.checkpoint = checkpoints.save(self.folder, self._facts(), self.network, training, text, keep)
        self.checkpoint = ranks.broadcast(self.checkpoint)
        self._report({"kind": "checkpoint", "step": self.step}, self.checkpoint)

    def _facts(self) -> CheckpointFacts:
        settings = self.settings
        return CheckpointFacts(
            recipe=self.recipe.name,
            stage=str(getattr(settings, "stage", "")),
            settings=settings.model_dump(mode="json"),
            settings_key=settings.settings_key(),
            step=self.step,
            epoch=self.epoch,
            batches=self.batches,
            finished=self.finished,
            data_version=self.data.version,
            windows_key=self.data.train.key,
            workers=ranks.world_size(),
            facts=dict(self.facts),
            frozen=checkpoints.frozen_parts(self.network),
            train_s=self.train_s,
        )

    def _add(self, line: dict[str, Any], report: bool) -> None:
        self.history.add(line)
        if report:
            self.history.flush()
            self._report(line, None)


def _find(folder: Folder, resume: bool) -> Checkpoint | None:
    """The newest complete checkpoint, the same on every rank; None without one, or with `resume` false, which removes
    them."""
    name = None
    if ranks.rank() == 0:
        if resume:
            name = checkpoints.newest(folder)
        else:
            folder.remove(checkpoints.FOLDER)
    name = ranks.broadcast(name)
    return None if name is None else checkpoints.load(folder, name)


def _data(
    recipe: Recipe, db: Database, settings: TrainSettings, found: Checkpoint | None, beside: RecipeData | None
) -> RecipeData:
    """The windows, of the checkpoint's versions of the tables, those of `beside`, or those that rank 0 reads."""
    if found is not None:
        return _data_of_checkpoint(recipe, db, settings, found)
    version = settings.version
    if beside is not None and not settings.follow_versions:
        version, settings = version or beside.version, settings.pinned(beside.facts)
    data = recipe.data(db, settings, version)
    version, pinned = ranks.broadcast((data.version, settings.pinned(data.facts)))
    same = data.version == version and settings.pinned(data.facts) == pinned
    return data if same else recipe.data(db, pinned, version)


def _data_of_checkpoint(recipe: Recipe, db: Database, settings: TrainSettings, found: Checkpoint) -> RecipeData:
    version = found.facts.data_version
    try:
        data = recipe.data(db, settings.pinned(found.facts.facts), version)
    except StoreError as error:
        raise StoreError(
            f"{found.uri} was trained on version {version} of the table, which cannot be read: {error.problem}",
            f"versions that exist: {_versions(db)}; start again with --no-resume on one of them",
        ) from error
    if data.train.key != found.facts.windows_key:
        raise StoreError(
            f"the windows of version {version} differ from those that {found.uri} was trained on",
            "another version of handloom cuts windows differently: start again with --no-resume, or give another --out",
        )
    return data


def _versions(db: Database) -> str:
    found = {name: db.table(name) for name in ("clips", "robot_episodes")}
    numbers = {name: [v["version"] for v in table.versions()] for name, table in found.items() if table is not None}
    return "; ".join(f"{name} {', '.join(map(str, versions[-8:]))}" for name, versions in numbers.items()) or "none"

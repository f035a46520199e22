"""One step of the optimiser, and the held-out sums: exact over batches, ranks and accumulation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handloom.errors import HandloomError
from handloom.schemas.training import TrainSettings
from handloom.train import ranks

MAX_NAMED = 8


def lr_factor(position: float, end: float, warmup: float) -> float:
    """Share of the largest learning rate at `position`; 0 at `end`.

    Args:
        position: finished epochs, with their fraction: 2.5 is the middle of the third. The loop gives the middle of a
            step, so that the first step does not have a rate of zero.
        end: position at which training ends, epochs. It may change: newer versions of a table have more windows, and
            `max_steps` may come first.
        warmup: epochs of linear warm-up; at most half of `end`, so that short trials reach the full rate, too (ours).

    Source: the schedule of ARM4R's pre-training (arXiv 2502.13142): linear warm-up, then half a cosine to 0.
    """
    warmup = min(warmup, end / 2)
    if position < warmup:
        return position / warmup
    if position >= end:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * (position - warmup) / (end - warmup)))


def end_position(epochs: int, max_steps: int | None, steps_done: int, epoch: int, steps_per_epoch: int) -> float:
    """Position at which training ends, in epochs: after `epochs`, or at `max_steps` if that comes first.

    steps_done: steps before epoch number `epoch` (0 is the first) began; steps_per_epoch: of this epoch's data.
    """
    if max_steps is None:
        return float(epochs)
    return min(float(epochs), epoch + max(max_steps - steps_done, 0) / max(steps_per_epoch, 1))


class LossNotFinite(HandloomError):
    """The loss or a gradient is NaN or infinite: another step would make the weights NaN."""


@dataclass(frozen=True)
class StepNumbers:
    """loss: mean over the valid elements of all ranks; None without a valid element (then no weight was changed).
    grad_norm: before clipping. windows: of all ranks. stop: a rank was asked to stop."""

    loss: float | None
    grad_norm: float | None
    windows: int
    stop: bool


class Stepper:
    """Forward, backward, and the optimiser.

    The weight of a batch is its number of valid elements (the count of the recipe's `sums["loss"]`; without it, one if
    any count is above zero): the gradient is that of the mean over the valid elements of all batches of the step, on
    all ranks, as if they were one batch. A batch without a valid element changes nothing.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, settings: TrainSettings, device) -> None:
        """model: the network, or DistributedDataParallel around it."""
        self._model = model
        self._optimizer = optimizer
        self._settings = settings
        self._device = device
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, batches: Sequence[Mapping[str, Any]], lr: float, number: int, stop: bool = False) -> StepNumbers:
        """One step over `batches` (more than one where gradients are accumulated).

        Args:
            number: of the step, for messages. stop: this rank was asked to stop.

        Raises:
            LossNotFinite: on every rank; it names the step and the clips.
        """
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        total, count, windows, bad = 0.0, 0.0, 0, False
        for position, batch in enumerate(batches):
            model = self._model if position + 1 < len(batches) else None
            with model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext():
                loss, weight = self._backward(batch)
            total, count, windows = total + loss * weight, count + weight, windows + num_windows(batch)
            bad |= not torch.isfinite(torch.tensor(loss)).item() and weight > 0
        sums = ranks.all_sum([0.0 if bad else total, count, windows, float(bad), float(stop)], self._device)
        total, count, num_all, num_bad, num_stop = sums
        if num_bad:
            raise _not_finite("the loss", number, batches, bad, self._device)
        if not count:
            return StepNumbers(None, None, int(num_all), num_stop > 0)
        norm = self._update(lr, ranks.world_size() / count)
        if not torch.isfinite(torch.tensor(norm)).item():
            raise _not_finite("a gradient", number, batches, True, self._device)
        return StepNumbers(total / count, norm, int(num_all), num_stop > 0)

    def _backward(self, batch: Mapping[str, Any]) -> tuple[float, float]:
        """Add the gradient of loss times weight; returns (loss, weight); weight 0: the batch has no valid element."""
        with precision(self._settings, self._device):
            out = self._model(to_device(batch, self._device))
        loss, weight = out["loss"].float(), _weight(out["sums"])
        if weight > 0 or ranks.is_parallel():  # the ranks wait for each other in backward
            (loss * weight).backward()
        return loss.item(), weight

    def _update(self, lr: float, scale: float) -> float:
        """Scale the gradients, clip them, step; returns their norm."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        torch._foreach_mul_(gradients, scale)
        limit = self._settings.clip_grad_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, float("inf") if limit is None else limit).item()
        if norm == norm and norm != float("inf"):
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
        return norm


def held_out_sums(
    network: nn.Module, batches: Iterable[Mapping[str, Any]], settings: TrainSettings, device: torch.device
) -> tuple[dict[str, tuple[float, float]], int]:
    """`{name: (sum over valid elements, their number)}` over all batches of all ranks, and the number of windows.

    The ranks may have different numbers of batches: they exchange sums once, at the end.
    """
    network.eval()
    own: dict[str, Tensor] = {}
    windows = 0
    with torch.no_grad():
        for batch in batches:
            with precision(settings, device):
                sums = network(to_device(batch, device))["sums"]
            windows += num_windows(batch)
            for name, pair in sums.items():
                own[name] = own.get(name, 0) + pair.detach().double()
    network.train()
    everyone = ranks.gathered(({name: pair.tolist() for name, pair in own.items()}, windows))
    names = dict.fromkeys(name for sums, _ in everyone for name in sums)
    pairs = {name: [sums.get(name, (0.0, 0.0)) for sums, _ in everyone] for name in names}
    total = {name: (sum(s for s, _ in found), sum(n for _, n in found)) for name, found in pairs.items()}
    return total, sum(number for _, number in everyone)


def precision(settings: TrainSettings, device: torch.device):
    """bf16 autocast where the settings ask for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")


def to_device(value: Any, device: torch.device) -> Any:
    """The batch with its tensors, nested ones among them, on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: to_device(item, device) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    return value


def num_windows(batch: Mapping[str, Any]) -> int:
    """The first dimension that a batch's tensors share."""
    return next((len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim), 0)


def clip_ids_of(batch: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in batch.get("clip_id") or batch.get("episode_id") or ()]


def _weight(sums: Mapping[str, Tensor]) -> float:
    if "loss" in sums:
        return float(sums["loss"][1])
    return float(any(float(pair[1]) > 0 for pair in sums.values()))


def _not_finite(what: str, number: int, batches: Sequence[Mapping[str, Any]], here: bool, device) -> LossNotFinite:
    own = list(dict.fromkeys(name for batch in batches for name in clip_ids_of(batch))) if here else []
    clips = list(dict.fromkeys(name for names in ranks.gathered(own) for name in names))
    named = ", ".join(clips[:MAX_NAMED]) + (f" and {len(clips) - MAX_NAMED} more" if len(clips) > MAX_NAMED else "")
    return LossNotFinite(
        f"{what} is not finite at step {number}; the batch held {named or 'windows without ids'}",
        "NaN in the windows is masked, so that the most likely cause is a learning rate that is too high: lower it "
        "(--set lr=...), set clip_grad_norm=1, or use precision fp32; to leave out a clip: "
        "--set \"where=clip_id <> 'ID'\"",
    )

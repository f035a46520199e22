"""The learning rate: a linear warm-up, then half a cosine down to zero, by position in epochs."""

from __future__ import annotations

import math


def lr_factor(position: float, end: float, warmup: float) -> float:
    """Share of the largest learning rate at `position`; 0 at `end`.

    Args:
        position: epochs gone, with their fraction: 2.5 is the middle of the third. The loop asks for the middle of a
            step, so that the first step is not lost to a rate of zero.
        end: position at which training ends, epochs. It may move: newer versions of a table have more windows, and
            `max_steps` may come first.
        warmup: epochs of linear warm-up; at most half of `end`, so that short trials reach the full rate too (ours).

    Source: the schedule of ARM4R's pre-training (SPECS 1.7): warm-up 1.25 epochs, half cosine to 0.
    """
    warmup = min(warmup, end / 2)
    if position < warmup:
        return position / warmup
    if position >= end:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * (position - warmup) / (end - warmup)))


def end_position(epochs: int, max_steps: int | None, steps_done: int, epoch: int, steps_per_epoch: int) -> float:
    """Where training ends, in epochs: after `epochs`, or where `max_steps` falls.

    steps_done: steps before epoch number `epoch` (0 is the first) began; steps_per_epoch: of this epoch's data.
    """
    if max_steps is None:
        return float(epochs)
    return min(float(epochs), epoch + max(max_steps - steps_done, 0) / max(steps_per_epoch, 1))

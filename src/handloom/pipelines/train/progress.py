"""Progress of a training job on stderr: a line for every `log_every` steps and for every held-out pass."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

import ray

from handloom.plural import plural


def announce(recipe: str, variants: Iterable[str], ray_address: str | None, quiet: bool) -> None:
    """Print what starts: the start of Ray and of its workers and the first held-out pass may take minutes."""
    if not quiet:
        doing = f"joining the cluster {ray_address}" if ray_address else "starting Ray"
        print(f"{recipe}: training {', '.join(variants)}: {doing}", file=sys.stderr, flush=True)


class TrainProgress:
    """Prints the lines of the job's ledger."""

    def __init__(self, ledger: ray.actor.ActorHandle, recipe: str, quiet: bool, out: TextIO | None = None) -> None:
        self._ledger = ledger
        self._recipe = recipe
        self._quiet = quiet
        self._out = out or sys.stderr

    def show(self) -> None:
        """Print the lines since the last call."""
        for variant, line in ray.get(self._ledger.take.remote()):
            self.say(text_of(line, f"{self._recipe}/{variant}"))

    def say(self, text: str) -> None:
        if text and not self._quiet:
            print(text, file=self._out, flush=True)


def text_of(line: dict[str, Any], title: str) -> str:
    """A line of the history as text for a reader; empty for kinds that are not printed."""
    kind, step = line["kind"], line["step"]
    if kind == "step":
        loss = "-" if line["loss"] is None else f"{line['loss']:.5g}"
        wait = line["loader_wait_s"] / line["step_s"] if line["step_s"] else 0.0
        rate = line["windows"] / line["step_s"] if line["step_s"] else 0.0
        text = f"step={step} epoch={line['epoch']} loss={loss} lr={line['lr']:.3g}"
        return f"{title} {text} windows_per_s={rate:.1f} loader_wait={wait:.0%}"
    if kind == "held_out":
        numbers = (f"{name}={value:.5g}" for name, value in line["numbers"].items() if value is not None)
        if not line["windows"]:  # said once
            return "" if line["epoch"] else f"{title} nothing is held out: {line.get('why_none') or 'no window'}"
        return f"{title} held_out step={step} epoch={line['epoch']} windows={line['windows']} {' '.join(numbers)}"
    if kind == "begins":
        row = "clip" if line["table"] == "clips" else "episode"
        trained, held = (
            f"{plural(line[f'{side}_windows'], 'window')} of {plural(line[f'{side}_rows'], row)}"
            for side in ("train", "held_out")
        )
        return f"{title} trains on {trained}; held out: {held}"
    if kind == "version":
        return f"{title} switches to version={line['version']} windows={line['windows']}"
    if kind == "resumed":
        return f"{title} resumes from step={step}"
    return ""

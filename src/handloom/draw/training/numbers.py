"""The numbers of the training page: held-out numbers beside their baselines, and the charts of epochs and steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handloom.draw.training.curves import NUM_COLOURS, Chart, Curve, smoothed
from handloom.draw.training.shown import VariantShown
from handloom.plural import plural

BASELINES = ("zero_motion", "constant_velocity", "mean_motion", "principal_components")
"""Those that some recipe reports; a page shows those that its numbers have."""
ERRORS = ("l1", "error", "loss")
"""Stems of the numbers that are compared with the baselines, the headline first; `l1_all` goes with `l1`."""
MAX_SMOOTH = 100
LEAST_GAIN = 0.01
"""An error that is lower by less is no gain: one run of each cannot tell."""


def baseline_of(name: str) -> tuple[str, str] | None:
    """`("zero_motion", "_moving")` for `zero_motion_moving`: the baseline and the part of the data; None for others."""
    return next(((base, name[len(base) :]) for base in BASELINES if name.startswith(base)), None)


def part_of(name: str, parts: Sequence[str]) -> tuple[str, str]:
    """A number's stem and part: `("l1", "_moving")` for `l1_moving`, where `_moving` is the part of some baseline."""
    ends = [part for part in parts if part and name.endswith(part)]
    part = max(ends, key=len, default="")
    return (name[: -len(part)] if part else name), part


@dataclass(frozen=True)
class Compared:
    """A number beside the baselines over the same elements. part: `""` or `_moving`; baselines: {full name: value}."""

    part: str
    name: str
    value: float
    baselines: dict[str, float]

    @property
    def best(self) -> str:
        """Name of the better baseline."""
        return min(self.baselines, key=lambda name: self.baselines[name])

    @property
    def change(self) -> float:
        """Relative to the better baseline: -0.2 is 20 % below it. NaN where that baseline is zero."""
        best = self.baselines[self.best]
        return self.value / best - 1 if best else math.nan


def compared(numbers: Mapping[str, float | None]) -> list[Compared]:
    """For every part of the data that has a baseline, the first of `ERRORS` that is reported."""
    bases: dict[str, dict[str, float]] = {}
    for name, value in numbers.items():
        found = baseline_of(name)
        if found and value is not None:
            bases.setdefault(found[1], {})[name] = value
    out = []
    for part, values in bases.items():
        reported = ((f"{stem}{part}", numbers.get(f"{stem}{part}")) for stem in ERRORS)
        first = next(((name, value) for name, value in reported if value is not None), None)
        if first is not None:
            out.append(Compared(part, *first, values))
    return out


@dataclass(frozen=True)
class ComparedRow:
    """A part of the data: `asked` beside the same part in each variant (None where it has none) and each baseline."""

    asked: Compared
    variants: list[Compared | None]
    baselines: list[float | None]


def baselines_shown(variants: Sequence[VariantShown]) -> list[str]:
    """Those of `BASELINES` that the asked variant, the first, has numbers of."""
    there = {found[0] for name in variants[0].numbers() if (found := baseline_of(name))}
    return [name for name in BASELINES if name in there]


def comparison(variants: Sequence[VariantShown]) -> list[ComparedRow]:
    """A row for every part of the data that the asked variant, the first, has a baseline for."""
    found = [{c.part: c for c in compared(variant.numbers())} for variant in variants]
    shown = baselines_shown(variants)
    return [
        ComparedRow(
            row, [by_part.get(part) for by_part in found], [row.baselines.get(f"{base}{part}") for base in shown]
        )
        for part, row in found[0].items()
    ]


def against_others(variants: Sequence[VariantShown]) -> str:
    """How the asked variant's first error compares with the others', and which of them it does not beat by
    `LEAST_GAIN`; empty where there is no other."""
    (asked, *others) = (next(iter(compared(v.numbers())), None) for v in variants)
    if asked is None:
        return ""
    beside, as_good = [], []
    for variant, other in zip(variants[1:], others, strict=True):
        if other is not None and other.name == asked.name and other.value:
            change = asked.value / other.value - 1
            beside.append(f"{abs(change):.1%} {'below' if change < 0 else 'above'} {variant.name}")
            as_good += [variant.name] if change > -LEAST_GAIN else []
    if not beside:
        return ""
    words = f"{variants[0].name} is {', '.join(beside)} (one run of each)."
    return words + (f" Here it is no better than {' and '.join(as_good)}." if as_good else "")


def other_numbers(variants: Sequence[VariantShown]) -> dict[str, list[Any]]:
    """`{name: value of each variant}`: the held-out numbers that `comparison` does not show, then the recipe's own."""
    found = [v.numbers() for v in variants]
    shown = {name for c in compared(found[0]) for name in (c.name, *c.baselines)}
    rows = {name: [numbers.get(name) for numbers in found] for numbers in found for name in numbers}
    rows = {name: values for name, values in rows.items() if name not in shown}
    own = [v.result.get("numbers", {}) for v in variants]
    return rows | {name: [numbers.get(name) for numbers in own] for numbers in own for name in numbers}


def held_out_charts(variants: Sequence[VariantShown]) -> list[Chart]:
    """One chart for every part of the data that has a baseline, and one for every other number that changes."""
    names = list(dict.fromkeys(name for v in variants for line in v.held_out for name in line["numbers"]))
    parts = list(dict.fromkeys(found[1] for name in names if (found := baseline_of(name))))
    groups: dict[str, list[str]] = {}
    for name in names:
        if not baseline_of(name) and any(_changes(v, name) for v in variants):
            stem, part = part_of(name, parts)
            beside = part in parts and stem.startswith(ERRORS)
            groups.setdefault(part if beside else f"\0{name}", []).append(name)
    return [_held_out_chart(variants, part, members) for part, members in groups.items()]


def _held_out_chart(variants: Sequence[VariantShown], part: str, names: Sequence[str]) -> Chart:
    """The numbers of one part over its baselines; of several variants, the first of the numbers alone."""
    curves: list[Curve] = []
    names = sorted(names, key=_rank)[: 1 if len(variants) > 1 else None]
    for number, variant in enumerate(variants):
        x = _positions(variant)
        for offset, name in enumerate(names):
            y = [line["numbers"].get(name) for line in variant.held_out]
            label = f"{variant.name}: {name}" if len(variants) > 1 else name
            curves.append(Curve(label, x, y, number + offset, "dots"))
    shown = baselines_shown(variants)
    for offset, base in enumerate(shown):
        y = [line["numbers"].get(f"{base}{part}") for line in variants[0].held_out]
        curves.append(Curve(f"{base}{part}", [0] * len(y), y, NUM_COLOURS - len(shown) + offset, "level"))
    return Chart(part.strip("_\0") or names[0], curves, "epochs", names[0])


def _rank(name: str) -> int:
    return next((number for number, stem in enumerate(ERRORS) if name.startswith(stem)), len(ERRORS))


def _positions(variant: VariantShown) -> list[float]:
    """Finished epochs at each held-out pass; `max_steps` may end training within one."""
    steps = Counter(step["epoch"] for step in variant.steps)
    whole = max(steps.values(), default=1)
    return [line["epoch"] + steps[line["epoch"]] / whole * (line is variant.held_out[-1]) for line in variant.held_out]


def _changes(variant: VariantShown, name: str) -> bool:
    return len({line["numbers"].get(name) for line in variant.held_out}) > 1


def step_charts(variants: Sequence[VariantShown]) -> list[Chart]:
    """The loss of every step, and how long steps took and waited for their windows."""
    width = max(1, min(MAX_SMOOTH, len(variants[0].steps) // 20))
    losses: list[Curve] = []
    times: list[Curve] = []
    for number, variant in enumerate(variants):
        x = [step["step"] for step in variant.steps]
        y = [step["loss"] for step in variant.steps]
        if width > 1:
            losses.append(Curve(variant.name, x, y, number, "faint"))
        mean = f", mean of {plural(width, 'step')}" if width > 1 else ""
        losses.append(Curve(f"{variant.name}{mean}", x, smoothed(y, width) if width > 1 else y, number))
        for offset, (name, label) in enumerate((("step_s", "whole step"), ("loader_wait_s", "waiting for the loader"))):
            seconds = smoothed([step[name] for step in variant.steps], width)
            title = f"{variant.name}: {label}" if len(variants) > 1 else label
            times.append(Curve(title, x, seconds, number + offset * (NUM_COLOURS // 2)))
    return [Chart("Loss", losses, "steps", "loss"), Chart("Seconds a step", times, "steps", "seconds")]

"""The numbers of the training page: held-out curves over their baselines, what beats what, and the steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from handloom.draw.training.curves import NUM_COLOURS, Curve, line_chart, smoothed
from handloom.draw.training.shown import VariantShown, short

BASELINES = ("zero_motion", "constant_velocity")
ERRORS = ("l1", "error", "loss")
"""Stems of the numbers that are set against the baselines, the headline first; `l1_all` goes with `l1`."""
MAX_SMOOTH = 100


def baseline_of(name: str) -> tuple[str, str] | None:
    """`("zero_motion", "_moving")` for `zero_motion_moving`: a baseline, and the part of the data it is over."""
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
    def change(self) -> float:
        """Over the better baseline, less one: -0.2 is 20 % below it. NaN where that is zero."""
        best = min(self.baselines.values())
        return self.value / best - 1 if best else math.nan


def compared(numbers: Mapping[str, float | None]) -> list[Compared]:
    """Of every part of the data that has a baseline, the first of `ERRORS` that is reported."""
    bases: dict[str, dict[str, float]] = {}
    for name, value in numbers.items():
        found = baseline_of(name)
        if found and value is not None:
            bases.setdefault(found[1], {})[name] = value
    out = []
    for part, values in bases.items():
        name = next((f"{stem}{part}" for stem in ERRORS if numbers.get(f"{stem}{part}") is not None), None)
        if name is not None:
            out.append(Compared(part, name, numbers[name], values))
    return out


def headline(variant: VariantShown) -> str:
    """What came of it, in one sentence; empty where nothing can be compared."""
    found = compared(variant.numbers())
    if not found:
        return ""
    first = found[0]
    best = min(first.baselines, key=lambda name: first.baselines[name])
    verdict = f"{abs(first.change):.1%} {'below' if first.change < 0 else 'above'}"
    return (
        f"<p class='headline'>On held-out windows {escape(first.name)} is {short(first.value)}: <b>{verdict}</b> the "
        f"better baseline, {escape(best)}, which is {short(first.baselines[best])}.</p>"
    )


def against_others(variants: Sequence[VariantShown]) -> str:
    """How the asked variant's first error compares with the others', and which of them it does not beat; empty where
    there is no other."""
    (asked, *others) = (next(iter(compared(v.numbers())), None) for v in variants)
    if asked is None:
        return ""
    beside, as_good = [], []
    for variant, other in zip(variants[1:], others, strict=True):
        if other is not None and other.name == asked.name and other.value:
            change = asked.value / other.value - 1
            beside.append(f"{abs(change):.1%} {'below' if change < 0 else 'above'} {variant.name}")
            as_good += [variant.name] if change >= 0 else []
    if not beside:
        return ""
    words = f"{variants[0].name} is {', '.join(beside)} (one run of each)."
    words += f" It does not help here beside {' and '.join(as_good)}." if as_good else ""
    return f"<p>{escape(words)}</p>"


def comparison_table(variants: Sequence[VariantShown]) -> str:
    """A line for every part of the data: each variant's error, how far from the better baseline, and both of them."""
    rows = compared(variants[0].numbers())
    if not rows:
        return ""
    others = [{c.part: c for c in compared(v.numbers())} for v in variants]
    names = (*(v.name for v in variants), *BASELINES)
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in names)
    lines = []
    for row in rows:
        cells = "".join(_change(found.get(row.part)) for found in others)
        cells += "".join(f"<td>{short(row.baselines.get(f'{base}{row.part}'))}</td>" for base in BASELINES)
        lines.append(f"<tr><th scope='row'>{escape(row.name)}</th>{cells}</tr>")
    return _table(f"<th scope='col'>held out</th>{head}", lines)


def _change(found: Compared | None) -> str:
    if found is None:
        return "<td>–</td>"
    kind = "better" if found.change < 0 else "worse"
    return f"<td>{short(found.value)} <span class='{kind}'>{found.change:+.1%}</span></td>"


def _table(head: str, lines: Sequence[str]) -> str:
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def held_out_charts(variants: Sequence[VariantShown]) -> str:
    """One chart for every part of the data that has a baseline, and one for every other number that changes."""
    names = list(dict.fromkeys(name for v in variants for line in v.held_out for name in line["numbers"]))
    parts = list(dict.fromkeys(found[1] for name in names if (found := baseline_of(name))))
    groups: dict[str, list[str]] = {}
    for name in names:
        if not baseline_of(name) and any(_changes(v, name) for v in variants):
            stem, part = part_of(name, parts)
            beside = part in parts and stem.startswith(ERRORS)
            groups.setdefault(part if beside else f"\0{name}", []).append(name)
    charts = "".join(_held_out_chart(variants, part, members) for part, members in groups.items())
    if charts:
        return f"<div class='grid2'>{charts}</div>"
    reasons = dict.fromkeys(line["why_none"] for v in variants for line in v.held_out if line.get("why_none"))
    return f"<p class='none'>No held-out windows{escape(''.join(f': {reason}' for reason in reasons))}.</p>"


def _held_out_chart(variants: Sequence[VariantShown], part: str, names: Sequence[str]) -> str:
    """The numbers of one part over its baselines; of several variants, the first of the numbers alone."""
    curves: list[Curve] = []
    names = sorted(names, key=_rank)[: 1 if len(variants) > 1 else None]
    for number, variant in enumerate(variants):
        x = _positions(variant)
        for offset, name in enumerate(names):
            y = [line["numbers"].get(name) for line in variant.held_out]
            label = f"{variant.name}: {name}" if len(variants) > 1 else name
            curves.append(Curve(label, x, y, number + offset, "dots"))
    for offset, base in enumerate(BASELINES):
        y = [line["numbers"].get(f"{base}{part}") for line in variants[0].held_out]
        curves.append(Curve(f"{base}{part}", [0] * len(y), y, NUM_COLOURS - len(BASELINES) + offset, "level"))
    title = part.strip("_\0") or names[0]
    return f"<div class='panel'><h3>{escape(title)}</h3>{line_chart(curves, 'epochs', names[0])}</div>"


def _rank(name: str) -> int:
    return next((number for number, stem in enumerate(ERRORS) if name.startswith(stem)), len(ERRORS))


def _positions(variant: VariantShown) -> list[float]:
    """Epochs gone at each held-out pass; `max_steps` may end training within one."""
    steps = Counter(step["epoch"] for step in variant.steps)
    whole = max(steps.values(), default=1)
    return [line["epoch"] + steps[line["epoch"]] / whole * (line is variant.held_out[-1]) for line in variant.held_out]


def numbers_table(variants: Sequence[VariantShown]) -> str:
    """The held-out numbers that no baseline belongs to and the recipe's own, side by side."""
    found = [v.numbers() for v in variants]
    against = {name for c in compared(found[0]) for name in (c.name, *c.baselines)}
    rows = [name for name in dict.fromkeys(name for numbers in found for name in numbers) if name not in against]
    own = list(dict.fromkeys(name for v in variants for name in v.result.get("numbers", {})))
    if not rows and not own:
        return ""
    head = "".join(f"<th scope='col'>{escape(v.name)}</th>" for v in variants)
    lines = [_row(name, [numbers.get(name) for numbers in found]) for name in rows]
    lines += [_row(name, [v.result.get("numbers", {}).get(name) for v in variants]) for name in own]
    return _table(f"<th scope='col'>more numbers</th>{head}", lines)


def _row(name: str, values: Sequence[Any]) -> str:
    cells = "".join(f"<td>{escape(short(value))}</td>" for value in values)
    return f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>"


def step_charts(variants: Sequence[VariantShown]) -> str:
    """The loss of every step, and how long steps took and waited for their windows."""
    width = max(1, min(MAX_SMOOTH, len(variants[0].steps) // 20))
    losses: list[Curve] = []
    times: list[Curve] = []
    for number, variant in enumerate(variants):
        x = [step["step"] for step in variant.steps]
        y = [step["loss"] for step in variant.steps]
        losses.append(Curve(variant.name, x, y, number, "faint"))
        losses.append(Curve(f"{variant.name}, mean of {width} steps", x, smoothed(y, width), number))
        for offset, (name, label) in enumerate((("step_s", "whole step"), ("loader_wait_s", "waiting for the loader"))):
            seconds = smoothed([step[name] for step in variant.steps], width)
            title = f"{variant.name}: {label}" if len(variants) > 1 else label
            times.append(Curve(title, x, seconds, number + offset * (NUM_COLOURS // 2)))
    panels = (("Loss", losses, "loss"), ("Seconds a step", times, "seconds"))
    charts = (f"<h3>{title}</h3>{line_chart(curves, 'steps', label)}" for title, curves, label in panels)
    return f"<div class='grid2'>{''.join(f'<div class=panel>{chart}</div>' for chart in charts)}</div>"


def _changes(variant: VariantShown, name: str) -> bool:
    return len({line["numbers"].get(name) for line in variant.held_out}) > 1

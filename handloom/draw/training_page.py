"""The report of a training job as one HTML file that needs nothing else: curves, numbers, pictures, settings."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from handloom.draw.curves import NUM_COLOURS, Curve, heat_map, line_chart, smoothed
from handloom.draw.predicted import PREDICTED_COLOUR, TRUE_COLOUR, jpeg_of
from handloom.draw.training_style import STYLE
from handloom.schemas.settings import flatten
from handloom.schemas.training import Example

BASELINES = ("zero_motion", "constant_velocity")
ERRORS = ("l1", "error", "loss")
"""Stems of the numbers that are set against the baselines, the headline first; `l1_all` goes with `l1`."""
MAX_EXAMPLES = 8
MAX_SMOOTH = 100


@dataclass(frozen=True)
class VariantShown:
    """One job as the page shows it.

    steps, held_out: lines of its history (`handloom.train.history`). versions: of the table, taken up later.
    resumed: how often it went on from a checkpoint. loader_wait_share: of the step time. result: `result.json`
    (numbers, figures, notes, counts, hardware, versions). examples: held-out windows with predictions.
    """

    name: str
    steps: Sequence[Mapping[str, Any]]
    held_out: Sequence[Mapping[str, Any]]
    versions: Sequence[int]
    resumed: int
    loader_wait_share: float | None
    result: Mapping[str, Any]
    examples: Sequence[Example]

    def data_versions(self) -> list[int]:
        """Versions of the table that it was trained on, in order."""
        return list(dict.fromkeys([*(line["version"] for line in self.held_out[:1]), *self.versions]))

    def numbers(self) -> dict[str, float | None]:
        """The last held-out numbers."""
        return dict(self.held_out[-1]["numbers"]) if self.held_out else {}


def training_page(recipe: str, variants: Sequence[VariantShown], settings: Mapping[str, Any], deaths: int) -> str:
    """The page. variants: the asked one first. settings: as JSON. deaths: worker deaths the job went on from."""
    asked = variants[0]
    stage = settings.get("stage")
    title = f"{recipe}{f', {stage}' if stage else ''}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='soft'>{escape(_subtitle(asked))}</p>",
        _facts(asked, deaths),
        _sentence(asked),
        "<h2>Held-out windows, epoch by epoch</h2>",
        _held_out_charts(variants),
        _numbers_table(variants),
        "<h2>Training loss</h2>",
        f"<div class='panel'>{_loss_chart(variants)}</div>",
        *_pictures(variants),
        *_figures(variants),
        *_notes(variants),
        _data_and_machine(variants),
        _settings(settings),
    ]
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def baseline_of(name: str) -> tuple[str, str] | None:
    """`("zero_motion", "_moving")` for `zero_motion_moving`: a baseline, and the part of the data it is over."""
    return next(((base, name[len(base) :]) for base in BASELINES if name.startswith(base)), None)


def part_of(name: str, parts: Sequence[str]) -> tuple[str, str]:
    """A number's stem and part: `("l1", "_moving")` for `l1_moving`, where `_moving` is the part of some baseline."""
    ends = [part for part in parts if part and name.endswith(part)]
    part = max(ends, key=len, default="")
    return (name[: -len(part)] if part else name), part


def compared(numbers: Mapping[str, float | None]) -> Iterator[tuple[str, str, float, str, float]]:
    """What can be set against a baseline: (part, name, value, name of its better baseline, that baseline's value).

    Of every part, the first of `ERRORS` that is reported.
    """
    bases: dict[str, dict[str, float]] = {}
    for name, value in numbers.items():
        found = baseline_of(name)
        if found and value is not None:
            bases.setdefault(found[1], {})[found[0]] = value
    for part, values in bases.items():
        best = min(values, key=lambda name: values[name])
        for stem in ERRORS:
            value = numbers.get(f"{stem}{part}")
            if value is not None:
                yield part, f"{stem}{part}", value, f"{best}{part}", values[best]
                break


def _subtitle(variant: VariantShown) -> str:
    versions = variant.result.get("versions", {})
    packages = ", ".join(f"{name} {text}" for name, text in versions.items() if name in ("handloom", "torch", "ray"))
    return f"Trained with {packages}." if packages else ""


def _facts(variant: VariantShown, deaths: int) -> str:
    last = variant.held_out[-1] if variant.held_out else {}
    rate = _rate(variant)
    facts = {
        "steps": f"{len(variant.steps):,}",
        "epochs": str(last.get("epoch", 0)),
        "wall time": _duration(last.get("at_s")),
        "windows a second": "unknown" if rate is None else f"{rate:,.1f}",
        "of a step waiting for the loader": _percent(variant.loader_wait_share),
        "table version": ", ".join(map(str, variant.data_versions())) or "unknown",
    }
    if variant.resumed or deaths:
        facts["resumptions, worker deaths"] = f"{variant.resumed}, {deaths}"
    cells = "".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for k, v in facts.items())
    return f"<div class='facts'>{cells}</div>"


def _sentence(variant: VariantShown) -> str:
    """What came of it, in words."""
    lines = []
    for part, name, value, base, best in compared(variant.numbers()):
        where = f" ({part.strip('_')})" if part else ""
        change = (best - value) / best if best else math.nan
        verdict = f"{abs(change):.1%} {'below' if change >= 0 else 'above'}"
        lines.append(
            f"Held-out {escape(name)}{escape(where)} is {_short(value)}: <b>{verdict}</b> the better baseline, "
            f"{escape(base)} at {_short(best)}."
        )
    return "".join(f"<p>{line}</p>" for line in lines)


def _held_out_charts(variants: Sequence[VariantShown]) -> str:
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
    return f"<div class='grid2'>{charts}</div>" if charts else "<p class='none'>No held-out windows.</p>"


def _held_out_chart(variants: Sequence[VariantShown], part: str, names: Sequence[str]) -> str:
    """The numbers of one part, of every variant, over its baselines. What repeats an earlier line is left out."""
    curves: list[Curve] = []
    for number, variant in enumerate(variants):
        x = [_position(line, variant) for line in variant.held_out]
        drawn: list[list[float | None]] = []
        for offset, name in enumerate(names):
            y = [line["numbers"].get(name) for line in variant.held_out]
            if y not in drawn:
                label = f"{variant.name}: {name}" if len(variants) > 1 else name
                curves.append(Curve(label, x, y, number if len(variants) > 1 else offset, "dots"))
            drawn.append(y)
    for offset, base in enumerate(BASELINES):
        y = [line["numbers"].get(f"{base}{part}") for line in variants[0].held_out]
        curves.append(Curve(f"{base}{part}", [0] * len(y), y, NUM_COLOURS - len(BASELINES) + offset, "level"))
    title = part.strip("_\0") or "all"
    return f"<div class='panel'><h3>{escape(title)}</h3>{line_chart(curves, 'epochs', names[0])}</div>"


def _position(line: Mapping[str, Any], variant: VariantShown) -> float:
    """Epochs gone at a held-out pass; `max_steps` may end training within one."""
    steps = sum(step["epoch"] == line["epoch"] and step["step"] <= line["step"] for step in variant.steps)
    whole = max((sum(s["epoch"] == e for s in variant.steps) for e in {s["epoch"] for s in variant.steps}), default=0)
    return line["epoch"] + (steps / whole if whole else 0)


def _numbers_table(variants: Sequence[VariantShown]) -> str:
    """Held-out numbers and the recipe's own, side by side."""
    rows = list(dict.fromkeys(name for v in variants for name in v.numbers()))
    own = list(dict.fromkeys(name for v in variants for name in v.result.get("numbers", {})))
    if not rows and not own:
        return ""
    head = "".join(f"<th scope='col'>{escape(v.name)}</th>" for v in variants)
    counts = variants[0].held_out[-1].get("counts", {}) if variants[0].held_out else {}
    lines = [
        _row(name, [v.numbers().get(name) for v in variants], f"<td class='soft'>{counts.get(name, 0):,.0f}</td>")
        for name in rows
    ]
    lines += [_row(name, [v.result.get("numbers", {}).get(name) for v in variants], "<td></td>") for name in own]
    return (
        f"<div class='wide'><table><thead><tr><th scope='col'>number</th>{head}<th scope='col'>valid elements</th></tr>"
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _row(name: str, values: Sequence[Any], tail: str) -> str:
    cells = "".join(f"<td>{escape(_short(value))}</td>" for value in values)
    return f"<tr><th scope='row'>{escape(name)}</th>{cells}{tail}</tr>"


def _loss_chart(variants: Sequence[VariantShown]) -> str:
    curves = []
    width = max(1, min(MAX_SMOOTH, len(variants[0].steps) // 20))
    for number, variant in enumerate(variants):
        x, y = [step["step"] for step in variant.steps], [step["loss"] for step in variant.steps]
        curves.append(Curve(variant.name, x, y, number, "faint"))
        curves.append(Curve(f"{variant.name}, mean of {width} steps", x, smoothed(y, width), number, "line"))
    return line_chart(curves, "steps", "loss")


def _pictures(variants: Sequence[VariantShown]) -> Iterator[str]:
    for number, variant in enumerate(variants):
        if not variant.examples:
            continue
        pictures = f"<div class='grid2'>{''.join(map(_picture, variant.examples[:MAX_EXAMPLES]))}</div>"
        if number:
            title = f"Predicted and true, held out{_of(variant, variants)}"
            yield f"<details><summary>{title}</summary>{pictures}</details>"
            continue
        yield f"<h2>Predicted and true, held out{_of(variant, variants)}</h2>"
        yield (
            f"<p class='soft key'>Ways of points from the window's first step to its last, drawn over the frame of "
            f"the step that predicts; a ring is the start.<i style='background:rgb{TRUE_COLOUR}'></i>true"
            f"<i style='background:rgb{PREDICTED_COLOUR}'></i>predicted</p>"
        )
        yield pictures


def _picture(example: Example) -> str:
    data = base64.b64encode(jpeg_of(example)).decode()
    caption = f"{example.clip_id}, {example.now_s:.2f} s{f'. {example.title}' if example.title else ''}"
    alt = escape(f"true and predicted point tracks, {example.clip_id}", quote=True)
    return (
        f"<figure class='panel'><img alt='{alt}' src='data:image/jpeg;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _figures(variants: Sequence[VariantShown]) -> Iterator[str]:
    for variant in variants:
        for title, figure in variant.result.get("figures", {}).items():
            yield f"<h2>{escape(title)}{_of(variant, variants)}</h2>"
            yield f"<div class='panel'>{heat_map(figure['values'], figure['rows'], figure['columns'])}</div>"


def _notes(variants: Sequence[VariantShown]) -> Iterator[str]:
    notes = list(dict.fromkeys(note for variant in variants for note in variant.result.get("notes", [])))
    if notes:
        yield "<h2>What is the paper's and what is ours</h2>"
        yield f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"


def _data_and_machine(variants: Sequence[VariantShown]) -> str:
    head = "".join(f"<th scope='col'>{escape(v.name)}</th>" for v in variants)
    tables = [{**_data_rows(v), **_machine_rows(v)} for v in variants]
    names = list(dict.fromkeys(name for table in tables for name in table))
    lines = []
    for name in names:
        cells = "".join(f"<td class='text'>{escape(_short(table.get(name)))}</td>" for table in tables)
        lines.append(f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>")
    return (
        "<h2>Data and machine</h2><div class='wide'><table><thead><tr><th scope='col'></th>"
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _data_rows(variant: VariantShown) -> dict[str, Any]:
    rows: dict[str, Any] = {"table versions": ", ".join(map(str, variant.data_versions()))}
    rows["held-out windows"] = variant.held_out[-1]["windows"] if variant.held_out else None
    rows |= {f"training {name.replace('_', ' ')}": n for name, n in variant.result.get("counts", {}).items()}
    rows["steps without a valid element"] = sum(step["loss"] is None for step in variant.steps)
    return rows


def _machine_rows(variant: VariantShown) -> dict[str, Any]:
    hardware = variant.result.get("hardware", {})
    rows: dict[str, Any] = {"wall time": _duration(variant.held_out[-1]["at_s"] if variant.held_out else None)}
    rows["loader wait"] = _percent(variant.loader_wait_share)
    rows |= {name: hardware[name] for name in ("cpu", "cores", "threads", "gpu") if hardware.get(name) is not None}
    rows |= {f"frozen {name}": text for name, text in variant.result.get("frozen", {}).items()}
    return rows | {"checkpoint": variant.result.get("checkpoint")}


def _settings(settings: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td class='text'>{escape(_short(value))}</td></tr>"
        for name, value in flatten(dict(settings)).items()
    )
    return f"<details><summary>Settings</summary><div class='wide'><table>{rows}</table></div></details>"


def _of(variant: VariantShown, variants: Sequence[VariantShown]) -> str:
    return f": {escape(variant.name)}" if len(variants) > 1 else ""


def _changes(variant: VariantShown, name: str) -> bool:
    return len({line["numbers"].get(name) for line in variant.held_out}) > 1


def _rate(variant: VariantShown) -> float | None:
    steps = variant.steps[1:]
    seconds = sum(step["step_s"] for step in steps)
    return sum(step["windows"] for step in steps) / seconds if seconds else None


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

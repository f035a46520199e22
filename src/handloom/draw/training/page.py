"""The report of a training job as one HTML file that needs nothing else: curves, numbers, images, settings.

`page.html.jinja` and `page.css` say how it looks; this module collects what they show.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from handloom.draw.training.numbers import (
    against_others,
    baselines_shown,
    comparison,
    held_out_charts,
    other_numbers,
    step_charts,
)
from handloom.draw.training.predicted import PREDICTED_COLOUR, TRUE_COLOUR, jpeg_of
from handloom.draw.training.shown import VariantShown, duration, percent, short
from handloom.schemas.settings import flatten
from handloom.schemas.training import Example

TEMPLATE = "page.html.jinja"
MAX_EXAMPLES = 8


def training_page(recipe: str, variants: Sequence[VariantShown], settings: Mapping[str, Any], num_crashes: int) -> str:
    """The page as HTML.

    Args:
        variants: the jobs, the asked one first; each has held-out windows and steps, or none.
        settings: as JSON.
        num_crashes: how often a worker crashed and the job resumed.
    """
    asked = variants[0]
    stage = settings.get("stage")
    lines = [line for variant in variants for line in variant.held_out]
    return environment().get_template(TEMPLATE).render(
        title=f"{recipe}, {stage}" if stage else recipe,
        variants=variants,
        packages=_packages(asked),
        facts=_facts(asked, num_crashes),
        comparison=comparison(variants),
        baselines=baselines_shown(variants),
        against_others=against_others(variants),
        held_out_charts=held_out_charts(variants),
        why_none=list(dict.fromkeys(line["why_none"] for line in lines if line.get("why_none"))),
        other_numbers=other_numbers(variants),
        step_charts=step_charts(variants),
        max_examples=MAX_EXAMPLES,
        true_colour=TRUE_COLOUR,
        predicted_colour=PREDICTED_COLOUR,
        notes=list(dict.fromkeys(note for variant in variants for note in variant.result.get("notes", []))),
        data_and_machine=_side_by_side([_data_rows(v) | _machine_rows(v) for v in variants]),
        settings=flatten(dict(settings)),
    )  # fmt: skip


def environment() -> Environment:
    """The environment of the templates: every value is escaped, and a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("handloom.draw.training", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "below": _below, "code": _code, "jpeg": _jpeg, "heat_rows": _heat_rows}
    environment.tests["known"] = _is_known
    return environment


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _below(change: float) -> str:
    """`25.0% below` for -0.25."""
    return f"{abs(change):.1%} {'below' if change < 0 else 'above'}"


def _code(note: str) -> Markup:
    """The note as HTML, with words in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(note))))


def _jpeg(example: Example) -> str:
    return base64.b64encode(jpeg_of(example)).decode()


@dataclass(frozen=True)
class _Cell:
    """look: CSS classes; share: of the largest value's size, 0 to 1."""

    look: str
    share: str
    text: str


def _heat_rows(figure: Mapping[str, Any]) -> Iterator[tuple[str, list[_Cell]]]:
    """A figure's rows: the colour of a cell is a value's sign, its strength the size; what is unknown is hatched."""
    largest = max((abs(v) for row in figure["values"] for v in row if _is_known(v)), default=0.0) or 1.0
    for name, row in zip(figure["rows"], figure["values"], strict=True):
        yield name, [_cell(value, largest) for value in row]


def _cell(value: float | None, largest: float) -> _Cell:
    if value is None or not _is_known(value):
        return _Cell("unknown", "0", "")
    share = abs(value) / largest
    look = ("plus" if value >= 0 else "minus") + (" strong" if share > 0.75 else "")
    return _Cell(look, f"{share:.3f}", _cell_text(value, largest))


def _cell_text(value: float, largest: float) -> str:
    if 0.1 <= largest < 1000:
        return f"{value:.2f}"
    return f"{value:.3f}" if 0.005 <= largest < 0.1 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _packages(variant: VariantShown) -> str:
    versions = variant.result.get("versions", {})
    return ", ".join(f"{name} {text}" for name, text in versions.items() if name in ("handloom", "torch", "ray"))


def _facts(variant: VariantShown, num_crashes: int) -> dict[str, str]:
    last = variant.held_out[-1] if variant.held_out else {}
    rate = _rate(variant)
    facts = {
        "steps": f"{len(variant.steps):,}",
        "epochs": str(last.get("epoch", 0)),
        "wall time": duration(last.get("at_s")),
        "windows a second": "unknown" if rate is None else f"{rate:,.1f}",
        "of a step waiting for the loader": percent(variant.loader_wait_share),
        "table version": ", ".join(map(str, variant.data_versions())) or "unknown",
    }
    if variant.resumed or num_crashes:
        facts["resumptions, worker crashes"] = f"{variant.resumed}, {num_crashes}"
    return facts


def _rate(variant: VariantShown) -> float | None:
    """Windows a second; the first step, which starts the loader, is left out."""
    steps = variant.steps[1:]
    seconds = sum(step["step_s"] for step in steps)
    return sum(step["windows"] for step in steps) / seconds if seconds else None


def _side_by_side(tables: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """`{name: value in each table}`, None where a table lacks it."""
    return {name: [table.get(name) for table in tables] for rows in tables for name in rows}


def _data_rows(variant: VariantShown) -> dict[str, Any]:
    rows: dict[str, Any] = {"table versions": ", ".join(map(str, variant.data_versions()))}
    rows["held-out windows"] = variant.held_out[-1]["windows"] if variant.held_out else None
    rows |= variant.result.get("data", {})
    rows |= {f"training {name.replace('_', ' ')}": n for name, n in variant.result.get("counts", {}).items()}
    return rows | {"steps without a valid element": sum(step["loss"] is None for step in variant.steps)}


def _machine_rows(variant: VariantShown) -> dict[str, Any]:
    hardware = variant.result.get("hardware", {})
    rows: dict[str, Any] = {"wall time": duration(variant.held_out[-1]["at_s"] if variant.held_out else None)}
    rows["loader wait"] = percent(variant.loader_wait_share)
    rows |= {name: hardware[name] for name in ("cpu", "cores", "threads", "gpu") if hardware.get(name) is not None}
    rows |= {f"frozen {name}": text for name, text in variant.result.get("frozen", {}).items()}
    return rows | {"checkpoint": variant.result.get("checkpoint")}

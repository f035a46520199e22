"""The report of a training job as one HTML file that needs nothing else: curves, numbers, pictures, settings."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from handloom.draw.curves import heat_map
from handloom.draw.predicted import PREDICTED_COLOUR, TRUE_COLOUR, jpeg_of
from handloom.draw.training_numbers import (
    against_others,
    comparison_table,
    headline,
    held_out_charts,
    numbers_table,
    step_charts,
)
from handloom.draw.training_shown import VariantShown, duration, percent, short
from handloom.draw.training_style import STYLE
from handloom.schemas.settings import flatten
from handloom.schemas.training import Example

MAX_EXAMPLES = 8
HELD_OUT = (
    "Whole videos (of robots: episodes) are held out, by their names. Copies of one video under several names are not "
    "told apart: one may be trained on while another is held out, and these numbers are then too good."
)


def training_page(recipe: str, variants: Sequence[VariantShown], settings: Mapping[str, Any], deaths: int) -> str:
    """The page. variants: the asked one first. settings: as JSON. deaths: worker deaths the job went on from."""
    asked = variants[0]
    stage = settings.get("stage")
    title = f"{recipe}{f', {stage}' if stage else ''}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='soft'>{escape(_subtitle(asked))}</p>",
        _facts(asked, deaths),
        headline(asked),
        against_others(variants),
        comparison_table(variants),
        "<h2>Held-out windows, epoch by epoch</h2>",
        f"<p class='soft'>{HELD_OUT}</p>",
        held_out_charts(variants),
        numbers_table(variants),
        "<h2>Training, step by step</h2>",
        step_charts(variants),
        *_pictures(variants),
        *_figures(variants),
        *_notes(variants),
        _data_and_machine(variants),
        _settings(settings),
    ]
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


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
        "wall time": duration(last.get("at_s")),
        "windows a second": "unknown" if rate is None else f"{rate:,.1f}",
        "of a step waiting for the loader": percent(variant.loader_wait_share),
        "table version": ", ".join(map(str, variant.data_versions())) or "unknown",
    }
    if variant.resumed or deaths:
        facts["resumptions, worker deaths"] = f"{variant.resumed}, {deaths}"
    cells = "".join(f"<div><b>{escape(v)}</b><span>{escape(k)}</span></div>" for k, v in facts.items())
    return f"<div class='facts'>{cells}</div>"


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
            f"<p class='soft key'>Paths of points from the window's first step to its last, drawn over the frame of "
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
        texts = (re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(note)) for note in notes)
        yield f"<ul>{''.join(f'<li>{text}</li>' for text in texts)}</ul>"


def _data_and_machine(variants: Sequence[VariantShown]) -> str:
    head = "".join(f"<th scope='col'>{escape(v.name)}</th>" for v in variants)
    tables = [{**_data_rows(v), **_machine_rows(v)} for v in variants]
    names = list(dict.fromkeys(name for table in tables for name in table))
    lines = []
    for name in names:
        cells = "".join(f"<td class='text'>{escape(short(table.get(name)))}</td>" for table in tables)
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
    rows: dict[str, Any] = {"wall time": duration(variant.held_out[-1]["at_s"] if variant.held_out else None)}
    rows["loader wait"] = percent(variant.loader_wait_share)
    rows |= {name: hardware[name] for name in ("cpu", "cores", "threads", "gpu") if hardware.get(name) is not None}
    rows |= {f"frozen {name}": text for name, text in variant.result.get("frozen", {}).items()}
    return rows | {"checkpoint": variant.result.get("checkpoint")}


def _settings(settings: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td class='text'>{escape(short(value))}</td></tr>"
        for name, value in flatten(dict(settings)).items()
    )
    return f"<details><summary>Settings</summary><div class='wide'><table>{rows}</table></div></details>"


def _of(variant: VariantShown, variants: Sequence[VariantShown]) -> str:
    return f": {escape(variant.name)}" if len(variants) > 1 else ""


def _rate(variant: VariantShown) -> float | None:
    steps = variant.steps[1:]
    seconds = sum(step["step_s"] for step in steps)
    return sum(step["windows"] for step in steps) / seconds if seconds else None

"""The report of a training job as one HTML file that needs nothing else: curves, numbers, pictures, settings."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from handloom.draw.training.curves import heat_map
from handloom.draw.training.numbers import (
    against_others,
    comparison_table,
    headline,
    held_out_charts,
    numbers_table,
    step_charts,
)
from handloom.draw.training.predicted import PREDICTED_COLOUR, TRUE_COLOUR, jpeg_of
from handloom.draw.training.shown import VariantShown, duration, percent, short
from handloom.schemas.settings import flatten
from handloom.schemas.training import Example

STYLE = """
:root { color-scheme: light dark; --bg: #fcfcfb; --ink: #1d1d1f; --soft: #62626a; --line: #dcdce0; --panel: #ffffff;
  --c0: #1f6fb4; --c1: #c8500a; --c2: #137a5b; --c3: #8a3f9e; --c4: #8a6d00; --c5: #a8284a; --plus: 31 111 180;
  --minus: 200 80 10; }
@media (prefers-color-scheme: dark) { :root { --bg: #17171a; --ink: #ececf0; --soft: #a2a2ac; --line: #3a3a42;
  --panel: #1f1f24; --c0: #6cb2ee; --c1: #ff9a4d; --c2: #4fc79c; --c3: #cf95e0; --c4: #d9bd4a; --c5: #f08aa4;
  --plus: 108 178 238; --minus: 255 154 77; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 2rem 1.25rem 4rem; background: var(--bg); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 1rem; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; min-width: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.facts div { border-left: 3px solid var(--c0); padding: .1rem .75rem; }
.facts b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts span { color: var(--soft); font-size: .85rem; }
p.headline { font-size: 1.1rem; }
.better, .worse { font-weight: 600; margin-left: .4rem; } .better { color: var(--c2); } .worse { color: var(--c5); }
.wide { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
.wide > table { min-width: 60%; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td.text { text-align: left; font-weight: 500; }
td.text { overflow-wrap: anywhere; }
svg { width: 100%; max-width: 760px; height: auto; display: block; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg text { fill: var(--soft); font: 14px system-ui, sans-serif; }
svg path, svg line.level { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg path.faint { stroke-width: 1; opacity: .28; }
svg line.level { stroke-dasharray: 6 4; stroke-width: 1.5; }
.c0 { stroke: var(--c0); --own: var(--c0); } .c1 { stroke: var(--c1); --own: var(--c1); }
.c2 { stroke: var(--c2); --own: var(--c2); } .c3 { stroke: var(--c3); --own: var(--c3); }
.c4 { stroke: var(--c4); --own: var(--c4); } .c5 { stroke: var(--c5); --own: var(--c5); }
svg circle { fill: var(--own); stroke: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: .4rem 0 0; padding: 0;
  font-size: .85rem; }
.legend i { display: inline-block; width: 1.4rem; border-top: 3px solid var(--own); margin-right: .4rem;
  vertical-align: middle; }
.legend i.level { border-top-style: dashed; border-top-width: 2px; }
figure { margin: 0; } figure img { width: 100%; height: auto; border-radius: 6px; display: block; }
.key i { display: inline-block; width: 1rem; height: .3rem; border-radius: 2px; margin: 0 .35rem 0 .8rem;
  vertical-align: middle; }
table.heat { min-width: 0; } table.heat td, table.heat th { border: 1px solid var(--panel); padding: .3rem .2rem;
  text-align: center; font-size: .7rem; white-space: nowrap; min-width: 1.4rem; }
  table.heat th:first-child { text-align: right; }
table.heat th span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; font-weight: 500; }
td.plus { background: rgb(var(--plus) / calc(var(--share) * .85)); }
td.minus { background: rgb(var(--minus) / calc(var(--share) * .85)); }
td.strong { color: var(--bg); }
td.unknown { background: repeating-linear-gradient(45deg, var(--line) 0 3px, transparent 3px 7px); }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
.none { color: var(--soft); font-style: italic; }
@media print { body { max-width: none; } .panel { break-inside: avoid; } }
"""


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

"""The report of a training job: `report.json` for programs, `report.html` for people, from the variants' files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from handloom import __version__
from handloom.draw.training.page import training_page
from handloom.draw.training.shown import VariantShown
from handloom.io.folder import Folder
from handloom.pipelines.train.settings import TrainConfig
from handloom.schemas.training import Example
from handloom.train.history import FILE, held_out_of, loader_wait_share, parse_lines, steps_of
from handloom.workers.training.training import EXAMPLES, RESULT

JSON, HTML = "report.json", "report.html"


def write_report(out: Folder, recipe: str, variants: list[str], config: TrainConfig, num_crashes: int) -> str:
    """Write both files; returns the URI of the page. variants: names of the jobs' folders, the asked one first."""
    shown = [_variant(out.sub(name), name) for name in variants]
    content = {"recipe": recipe, "handloom": __version__, **config.shown(), "worker_deaths": num_crashes}
    content["variants"] = {variant.name: _summary(variant) for variant in shown}
    out.write_json(JSON, content)
    out.write(HTML, training_page(recipe, shown, config.shown(), num_crashes).encode())
    return f"{out.uri}/{HTML}"


def _variant(folder: Folder, name: str) -> VariantShown:
    lines = parse_lines(folder.read(FILE))
    result = folder.read_json(RESULT) or {}
    return VariantShown(
        name=name,
        steps=steps_of(lines),
        held_out=held_out_of(lines),
        versions=[line["version"] for line in lines if line["kind"] == "version"],
        resumed=sum(line["kind"] == "resumed" for line in lines),
        loader_wait_share=loader_wait_share(lines),
        result=result,
        examples=_examples(folder, result),
    )


def _examples(folder: Folder, result: dict[str, Any]) -> list[Example]:
    packed = folder.read(EXAMPLES)
    if packed is None:
        return []
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        names = ("frame", "true_px", "predicted_px")
        return [
            Example(**text, **{name: arrays[f"{number}_{name}"] for name in names})
            for number, text in enumerate(result.get("examples", []))
        ]


def _summary(variant: VariantShown) -> dict[str, Any]:
    """A variant's entry of `report.json`."""
    last = variant.held_out[-1] if variant.held_out else {}
    kept = ("numbers", "data", "notes", "counts", "frozen", "hardware", "versions", "checkpoint")
    return {
        "held_out": last.get("numbers", {}),
        "held_out_counts": last.get("counts", {}),
        "held_out_windows": last.get("windows"),
        "data_versions": variant.data_versions(),
        "steps": len(variant.steps),
        "epochs": last.get("epoch"),
        "train_s": last.get("at_s"),
        "loader_wait_share": variant.loader_wait_share,
        "resumed": variant.resumed,
        "empty_steps": sum(step["loss"] is None for step in variant.steps),
        **{name: variant.result[name] for name in kept if name in variant.result},
    }

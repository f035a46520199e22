"""Trainings that lie in named folders: their reports, and the loss, settings and checkpoint of each."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handloom.schemas.settings import flatten
from handloom.train.history import FILE as HISTORY
from handloom.train.history import held_out_of, parse_lines, steps_of
from handloom.web.answers import FileAnswer, NotThere, blocking, json_answer, whole_number
from handloom.web.gallery import Gallery

REPORT, FACTS, JOB = "report.html", "report.json", "job.json"
BESIDE_REPORT = {".mp4": "video/mp4", ".webm": "video/webm", ".png": "image/png", ".jpg": "image/jpeg"}
MOST_REPORTS, MOST_FOLDERS, TITLE_BYTES = 500, 20_000, 8192
MOST_BYTES, POINTS = 16 << 20, 240
"""Of a history so much is read, from its end; of a curve so many points are shown."""
OF_JOBS = ("recipe", "handloom", "variants", "worker_deaths", "settings")
"""What is no setting in the files of a training."""


def reports_below(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The trainings below the folders, the newest first: at most `MOST_REPORTS`. url: of the report; None while it
    trains, or if it was stopped before its end."""
    found: list[dict[str, Any]] = []
    for number, root in enumerate(folders):
        for visited, (folder, inner, names) in enumerate(os.walk(root)):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if visited >= MOST_FOLDERS or len(found) >= MOST_REPORTS:
                break
            has_report = REPORT in names
            if not has_report and not (JOB in names and _histories(root.resolve(), Path(folder))):
                continue
            path = Path(folder, REPORT if has_report else JOB)
            inside = Path(folder).relative_to(root).as_posix()
            report = f"{inside}/{REPORT}".removeprefix("./")
            found.append(
                {
                    "title": title_of(path) if has_report else _read(path).get("recipe"),
                    "path": report if has_report else inside,
                    "folder": str(root),
                    "number": number,
                    "place": inside,
                    "changed_s": path.stat().st_mtime,
                    "url": f"/reports/{number}/{quote(report)}" if has_report else None,
                }
            )
    return sorted(found, key=lambda one: -one["changed_s"])


def training(folders: Sequence[Path], number: int, place: str) -> dict[str, Any]:
    """One training, of `/api/report`: recipe, settings, and of each variant its last numbers, curves and checkpoint.

    place: its folder below folder `number`. curves: `[{name, points: [[step, loss]]}]`, at most `POINTS` points, each
    the mean of some steps; `from_step`: the first step that was read. Raises NotThere for a folder without a training.
    """
    gone = NotThere(f"there is no training {place[:200]!r}", "/episodes lists them")
    if not 0 <= number < len(folders):
        raise gone
    root = folders[number].resolve()
    folder = (root / place).resolve()
    if not folder.is_relative_to(root) or not any((folder / name).is_file() for name in (REPORT, JOB)):
        raise gone
    facts, job = _read(folder / FACTS), _read(folder / JOB)
    told = facts or job
    settings = told.get("settings") or {name: value for name, value in told.items() if name not in OF_JOBS}
    ends = facts.get("variants")
    variants = ends if isinstance(ends, dict) else {}
    histories = _histories(root, folder)
    return {
        "recipe": told.get("recipe"),
        "handloom": facts.get("handloom"),
        "ended": (folder / REPORT).is_file(),
        "settings": {name: value for name, value in flatten(settings).items() if value not in (None, "", [], {})},
        "variants": [
            {"name": name, "end": variants.get(name), **_curves(histories.get(name))}
            for name in dict.fromkeys([*variants, *histories])
        ],
    }


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is none that can be read, as while it is written."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_BYTES else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _histories(root: Path, folder: Path) -> dict[str, Path]:
    """The histories of a training's variants, by their names: of files within `root` alone."""
    names = _read(folder / JOB).get("variants")
    paths = {name: (folder / name / HISTORY).resolve() for name in names or () if isinstance(name, str)}
    return {name: path for name, path in paths.items() if path.is_relative_to(root) and path.is_file()}


def _curves(history: Path | None) -> dict[str, Any]:
    if history is None:
        return {"curves": [], "steps": None, "from_step": None, "at_s": None}
    with history.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MOST_BYTES))
        data = file.read()
    lines = parse_lines(data if size <= MOST_BYTES else data.partition(b"\n")[2])
    steps = steps_of(lines)
    losses = {
        "training": [(line["step"], line["loss"]) for line in steps],
        "held out": [(line["step"], line["numbers"].get("loss")) for line in held_out_of(lines)],
    }
    curves = [{"name": name, "points": list(thinned(points))} for name, points in losses.items()]
    last = lines[-1] if lines else {}
    return {
        "curves": [curve for curve in curves if curve["points"]],
        "steps": steps[-1]["step"] if steps else None,
        "from_step": steps[0]["step"] if steps else None,
        "at_s": last.get("at_s"),
    }


def thinned(points: Sequence[tuple[int, float | None]], most: int = POINTS) -> Iterator[list[float]]:
    """At most so many points: the means of equally many known ones after another."""
    known = np.array([(step, value) for step, value in points if value is not None], np.float64).reshape(-1, 2)
    known = known[np.isfinite(known[:, 1])]
    for part in np.array_split(known, min(most, len(known))) if len(known) else ():
        step, value = part.mean(0)
        yield [round(float(step), 1), float(value)]


def title_of(path: Path) -> str | None:
    """The page's title; None if its first bytes hold none."""
    with path.open("rb") as file:
        head = file.read(TITLE_BYTES).decode(errors="replace")
    title = re.search(r"<title>(.*?)</title>", head, re.DOTALL | re.IGNORECASE)
    return html.unescape(title[1]).strip() if title else None


def report_file(folders: Sequence[Path], number: int, path: str) -> tuple[Path, str]:
    """(file, media type) of a report, or of an image or video in a report's folder. Raises NotThere for all others."""
    gone = NotThere(f"there is no report {path[:200]!r}", "/episodes lists the reports")
    if not 0 <= number < len(folders):
        raise gone
    root = folders[number].resolve()
    file = (root / path).resolve()
    kind = "text/html; charset=utf-8" if file.name == REPORT else BESIDE_REPORT.get(file.suffix.lower())
    if kind is None or not file.is_relative_to(root) or not file.is_file():
        raise gone
    homes = [folder for folder in file.parents if folder.is_relative_to(root)]
    if not any((folder / REPORT).is_file() for folder in homes):
        raise gone
    return file, kind


def routes(gallery: Gallery) -> list[Route]:
    """`/api/reports`, `/api/report` and `/reports/...`."""

    async def reports(request: Request) -> Response:
        found = await blocking(gallery.short, "reports", lambda: reports_below(gallery.reports), 5.0)
        return json_answer(request, {"folders": [str(one) for one in gallery.reports], "reports": found})

    async def one(request: Request) -> Response:
        asked = request.query_params
        number = whole_number(asked.get("number"), "number", 0, 0, 1 << 31)
        return json_answer(request, await blocking(training, gallery.reports, number, asked.get("place", ".")))

    async def report(request: Request) -> Response:
        inside = request.path_params
        path, kind = await blocking(report_file, gallery.reports, inside["number"], inside["path"])
        return FileAnswer(path, media_type=kind, headers={"Cache-Control": "private, no-cache"})

    return [
        Route("/api/reports", reports),
        Route("/api/report", one),
        Route("/reports/{number:int}/{path:path}", report),
    ]

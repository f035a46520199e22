"""Trainings that lie in named folders: their reports, and the loss, settings and checkpoint of each."""

from __future__ import annotations

import contextlib
import html
import json
import math
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
        home = root.resolve()
        for visited, (folder, inner, names) in enumerate(os.walk(root)):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if visited >= MOST_FOLDERS or len(found) >= MOST_REPORTS:
                break
            path = _within(home, Path(folder, REPORT)) if REPORT in names else None
            has_report = path is not None
            if path is None and JOB in names and _histories(home, Path(folder)):
                path = _within(home, Path(folder, JOB))
            if path is None:
                continue
            inside = Path(folder).relative_to(root).as_posix()
            report = f"{inside}/{REPORT}".removeprefix("./")
            with contextlib.suppress(OSError):  # removed a moment ago
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
    folder = root / place
    report, *files = (_within(root, folder / name) for name in (REPORT, JOB, FACTS))
    if report is None and files[0] is None:
        raise gone
    job, facts = map(_read, files)
    told = facts or job
    settings = told.get("settings") or {name: value for name, value in told.items() if name not in OF_JOBS}
    settings = settings if isinstance(settings, dict) else {}
    ends = facts.get("variants")
    variants = ends if isinstance(ends, dict) else {}
    histories = _histories(root, folder)
    return {
        "recipe": told.get("recipe"),
        "handloom": facts.get("handloom"),
        "ended": report is not None,
        "settings": {name: value for name, value in flatten(settings).items() if value not in (None, "", [], {})},
        "variants": [
            {"name": name, "end": variants.get(name), **_curves(histories.get(name))}
            for name in dict.fromkeys([*variants, *histories])
        ],
    }


def _within(root: Path, path: Path) -> Path | None:
    """The file at a path, links followed; None if there is none, or none in the folder `root`, which is resolved."""
    try:
        file = path.resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError):  # no name of a file: too long, with a zero byte
        return None


def _read(path: Path | None) -> dict[str, Any]:
    """A JSON object; empty if there is none that can be read, as while it is written."""
    try:
        found = json.loads(path.read_bytes()) if path is not None and path.stat().st_size <= MOST_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _histories(root: Path, folder: Path) -> dict[str, Path]:
    """The histories of a training's variants, by their names: of files within `root` alone."""
    names = _read(_within(root, folder / JOB)).get("variants")
    named = [name for name in names if isinstance(name, str)] if isinstance(names, list | dict) else []
    paths = {name: _within(root, folder / name / HISTORY) for name in named}
    return {name: path for name, path in paths.items() if path is not None}


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
        "training": [(line.get("step"), line.get("loss")) for line in steps],
        "held out": [
            (line.get("step"), line["numbers"].get("loss"))
            for line in held_out_of(lines)
            if isinstance(line.get("numbers"), dict)
        ],
    }
    curves = [{"name": name, "points": list(thinned(points))} for name, points in losses.items()]
    last = lines[-1] if lines else {}
    return {
        "curves": [curve for curve in curves if curve["points"]],
        "steps": steps[-1].get("step") if steps else None,
        "from_step": steps[0].get("step") if steps else None,
        "at_s": last.get("at_s"),
    }


def thinned(points: Sequence[tuple[Any, Any]], most: int = POINTS) -> Iterator[list[float]]:
    """At most so many points: the means of equally many known ones after another."""
    known = np.array([(_known(step), _known(value)) for step, value in points], np.float64).reshape(-1, 2)
    known = known[np.isfinite(known).all(1)]
    for part in np.array_split(known, min(most, len(known))) if len(known) else ():
        step, value = part.mean(0)
        yield [round(float(step), 1), float(value)]


def _known(value: Any) -> float:
    """A number of a history; NaN for what is none."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # a whole number without an end
        return math.nan


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
    file = _within(root, root / path)
    if file is None:
        raise gone
    kind = "text/html; charset=utf-8" if file.name == REPORT else BESIDE_REPORT.get(file.suffix.lower())
    if kind is None:
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

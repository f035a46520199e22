"""The dataset page: counts, how complete rows are, rejects, distributions, outliers, runs, a map of an embedding."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handloom.errors import ConfigError
from handloom.pipelines.status.runs import run_json
from handloom.pipelines.status.status import status
from handloom.schemas.tables.arrow import QUALITY_FIELDS
from handloom.schemas.tables.embeddings import embedding_columns, no_embedding
from handloom.store.filters import in_list
from handloom.store.location import lance_errors
from handloom.store.runs.lease import run_state
from handloom.store.runs.runs import Run, list_runs
from handloom.store.search.copies import stored_rows
from handloom.web.answers import asked_version, blocking, json_answer, whole_number
from handloom.web.catalogue import WORDS, Catalogue
from handloom.web.clips.facts import unit_of
from handloom.web.gallery import Gallery

COUNTED_EVERY_S = 5.0
"""Counts of the whole database are read again after this time."""
MOST_RUNS = 30
MOST_OUTLIERS, MOST_REJECTS = 200, 2000
MOST_POINTS, POINTS = 20_000, 5000
MOST_LASSO = 4000
MOST_VERSIONS = 50
KEPT_OF_STATUS = (
    *("clip_list", "clips", "rejects", "pending", "outdated", "frames", "hours", "clips_of_people", "clips_of_robots"),
    *("clips_with_left_hand", "clips_with_right_hand", "clips_by_world_scale", "clips_by_camera_source"),
    *("clips_by_metric_trust", "indexes", "duplicates", "judgements"),
)


def routes(gallery: Gallery) -> list[Route]:
    """The addresses of the dataset page."""

    async def whole(request: Request) -> Response:
        return json_answer(request, await blocking(told, gallery, limit_s=60.0))

    async def outlying(request: Request) -> Response:
        asked = request.query_params
        limit = whole_number(asked.get("limit"), "limit", 60, 1, MOST_OUTLIERS)
        found = await blocking(
            outliers, gallery, asked.get("q", ""), asked.get("order", "low"), limit, asked_version(request)
        )
        return json_answer(request, found)

    async def mapped(request: Request) -> Response:
        asked = request.query_params
        num = whole_number(asked.get("n"), "n", POINTS, 3, MOST_POINTS)
        found = await blocking(embedding_map, gallery, asked.get("by", ""), num, asked_version(request))
        return json_answer(request, found)

    async def rejected(request: Request) -> Response:
        asked = request.query_params
        offset = whole_number(asked.get("offset"), "offset", 0, 0, 1 << 40)
        limit = whole_number(asked.get("limit"), "limit", 50, 1, MOST_REJECTS)
        words = (asked.get("part", "clips"), asked.get("stage", ""), asked.get("reason", ""))
        return json_answer(request, await blocking(rejects, gallery, *words, offset, limit))

    async def listed(request: Request) -> Response:
        return json_answer(request, await blocking(versions, gallery))

    return [
        Route("/api/dataset", whole),
        Route("/api/versions", listed),
        Route("/api/rejects", rejected),
        Route("/api/outliers", outlying),
        Route("/api/map", mapped),
    ]


def told(gallery: Gallery) -> dict[str, Any]:
    """All of `/api/dataset`: of the newest version; what takes long to count is up to `COUNTED_EVERY_S` old."""
    catalogue = gallery.catalogue()
    counted = gallery.short("dataset", lambda: status(gallery.db), COUNTED_EVERY_S)
    known = gallery.known()
    now = datetime.now(UTC)
    runs = [run_told(run, now) for run in list_runs(gallery.db)[::-1][:MOST_RUNS]]
    return {
        "version": catalogue.version,
        "counts": {name: counted[name] for name in KEPT_OF_STATUS},
        "coverage": coverage(catalogue),
        "stages": [] if catalogue.version is None else stages(gallery),
        "rejects": counted["rejects_by_reason"],
        "stage_rejects": counted["stage_rejects_by_reason"],
        "facets": catalogue.facets({}, known),
        "distributions": [
            {"name": name, "unit": unit_of(name), "about": QUALITY_FIELDS.get(name, ""), **found}
            for name, found in catalogue.histograms({}).items()
        ],
        "runs": runs,
        "running": any(run["running"] for run in runs),
    }


def versions(gallery: Gallery) -> dict[str, Any]:
    """The versions of `clips` that still exist and have rows, the newest first: `[{version, at, rows}]`; at:
    when it was written, UTC. `MOST_VERSIONS` at most, and how many older ones there are."""

    def read() -> dict[str, Any]:
        table = gallery.db.table("clips")
        if table is None:
            return {"versions": [], "older": 0}
        with lance_errors("list the versions of clips", table.uri):
            there = table.versions()[::-1]
        rows = [int(one["metadata"].get("total_rows", 1)) for one in there]  # known without reading each
        found = [
            {"version": one["version"], "at": cast(datetime, one["timestamp"]).astimezone(UTC).isoformat(), "rows": num}
            for one, num in zip(there, rows, strict=True)
            if num
        ]
        return {"versions": found[:MOST_VERSIONS], "older": len(found[MOST_VERSIONS:])}

    return gallery.short("versions", read)


def coverage(catalogue: Catalogue) -> dict[str, float]:
    """The share of the clips for which something is known, 0 to 1: words, and each number. Empty without clips."""
    if not catalogue.num_clips:
        return {}
    shares = {name: float((codes >= 0).mean()) for name, (codes, _) in catalogue.codes.items() if name != "hand"}
    if "narration" in catalogue.rows.column_names:
        shares["narration"] = 1 - catalogue.rows.column("narration").null_count / catalogue.num_clips
    return shares | {name: float((~np.isnan(values)).mean()) for name, values in catalogue.numbers.items()}


def stages(gallery: Gallery) -> list[dict[str, Any]]:
    """Of each stage, in how many rows its columns are of today's key, outdated, missing, and failed."""
    return [
        {
            "name": stage.name,
            "in_settings": stage.in_settings,
            "current": stage.rows.current,
            "outdated": stage.rows.outdated,
            "missing": stage.rows.missing,
            "rejected": stage.rows.rejected,
            "clip_s": stage.clip_s,
        }
        for stage in gallery.stage_states().stages
    ]


def run_told(run: Run, now: datetime) -> dict[str, Any]:
    """A run for the page: `run_json` with its state (`run_state`), and the seconds since it gave a sign (silent_s)."""
    told, state = run_json(run), run_state(run, now)
    sign = run.heartbeat_at or run.started_at
    return told | {
        "ended_at": None if run.ended_at is None else run.ended_at.isoformat(),
        "state": state,
        "running": state == "running",
        "silent_s": None if run.exit is not None else max(0.0, (now - sign).total_seconds()),
        "of_stages": run.stage_keys is not None,
        "stage_s": dict(sorted(told["stage_s"].items(), key=lambda item: -item[1])),
    }


REJECTED = {"clips": "rejects", "stages": "stage_rejects"}
"""Tables by what was rejected: whole clips, or stages of clips that have a row."""


def rejects(gallery: Gallery, part: str, stage: str, reason: str, offset: int, limit: int) -> dict[str, Any]:
    """The rejects of a stage for a reason, by clip. part: a key of `REJECTED`.

    Raises ConfigError for another part.
    """
    if part not in REJECTED:
        raise ConfigError(f"part={part!r}", f"expected one of: {', '.join(REJECTED)}")
    db = gallery.db
    rows = db.rejects() if part == "clips" else db.read(REJECTED[part])
    found = [row for row in rows.to_pylist() if (row["stage"], row["reason"]) == (stage, reason)]
    if part == "stages":
        keys = gallery.keys()
        found = [row for row in found if row["stage_key"] == keys.get(stage, row["stage_key"])]
    found.sort(key=lambda row: row["clip_id"])
    shown = [{name: row[name] for name in ("clip_id", "detail", "attempts", "at", "host")} for row in found]
    return {"total": len(found), "offset": offset, "rejects": shown[offset : offset + limit]}


def outliers(gallery: Gallery, name: str, order: str, limit: int, version: int | None = None) -> dict[str, Any]:
    """The clips with the smallest (`low`) or largest (`high`) known values of a number, with these and their places.

    Raises ConfigError for another number or order.
    """
    catalogue = gallery.catalogue(version)
    if order not in ("low", "high"):
        raise ConfigError(f"order={order!r}", "expected low or high")
    if name not in catalogue.numbers and catalogue.num_clips:
        raise ConfigError(f"q={name!r}", f"expected one of: {', '.join(catalogue.numbers)}")
    values = catalogue.numbers.get(name, np.empty(0, np.float32))
    known = int((~np.isnan(values)).sum())
    ranked = catalogue.order(name if order == "low" else f"-{name}")[: min(limit, known)] if known else np.empty(0, int)
    verdicts = gallery.verdicts()
    hits = [
        facts
        | {
            "value": float(values[place]),
            "flag": verdicts.get(facts["clip_id"]),
        }
        | catalogue.standing(name, float(values[place]))
        for facts, place in zip(catalogue.facts(ranked), ranked.tolist(), strict=True)
    ]
    about, unit = QUALITY_FIELDS.get(name, ""), unit_of(name)
    return {"version": catalogue.version, "known": known, "about": about, "unit": unit, "hits": hits}


def embedding_map(gallery: Gallery, by: str, num: int, version: int | None = None) -> dict[str, Any]:
    """Clips in the plane of the two main directions of an embedding: principal components (PCA), see `principal_plane`.

    by: the embedding's name; empty: the first. num: at most so many clips, drawn at random and always the same ones.
    Clips without the embedding are left out. Raises ConfigError for a name that there is not.
    """
    catalogue = gallery.catalogue(version)
    known = embedding_columns(catalogue.schema)
    if not catalogue.num_clips or not known:
        return {"version": catalogue.version, "by": None, "ids": [], "xy": [], "explained": None, "total": 0}
    by = by or next(iter(known))
    if by not in known:
        raise ConfigError(no_embedding(by, catalogue.schema))
    found = gallery.maps.of((catalogue.serial, by, num), lambda: _mapped(catalogue, by, known[by], num))
    verdicts = gallery.verdicts()
    return found | {"flags": [verdicts.get(clip_id) for clip_id in found["ids"]] if verdicts else None}


def lassoed(gallery: Gallery, lasso: str, version: int | None = None) -> str:
    """SQL for the clips within a line that was drawn on the map: `motion:X,Y;X,Y;...`, in the plane of an embedding.

    Of the same version and the same line always the same clips: those of the map's `POINTS`. Raises ConfigError for a
    text that is no line of three corners or more, and as `embedding_map`.
    """
    by, _, text = lasso.partition(":")
    try:
        corners = np.array([[float(value) for value in pair.split(",")] for pair in text.split(";")], np.float64)
    except ValueError:
        corners = np.empty((0, 2))
    fits = corners.ndim == 2 and corners.shape[1] == 2 and len(corners) >= 3 and bool((np.abs(corners) < 1e6).all())
    if len(lasso) > MOST_LASSO or not fits or not by:  # points of the map are within -1 to 1
        raise ConfigError(
            f"lasso={lasso[:60]!r}", "expected EMBEDDING:X,Y;X,Y;X,Y, as the map of the dataset page makes it"
        )
    found = embedding_map(gallery, by, POINTS, version)
    inside = within(np.asarray(found["xy"], np.float64).reshape(-1, 2), corners)
    return in_list("clip_id", [found["ids"][place] for place in np.flatnonzero(inside)])


def within(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether points (N, 2) lie within a polygon (C, 2): an odd number of its edges is to their right."""
    x, y = points[:, :1], points[:, 1:]
    (xi, yi), (xj, yj) = corners.T, np.roll(corners, 1, axis=0).T
    crossed = (yi > y) != (yj > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (xj - xi) * (y - yi) / (yj - yi) + xi
    inside: NDArray[np.bool_] = (crossed & (x < at)).sum(1) % 2 == 1
    return inside


def _mapped(catalogue: Catalogue, by: str, column: str, num: int) -> dict[str, Any]:
    chosen = np.sort(catalogue.order("random:map")[:num])
    row_ids = catalogue.row_ids[chosen]
    with lance_errors("read table clips", catalogue.table.uri):
        rows = stored_rows(catalogue.table, row_ids.tolist(), [column])
    rows = rows.filter(rows.column(column).is_valid())
    place_of = dict(zip(row_ids.tolist(), chosen.tolist(), strict=True))
    places = np.array([place_of[one] for one in rows.column("_rowid").to_pylist()], np.int64)
    cells = rows.column(column).combine_chunks()
    vectors = cells.flatten().to_numpy().reshape(len(cells), -1) if len(cells) else np.empty((0, 1), np.float32)
    order = np.argsort(places)
    places, vectors = places[order], vectors[order]
    xy, explained = principal_plane(vectors)
    names = catalogue.rows.take(pa.array(places))
    codes = {name: catalogue.codes[name] for name in (*WORDS, "hand", "scale") if name in catalogue.codes}
    return {
        "version": catalogue.version,
        "by": by,
        "ids": names.column("clip_id").to_pylist(),
        "narrations": names.column("narration").to_pylist() if "narration" in names.column_names else None,
        "xy": np.round(xy, 5),
        "explained": explained,
        "codes": {name: _frequent(found[places], words) for name, (found, words) in codes.items()},
        "total": catalogue.num_clips,
        "without": len(chosen) - len(places),
    }


def _frequent(codes: NDArray[np.int32], words: list[str], most: int = 12) -> dict[str, Any]:
    """Values of a facet for colours: the most frequent by name, all others as -1."""
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    top = [int(code) for code in np.argsort(-counts, kind="stable")[:most] if counts[code]]
    place = np.full(len(words) + 1, -1)
    place[top] = np.arange(len(top))
    return {"values": [words[code] for code in top], "of": place[codes]}  # a code of -1 is the last place


def principal_plane(vectors: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], float | None]:
    """Vectors (N, D) in the plane in which they differ most: (N, 2), each axis from -1 to 1; the share of the variance
    that this plane shows (None for fewer than three vectors, or equal ones).

    The sign of an axis is such that its largest coefficient is positive, so that the same vectors give the same map.
    Source: Jolliffe, Principal Component Analysis, 2nd ed., section 3.
    """
    centred = np.asarray(vectors, np.float64)
    centred = centred - (centred.mean(0) if len(centred) else 0)
    total = float((centred**2).sum())
    if len(centred) < 3 or total <= 1e-12 * len(centred):
        return np.zeros((len(centred), 2)), None
    wide = centred.shape[1] < 2
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    xy = centred @ axes
    xy = np.column_stack([xy[:, 0], np.zeros(len(xy))]) if wide else xy
    return xy / max(float(np.abs(xy).max()), 1e-12), float(values[::-1][:2].sum() / total)

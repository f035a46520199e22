"""What `handloom status` counts over all rows, in one pass."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from handloom.api import Database
from handloom.schemas.values import CAMERA_SOURCES

TRUST, TRUSTED = "metric_trust", 0.7
"""From this `quality.metric_trust` on distances count as likely: known to 19 % or better."""
COLUMNS = (
    *("dataset", "num_frames", "duration_s", "hand_left", "hand_right"),
    *("world_scale", "camera_path_source", "camera_source", "camera_preset", "camera", "view", "hand_view"),
)
QUALITIES = (TRUST, "num_cuts")
"""All are read in one pass: each pass opens every fragment."""


def lenses(totals: pa.Table | None) -> tuple[dict[str, int], dict[str, int]]:
    """Clips by the source of their intrinsics, and by lens preset."""
    sources, presets = (_counted(totals, name) for name in ("camera_source", "camera_preset"))
    return {source: sources[source] for source in CAMERA_SOURCES}, dict(presets.most_common())


def _counted(totals: pa.Table | None, name: str) -> Counter[str]:
    """How often each value is in a column; nothing where there is none."""
    if totals is None or name not in totals.schema.names:
        return Counter()
    return Counter(value for value in totals.column(name).to_pylist() if value is not None)


def metric_sources(totals: pa.Table | None) -> dict[str, int]:
    """Clips whose path is in metres, by the source of the path."""
    if totals is None or "camera_path_source" not in totals.schema.names:
        return {"given": 0, "estimated": 0}
    pairs = zip(totals.column("world_scale").to_pylist(), totals.column("camera_path_source").to_pylist(), strict=True)
    found = Counter(source for scale, source in pairs if scale == "metric")
    return {source: found[source] for source in ("given", "estimated")}


def trusts(totals: pa.Table | None) -> dict[str, int]:
    """Clips whose distances are likely within 20 % of the truth, unlikely, or unknown."""
    trust = _column(totals, f"quality.{TRUST}")
    known = len(trust) - trust.null_count
    likely = _num_true(pc.greater_equal(trust, pa.scalar(TRUSTED, pa.float32())))
    return {"likely": likely, "unlikely": known - likely, "unknown": (totals.num_rows if totals else 0) - known}


def odd(totals: pa.Table | None) -> dict[str, int]:
    """Clips of several shots, and clips whose images contradict the given view."""
    view, found = _column(totals, "view", pa.string()), _column(totals, "hand_view", pa.string())
    both = len(view) == len(found)  # rows before 0.4 may lack one
    return {
        "clips_with_cuts": _num_true(pc.greater(_column(totals, "quality.num_cuts"), 0)),
        "clips_with_other_view": _num_true(pc.not_equal(view, found)) if both else 0,
    }


def with_default_lens(totals: pa.Table | None) -> int:
    """Clips whose lens was assumed although no camera was given either."""
    source, camera = _column(totals, "camera_source", pa.string()), _column(totals, "camera", pa.string())
    return _num_true(pc.and_(pc.equal(source, "assumed"), pc.is_null(camera))) if len(source) == len(camera) else 0


def read_totals(db: Database) -> pa.Table | None:
    """The columns that are counted, as far as the table has them: rows before 0.4 lack some."""
    table = db.table("clips")
    if table is None:
        return None
    quality = table.schema.field("quality").type
    parts = [f"quality.{name}" for name in QUALITIES if quality.get_field_index(name) >= 0]
    return db.clips([name for name in COLUMNS if name in table.schema.names] + parts)


def _column(totals: pa.Table | None, name: str, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    """A column of the rows; an empty one where they lack it."""
    if totals is None or name not in totals.schema.names:
        return pa.chunked_array([], kind or pa.float32())
    return totals.column(name)


def _num_true(values: pa.ChunkedArray) -> int:
    return pc.sum(values).as_py() or 0


def sum_of(table, column: str):
    if table is None or not table.num_rows:
        return 0
    return pc.sum(table.column(column)).as_py() or 0

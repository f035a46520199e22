"""The accuracy report as Markdown."""

from __future__ import annotations

from typing import Any

from handloom.bench.accuracy_clip import ESTIMATED, GIVEN, LK, MEDIAPIPE
from handloom.bench.accuracy_truth import EGODEX, RENDERED

HEADS = {GIVEN: "handloom, poses given", ESTIMATED: "handloom, poses estimated", MEDIAPIPE: "mp.solutions.hands",
         LK: "LK, true depth held"}  # fmt: skip
TITLES = {RENDERED: "Rendered scenes", EGODEX: "EgoDex"}
# What a line says, where its number is, and its digits.
LINES: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("hand coverage", ("hands", "coverage"), 3),
    ("false hands per visible hand", ("hands", "false_hands"), 4),
    ("handedness right", ("hands", "handedness"), 3),
    ("2D error, px", ("hands", "error_px"), 1),
    ("2D error, palm widths", ("hands", "error_palms"), 3),
    ("root-relative MPJPE, mm", ("hands", "root_relative_mm"), 1),
    ("PA-MPJPE, mm", ("hands", "pa_mm"), 1),
    ("camera-space MPJPE, mm", ("hands", "camera_mm"), 1),
    ("world MPJPE, mm", ("hands", "world_mm"), 1),
    ("hands placed in the world, share", ("hands", "in_world"), 3),
    ("jitter, px (truth's own: {true_jitter_px})", ("hands", "jitter_px"), 2),
    ("jitter, mm (truth's own: {true_jitter_mm})", ("hands", "jitter_mm"), 1),
    ("tracks 2D: OA", ("tracks", "grid", "oa"), 3),
    ("tracks 2D: delta_avg", ("tracks", "grid", "delta_avg"), 3),
    ("tracks 2D: AJ", ("tracks", "grid", "aj"), 3),
    ("tracks 3D: APD", ("tracks", "grid", "apd_3d"), 3),
    ("tracks 3D: AJ", ("tracks", "grid", "aj_3d"), 3),
    ("tracks 3D: AJ, median scale", ("tracks", "grid", "aj_3d_median"), 3),
    ("camera rotation over 5 s, degrees", ("camera", "rotation_deg_5s"), 2),
    ("camera trajectory over 5 s, scale aligned, mm", ("camera", "ate_m_5s"), 1),
    ("camera trajectory over 5 s, as it is, mm", ("camera", "ate_rigid_m_5s"), 1),
    ("metric scale, mean error", ("camera", "scale_error"), 3),
    ("CPU of finding hands, ms a frame", ("cpu_ms_per_frame", "hands"), 1),
    ("CPU of the whole-clip fit, ms a frame", ("cpu_ms_per_frame", "hand_fit"), 1),
    ("CPU of tracks, ms a frame", ("cpu_ms_per_frame", "tracks"), 1),
    ("CPU of all, ms a frame", ("cpu_ms_per_frame", "all"), 1),
)


def markdown(results: dict[str, Any]) -> str:
    """One table per source that was measured; a dash where a method has no such number."""
    return "\n\n".join(_source(results[source], TITLES[source]) for source in TITLES if source in results) + "\n"


def _source(found: dict[str, Any], title: str) -> str:
    methods = [method for method in HEADS if method in found]
    head = f"{title}, {found['clips']} clips, {found['frames']} frames"
    head += ", in-sample" if found["in_sample"] else ""
    lines = [f"| {head} | " + " | ".join(HEADS[m] for m in methods) + " |", "|---" + "|---:" * len(methods) + "|"]
    for words, keys, digits in LINES:
        cells = [_cell(found[method], keys, digits) for method in methods]
        if any(cell != "-" for cell in cells):
            own = {f"true_{k}": _cell(found[GIVEN], ("hands", f"true_{k}"), 2) for k in ("jitter_px", "jitter_mm")}
            lines.append(f"| {words.format(**own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Any, keys: tuple[str, ...], digits: int) -> str:
    for key in keys:
        if not isinstance(values, dict) or values.get(key) is None:
            return "-"
        values = values[key]
    thousand = 1000 if keys[-1] in ("ate_m_5s", "ate_rigid_m_5s") else 1
    return f"{thousand * values:.{digits}f}"

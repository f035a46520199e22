"""The accuracy report as Markdown."""

from __future__ import annotations

from typing import Any

from handloom.bench.accuracy_clip import ESTIMATED, GIVEN, LK, MEDIAPIPE
from handloom.bench.truth.cases import ARCTIC, EGODEX, HOT3D, RENDERED

HEADS = {GIVEN: "handloom, poses given", ESTIMATED: "handloom, poses estimated", MEDIAPIPE: "mp.solutions.hands",
         LK: "LK, true depth held"}  # fmt: skip
CROSSING = "crossing"
TITLES = {
    RENDERED: "Rendered scenes",
    EGODEX: "EgoDex (in-sample: rules and sizes were fitted on such clips)",
    HOT3D: "HOT3D",
    ARCTIC: "ARCTIC",
    CROSSING: "Rendered scenes where hands cross",
}
# What a line says, where its number is, and its digits.
LINES: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("hand coverage", ("hands", "coverage"), 3),
    ("false hands per visible hand", ("hands", "false_hands"), 4),
    ("handedness right", ("hands", "handedness"), 3),
    ("2D error, px", ("hands", "error_px"), 1),
    ("2D error, palm widths", ("hands", "error_palms"), 3),
    ("PCK within 0.2 of the hand's box, missed hands count", ("hands", "pck_box_02"), 3),
    ("root-relative MPJPE, mm", ("hands", "root_relative_mm"), 1),
    ("PA-MPJPE, mm", ("hands", "pa_mm"), 1),
    ("camera-space MPJPE, mm", ("hands", "camera_mm"), 1),
    ("world MPJPE, mm", ("hands", "world_mm"), 1),
    ("hands placed in the world, share", ("hands", "in_world"), 3),
    ("depth of the wrist, signed error, mm", ("hands", "root_z_mm"), 1),
    ("depth of the wrist, size of the error, mm", ("hands", "root_z_abs_mm"), 1),
    ("FAcc: frames with exactly the right hands", ("hands", "facc"), 3),
    ("F1 of hands", ("hands", "f1"), 3),
    ("MPJPE-p, mm: relative to the wrist, missed hands count", ("hands", "mpjpe_p_mm"), 1),
    ("PA-MPJPE-p, mm", ("hands", "pa_mpjpe_p_mm"), 1),
    ("CT-p, mm: place of the wrist", ("hands", "ct_p_m"), 1),
    ("Action MPJPE, mm: the next second", ("hands", "action_mm"), 1),
    ("Action MPJPE: coverage", ("hands", "action_coverage"), 3),
    ("jitter, mm a frame squared, mean (truth's own: {true_jitter_mean_mm})", ("hands", "jitter_mean_mm"), 1),
    ("labels of hands swapped, per 1000", ("hands", "hand_swaps_per_1000"), 1),
    ("jitter, px, median (truth's own: {true_jitter_px})", ("hands", "jitter_px"), 2),
    ("jitter, mm, median (truth's own: {true_jitter_mm})", ("hands", "jitter_mm"), 1),
    ("tracks 2D: OA", ("tracks", "grid", "oa"), 3),
    ("tracks 2D: delta_avg", ("tracks", "grid", "delta_avg"), 3),
    ("tracks 2D: AJ", ("tracks", "grid", "aj"), 3),
    ("tracks 3D: APD", ("tracks", "grid", "apd_3d"), 3),
    ("tracks 3D: AJ", ("tracks", "grid", "aj_3d"), 3),
    ("tracks 3D: AJ, median scale", ("tracks", "grid", "aj_3d_median"), 3),
    ("tracks of the grid that end on another thing", ("tracks", "swaps", "swapped"), 3),
    ("the same, of those on hands and objects", ("tracks", "swaps", "swapped_moving"), 3),
    ("camera rotation over 5 s, degrees", ("camera", "rotation_deg_5s"), 2),
    ("camera trajectory over 5 s, scale aligned, mm", ("camera", "ate_m_5s"), 1),
    ("camera trajectory over 5 s, as it is, mm", ("camera", "ate_rigid_m_5s"), 1),
    ("camera trajectory, whole clip, as it is, mm", ("camera", "ate_rigid_m"), 1),
    ("RPE of a frame, mm", ("camera", "rpe_m"), 2),
    ("RPE of a frame, degrees", ("camera", "rpe_deg"), 3),
    ("RPE of a second, mm", ("camera", "rpe_1s_m"), 1),
    ("length of the path over the true one", ("camera", "length_ratio"), 3),
    ("clips with a path in metres, share", ("camera", "has_metric_path"), 2),
    ("metric scale, mean error", ("camera", "scale_error"), 3),
    ("CPU of finding hands, ms a frame", ("cpu_ms_per_frame", "hands"), 1),
    ("CPU of the whole-clip fit, ms a frame", ("cpu_ms_per_frame", "hand_fit"), 1),
    ("CPU of tracks, ms a frame", ("cpu_ms_per_frame", "tracks"), 1),
    ("CPU of all, ms a frame", ("cpu_ms_per_frame", "all"), 1),
)
SWAP_LINES = tuple(line for line in LINES if "swap" in line[1][-1] or line[1][-1] in ("coverage", "handedness", "facc"))
JITTERS = ("jitter_px", "jitter_mm", "jitter_mean_mm")


def markdown(results: dict[str, Any]) -> str:
    """One table per source that was measured, and one of the clips where hands cross; a dash where a method has no such
    number."""
    return "\n\n".join(_source(results[source], TITLES[source]) for source in TITLES if source in results) + "\n"


def _source(found: dict[str, Any], title: str) -> str:
    methods = [method for method in HEADS if method in found]
    head = f"{title}, {found['clips']} clips, {found['frames']} frames"
    head += ", in-sample" if found["in_sample"] else ""
    lines = [f"| {head} | " + " | ".join(HEADS[m] for m in methods) + " |", "|---" + "|---:" * len(methods) + "|"]
    for words, keys, digits in LINES if title != TITLES[CROSSING] else SWAP_LINES:
        cells = [_cell(found[method], keys, digits) for method in methods]
        if any(cell != "-" for cell in cells):
            own = {f"true_{k}": _cell(found[GIVEN], ("hands", f"true_{k}"), 2) for k in JITTERS}
            lines.append(f"| {words.format(**own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Any, keys: tuple[str, ...], digits: int) -> str:
    for key in keys:
        if not isinstance(values, dict) or values.get(key) is None:
            return "-"
        values = values[key]
    thousand = 1000 if keys[-1].endswith(("_m", "_m_5s")) else 1
    return f"{thousand * values:.{digits}f}"

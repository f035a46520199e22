"""The accuracy report as Markdown."""

from __future__ import annotations

from typing import Any

from handloom.bench.accuracy.clip import BLIND, ESTIMATED, GIVEN, LK, MEDIAPIPE
from handloom.bench.accuracy.goals import FOOTAGE, PUBLISHED, VIRTUAL
from handloom.bench.accuracy.published import markdown as published_markdown
from handloom.bench.accuracy.virtual import markdown as virtual_markdown
from handloom.bench.footage.measure import markdown as footage_markdown
from handloom.bench.truth.cases import ARCTIC, EGODEX, HOT3D, RENDERED

HEADS = {GIVEN: "handloom, poses given", ESTIMATED: "handloom, poses estimated", BLIND: "handloom, no intrinsics",
         MEDIAPIPE: "mp.solutions.hands", LK: "LK, true depth held"}  # fmt: skip
CROSSING = "crossing"
TITLES = {
    RENDERED: "Rendered scenes",
    EGODEX: "EgoDex",
    HOT3D: "HOT3D",
    ARCTIC: "ARCTIC",
    CROSSING: "Rendered scenes where hands cross",
}
# A line's text, the keys of its number, and its digits.
LINES: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("hand coverage", ("hands", "coverage"), 3),
    ("false hands per visible hand", ("hands", "false_hands"), 4),
    ("handedness right", ("hands", "handedness"), 3),
    ("2D error, px", ("hands", "error_px"), 1),
    ("2D error, palm widths", ("hands", "error_palms"), 3),
    ("root-relative MPJPE, mm", ("hands", "root_relative_mm"), 1),
    ("PA-MPJPE, mm", ("hands", "pa_mm"), 1),
    ("camera-space MPJPE, mm", ("hands", "camera_mm"), 1),
    ("depth of the wrist: signed error, mm", ("hands", "root_z_mm"), 1),
    ("depth of the wrist: size of the error, mm", ("hands", "root_z_abs_mm"), 1),
    ("distance from the camera: median error, share", ("hands", "distance_error"), 3),
    ("the same, within one of its standard deviations", ("hands", "distance_within_1_sigma"), 3),
    ("the same, within two", ("hands", "distance_within_2_sigma"), 3),
    ("the same, median in standard deviations", ("hands", "distance_bias_sigmas"), 2),
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
    ("tracks that end on another thing, share", ("tracks", "swaps", "swapped"), 4),
    ("camera rotation over 5 s, degrees", ("camera", "rotation_deg_5s"), 2),
    ("camera trajectory over 5 s, scale aligned, mm", ("camera", "ate_m_5s"), 1),
    ("camera trajectory over 5 s, as it is, mm", ("camera", "ate_rigid_m_5s"), 1),
    ("camera trajectory, whole clip, scale aligned, of the way", ("camera", "ate_share"), 3),
    ("focal length, mean error", ("camera", "focal_error"), 3),
    ("metric scale, mean error", ("camera", "scale_error"), 3),
    ("the same, within one of its standard deviations", ("camera", "scale_within_1_sigma"), 3),
    ("the same, within two", ("camera", "scale_within_2_sigma"), 3),
    ("the same, median in standard deviations", ("camera", "scale_bias_sigmas"), 2),
    ("CPU of finding hands, ms a frame", ("cpu_ms_per_frame", "hands"), 1),
    ("CPU of the whole-clip fit, ms a frame", ("cpu_ms_per_frame", "hand_fit"), 1),
    ("CPU of tracks, ms a frame", ("cpu_ms_per_frame", "tracks"), 1),
    ("CPU of all, ms a frame", ("cpu_ms_per_frame", "all"), 1),
)
# A separate table: compare these with other projects' tables, not with the lines above.
AS_OTHERS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("FAcc", ("hands", "facc"), 3),
    ("recall", ("hands", "recall"), 3),
    ("F1", ("hands", "f1"), 3),
    ("MPJPE-p, mm", ("hands", "mpjpe_p_mm"), 1),
    ("PA-MPJPE-p, mm", ("hands", "pa_mpjpe_p_mm"), 1),
    ("CT-p, mm", ("hands", "ct_p_m"), 1),
    ("jitter, mm/frame² (truth's own: {true_jitter_mean_mm})", ("hands", "jitter_mean_mm"), 1),
    ("jitter as at 30 Hz, mm/frame² (truth's own: {true_jitter_mean_mm_30hz})", ("hands", "jitter_mean_mm_30hz"), 2),
    ("Action MPJPE, mm", ("hands", "action_mm"), 1),
    ("Action MPJPE, coverage", ("hands", "action_coverage"), 3),
    ("PCK, 0.2 of the hand's box", ("hands", "pck_box_02"), 3),
    ("AUC in 3D, 0 to 50 mm", ("hands", "auc_50mm"), 3),
    ("labels swapped, per 1000 hands", ("hands", "hand_swaps_per_1000"), 1),
    ("camera: ATE of the whole clip, SE(3), mm", ("camera", "ate_rigid_m"), 1),
    ("camera: ATE of the whole clip, Sim(3), mm", ("camera", "ate_m"), 1),
    ("camera: RPE-T of a frame, mm", ("camera", "rpe_m"), 2),
    ("camera: RPE-R of a frame, degrees", ("camera", "rpe_deg"), 3),
    ("camera: RPE-T of a second, mm", ("camera", "rpe_1s_m"), 1),
    ("camera: length of the path, ratio", ("camera", "length_ratio"), 3),
    ("camera: clips with a path in metres, share", ("camera", "has_metric_path"), 2),
)
# Of the clips where hands cross.
SWAPS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("hand coverage", ("hands", "coverage"), 3),
    ("handedness right", ("hands", "handedness"), 3),
    ("FAcc", ("hands", "facc"), 3),
    ("labels swapped, per 1000 hands", ("hands", "hand_swaps_per_1000"), 1),
    ("tracks that end on another thing, share", ("tracks", "swaps", "swapped"), 4),
    ("the same, of those on hands and objects", ("tracks", "swaps", "swapped_moving"), 4),
)
JITTERS = ("jitter_px", "jitter_mm", "jitter_mean_mm", "jitter_mean_mm_30hz")


def markdown(results: dict[str, Any]) -> str:
    """Two tables per source that was measured, our metrics and those that others report, and one of the clips where
    hands cross; before them those of the virtual camera and of real clips. A dash where a method has no such number."""
    written = {VIRTUAL: virtual_markdown, FOOTAGE: footage_markdown, PUBLISHED: published_markdown}
    out = [write(results[part]) for part, write in written.items() if part in results]
    for source in (source for source in TITLES if source in results):
        found, title = results[source], TITLES[source]
        if source == CROSSING:
            out.append(_table(found, title, SWAPS))
            continue
        out += [_table(found, title, LINES), _table(found, f"{title}, as others print it", AS_OTHERS)]
    return "\n\n".join(out) + "\n"


def _table(found: dict[str, Any], title: str, wanted: tuple[tuple[str, tuple[str, ...], int], ...]) -> str:
    methods = [method for method in HEADS if method in found]
    head = f"{title}, {found['clips']} clips, {found['frames']} frames"
    head += ", in-sample" if found.get("in_sample") else ""
    rows = [(words, keys, [_cell(found[method], keys, digits) for method in methods]) for words, keys, digits in wanted]
    rows = [row for row in rows if any(cell != "-" for cell in row[2])]
    used = [i for i in range(len(methods)) if any(cells[i] != "-" for _, _, cells in rows)]
    lines = [f"| {head} | " + " | ".join(HEADS[methods[i]] for i in used) + " |", "|---" + "|---:" * len(used) + "|"]
    own = {f"true_{k}": _cell(found[GIVEN], ("hands", f"true_{k}"), 2) for k in JITTERS}
    lines += [f"| {words.format(**own)} | " + " | ".join(cells[i] for i in used) + " |" for words, _, cells in rows]
    return "\n".join(lines)


def _cell(values: Any, keys: tuple[str, ...], digits: int) -> str:
    for key in keys:
        if not isinstance(values, dict) or values.get(key) is None:
            return "-"
        values = values[key]
    thousand = 1000 if keys[-1].endswith(("_m", "_m_5s")) else 1
    return f"{thousand * values:.{digits}f}"

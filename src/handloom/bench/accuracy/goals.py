"""The goals of `bench accuracy`. A number that could not be measured meets none."""

from __future__ import annotations

from typing import Any

from handloom.bench.accuracy.clip import BLIND, ESTIMATED, GIVEN, LK, MEDIAPIPE
from handloom.bench.accuracy.virtual import goals_of as virtual_goals
from handloom.bench.footage.measure import goals_of as footage_goals
from handloom.bench.report import goal
from handloom.bench.truth.cases import EGODEX, RENDERED

FOOTAGE, VIRTUAL, PUBLISHED = "footage", "virtual", "published_tracks"  # keys of the parts without true clips
NAN = float("nan")


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Goals of every source that was measured; `results` as in `report_of`, NaN not yet null."""
    out = []
    if EGODEX in results:
        out += _device_goals(results[EGODEX]) + _camera_goals(results[EGODEX], EGODEX)
    if RENDERED in results:
        out += _rendered_goals(results[RENDERED]) + _camera_goals(results[RENDERED], RENDERED)
    if VIRTUAL in results:
        out += virtual_goals(results[VIRTUAL])
    if FOOTAGE in results:
        out += footage_goals(results[FOOTAGE])
    return out


def _device_goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    ours, plain = found[GIVEN]["hands"], found[MEDIAPIPE]["hands"]
    jitter = {unit: _ratio(ours[f"jitter_{unit}"], plain[f"jitter_{unit}"]) for unit in ("mm", "px")}
    return [
        goal("EgoDex: hand coverage", ours["coverage"], "share of visible hand-frames", 0.97),
        goal("EgoDex: handedness", ours["handedness"], "share of found hands", 0.99),
        goal("EgoDex: false hands", ours["false_hands"], "per visible hand-frame", 0.01, at_least=False),
        goal("EgoDex: PA-MPJPE", ours["pa_mm"], "mm", 16.0, at_least=False),
        goal("EgoDex: root-relative MPJPE", ours["root_relative_mm"], "mm", 30.0, at_least=False),
        goal("EgoDex: camera-space MPJPE", ours["camera_mm"], "mm", 45.0, at_least=False),
        goal("EgoDex: jitter in 3D against mediapipe's", jitter["mm"], "ratio", 0.5, at_least=False),
        goal("EgoDex: jitter in the image against mediapipe's", jitter["px"], "ratio", 0.5, at_least=False),
        *_cpu_goals(found, "EgoDex"),
        _world_goal(found, "EgoDex"),
        *_blind_goals(found, "EgoDex"),
    ]


def _blind_goals(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Without intrinsics: the error of hands' distances, and whether its predicted standard deviation fits."""
    if BLIND not in found:
        return []
    hands = found[BLIND]["hands"]
    words, within = f"{name} without intrinsics: hand distance", "share of hands that say a standard deviation"
    return [
        goal(f"{words}, median error", hands["distance_error"], "of the distance", 0.2, at_least=False),
        goal(f"{words} within two sigma", hands["distance_within_2_sigma"], within, 0.9),
    ]


def _rendered_goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    ours, plain = found[GIVEN]["hands"], found[MEDIAPIPE]["hands"]
    aj = {
        (method, name): _ratio(found[method]["tracks"]["grid"][name], found[LK]["tracks"]["grid"][name])
        for method in (GIVEN, ESTIMATED)
        for name in ("aj_3d", "aj_3d_median")
    }
    coverage = _ratio(ours["coverage"], plain["coverage"])
    return [
        goal("rendered: hand coverage against mediapipe's", coverage, "ratio", 1.25),
        goal("rendered: 3D-AJ against constant depth, poses given", aj[GIVEN, "aj_3d"], "ratio, metres", 1.5),
        goal(
            "rendered: 3D-AJ, poses given, median scaling", aj[GIVEN, "aj_3d_median"], "ratio, TAPVid-3D's default", 1.5
        ),
        goal("rendered: 3D-AJ against constant depth, poses estimated", aj[ESTIMATED, "aj_3d"], "ratio, metres", 1.5),
        goal(
            "rendered: 3D-AJ, poses estimated, median scaling",
            aj[ESTIMATED, "aj_3d_median"],
            "ratio, TAPVid-3D's default",
            1.5,
        ),
        *_cpu_goals(found, "rendered"),
        _world_goal(found, "rendered"),
    ]


def _camera_goals(found: dict[str, Any], source: str) -> list[dict[str, Any]]:
    name = "EgoDex" if source == EGODEX else source
    camera = found[ESTIMATED]["camera"]
    unit = f"over 5 s, {round(camera['has_path'] * found['clips'])} of {found['clips']} clips with a path"
    scale = f"mean |error|, {camera['scale_clips']} of {found['clips']} clips"
    return [
        goal(f"{name}: camera rotation", camera["rotation_deg_5s"], f"degrees {unit}", 1.5, at_least=False),
        goal(f"{name}: camera trajectory", camera["ate_m_5s"], f"m {unit}, scale aligned", 0.03, at_least=False),
        goal(f"{name}: metric scale", camera["scale_error"], scale, 0.10, at_least=False),
    ]


def _cpu_goals(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """`mp.solutions.hands` only finds hands; ours has the whole-clip fit on top."""
    plain, ours = found[MEDIAPIPE]["cpu_ms_per_frame"]["hands"], found[GIVEN]["cpu_ms_per_frame"]
    finding, all_ = _ratio(ours["hands"], plain), _ratio(ours["hands"] + ours["hand_fit"], plain)
    return [
        goal(f"{name}: CPU time of finding hands against mediapipe's", finding, "ratio", 0.6, at_least=False),
        goal(f"{name}: CPU time of hands with the whole-clip fit in 3D", all_, "ratio", 0.6, at_least=False),
    ]


def _world_goal(found: dict[str, Any], name: str) -> dict[str, Any]:
    """A tenth of a millimetre is allowed for float32 and interpolated poses."""
    hands = found[GIVEN]["hands"]
    more = hands["world_mm"] - hands["camera_mm"]
    return goal(f"{name}: world-frame less camera-space error, poses given", more, "mm", 0.1, at_least=False)


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else NAN

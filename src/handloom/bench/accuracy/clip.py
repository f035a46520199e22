"""One clip of `bench accuracy`: every method on the same frames, each against the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from handloom.bench.accuracy.plain import at_depth, lucas_kanade, mediapipe_hands
from handloom.bench.cpu import CpuClock
from handloom.bench.metrics.averages import Sums
from handloom.bench.metrics.camera import MIN_TRAVEL_M, align_world, camera_errors, relative_errors, windowed
from handloom.bench.metrics.comparable import comparable
from handloom.bench.metrics.distance import Distances, distances
from handloom.bench.metrics.hands import HandErrors, PredictedHands, hand_errors
from handloom.bench.metrics.tracks import evaluated, swapped, tapvid, tapvid_3d
from handloom.bench.truth.cases import Case, Loaded, load
from handloom.geometry.camera.world import metric_poses
from handloom.geometry.image_stats import ImageNumbers, ImageStats
from handloom.schemas.settings import Settings
from handloom.schemas.values import LEFT, RIGHT, ClipAnalysis, TrackKind, Tracks
from handloom.stages.analysis import Analyser
from handloom.synth.follow import STILL, follow
from handloom.synth.truth import Truth

GIVEN, ESTIMATED, MEDIAPIPE, LK = "handloom", "handloom_estimated", "mediapipe", "lk"
BLIND = "handloom_blind"  # without intrinsics
WINDOW_S = 5.0
CPU_OF = {"images": "pictures", "hands_2d": "hands", "lens": "hand_fit", "hands_3d": "hand_fit", "world": "camera"}
"""Names in results under which the CPU time of stages is added up."""
NEED_METRES = ("scale", "scale_sigmas", "ate_rigid_m", "ate_rigid_m_5s", "rpe_m", "rpe_1s_m", "length_ratio")


@dataclass(frozen=True)
class ClipScores:
    """Scores by method. tracks: by method, then `grid` or `extra`; camera: `camera_errors` over the clip, with means
    over `WINDOW_S` as `..._5s`; cpu_s: by method, then stage; printed: the metrics that others report
    (`metrics.comparable`); swaps: tracks that changed to another object; crossing: whether hands cross in the clip;
    truth: what the truth is; distances: of hands from the camera."""

    name: str
    source: str
    num_frames: int
    hands: dict[str, HandErrors]
    tracks: dict[str, dict[str, dict[str, float]]]
    camera: dict[str, dict[str, float]]
    cpu_s: dict[str, dict[str, float]]
    printed: dict[str, Sums] = field(default_factory=dict)
    swaps: dict[str, Sums] = field(default_factory=dict)
    crossing: bool = False
    truth: str = ""
    distances: dict[str, Distances] = field(default_factory=dict)


class Scorer:
    """The models of one process. CPU seconds are those of the whole process, which works on one clip at a time."""

    def __init__(self, settings: Settings) -> None:
        cv2.setNumThreads(1)
        self._settings = settings
        self._stages = Analyser(settings)

    def score(self, case: Case) -> ClipScores:
        loaded = load(case, self._settings.video.sample_hz, self._settings.video.short_side_px)
        try:
            return self._all(case, loaded)
        finally:
            loaded.frames.close()

    def _all(self, case: Case, loaded: Loaded) -> ClipScores:
        ours, cpu, images = {}, {}, _images(loaded)
        clips = {GIVEN: loaded.clip, ESTIMATED: loaded.without_poses}
        if loaded.surfaces is None:  # for rendered clips this would add half of the time
            clips[BLIND] = loaded.without_camera
        for method, clip in clips.items():
            clock = CpuClock()
            ours[method] = self._stages.analyse(clip, loaded.info, loaded.frames, images, _begin(clock))
            clock.end()
            cpu[method] = dict(clock.sums)
        plain, spent = mediapipe_hands(loaded)
        cpu[MEDIAPIPE] = {"hands": spent}
        predicted = {method: _predicted(found, loaded) for method, found in ours.items()} | {MEDIAPIPE: plain}
        hands = {method: hand_errors(loaded.hands, some) for method, some in predicted.items()}
        printed = {method: comparable(loaded.hands, some) for method, some in predicted.items()}
        tracks: dict[str, dict[str, dict[str, float]]] = {}
        swaps: dict[str, Sums] = {}
        if loaded.surfaces is not None:
            for method, found in ours.items():
                tracks[method] = _our_tracks(found, loaded)
                swaps[method] = _swaps(found.tracks, loaded)
            lk, spent = lucas_kanade(loaded)
            cpu[LK] = {"tracks": spent}
            tracks[LK], swaps[LK] = {"grid": _plain_tracks(lk, loaded)}, _swaps(lk, loaded)
        camera = {method: _camera(ours[method], loaded) for method in (ESTIMATED, BLIND) if method in ours}
        away = {name: distances(loaded.hands, predicted[name], one.hands.sigma_m) for name, one in ours.items()}
        return ClipScores(
            case.name,
            case.source,
            len(loaded.frames),
            hands,
            tracks,
            camera,
            cpu,
            printed,
            swaps,
            _crosses(loaded),
            loaded.note,
            away,
        )


def _images(loaded: Loaded) -> ImageNumbers:
    stats = ImageStats()
    stats.begin()
    for t in range(len(loaded.frames)):
        stats.feed(loaded.frames.rgb(t)[None])
    return stats.finish()


def _begin(clock: CpuClock) -> Callable[[str], None]:
    return lambda stage: clock.begin(CPU_OF.get(stage, stage))


def _predicted(found: ClipAnalysis, loaded: Loaded) -> PredictedHands:
    """Our hands. An estimated world is aligned to the true one by the camera path; its scale is kept."""
    hands, world, poses = found.hands, found.hands_world_m, None
    estimated = metric_poses(found.path) if found.path.source == "estimated" else None
    if world is not None and estimated is not None:
        onto = align_world(estimated, loaded.world_from_camera)
        world, poses = world @ onto[:3, :3].T + onto[:3, 3], onto @ estimated
    seen = hands.visible[..., None, None]
    px, cam = (np.where(seen, x.astype(float), np.nan) for x in (hands.keypoints_px, hands.keypoints_cam_m))
    side = np.tile([LEFT, RIGHT], (len(px), 1))
    return PredictedHands(px, side, cam, None if world is None else np.where(seen, world, np.nan), poses)


def _our_tracks(found: ClipAnalysis, loaded: Loaded) -> dict[str, dict[str, float]]:
    tracks, kind = found.tracks, found.tracks.kind
    groups = {"grid": kind == TrackKind.GRID, "extra": kind > TrackKind.GRID}
    nothing = np.full(tracks.visible.shape, np.nan)
    depth = nothing if found.lifted is None else found.lifted.depth_m.astype(float)
    out = {}
    for name, chosen in groups.items():
        at = np.flatnonzero(chosen & (tracks.query_frame >= 0))
        if len(at):
            some = Tracks(tracks.points_px[:, at], tracks.visible[:, at], tracks.query_frame[at], kind[at])
            out[name] = _track_scores(some, lambda _, at=at: depth[:, at], loaded)
    return out


def _surfaces(loaded: Loaded) -> Truth:
    """The rendered scene of a clip. Raises ValueError: a recorded clip has none."""
    if loaded.surfaces is None:
        raise ValueError(f"clip {loaded.clip.clip_id} has no surfaces")
    return loaded.surfaces


def _plain_tracks(tracks: Tracks, loaded: Loaded) -> dict[str, float]:
    """Scores with the true depth of every point's query, held constant: this favours the method."""
    return _track_scores(tracks, lambda query_depth_m: query_depth_m, loaded)


def _track_scores(tracks: Tracks, depth_of, loaded: Loaded) -> dict[str, float]:
    """2D and 3D scores. depth_of: function from the true depths (N,) at the queries to predicted ones, (T, N) or
    (N,)."""
    query = tracks.query_frame
    each = np.arange(len(query))
    query_px = tracks.points_px[query, each].astype(float)
    truth = follow(_surfaces(loaded), query_px, loaded.index[query])
    known = truth.kind >= 0
    index = loaded.index
    px, cam, visible = truth.px[index], truth.cam_m[index], truth.visible[index]
    where = evaluated(query, len(index)) & known
    size = (loaded.info.width, loaded.info.height)
    ours = at_depth(tracks.points_px, depth_of(truth.cam_m[loaded.index[query], each, 2]), loaded)
    out = {"points": float(known.sum())} | tapvid(px, visible, tracks.points_px, tracks.visible, where, size)
    for scaling, ending in (("none", ""), ("median", "_median")):
        scores = tapvid_3d(cam, visible, ours, tracks.visible, where, loaded.camera, scaling)
        out |= {f"{name}{ending}": value for name, value in scores.items() if name != "oa"}
    return out


def _swaps(tracks: Tracks, loaded: Loaded) -> Sums:
    """Tracks of the grid that ended on another object; and the same for those that began on a hand or an object."""
    at = np.flatnonzero((tracks.kind == TrackKind.GRID) & (tracks.query_frame >= 0))
    px, visible, query = tracks.points_px[:, at], tracks.visible[:, at], tracks.query_frame[at]
    index = loaded.index
    surfaces = _surfaces(loaded)
    truth = follow(surfaces, px[query, np.arange(len(at))].astype(float), index[query])
    ids = surfaces.maps()[1][index]
    size = (loaded.info.width, loaded.info.height)
    wrong, followed = swapped(ids, truth.kind, px, visible, evaluated(query, len(index)), size)
    moving = followed & (truth.kind > STILL)
    return {
        "swapped": (float(wrong.sum()), float(followed.sum())),
        "swapped_moving": (float((wrong & moving).sum()), float(moving.sum())),
    }


def _crosses(loaded: Loaded) -> bool:
    return loaded.surfaces is not None and any(span.verb == "cross" for span in loaded.surfaces.actions)


def _camera(found: ClipAnalysis, loaded: Loaded) -> dict[str, float]:
    poses = found.path.world_from_camera
    metric = metric_poses(found.path)
    nothing = np.full(loaded.world_from_camera.shape, np.nan)
    used = metric if metric is not None else poses if poses is not None else nothing
    whole = camera_errors(used, loaded.world_from_camera)
    whole |= relative_errors(used, loaded.world_from_camera, loaded.frames.frame_s)
    travelled = whole["travel_m"] >= MIN_TRAVEL_M and whole["path_m"] > 0
    whole["ate_share"] = whole["ate_m"] / whole["path_m"] if travelled else float("nan")
    true_px = loaded.camera.camera_matrix[0, 0]
    whole["focal_error"] = abs(float(found.camera.camera_matrix[0, 0] / true_px) - 1)
    parts = windowed(used, loaded.world_from_camera, loaded.frames.frame_s, WINDOW_S)
    out = whole | {
        f"{name}_5s": _mean([part[name] for part in parts]) for name in ("rotation_deg", "ate_m", "ate_rigid_m")
    }
    sigma = found.quality.get("camera_scale_sigma") or float("nan")
    out["scale_sigmas"] = float(np.log(out["scale"])) / sigma if out["scale"] > 0 else float("nan")
    if metric is None:
        out |= dict.fromkeys(NEED_METRES, float("nan"))
    return out | {"has_path": float(poses is not None), "has_metric_path": float(metric is not None)}


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")

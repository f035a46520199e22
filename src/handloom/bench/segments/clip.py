"""One rendered sequence: extracted as the pipeline does it, cut into actions, scored beside two simple rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.bench.segments.scores import (
    IOU,
    Counts,
    Span,
    boundary_counts,
    contact_counts,
    pairs,
    pose_errors,
    recall_by_duration,
    segment_counts,
    speed_minima,
    uniform,
)
from handloom.bench.truth.cases import RENDERED, Case, Loaded, load
from handloom.geometry.image_stats import ImageStats
from handloom.geometry.interactions.later import LaterPoints, with_later_points
from handloom.geometry.interactions.scene import Scene, make_scene
from handloom.geometry.interactions.segments import GRASPING, HANDS, MANIPULATION, Found, find_segments
from handloom.geometry.interactions.signals import local_lines
from handloom.schemas.hand_topology import WRIST
from handloom.schemas.settings import Settings
from handloom.schemas.tables.frame_flags import FrameFlag
from handloom.schemas.values import ClipAnalysis
from handloom.stages.analysis import Analyser
from handloom.stages.builtin.segments import Segments
from handloom.synth.clip import write_clip
from handloom.synth.script.scene import SceneSpec
from handloom.synth.truth import TRUTH_SUFFIX, Truth

Floats = NDArray[np.float64]

OURS, MINIMA, UNIFORM = "handloom", "speed_minima", "uniform"
METHODS = (OURS, MINIMA, UNIFORM)
UNIFORM_S = 1.0


@dataclass
class SequenceScores:
    """Of one clip. boundary, segment, duration: by method; pose: errors in metres and degrees, of every frame of a true
    contact; phase: matched segments, and those of them with the right phase."""

    name: str
    num_frames: int
    boundary: dict[str, Counts] = field(default_factory=dict)
    segment: dict[str, dict[float, Counts]] = field(default_factory=dict)
    duration: dict[str, dict[str, Counts]] = field(default_factory=dict)
    contact: Counts = field(default_factory=Counts)
    contact_spans: Counts = field(default_factory=Counts)
    phase: tuple[int, int] = (0, 0)
    away_m: Floats = field(default_factory=lambda: np.empty(0))
    turned_deg: Floats = field(default_factory=lambda: np.empty(0))


class SequenceScorer:
    """The models of one process."""

    def __init__(self, settings: Settings, given_poses: bool = True) -> None:
        cv2.setNumThreads(1)
        self._settings, self._given = settings, given_poses
        self._stages = Analyser(settings)
        self._segments = Segments.Settings()

    def score(self, name: str, spec: SceneSpec, folder: Path) -> SequenceScores:
        """Render a sequence into a folder, find its segments, and score them."""
        loaded = rendered(name, spec, folder, self._settings)
        try:
            scene = self.scene(loaded)
        finally:
            loaded.frames.close()
        found = find_segments(scene, self._segments.contact_m, self._segments.min_path_m)
        return scores_of(name, scene, found, Truth.load(folder / f"{name}{TRUTH_SUFFIX}"))

    def scene(self, loaded: Loaded) -> Scene:
        """What the stage `segments` would read of the clip's row."""
        stats = ImageStats()
        stats.begin()
        for t in range(len(loaded.frames)):
            stats.feed(loaded.frames.rgb(t)[None])
        clip = loaded.clip if self._given else loaded.without_poses
        found = self._stages.analyse(clip, loaded.info, loaded.frames, stats.finish(), lambda _: None)
        return scene_of_analysis(found, loaded.frames.frame_s)


def rendered(name: str, spec: SceneSpec, folder: Path, settings: Settings) -> Loaded:
    """A sequence, rendered into `folder` and decoded as the pipeline would."""
    video = folder / f"{name}.mp4"
    if not video.with_suffix(TRUTH_SUFFIX).exists():
        truth = write_clip(spec, video, truth=False)
        truth.save(video.with_suffix(TRUTH_SUFFIX))
    case = Case(name, RENDERED, video, video.with_suffix(TRUTH_SUFFIX))
    return load(case, settings.video.sample_hz, settings.video.short_side_px)


def scene_of_analysis(found: ClipAnalysis, frame_s: Floats) -> Scene:
    """The scene of an analysis that is not a row."""
    hands, tracks, path = found.hands, found.tracks, found.path
    flags = np.zeros(len(frame_s), np.int64) if found.flags is None else np.asarray(found.flags, np.int64)
    scene = make_scene(
        frame_s, found.camera, path.world_from_camera, path.unit_m, path.scale, hands.keypoints_cam_m, hands.infilled,
        tracks.points_px, tracks.visible, None if found.lifted is None else found.lifted.depth_m, tracks.kind,
        np.flatnonzero(flags & int(FrameFlag.CUT)),
    )  # fmt: skip
    return with_later_points(scene, found.camera, _later_points(found))


def _later_points(found: ClipAnalysis) -> list[LaterPoints]:
    depths = None if found.lifted is None else found.lifted.grids_depth_m
    out = []
    for number, grid in enumerate(found.tracks.grids or ()):
        depth = np.full(grid.visible.shape, np.nan) if depths is None else depths[number]
        out.append(LaterPoints(grid.first_frame, grid.points_px, grid.visible, depth))
    return out


def true_spans(truth: Truth) -> list[Span]:
    """The beats of a sequence with their phases."""
    phases = {"reach": GRASPING, "withdraw": None, "wave": None}
    return [Span(a.start_s, a.end_s, a.hand, phases.get(a.verb, MANIPULATION)) for a in truth.actions]


def true_contacts(truth: Truth) -> list[tuple[Span, int]]:
    """When which hand has which object: from the first movement to the last before the hand takes something else or
    reaches again."""
    out: list[tuple[Span, int]] = []
    reaches = [a.start_s for a in truth.actions if a.verb in ("reach", "withdraw", "wave")]
    for one in truth.contacts:
        last, number = out[-1] if out else (Span(0.0, 0.0, ""), -1)
        goes_on = number == one.object and last.hand == one.hand
        if goes_on and not any(last.end_s <= at <= one.start_s for at in reaches):
            out[-1] = (Span(last.start_s, one.end_s, one.hand), one.object)
        else:
            out.append((Span(one.start_s, one.end_s, one.hand), one.object))
    return out


def scores_of(name: str, scene: Scene, found: Found, truth: Truth) -> SequenceScores:
    """All scores of a clip."""
    true = true_spans(truth)
    ours = [Span(s.start_s, s.end_s, s.hand, s.phase) for s in found.segments]
    methods = {OURS: ours, **baselines(scene)}
    out = SequenceScores(name, len(scene.frame_s))
    for method, spans in methods.items():
        out.boundary[method] = boundary_counts(true, spans)
        out.segment[method] = {least: segment_counts(true, spans, least) for least in IOU}
        out.duration[method] = recall_by_duration(true, spans)
    matched = pairs(true, ours, IOU[0])
    out.phase = (len(matched), sum(true[i].phase == ours[j].phase for i, j in matched))
    contacts = true_contacts(truth)
    mine = [Span(*_times(scene, c.start, c.end), HANDS[c.hand]) for c in found.contacts]
    spans = [span for span, _ in contacts]
    out.contact = contact_counts(spans, mine, scene.frame_s)
    out.contact_spans = segment_counts(spans, mine, IOU[0])
    away, turned = [], []
    for span, number in contacts:
        frames = np.flatnonzero((scene.frame_s >= span.start_s) & (scene.frame_s < span.end_s))
        index = np.searchsorted(truth.frame_s, scene.frame_s[frames] - 1e-4)
        path = _path_of(span, mine, found, frames)
        errors = pose_errors(path, truth.world_from_object[index, number])
        away.append(errors[0])
        turned.append(errors[1])
    out.away_m, out.turned_deg = (np.concatenate([np.empty(0), *parts]) for parts in (away, turned))
    return out


def _path_of(span: Span, mine: list[Span], found: Found, frames: NDArray[np.int64]) -> Floats:
    """(n, 4, 4) poses of the thing that was found in a true contact; NaN without one."""
    matched = pairs([span], mine, 0.1)
    thing = found.things.get(found.contacts[matched[0][1]].thing) if matched else None
    return np.full((len(frames), 4, 4), np.nan) if thing is None else thing.poses[frames]


def _times(scene: Scene, start: int, end: int) -> tuple[float, float]:
    times = scene.frame_s
    return float(times[start]), float(times[end] if end < len(times) else times[-1] + 1e-3)


def baselines(scene: Scene) -> dict[str, list[Span]]:
    """Speed minima of each wrist, without movements shorter than the stage's; and cuts of one second."""
    minima, cuts = [], []
    least = Segments.Settings().min_path_m
    for hand, name in enumerate(HANDS):
        wrist = scene.hands_m[:, hand, WRIST]
        known = np.flatnonzero(np.isfinite(wrist[:, 0]))
        if len(known) < 2:
            continue
        place, slope = local_lines(wrist, scene.frame_s, scene.shot)
        speed = np.linalg.norm(slope, axis=1)
        step = np.linalg.norm(np.diff(place, axis=0, prepend=place[:1]), axis=1)
        for span in speed_minima(speed, scene.frame_s, name):
            inside = (scene.frame_s > span.start_s) & (scene.frame_s <= span.end_s)
            if np.nansum(step[inside]) >= least:
                minima.append(span)
        if np.nansum(step) >= 3 * least:  # a hand that hardly moves is not cut
            cuts += uniform(float(scene.frame_s[known[0]]), float(scene.frame_s[known[-1]]), name, UNIFORM_S)
    return {MINIMA: minima, UNIFORM: cuts}

"""`bench accuracy --stills`: the pipeline on a virtual camera's shots over real images, against exact truth.

With the true intrinsics, and without any. The tracker's standard deviations are compared with its errors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handloom.bench.metrics.averages import Sums, averages
from handloom.bench.metrics.camera import camera_errors
from handloom.bench.metrics.tracks import SIDE_PX, evaluated, mean_scores, tapvid
from handloom.bench.report import goal
from handloom.bench.truth.virtual.camera import NOTHING, VirtualClip, VirtualTracks
from handloom.bench.truth.virtual.shots import SHOTS, hand_sprite, make_clips, read_textures
from handloom.bench.watch import Watch
from handloom.geometry.image_stats import ImageStats
from handloom.pipelines.process_pool import process_pool
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.settings import Settings
from handloom.schemas.values import ClipAnalysis, TrackKind, Tracks, VideoInfo
from handloom.stages.analysis import Analyser
from handloom.video.decode.frame_store import FrameStore

SIZE, SECONDS = (640, 360), 3.0
QUICK_SHOTS = ("pan", "look_around", "room")
WITH, WITHOUT = "intrinsics_given", "without_intrinsics"
SURVIVAL_PX = 8  # of an image 256 wide: a visible point with a larger error has not survived
NAN = float("nan")


@dataclass(frozen=True)
class ShotScores:
    """Scores of one shot. tracks: TAP-Vid's numbers and `survival`; sigma: shares within one and two of the tracker's
    standard deviations, {} without them; camera: by `WITH` and `WITHOUT`."""

    name: str
    tracks: dict[str, float]
    sigma: Sums
    camera: dict[str, dict[str, float]]


def virtual_scores(stills: Path, watch: Watch) -> Iterator[ShotScores]:
    """The scores of every shot as it finishes.

    Raises:
        ConfigError: the folder holds no image and no video.
    """
    shots = [shot for shot in SHOTS if not watch.quick or shot.name in QUICK_SHOTS]
    hz = Settings().video.sample_hz
    textures = read_textures(stills, SECONDS, hz)
    watch.say(f"{stills}: {len(textures)} images and videos, {len(shots)} shots")
    sprite = hand_sprite(SIZE) if any(shot.hand for shot in shots) else None
    clips = make_clips(textures, shots, SIZE, SECONDS, hz, sprite=sprite)
    workers = max(min(os.cpu_count() or 1, len(clips)), 1)
    watch.expect(watch.num_done + len(clips))
    watch.part("virtual camera")
    with process_pool(workers, _start) as pool:
        for job in as_completed([pool.submit(_score, clip) for clip in clips]):
            found = job.result()
            watch.did(found.name)
            yield found


class ShotScorer:
    """The models of one process."""

    def __init__(self, settings: Settings) -> None:
        cv2.setNumThreads(1)
        self._stages = Analyser(settings)

    def score(self, clip: VirtualClip) -> ShotScores:
        """Run the pipeline on a shot; twice if its focal length is constant."""
        frames, images = FrameStore(clip.frame_s), ImageStats()
        images.begin()
        for frame in clip.frames():
            frames.append(frame[None])
            images.feed(frame[None])
        numbers = images.finish()
        step_s = float(clip.frame_s[1] - clip.frame_s[0])
        info = VideoInfo(*clip.size, 1 / step_s, "raw", "rgb24", 0, 0.0, clip.frame_s[-1] + step_s, len(frames))
        found = {WITHOUT: self._stages.analyse(_clip(clip, None), info, frames, numbers, lambda stage: None)}
        if len(clip.cameras) == 1:
            given = _clip(clip, _camera_text(clip))
            found[WITH] = self._stages.analyse(given, info, frames, numbers, lambda stage: None)
        frames.close()
        tracks, sigma = track_scores(found[WITHOUT].tracks, clip)
        return ShotScores(clip.name, tracks, sigma, {name: _camera(one, clip) for name, one in found.items()})


def track_scores(tracks: Tracks, clip: VirtualClip) -> tuple[dict[str, float], Sums]:
    """TAP-Vid's numbers and `survival` of the grid and of the extra points, and how often an error of x or of y is
    within one and two of the tracker's standard deviations."""
    used = np.flatnonzero(tracks.query_frame >= 0)
    query = tracks.query_frame[used]
    truth = clip.follow(tracks.points_px[query, used].astype(float), query)
    out: dict[str, float] = {}
    for name, chosen in (("", tracks.kind[used] == TrackKind.GRID), ("_extra", tracks.kind[used] > TrackKind.GRID)):
        at = np.flatnonzero(chosen & (truth.kind != NOTHING))
        if len(at):
            some = VirtualTracks(truth.px[:, at], truth.visible[:, at], truth.kind[at])
            scores = _of_points(tracks, used[at], some, clip.size)
            out |= {f"{key}{name}": value for key, value in scores.items()}
    return out, _within_sigma(tracks, used, truth)


def _of_points(tracks: Tracks, points, truth: VirtualTracks, size: tuple[int, int]) -> dict[str, float]:
    px, visible = tracks.points_px[:, points], tracks.visible[:, points]
    where = evaluated(tracks.query_frame[points], len(px))
    scores = tapvid(truth.px, truth.visible, px, visible, where, size)
    off = np.linalg.norm((px[-1] - truth.px[-1]) * SIDE_PX / np.array(size), axis=1)
    asked = truth.visible[-1]
    kept = asked & visible[-1] & (off < SURVIVAL_PX)
    return scores | {"survival": float(kept.sum() / asked.sum()) if asked.any() else NAN}


def _within_sigma(tracks: Tracks, used, truth: VirtualTracks) -> Sums:
    sigma = getattr(tracks, "sigma_px", None)
    if sigma is None:
        return {}
    sigma = sigma[:, used].astype(float)
    both = tracks.visible[:, used] & truth.visible & (sigma > 0)  # 0 at the query
    off = np.abs(tracks.points_px[:, used] - truth.px)[both] / sigma[both][:, None]
    return {f"within_{k}_sigma": (float((off <= k).sum()), float(off.size)) for k in (1, 2)}


def _clip(clip: VirtualClip, camera: str | None) -> Clip:
    clip_id = make_clip_id("virtual", clip.name, 0.0, None)
    return Clip(clip_id, "virtual", clip.name, "", 0.0, None, camera=camera)


def _camera_text(clip: VirtualClip) -> str:
    camera = clip.cameras[0]
    content: dict[str, Any] = {"camera_matrix": camera.camera_matrix.reshape(-1).tolist()}
    if camera.distortion is not None:
        content["distortion"] = {"model": camera.model, "params": camera.distortion.tolist()}
    return json.dumps(content)


def _camera(found: ClipAnalysis, clip: VirtualClip) -> dict[str, float]:
    """rotation_deg: mean angle after the best rotation of the world; path_share: rms distance of the centres after the
    best similarity over the path's length, NaN if the camera does not travel; focal_error: relative."""
    poses = found.path.world_from_camera
    out = {"has_path": float(poses is not None), "rotation_deg": NAN, "path_share": NAN, "focal_error": NAN}
    if poses is not None:
        errors = camera_errors(poses, clip.world_from_camera)
        out["rotation_deg"] = errors["rotation_deg"]
        if clip.way_m > 0:
            out["path_share"] = errors["ate_m"] / clip.way_m
    if len(clip.cameras) == 1:
        true = clip.cameras[0].camera_matrix[0, 0]
        out["focal_error"] = abs(float(found.camera.camera_matrix[0, 0] / true) - 1)
    return out


def results_of(shots: Sequence[ShotScores]) -> dict[str, Any]:
    """Means over shots, and shot by shot."""
    shots = sorted(shots, key=lambda shot: shot.name)
    return _pooled(shots) | {"shots": [{"shot": shot.name, **_pooled([shot])} for shot in shots]}


def _pooled(shots: Sequence[ShotScores]) -> dict[str, Any]:
    names = dict.fromkeys(name for shot in shots for name in shot.tracks)
    tracks = mean_scores([{name: shot.tracks.get(name, NAN) for name in names} for shot in shots])
    camera = {}
    for method in (WITH, WITHOUT):
        some = [shot.camera[method] for shot in shots if method in shot.camera]
        if some:
            camera[method] = mean_scores(some)
    return {"num_shots": len(shots), "tracks": tracks, "sigma": averages([shot.sigma for shot in shots]), **camera}


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Tracks, and the camera with and without intrinsics."""
    words = "virtual camera over real images"
    out = [goal(f"{words}: tracks, AJ in the image", results["tracks"].get("aj"), "grid, mean over shots", 0.80)]
    for method, camera in ((WITH, "intrinsics given"), (WITHOUT, "no intrinsics")):
        if method in results:
            one = results[method]
            shots = f"mean, path in {one['has_path']:.0%} of shots"
            out.append(
                goal(f"{words}: rotation, {camera}", one["rotation_deg"], f"degrees, {shots}", 0.3, at_least=False)
            )
            out.append(
                goal(f"{words}: path, {camera}", one["path_share"], f"share of the way, {shots}", 0.02, at_least=False)
            )
    return out


COLUMNS = (
    ("AJ", ("tracks", "aj"), 3),
    ("survival", ("tracks", "survival"), 2),
    ("within 1, 2 sigma", ("sigma", "within_1_sigma"), 2),
    ("", ("sigma", "within_2_sigma"), 2),
    ("rotation, degrees", (WITH, "rotation_deg"), 2),
    ("no intrinsics", (WITHOUT, "rotation_deg"), 2),
    ("path, of the way", (WITH, "path_share"), 3),
    ("no intrinsics", (WITHOUT, "path_share"), 3),
    ("focal length, no intrinsics", (WITHOUT, "focal_error"), 3),
)


def markdown(results: dict[str, Any]) -> str:
    """One line per shot, and one for all; a dash for unknown numbers."""
    lines = ["| Virtual camera over real images | " + " | ".join(name for name, _, _ in COLUMNS) + " |"]
    lines.append("|---" + "|---:" * len(COLUMNS) + "|")
    for shot in (*results["shots"], {"shot": f"all {results['num_shots']}", **results}):
        cells = [_cell(shot.get(group, {}).get(key), digits) for _, (group, key), digits in COLUMNS]
        lines.append(f"| {shot['shot']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


_scorer: ShotScorer | None = None


def _start() -> None:
    global _scorer
    _scorer = ShotScorer(Settings())


def _score(clip: VirtualClip) -> ShotScores:
    if _scorer is None:
        raise ValueError("call `_begin` before: it loads the models")
    return _scorer.score(clip)

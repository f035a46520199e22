"""`handloom bench wearer`: are somebody else's hands told from the camera wearer's?

On rendered scenes with a second person at the table (four seats in turn, seeds that nothing was tuned on); and, with a
folder of first-person videos of one person each, on these, where nobody else is, and on pictures made of two of them:
below a clip as it is, above it another one, smaller and turned by half a turn, as of somebody across the table. Counted
are found hands, frame by frame.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.bench.extract.clips import readable
from handloom.bench.images import Images
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.geometry.hands.tracklets import hand_size
from handloom.kernels import one_thread_each
from handloom.machine import cores_allowed
from handloom.models.hands.offline import OfflineHands
from handloom.pipelines.process_pool import process_pool
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.values import HandPoints, VideoInfo
from handloom.stages.extract import settled
from handloom.synth.render.render import render_clip
from handloom.synth.script.demo import shared_table_specs
from handloom.synth.script.scene import SceneSpec
from handloom.synth.truth import Truth
from handloom.video.container.packets import read_packet_index
from handloom.video.decode.frame_store import FrameStore
from handloom.video.grid import clip_range, sample_frames, working_size

NUM_SCENES, QUICK_SCENES, SEED, HZ, SECONDS = 32, 4, 5000, 8.0, 2.5
CLIP_S, MOST_CLIPS, QUICK_CLIPS = 6.0, 24, 2
SAME_HAND = 0.35  # hand sizes: a found hand so near to a true one shows that
UPPER_SHARE = 0.6  # width of the upper clip of a composed picture, over the lower one's
Places = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Counts:
    """Found hands of one clip, over all frames. others: truly somebody else's, others_out: of these, kept apart. own:
    the wearer's, own_lost: of these, taken for somebody else's. cpu_ms: per frame, of finding all hands."""

    group: str
    clip: str
    others: int
    others_out: int
    own: int
    own_lost: int
    cpu_ms: float


def bench_wearer(videos: Path | None, num_scenes: int | None, watch: Watch) -> dict[str, Any]:
    """Measure on rendered scenes, and on first-person videos of one wearer each.

    Raises:
        ConfigError: no video of the folder can be read.
    """
    num = (QUICK_SCENES if watch.quick else NUM_SCENES) if num_scenes is None else num_scenes
    clips = [] if videos is None else readable(videos, CLIP_S)[: QUICK_CLIPS if watch.quick else MOST_CLIPS]
    specs = shared_table_specs(num, SEED, fps=HZ, duration_s=SECONDS)
    found: list[Counts] = []
    with watch.measuring(), one_thread_each(), process_pool(cores_allowed()) as pool:
        watch.expect(len(specs) + 2 * len(clips))
        watch.part(f"{len(specs)} scenes with two people, {len(clips)} clips of one")
        jobs = [pool.submit(of_scene, spec, number) for number, spec in enumerate(specs)]
        jobs += [pool.submit(of_clip, clip) for clip in clips]
        jobs += [pool.submit(of_two, clip, clips[at - 1]) for at, clip in enumerate(clips) if len(clips) > 1]
        for job in as_completed(jobs):
            found.append(job.result())
            watch.did(found[-1].clip)
    results = results_of(found)
    return describe("wearer", results, goals_of(results), watch)


def results_of(found: Sequence[Counts]) -> dict[str, Any]:
    """Shares by group: `rendered`, each of its seats, `alone`, `composed`; and each clip."""
    found = sorted(found, key=lambda one: (one.group, one.clip))
    groups = {"rendered": [one for one in found if one.group not in ("alone", "composed")]}
    for one in found:
        groups.setdefault(one.group, []).append(one)
    shares = {name: pooled(some) for name, some in groups.items() if some}
    return {"seed": SEED, "hz": HZ} | shares | {"clips": [vars(one) for one in found]}


def pooled(found: Sequence[Counts]) -> dict[str, Any]:
    """Shares over all found hands of some clips; None of nothing."""
    others, out, own, lost = (sum(getattr(one, name) for one in found) for name in NUMBERS)
    return {
        "clips": len(found),
        "others": others,
        "others_kept_out": round(out / others, 4) if others else None,
        "own": own,
        "own_lost": round(lost / own, 4) if own else None,
        "cpu_ms_per_frame": round(float(np.mean([one.cpu_ms for one in found])), 2),
    }


NUMBERS = ("others", "others_out", "own", "own_lost")


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Others' hands kept out, and the wearer's lost: in rendered scenes, in composed pictures, and where nobody else
    is."""
    told = {name: results.get(name, {}) for name in ("rendered", "composed", "alone")}
    return [
        goal("others_kept_out_rendered", told["rendered"].get("others_kept_out"), "share", 0.75),
        goal("own_lost_rendered", told["rendered"].get("own_lost"), "share", 0.02, at_least=False),
        goal("others_kept_out_composed", told["composed"].get("others_kept_out"), "share", 0.90),
        goal("own_lost_composed", told["composed"].get("own_lost"), "share", 0.02, at_least=False),
        goal("own_lost_alone", told["alone"].get("own_lost"), "share", 0.005, at_least=False),
    ]


def of_scene(spec: SceneSpec, number: int) -> Counts:
    """A rendered scene with two people."""
    rendered = render_clip(spec)
    info = VideoInfo(spec.width, spec.height, spec.fps, "h264", "yuv420p", 0, 0.0, spec.duration_s, spec.num_frames)
    hands, cpu_ms = _found(info, np.arange(spec.num_frames) / spec.fps, list(rendered.images()))
    seat = "nobody" if spec.person is None else spec.person.seat
    return counted(seat, f"{number:03d}", hands, _of_truth(rendered.truth, hands), cpu_ms)


def of_clip(clip: Clip) -> Counts:
    """A clip of one person."""
    info, frame_s, images = _frames(clip)
    hands, cpu_ms = _found(info, frame_s, images)
    nobody = [np.zeros(len(points), np.int64) for points in _all(hands)]
    return counted("alone", clip.clip_id, hands, nobody, cpu_ms)


def of_two(lower: Clip, upper: Clip) -> Counts:
    """Two clips in one picture, for as long as both last."""
    (info, frame_s, below), (_, _, above) = _frames(lower), _frames(upper)
    num = min(len(below), len(above))
    images = [composed(one, other) for one, other in zip(below[:num], above[:num], strict=True)]
    height, width = images[0].shape[:2]
    info = VideoInfo(width, height, info.fps, info.codec, info.pix_fmt, 0, info.start_s, info.end_s, num)
    hands, cpu_ms = _found(info, frame_s[:num], images)
    border = height - below[0].shape[0]
    owner = [(points.mean(axis=1)[:, 1] < border).astype(np.int64) for points in _all(hands)]
    return counted("composed", f"{lower.clip_id} {upper.clip_id}", hands, owner, cpu_ms)


def composed(lower: NDArray[np.uint8], upper: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture with another one above it, turned by half a turn, in its middle, with its own border's colours beside
    it."""
    width = 2 * round(UPPER_SHARE * lower.shape[1] / 2)
    height = round(upper.shape[0] * width / upper.shape[1])
    small = cv2.resize(upper[::-1, ::-1], (width, height), interpolation=cv2.INTER_AREA)
    left = (lower.shape[1] - width) // 2
    wide = cv2.copyMakeBorder(small, 0, 0, left, lower.shape[1] - width - left, cv2.BORDER_REPLICATE)
    return np.concatenate([np.asarray(wide, np.uint8), lower])


def counted(group: str, clip: str, hands: HandPoints, owner: Sequence[NDArray[np.int64]], cpu_ms: float) -> Counts:
    """owner: of the hands in the wearer's columns, and of those kept apart: 0 the wearer's, 1 somebody else's, -1
    none."""
    others, own = [int((some == 1).sum()) for some in owner], [int((some == 0).sum()) for some in owner]
    return Counts(group, clip, sum(others), others[1], sum(own), own[1], round(cpu_ms, 2))


def _all(hands: HandPoints) -> tuple[Places, Places]:
    """(n, 21, 2) of the hands in the wearer's columns, and of those kept apart."""
    apart = np.zeros((0, *hands.keypoints_px.shape[2:])) if hands.others is None else hands.others.keypoints_px
    return hands.keypoints_px[hands.visible], apart


def _of_truth(truth: Truth, hands: HandPoints) -> list[NDArray[np.int64]]:
    """The owners of all found hands: of the true hand that lies there."""
    frames = (np.nonzero(hands.visible)[0], np.zeros(0, int) if hands.others is None else hands.others.frame)
    places = [truth.keypoints_px, *([] if truth.other_keypoints_px is None else [truth.other_keypoints_px])]
    out = []
    for frame, points in zip(frames, _all(hands), strict=True):
        away = np.stack([np.linalg.norm(some[frame] - points[:, None], axis=-1).mean(axis=-1) for some in places], 1)
        away = np.nan_to_num(away, nan=np.inf).min(axis=-1)  # (n, people)
        out.append(np.where(away.min(axis=1) <= SAME_HAND * hand_size(points), away.argmin(axis=1), -1))
    return out


_model: OfflineHands | None = None


def _found(info: VideoInfo, frame_s: NDArray[np.float64], images: list[NDArray[np.uint8]]) -> tuple[HandPoints, float]:
    """The hands of a first-person clip, and milliseconds of CPU per frame."""
    global _model
    _model = OfflineHands(Settings().hands) if _model is None else _model
    store = FrameStore(frame_s)
    for image in images:
        store.append(image[None])
    clip = Clip("bench:wearer:0-1", "bench", "wearer", "", 0.0, None, view="ego")
    with settled():
        began = time.process_time()
        hands = _model.extract(clip, info, store)
        spent = time.process_time() - began
    store.close()
    return hands, 1000 * spent / len(images)


def _frames(clip: Clip) -> tuple[VideoInfo, NDArray[np.float64], list[NDArray[np.uint8]]]:
    """Of the working size, at the sampling grid; the video is told to have that size."""
    video = Settings().video
    packets = read_packet_index(clip.video_uri)
    index = sample_frames(packets.times_s, *clip_range(clip, packets.info), video.sample_hz)
    size = working_size(packets.info.width, packets.info.height, video.short_side_px)
    images: list[NDArray[np.uint8]] = []
    for chunk in Images(clip.video_uri, packets, index, size).chunks(images.clear):
        images += list(chunk)
    old = packets.info
    info = VideoInfo(*size, old.fps, old.codec, old.pix_fmt, 0, old.start_s, old.end_s, len(images))
    return info, packets.times_s[index], images

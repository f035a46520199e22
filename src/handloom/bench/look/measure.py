"""`handloom bench look`: is a clip found by a copy of it that is cropped, mirrored or in other colours?

Clips of 3 s of a folder of videos, or rendered ones; eight images of each, as rows store them. Every copy is compared
with all clips, by `look` and by `appearance` (of the image alone: no hands are looked for). Two clips of one video
often show the same: a hit of the same video is counted beside a hit of the clip itself.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.bench.extract.clips import readable, rendered
from handloom.bench.look.copies import COPIES, Copy, Images
from handloom.bench.report import describe, goal
from handloom.bench.watch import Watch
from handloom.errors import ClipError
from handloom.models.embeddings.appearance import GistHogHsv
from handloom.models.embeddings.look import FRAMES, LookEncoder
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.values import Hands, VideoInfo
from handloom.stages.extract import settled
from handloom.stages.stage import FrameRequest
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource
from handloom.video.stored_frames import shrink_to_short_side

CLIP_S = 3.0
NUM_CLIPS, QUICK_CLIPS = 200, 8
FOUND = 0.97
"""The goal: this share of copies finds a clip of its video first."""
Encoder = Callable[[Images], NDArray[np.float32]]


def bench_look(videos: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure on clips of a folder of videos, or on rendered ones."""
    results: dict[str, Any] = {"videos": "rendered" if videos is None else "of a folder"}
    with watch.measuring(), tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder:
        source = rendered(Path(folder) / "videos", watch.quick, watch.say) if videos is None else videos
        clips = readable(source, CLIP_S)[: QUICK_CLIPS if watch.quick else NUM_CLIPS]
        watch.part(f"reading {len(clips)} clips")
        shown = images_of(clips)
        results["clips"], results["clips_unreadable"] = len(shown), len(clips) - len(shown)
        with settled():
            for name, encoder in {"look": LookEncoder().encode_clip, "appearance": appearance}.items():
                watch.part(f"copies of {len(shown)} clips by {name}")
                results[name] = measured(encoder, shown, watch)
    return describe("look", results, goals_of(results), watch)


def goals_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One for each kind of copy. A clip of the same video counts: of a camera at rest they show the same."""
    found = results.get("look", {}).get("same_video_first", {})
    return [goal(f"video found first: {name}", found.get(name), "share", FOUND) for name in COPIES]


def measured(encoder: Encoder, shown: dict[str, tuple[str, Images]], watch: Watch) -> dict[str, Any]:
    """Shares of the copies that find their clip, or one of its video, first; milliseconds of CPU for a clip."""
    began = time.process_time()
    known = np.stack([encoder(images) for _, images in shown.values()])
    clip_cpu_ms = 1000 * (time.process_time() - began) / len(shown)
    videos = np.array([video for video, _ in shown.values()])
    first, same_video = {}, {}
    for name, copy in COPIES.items():
        best = np.array([(known @ encoder(made)).argmax() for made in copies(copy, shown)])
        first[name] = float(np.mean(best == np.arange(len(known))))
        same_video[name] = float(np.mean(videos[best] == videos))
        watch.did(name)
    return {"clip_cpu_ms": round(clip_cpu_ms, 1), "found_first": first, "same_video_first": same_video}


def copies(copy: Copy, shown: dict[str, tuple[str, Images]]) -> Sequence[Images]:
    """One of each clip; the same ones for every encoder."""
    rng = np.random.default_rng(0)
    return [np.ascontiguousarray(copy(images, rng)) for _, images in shown.values()]


def images_of(clips: Sequence[Clip]) -> dict[str, tuple[str, Images]]:
    """`{clip id: (video, images as rows store them)}`, without the clips that cannot be decoded."""
    settings, found = Settings(), {}
    request = FrameRequest(count=FRAMES)
    decoder = Decoder(settings.video.sample_hz, settings.video.short_side_px, DecodeLimits(), VideoSource())
    try:
        for item in decoder.stream(clips):
            if isinstance(item, ClipError):
                continue
            frames: list[NDArray[np.uint8]] = []
            for chunk in item.chunks(frames.clear):
                frames += [shrink_to_short_side(image, settings.frames.short_side_px) for image in chunk]
            chosen = request.indices(item.header.frame_s).tolist()
            found[item.clip.clip_id] = (item.clip.video_uri, np.stack([frames[at] for at in chosen]))
    finally:
        decoder.close()
    return found


def appearance(images: Images) -> NDArray[np.float32]:
    """The embedding `appearance` of images without hands."""
    num, height, width = images.shape[:3]
    encoder, unseen = GistHogHsv(), np.zeros((num, 2), bool)
    encoder.begin(None, VideoInfo(width, height, 30.0, "", "", 0, 0.0, float(num), num))
    encoder.feed(images, np.arange(num, dtype=float))
    points = np.full((num, 2, 21, 3), np.nan, np.float32)
    return encoder.finish(Hands(unseen, unseen, np.full((num, 2), np.nan, np.float32), points[..., :2], points))

"""Clips of a hand that moves smoothly: rows to find movements in, without a video."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from support.rows import CAMERA, RUN_KEY, make_clip

from handloom.models.embeddings.motion import encode_motion
from handloom.schemas.clip import Clip
from handloom.schemas.tables.row import build_row
from handloom.schemas.values import CameraPath, ClipAnalysis, Hands, Tracks, VideoInfo

HZ = 15.0
INFO = VideoInfo(640, 480, 30.0, "h264", "yuv420p", 0, 0.0, 100.0, 3000)


def hand_shape() -> np.ndarray:
    """(21, 3) of a flat right hand that points up, metres, the wrist at the origin."""
    points = np.zeros((21, 3))
    for finger, x in enumerate((-0.045, -0.025, 0.0, 0.02, 0.04)):
        for joint, length in enumerate((0.05, 0.08, 0.1, 0.12) if finger == 0 else (0.09, 0.125, 0.15, 0.17)):
            points[1 + 4 * finger + joint] = (x * (1 + 0.3 * joint), -length, 0)
    return points


def movement(seed: int, seconds: float, speed: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(T, 2, 21, 3) keypoints of a right hand on a smooth random path, and (T,) seconds from 0; the left is not seen.

    speed: 0.5 is the same movement at half the speed, over twice the time.
    """
    rng = np.random.default_rng(seed)
    frame_s = np.arange(round(seconds / speed * HZ) + 1) / HZ
    phase = frame_s * speed
    waves = rng.uniform(0.15, 0.7, (4, 3)), rng.uniform(0, 2 * np.pi, (4, 3)), rng.uniform(0.03, 0.1, (4, 3))
    path = sum(a * np.sin(2 * np.pi * f * phase[:, None] + p) for f, p, a in zip(*waves, strict=True))
    path += np.array([0, 0, 0.6])
    grip = 0.55 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * phase + rng.uniform(0, 6))
    turn = 0.8 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * phase + rng.uniform(0, 6))
    shape = np.repeat(hand_shape()[None], len(phase), 0)
    shape[:, :, 1] *= np.where(np.isin(np.arange(21) % 4, (3, 0)) & (np.arange(21) > 0), grip[:, None], 1)
    cos, sin = np.cos(turn), np.sin(turn)
    x, y = shape[..., 0].copy(), shape[..., 1].copy()
    shape[..., 0], shape[..., 1] = cos[:, None] * x - sin[:, None] * y, sin[:, None] * x + cos[:, None] * y
    both = np.full((len(phase), 2, 21, 3), np.nan)
    both[:, 1] = shape + path[:, None]
    return both, frame_s


def tracks_of(keypoints: np.ndarray, seed: int = 0) -> Tracks:
    """A grid at rest and 40 points that move as a right hand does, found by the detector or not, 0.1 px of noise."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(20, 620, 15), np.linspace(20, 460, 12))
    wrist = 500 * keypoints[:, 1, 0, :2] / keypoints[:, 1, 0, 2:] + [319.5, 239.5]
    arm = wrist[:, None] + rng.uniform(-40, 40, (40, 2))
    rest = np.tile(np.stack([x, y], -1).reshape(1, -1, 2), (len(keypoints), 1, 1))
    points = np.concatenate([rest, arm], axis=1)
    points += rng.normal(0, 0.1, points.shape)
    return Tracks.of_grid(points.astype(np.float32), np.ones(points.shape[:2], bool))


def moving_row(
    clip: Clip | int,
    keypoints: np.ndarray,
    frame_s: np.ndarray,
    tracks: Tracks | None = None,
    found: float = 1.0,
    **values: object,
) -> pa.RecordBatch:
    """The row of a clip with these hands and no tracks, or `tracks`; its embedding `motion` is the real one.

    found: share of the frames, from the first, in which the detector finds the hands.
    """
    clip = make_clip(clip) if isinstance(clip, int) else clip
    seen = np.isfinite(keypoints).all((2, 3)) & (np.arange(len(frame_s)) < found * len(frame_s))[:, None]
    keypoints = np.where(seen[..., None, None], keypoints, np.nan)
    with np.errstate(invalid="ignore"):
        pixels = 500 * keypoints[..., :2] / keypoints[..., 2:] + [319.5, 239.5]
    confidence = np.where(seen, 0.9, np.nan).astype(np.float32)
    hands = Hands(seen, np.zeros_like(seen), confidence, pixels.astype(np.float32), keypoints.astype(np.float32))
    if tracks is None:
        tracks = Tracks.of_grid(np.full((len(frame_s), 4, 2), np.nan, np.float32), np.zeros((len(frame_s), 4), bool))
    times = clip.start_s + frame_s
    return build_row(
        clip,
        info=INFO,
        decoder="decord",
        frame_s=times,
        found=ClipAnalysis(
            camera=CAMERA, path=CameraPath(None, "none", "none", "static"), hands=hands, tracks=tracks, quality={}
        ),
        embeddings={"motion": encode_motion(hands, tracks, times, INFO)},
        frame_jpeg=values.get("frame_jpeg"),
        thumbnail=b"\xff\xd8strip",
        run_key=RUN_KEY,
    )

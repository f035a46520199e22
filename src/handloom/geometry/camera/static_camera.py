"""Cameras at rest, and the parts of a clip that corners connect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.sfm.solver import Observations
from handloom.geometry.sfm.views import in_both, steps_px

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

STILL_PX = 0.3  # displacement of a corner since it was first seen, pixels of a 640 px wide image; twice that once OLD
STILL_SHARE = 0.2  # of a frame's old corners must be still; three times that in clips too short for old ones
OLD = 6  # frames
MOST_FRAMES = 0.1  # of the frames may be exceptions: a hand passes close before the lens, or someone's back
MIN_OLD = 5
MIN_PER_FRAME = 15  # corners that agree with a frame's pose
MIN_THIRDS = 4  # of the image's nine parts: corners in one place may be a logo, or lie on one thing that moves
CALM_PX = 1.5  # median step of a frame's corners: a head at rest moves by less
CALM_OVER = 5  # frames over which the median is taken: a hand may cover much of one
MIN_CALM = 15  # frames


def rest_frames(observations: Observations, half_size: Floats, coarse: float = 1.0) -> Flags | None:
    """(T,) frames in which the camera rests: all but those before it came to rest and after it was moved; None for a
    moving camera.

    Enough of the older corners, all over the image, must be where they were first seen, in nine frames of ten. Much may
    move otherwise: on tripods 0.33 to 0.9 of the corners stay in nine frames of ten, on a head none do.

    half_size: (2,) of the image, 640 px wide. coarse: its pixels per pixel of the clip, at least 1: corners of small
    images are less exact.
    """
    num_frames = len(observations.first) - 1
    long = num_frames >= 2 * OLD
    shares = _still_shares(observations, half_size, coarse, long)
    enough = STILL_SHARE if long else 3 * STILL_SHARE
    measured = np.flatnonzero(np.isfinite(shares))
    if not len(measured) or np.quantile(shares[measured], MOST_FRAMES) < enough:
        return None
    still = measured[shares[measured] >= enough]
    rests = np.zeros(num_frames, bool)
    first = 0 if still[0] == measured[0] else still[0] - OLD
    last = num_frames - 1 if still[-1] == measured[-1] else still[-1]
    rests[max(first, 0) : last + 1] = True
    return rests


def _still_shares(observations: Observations, half_size: Floats, coarse: float, long: bool) -> Floats:
    """(T,) share of a frame's old corners that are where they were first seen; NaN for too few corners."""
    num_frames = len(observations.first) - 1
    _, first = np.unique(observations.track, return_index=True)
    start = np.zeros((observations.num_tracks, 2))
    start[observations.track[first]] = observations.xy[first]
    born = np.full(observations.num_tracks, -1)
    born[observations.track[first]] = observations.frame[first]
    old = observations.frame - born[observations.track] >= (OLD if long else 1)
    still = (
        np.linalg.norm(observations.xy - start[observations.track], axis=1) <= (2 if long else 1) * STILL_PX * coarse
    )
    shares = np.full(num_frames, np.nan)
    for frame in range(num_frames):
        span = slice(observations.first[frame], observations.first[frame + 1])
        if old[span].sum() >= MIN_OLD:
            kept = still[span] & old[span]
            spread = num_thirds(observations.xy[span][kept], half_size) >= MIN_THIRDS
            shares[frame] = float(kept.sum() / old[span].sum()) if spread else 0.0
    return shares


def longest_run(observations: Observations) -> Flags:
    """(T,) frames of the longest stretch in which corners continue from frame to frame: after a cut all are new."""
    num_frames = len(observations.first) - 1
    run = np.zeros(num_frames, np.int64)
    for frame in range(1, num_frames):
        before, now = observations.at(frame - 1)[0], observations.at(frame)[0]
        goes_on = len(in_both(before, now)[0]) >= MIN_OLD
        run[frame] = run[frame - 1] + (not goes_on)
    return run == np.bincount(run).argmax()


def calm_part(observations: Observations, coarse: float = 1.0) -> Flags | None:
    """(T,) the longest part in which the image hardly moves from frame to frame; None where that is the whole clip, or
    too short."""
    steps = np.nan_to_num(steps_px(observations), nan=np.inf)
    half = CALM_OVER // 2
    padded = np.pad(steps, half, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, CALM_OVER), axis=1)
    calm = np.concatenate([[False], smooth <= CALM_PX * coarse, [False]])
    starts, ends = np.flatnonzero(calm[1:] & ~calm[:-1]), np.flatnonzero(~calm[1:] & calm[:-1])
    if not len(starts):
        return None
    longest = int(np.argmax(ends - starts))
    if not MIN_CALM <= ends[longest] - starts[longest] < len(steps):
        return None
    part = np.zeros(len(steps), bool)
    part[starts[longest] : ends[longest]] = True
    return part


def num_thirds(xy: Floats, half_size: Floats) -> int:
    """How many of the image's nine parts hold one of the points (n, 2), which are measured from the image's middle."""
    part = np.clip(((xy / half_size + 1) * 1.5).astype(int), 0, 2)
    return len(np.unique(part[:, 0] * 3 + part[:, 1]))

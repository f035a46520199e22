"""Cuts: frames where a shot begins whose image neither motion nor light explains from the one before."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.protocols import ClipFrames

Grey = NDArray[np.uint8]

VERSION = "cuts 1"
# Chosen by hand on 37 real videos, none of which has a cut, and on frames of two of them put side by side.
TINY = (32, 18)
ALIKE = 0.85
"""Two tiny images of a higher correlation, the best over small shifts, need no closer comparison."""
SMALL_PX = 160
"""Longer side of the small images, for the closer comparison."""
SIDE_PX, ACROSS, DOWN = 32, 5, 3
"""Patches of the small images: their side, and how many there are across and down."""
PLAIN_GREY = 4.0
"""A patch or an image of a smaller standard deviation is plain, and not compared."""
MIN_CORRELATION = 0.7
"""Least correlation of a patch with its place in the other image."""
SAME_MOTION_PX = 12.0
"""Patches whose shifts differ by no more, in pixels of the small image, have one motion."""
MIN_WITH_ONE_MOTION = 4
"""Two images are of one shot if so many patches, or half of those that are not plain, have one motion. Of 449 steps of
real clips in which the tiny images differ, 1 has fewer (a flying pillow before a moving camera; the old shot returns in
the next frames); of 466 pairs of frames of two clips, 8 have as many, some of which show the same room."""
MIN_PATCHES = 4
"""Images with fewer patches that are not plain are never taken for different."""
FLASH_FRAMES = 3
"""After a flash or a torn image the old shot must return within so many frames."""
MAX_WAIT = 450
"""Plain frames, black or of one colour, over which the last image before them is remembered."""


@dataclass(frozen=True)
class _Thumbnails:
    """A frame for comparison: its tiny and its small grey image."""

    tiny: Grey
    small: Grey
    plain: bool

    @staticmethod
    def at(frames: ClipFrames, t: int) -> _Thumbnails:
        grey = frames.grey(t)
        share = SMALL_PX / max(grey.shape)
        size = tuple(max(SIDE_PX, round(side * share)) for side in grey.shape[::-1])
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        tiny = cv2.resize(small, TINY, interpolation=cv2.INTER_AREA)
        return _Thumbnails(tiny, small, float(tiny.std()) < PLAIN_GREY)


def find_cuts(frames: ClipFrames) -> NDArray[np.int64]:
    """The first frames of the second and later shots, ascending.

    A cut is where the image changes, no motion of the camera takes its patches to their places in the next image,
    whatever their brightness and contrast, and the old shot does not return within three frames. So a turn of the head,
    a change of the exposure, a flash, and a torn or black image within a shot are no cuts. A dissolve is found only if
    it takes a frame or two; a jump in the video of a camera at rest is not found.
    """
    cuts: list[int] = []
    last: tuple[int, _Thumbnails] | None = None  # the last frame that is not plain
    for t in range(len(frames)):
        thumbnails = _Thumbnails.at(frames, t)
        if thumbnails.plain:
            continue
        if last is not None and t - last[0] <= MAX_WAIT and _differ(last[1], thumbnails):
            if _returns(frames, t, last[1]):
                continue
            cuts.append(t)
        last = (t, thumbnails)
    return np.array(cuts, np.int64)


def _returns(frames: ClipFrames, t: int, before: _Thumbnails) -> bool:
    """Whether the image before frame `t` returns within a few frames."""
    for later in range(t + 1, min(t + 1 + FLASH_FRAMES, len(frames))):
        thumbnails = _Thumbnails.at(frames, later)
        if not thumbnails.plain and not _differ(before, thumbnails):
            return True
    return False


def _differ(a: _Thumbnails, b: _Thumbnails) -> bool:
    """Whether no motion takes one image to the other."""
    if _best_correlation(a.tiny[3:-3, 4:-4], b.tiny) > ALIKE:
        return False
    shifts = _patch_shifts(a.small, b.small)
    if _have_one_motion(shifts):
        return False
    back = _patch_shifts(b.small, a.small)
    return max(len(shifts), len(back)) >= MIN_PATCHES and not _have_one_motion(back)


def _best_correlation(patch: Grey, image: Grey) -> float:
    return float(cv2.matchTemplate(image, patch, cv2.TM_CCOEFF_NORMED).max())


def _patch_shifts(a: Grey, b: Grey) -> NDArray[np.float64]:
    """(n, 3) of the patches of `a` that are not plain: correlation with the best place in `b`, and the shift to it.

    Stops as soon as enough patches have one motion.
    """
    height, width = a.shape
    out = []
    for y in np.linspace(0, height - SIDE_PX, DOWN).round().astype(int):
        for x in np.linspace(0, width - SIDE_PX, ACROSS).round().astype(int):
            patch = a[y : y + SIDE_PX, x : x + SIDE_PX]
            if float(patch.std()) < PLAIN_GREY:
                continue
            match = cv2.matchTemplate(b, patch, cv2.TM_CCOEFF_NORMED)
            _, best, _, (at_x, at_y) = cv2.minMaxLoc(match)
            out.append((best, at_x - x, at_y - y))
            if _num_with_one_motion(np.array(out, np.float64)) >= MIN_WITH_ONE_MOTION:
                return np.array(out, np.float64)
    return np.array(out, np.float64).reshape(-1, 3)


def _have_one_motion(shifts: NDArray[np.float64]) -> bool:
    """Whether enough patches have one motion."""
    num = _num_with_one_motion(shifts)
    return num > 0 and num >= min(MIN_WITH_ONE_MOTION, len(shifts) / 2)


def _num_with_one_motion(shifts: NDArray[np.float64]) -> int:
    """The largest number of patches with one motion."""
    shift = shifts[shifts[:, 0] > MIN_CORRELATION, 1:]
    if not len(shift):
        return 0
    apart = np.abs(shift[:, None] - shift[None]).max(axis=-1)
    return int((apart <= SAME_MOTION_PX).sum(axis=1).max())

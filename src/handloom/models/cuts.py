"""Cuts: where one shot ends and another begins, with nothing between their pictures that motion or light explains."""

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
"""Correlation of two tiny pictures, the best over small shifts, above which nobody has to look closer."""
SMALL_PX = 160
"""Longer side of the pictures that are compared closely."""
SIDE_PX, ACROSS, DOWN = 32, 5, 3
"""Patches of them: their side, and how many of them stand side by side and one below the other."""
PLAIN_GREY = 4.0
"""Standard deviation of a patch, or of a whole picture, below which it says nothing."""
FOUND = 0.7
"""Correlation of a patch with its place in the other picture."""
TOGETHER_PX = 12.0
"""Patches that moved alike, to this many small pixels, tell of one motion."""
LEAST_TOGETHER = 4
"""So many of them, or half of those that say something, are one motion. Of 449 steps of real clips in which the tiny
pictures differ, 1 has fewer (a flying pillow before a moving camera, seen again in the next frames); of 466 pairs of
frames of two clips, 8 have as many, some of which show the same room."""
LEAST_PATCHES = 4
"""Pictures with fewer patches that say something are never held against each other."""
FLASH_FRAMES = 3
"""So many frames may pass, a flash or a torn picture, before the old shot must be seen again."""
MAX_WAIT = 450
"""Frames without any detail, black or of one colour, over which the last picture before them is remembered."""


@dataclass(frozen=True)
class _Look:
    """A frame for comparison: its tiny and its small grey picture."""

    tiny: Grey
    small: Grey
    plain: bool

    @staticmethod
    def at(frames: ClipFrames, t: int) -> _Look:
        grey = frames.grey(t)
        share = SMALL_PX / max(grey.shape)
        size = tuple(max(SIDE_PX, round(side * share)) for side in grey.shape[::-1])
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        tiny = cv2.resize(small, TINY, interpolation=cv2.INTER_AREA)
        return _Look(tiny, small, float(tiny.std()) < PLAIN_GREY)


def find_cuts(frames: ClipFrames) -> NDArray[np.int64]:
    """The first frame of every shot but the first, ascending.

    A cut is where the picture changes, no motion of the camera brings patches of the one to where they are in the
    other, whatever their brightness and contrast, and the old shot is not seen again within three frames: no turn of
    the head, no change of the exposure, no flash, no torn or black picture between two of one shot. A dissolve is found
    only where it takes a frame or two; a jump within the view of one camera at rest is none.
    """
    cuts: list[int] = []
    last: tuple[int, _Look] | None = None  # the last frame with something to see
    for t in range(len(frames)):
        look = _Look.at(frames, t)
        if look.plain:
            continue
        if last is not None and t - last[0] <= MAX_WAIT and _differ(last[1], look):
            if _returns(frames, t, last[1]):
                continue
            cuts.append(t)
        last = (t, look)
    return np.array(cuts, np.int64)


def _returns(frames: ClipFrames, t: int, before: _Look) -> bool:
    """Whether what was before frame `t` is seen again within a few frames."""
    for later in range(t + 1, min(t + 1 + FLASH_FRAMES, len(frames))):
        look = _Look.at(frames, later)
        if not look.plain and not _differ(before, look):
            return True
    return False


def _differ(a: _Look, b: _Look) -> bool:
    """Whether no motion brings one picture onto the other."""
    if _best(a.tiny[3:-3, 4:-4], b.tiny) > ALIKE:
        return False
    moves = _moves(a.small, b.small)
    if _one_motion(moves):
        return False
    back = _moves(b.small, a.small)
    return max(len(moves), len(back)) >= LEAST_PATCHES and not _one_motion(back)


def _best(patch: Grey, picture: Grey) -> float:
    return float(cv2.matchTemplate(picture, patch, cv2.TM_CCOEFF_NORMED).max())


def _moves(a: Grey, b: Grey) -> NDArray[np.float64]:
    """(n, 3) of each patch of `a` that says something: how well it is found in `b`, and how far from its place.

    No more of them than it takes for one motion.
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
            if _num_together(np.array(out, np.float64)) >= LEAST_TOGETHER:
                return np.array(out, np.float64)
    return np.array(out, np.float64).reshape(-1, 3)


def _one_motion(moves: NDArray[np.float64]) -> bool:
    """Whether enough of the patches were found where one motion takes them."""
    together = _num_together(moves)
    return together > 0 and together >= min(LEAST_TOGETHER, len(moves) / 2)


def _num_together(moves: NDArray[np.float64]) -> int:
    """How many patches at most were found where one motion takes them."""
    shift = moves[moves[:, 0] > FOUND, 1:]
    if not len(shift):
        return 0
    apart = np.abs(shift[:, None] - shift[None]).max(axis=-1)
    return int((apart <= TOGETHER_PX).sum(axis=1).max())

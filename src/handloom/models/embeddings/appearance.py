"""Embedding `appearance`: what the scene and the hand regions look like, in 720 numbers, nothing learned.

| block | dims | what |
|---|---|---|
| `scene_gist` | 384 | GIST (Oliva and Torralba, IJCV 2001): energy of 3 x 8 Gabor filters, averaged over a 4 x 4 grid |
| `scene_colour` | 160 | HSV histogram of 32 bins, image and quarters (spatial pyramid: Lazebnik et al., CVPR 2006) |
| `hand_hog` | 144 | HOG (Dalal and Triggs, CVPR 2005) of the square around each hand: 4 x 4 cells of 9 directions |
| `hand_colour` | 32 | HSV histogram of the same squares |

Each block is averaged over frames spread over the clip (GIST 8, colour 32, hands 16 at most), then balanced against the
others (`descriptors.balance`). Without a visible hand both hand blocks are zero.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.models.embeddings.descriptors import balance, to_unit_float32
from handloom.schemas.clip import Clip
from handloom.schemas.values import NUM_HANDS, HandPoints, Hands, VideoInfo

Floats = NDArray[np.float64]

MAX_FRAMES = 32
"""Frames kept for a clip, whatever its length."""
MAX_GIST_FRAMES, MAX_HAND_FRAMES = 8, 16
"""GIST and HOG cost 1 ms an image and change little from one frame to the next: every second or fourth is enough."""
FIRST_STEP_S = 0.25
KEPT_SHORT_SIDE_PX, COLOUR_SHORT_SIDE_PX = 180, 72
GIST_SIDE_PX, GIST_GRID, GIST_SCALES, GIST_DIRECTIONS = 64, 4, 3, 8
HAND_SIDE_PX, HOG_CELLS, HOG_DIRECTIONS = 64, 4, 9
HAND_MARGIN = 0.25  # the square around a hand's keypoints grows by this share of its side, each way
MIN_HAND_PX = 8  # of the kept frame; a smaller hand shows only noise
HUES, SHADES, GREYS = 8, 3, 8

WEIGHTS = {"scene_gist": 1.0, "scene_colour": 1.0, "hand_hog": 0.5, "hand_colour": 0.5}
FLOORS = {"scene_gist": 1e-6, "scene_colour": 1e-6, "hand_hog": 1e-3, "hand_colour": 1e-3}


class GistHogHsv:
    """Appearance of a clip by GIST, HOG and HSV histograms. Use: `begin`, `feed` each chunk in order, `finish`.

    Which frames are used depends on their times alone: the first of every interval of 0.25 s since the clip's first
    frame; whenever that gives more than 32 frames, the intervals become twice as long. So any chunking gives the same
    bytes, and memory stays below 33 small frames (6 MB at 16:9).
    """

    def __init__(self) -> None:
        self._reset(None)

    def _reset(self, info: VideoInfo | None) -> None:
        self._info = info
        self._count = 0
        self._start_s = 0.0
        self._step_s = FIRST_STEP_S
        self._kept: list[tuple[int, int, NDArray[np.uint8]]] = []  # (interval, index of the frame, small frame)

    def begin(self, clip: Clip | None, info: VideoInfo) -> None:
        """Start a clip. `info` gives the size of the source, in whose pixels `finish` gets the hands."""
        self._reset(info)

    def feed(self, frames: NDArray[np.uint8], frame_s: NDArray[np.float64]) -> None:
        """The next frames, (n, h, w, 3) RGB, and their times. Raises ShapeError if their numbers differ."""
        if len(frames) != len(frame_s) or frames.ndim != 4:
            raise ShapeError(f"frames {frames.shape}, frame_s {frame_s.shape}: expected (n, h, w, 3) and (n,)")
        for frame, at_s in zip(frames, frame_s, strict=True):
            if not self._count:
                self._start_s = float(at_s)
            interval = self._interval(float(at_s))
            if not self._kept or interval > self._kept[-1][0]:
                self._kept.append((interval, self._count, _at_most(frame, KEPT_SHORT_SIDE_PX)))
                self._thin_out()
            self._count += 1

    def finish(self, hands: Hands | HandPoints) -> NDArray[np.float32]:
        """The clip's embedding, (720,) float32, unit norm.

        Args:
            hands: over all fed frames, keypoints in pixels of the source.

        Raises:
            ShapeError: no frame was fed, or `hands` has another number of frames.
        """
        if self._info is None or not self._kept or len(hands.visible) != self._count:
            raise ShapeError(f"hands has {len(hands.visible)} frames, expected the {self._count} fed, and at least one")
        small = [frame for _, _, frame in self._kept]
        hog, colour = self._describe_hands(self._info, hands)
        blocks = {
            "scene_gist": np.mean([gist_of(frame) for frame in _spread(small, MAX_GIST_FRAMES)], axis=0),
            "scene_colour": np.mean([_colour_pyramid(frame) for frame in small], axis=0),
            "hand_hog": hog,
            "hand_colour": colour,
        }
        vector = balance(blocks, FLOORS, WEIGHTS)
        if vector is None:  # impossible: a colour histogram of at least one pixel is never zero
            raise ShapeError(f"frames of shape {small[0].shape} hold no pixels")
        return to_unit_float32(vector)

    def _interval(self, at_s: float) -> int:
        return int(np.floor((at_s - self._start_s) / self._step_s + 1e-6))

    def _thin_out(self) -> None:
        while len(self._kept) > MAX_FRAMES:
            self._step_s *= 2
            first: dict[int, tuple[int, int, NDArray[np.uint8]]] = {}
            for interval, index, frame in self._kept:
                first.setdefault(interval // 2, (interval // 2, index, frame))
            self._kept = list(first.values())

    def _describe_hands(self, info: VideoInfo, hands: Hands | HandPoints) -> tuple[Floats, Floats]:
        """Mean HOG (144,) and colour histogram (32,) of the visible hands of the kept frames; zeros without one."""
        hogs, histograms = [], []
        for _, index, frame in _spread(self._kept, MAX_HAND_FRAMES):
            size = np.array(frame.shape[1::-1], np.float64)
            for hand in range(NUM_HANDS):
                keypoints = hands.keypoints_px[index, hand].astype(np.float64)
                if not hands.visible[index, hand] or not np.isfinite(keypoints).all():
                    continue
                in_frame = (keypoints + 0.5) / [info.width, info.height] * size
                square = _square(in_frame, size)
                if square is None:
                    continue
                left, top, right, bottom = square
                around = frame[top:bottom, left:right]
                hogs.append(hog_of(around))
                histograms.append(_histogram(_colour_codes(_at_most(around, COLOUR_SHORT_SIDE_PX))))
        if not hogs:
            return np.zeros(HOG_CELLS**2 * HOG_DIRECTIONS), np.zeros(HUES * SHADES + GREYS)
        return np.mean(hogs, axis=0), np.mean(histograms, axis=0)


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most `most` items: every one, or every second, third, ..."""
    return items[:: max(1, -(-len(items) // most))]


def _at_most(frame: NDArray[np.uint8], short_side_px: int) -> NDArray[np.uint8]:
    """The image shrunk to this short side, never enlarged; a copy, so that the caller's frames can be freed."""
    height, width = frame.shape[:2]
    scale = min(1.0, short_side_px / min(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return frame.copy() if scale == 1.0 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _square(keypoints: Floats, size: Floats) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the grown square around a hand, clipped to the image; None if too little is
    inside."""
    low, high = keypoints.min(0), keypoints.max(0)
    reach = (high - low).max() * (0.5 + HAND_MARGIN)
    middle = (low + high) / 2
    left, top = np.clip(np.floor(middle - reach), 0, size)
    right, bottom = np.clip(np.ceil(middle + reach), 0, size)
    if right - left < MIN_HAND_PX or bottom - top < MIN_HAND_PX:
        return None
    return int(left), int(top), int(right), int(bottom)


@lru_cache(maxsize=1)
def _gabor_bank() -> NDArray[np.float32]:
    """(24, 64, 33): log-Gabor transfer functions for the half spectrum of a real image.

    Source: Field, Relations between the statistics of natural images and cortical cells, JOSA A 1987, section 3; the
    bank (scales an octave apart, 8 directions) as in Oliva and Torralba, IJCV 2001, section 3.
    """
    fy, fx = np.meshgrid(np.fft.fftfreq(GIST_SIDE_PX), np.fft.rfftfreq(GIST_SIDE_PX), indexing="ij")
    radius = np.maximum(np.hypot(fx, fy), 1e-9)
    bank = []
    for scale in range(GIST_SCALES):
        radial = np.exp(-(np.log(radius / (0.3 / 2**scale)) ** 2) / (2 * np.log(0.65) ** 2))
        for direction in range(GIST_DIRECTIONS):
            angle = direction * np.pi / GIST_DIRECTIONS
            off = np.angle(np.exp(2j * (np.arctan2(fy, fx) - angle))) / 2
            bank.append(radial * np.exp(-(off**2) / (2 * (np.pi / GIST_DIRECTIONS * 0.7) ** 2)))
    filters = np.array(bank)
    filters[:, 0, 0] = 0
    return filters.astype(np.float32)


def gist_of(frame: NDArray[np.uint8]) -> Floats:
    """GIST of an RGB image, (384,): 24 filters x 4 x 4 places, after local contrast normalisation.

    The even (real) response of each filter is rectified and averaged; the image is squeezed to 64 x 64 pixels.
    Source: Oliva and Torralba, Modeling the shape of the scene, IJCV 2001.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (GIST_SIDE_PX, GIST_SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = np.log1p(grey)
    high = grey - cv2.GaussianBlur(grey, (0, 0), GIST_SIDE_PX / 8)
    contrast = np.sqrt(cv2.GaussianBlur(high * high, (0, 0), GIST_SIDE_PX / 8))
    spectrum = scipy.fft.rfft2((high / (0.2 + contrast)).astype(np.float32))
    energy = np.abs(scipy.fft.irfft2(spectrum * _gabor_bank(), s=(GIST_SIDE_PX, GIST_SIDE_PX)))
    cell = GIST_SIDE_PX // GIST_GRID
    return energy.reshape(-1, GIST_GRID, cell, GIST_GRID, cell).mean((2, 4), dtype=np.float64).reshape(-1)


def _colour_codes(frame: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The bin of each pixel of an RGB image: 8 hues x 3 shades (pale, dark, bright), then 8 greys."""
    hue, saturation, value = (channel.astype(np.int32) for channel in cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)))
    shade = np.where(saturation < 120, 0, np.where(value < 128, 1, 2))
    grey = (saturation < 40) | (value < 32)
    return np.where(grey, HUES * SHADES + value * GREYS // 256, (hue * HUES // 180) * SHADES + shade)


def _histogram(codes: NDArray[np.int32]) -> Floats:
    """(32,) shares of pixels."""
    return np.bincount(codes.reshape(-1), minlength=HUES * SHADES + GREYS) / codes.size


def _colour_pyramid(frame: NDArray[np.uint8]) -> Floats:
    """(160,): the histogram of the image and of its quarters."""
    codes = _colour_codes(_at_most(frame, COLOUR_SHORT_SIDE_PX))
    middle, centre = max(1, codes.shape[0] // 2), max(1, codes.shape[1] // 2)
    parts = (codes[:middle, :centre], codes[:middle, -centre:], codes[-middle:, :centre], codes[-middle:, -centre:])
    return np.concatenate([_histogram(part) for part in (codes, *parts)])


def hog_of(image: NDArray[np.uint8]) -> Floats:
    """HOG of an RGB image squeezed to 64 x 64, (144,): 4 x 4 cells x 9 unsigned directions.

    Each pixel votes with its gradient's length for the two nearest directions; a cell is the mean of its up to four
    normalised 2 x 2 blocks (L2-Hys), instead of all of them side by side.
    Source: Dalal and Triggs, Histograms of oriented gradients for human detection, CVPR 2005, section 6; the mean over
    blocks: Felzenszwalb et al., PAMI 2010, section 6.2.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (HAND_SIDE_PX, HAND_SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    across = cv2.filter2D(grey, cv2.CV_32F, np.array([[-1.0, 0, 1]], np.float32))
    down = cv2.filter2D(grey, cv2.CV_32F, np.array([[-1.0], [0], [1]], np.float32))
    length = np.hypot(across, down)
    place = np.arctan2(down, across) * (HOG_DIRECTIONS / np.pi) % HOG_DIRECTIONS
    lower = np.floor(place)
    share = place - lower
    rows, columns = np.indices(grey.shape) * HOG_CELLS // HAND_SIDE_PX
    cell = ((rows * HOG_CELLS + columns) * HOG_DIRECTIONS).astype(np.int64)
    total = HOG_CELLS**2 * HOG_DIRECTIONS
    low, high = lower.astype(np.int64) % HOG_DIRECTIONS, (lower.astype(np.int64) + 1) % HOG_DIRECTIONS
    votes = np.bincount((cell + low).reshape(-1), (length * (1 - share)).reshape(-1), minlength=total)
    votes += np.bincount((cell + high).reshape(-1), (length * share).reshape(-1), minlength=total)
    cells = votes.reshape(HOG_CELLS, HOG_CELLS, HOG_DIRECTIONS)
    result, count = np.zeros_like(cells), np.zeros((HOG_CELLS, HOG_CELLS, 1))
    for y in range(HOG_CELLS - 1):
        for x in range(HOG_CELLS - 1):
            block = cells[y : y + 2, x : x + 2]
            block = np.minimum(block / np.sqrt(np.sum(block**2) + 1.0), 0.2)
            result[y : y + 2, x : x + 2] += block / np.sqrt(np.sum(block**2) + 1e-6)
            count[y : y + 2, x : x + 2] += 1
    return (result / count).reshape(-1)

"""A clip's fingerprint: its frames as small grey pictures, by which copies of a recording are known.

A copy shows the same course of pictures, however it is cut, cropped, mirrored, coloured, encoded or slowed; another
execution of the same action before the same background does not. Local contrast is made equal before pictures are
compared, so light and colours hardly count.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handloom.errors import ShapeError
from handloom.schemas.tables.arrow import IMAGE_FORMATS
from handloom.video.fingerprint.crops import FINE, HEIGHT_PX, SMALL_PX, WIDTH_PX, Pictures, unit

VERSION = "1"
RATE_HZ = 10.0
MOST_FRAMES = 128
"""Of a longer clip every second frame is taken, or every fourth, and so on: a piece of it then has the same moments."""
LEAST_FRAMES = 4

_NEIGHBOURHOOD = 1 / 6  # of the height: standard deviation of the window in which contrast is made equal
_NOISE = 4.0  # of 255: contrast below it is mostly noise


def fingerprint(frames: Iterable[NDArray[np.uint8]]) -> bytes:
    """The fingerprint of frames (h, w, 3), RGB, at `RATE_HZ`: their pictures one below the other, as one PNG.

    Frames of any shape are squashed to 24 x 32. Raises ShapeError if there is no frame.
    """
    small = [_shrunk(frame) for frame in frames]
    while len(small) > MOST_FRAMES:
        small = small[::2]
    if not small:
        raise ShapeError("a fingerprint of no frames")
    # Not by OpenCV: its PNG code fails in processes that have imported decord, which brings an older zlib.
    data = io.BytesIO()
    Image.fromarray(np.concatenate(small)).save(data, "PNG")
    return data.getvalue()


def _read(data: bytes) -> NDArray[np.uint8] | None:
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError):
        return None


class Fingerprint:
    """A fingerprint, ready to be compared. grey: (n, 24, 32) uint8, in order of time.

    Raises:
        ShapeError: the bytes are no fingerprint.
    """

    def __init__(self, data: bytes) -> None:
        image = _read(data)
        if image is None or image.shape[1] != WIDTH_PX or image.shape[0] % HEIGHT_PX:
            raise ShapeError(f"{len(data)} bytes are no fingerprint: expected a PNG of pictures of 24 x 32")
        self.grey: NDArray[np.uint8] = np.asarray(image, np.uint8).reshape(-1, HEIGHT_PX, WIDTH_PX)

    @cached_property
    def even(self) -> Pictures:
        """(n, 24, 32) of equal local contrast."""
        return np.stack([evened(one) for one in self.grey.astype(np.float32)])

    @cached_property
    def small(self) -> Pictures:
        """(n, 12, 16) the same, smaller."""
        return np.stack([cv2.resize(one, SMALL_PX[::-1], interpolation=cv2.INTER_AREA) for one in self.even])

    @cached_property
    def mean(self) -> Pictures:
        """(192,) the mean of `small`, less its own mean, of unit length; zeros for a picture without contrast."""
        return unit(self.small.mean(0).reshape(1, -1))[0]

    @cached_property
    def crops(self) -> Pictures:
        """(crops, 192) `mean` of every crop of `crops.FINE`."""
        return FINE.of(self.mean[None])[0]


def _shrunk(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8)


def evened(picture: Pictures) -> Pictures:
    """A picture (h, w) less its neighbourhood's mean, over its neighbourhood's standard deviation."""
    width = picture.shape[0] * _NEIGHBOURHOOD
    rest = picture - cv2.GaussianBlur(picture, (0, 0), width)
    return np.asarray(rest / (np.sqrt(cv2.GaussianBlur(rest * rest, (0, 0), width)) + _NOISE), np.float32)

"""The embedding `look`: what is to be seen, by EfficientNet-Lite0, a small network that was trained on ImageNet.

Its weights come inside a package, and it runs with LiteRT as the hand networks do: without torch or a download.
"""

from __future__ import annotations

from importlib.metadata import version

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handloom.models.embeddings.learned.pixels import resize
from handloom.models.embeddings.lite0.layers import DIM, SIDE_PX, layers
from handloom.models.embeddings.lite0.litert import ImageNetwork
from handloom.models.embeddings.lite0.weights import FILE, read_weights
from handloom.schemas.version_policy import counted

NAME = "look"
MODEL = "efficientnet-lite0"
VERSION = "1"
MAP = (7, 7)
"""Height and width of the last layer's image."""
FRAMES = 8
"""Frames of a clip that it sees."""
_RANGE = ((np.arange(256) - 127) / 128).astype(np.float32)  # of the pixels that the network was trained on


def look_identity() -> dict[str, str]:
    """What can change the embedding: code, weights, libraries. Raises ConfigError if the weights are not there."""
    FILE.find()
    libraries = counted({name: version(name) for name in ("ai-edge-litert", "pillow")})
    return {"look": VERSION, "weights": FILE.sha256, **libraries}


class LookEncoder:
    """Images to unit vectors. Equal bytes for an image, whatever other images there are and on any number of threads.

    Raises:
        ConfigError: the package with the weights, or LiteRT, is not installed.
    """

    dim = DIM

    def __init__(self) -> None:
        self._network = ImageNetwork(layers(read_weights(FILE.find())), SIDE_PX)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, h, w, 3) RGB to (n, 1280) of unit length. Wide images are squashed to a square: nothing is cut off."""
        found = np.empty((len(images), DIM), np.float32)
        for number, image in enumerate(images):
            found[number] = self._network(_pixels(image))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def encode_parts(self, images: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float32]:
        """(n, h, w, 3) RGB to (n, 1 + rows x columns, 1280): the whole image as `encode` has it, then its parts row by
        row, of unit length each: the mean of what the network's last layer has there, before the mean over the image.
        So a part knows what is around it, and all cost one reading of the image. A part without any feature is 0.
        """
        shares = [_shares(num, side) for num, side in zip((rows, columns), MAP, strict=True)]
        found = np.empty((len(images), 1 + rows * columns, DIM), np.float32)
        for number, image in enumerate(images):
            found[number, 0], features = self._network.with_map(_pixels(image))
            found[number, 1:] = np.einsum("ri,cj,ijd->rcd", *shares, features).reshape(-1, DIM)
        return found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)

    def encode_clip(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, h, w, 3), frames of one clip, to (1280,): the mean of their vectors, of unit length again.

        Every second frame is mirrored, and one alone counts both ways: so a clip and its mirror image are alike, at no
        further cost.
        """
        both = np.stack([images[0], images[0]]) if len(images) == 1 else np.array(images)
        both[1::2] = both[1::2, :, ::-1]
        mean = self.encode(both).mean(0)
        return mean / np.linalg.norm(mean)


def _pixels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.LUT(resize(image, (SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR), _RANGE)


def _shares(num: int, side: int) -> NDArray[np.float64]:
    """(num, side): how much of each of `num` equal parts is of each of `side` equal pixels."""
    ends = np.arange(num + 1) * side / num
    pixels = np.arange(side)
    lower, upper = np.maximum(ends[:-1, None], pixels), np.minimum(ends[1:, None], pixels + 1)
    return np.maximum(upper - lower, 0) * num / side

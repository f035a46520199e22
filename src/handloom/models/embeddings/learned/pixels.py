"""Frames as a learned model wants them: resized, cut and in its colours, by the numbers of its own files.

Done with Pillow and numpy, as transformers does without torchvision: Pillow resizes bytes with whole numbers, so pixels
have the same bytes on every processor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handloom.errors import ConfigError
from handloom.models.hub.colours import Colours


@dataclass(frozen=True)
class Square:
    """What a model's preprocessing is where its files do not say it, as the authors trained the kind.

    cuts: the short side is resized to `short_share` times the side, and the middle is cut out; else the image is
    squashed to the square, and nothing of it is lost.
    """

    colours: Colours
    resample: Image.Resampling
    cuts: bool
    short_share: float = 1.0


@dataclass(frozen=True)
class Preprocessing:
    """size: (height, width) of the model's images. short_side: what the short side is resized to before the middle is
    cut out; None: images are squashed to `size`. scale: of the bytes, before mean and standard deviation.
    """

    size: tuple[int, int]
    short_side: int | None
    resample: Image.Resampling
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def short_side_px(self) -> int:
        """Frames with this short side lose nothing that the model would see."""
        return self.short_side or max(self.size)

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, h, w, 3) to (n, 3, height, width)."""
        out = np.stack([self._resized(frame) for frame in frames])
        return self.coloured(out).transpose(0, 3, 1, 2)

    def coloured(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The bytes (..., 3) in the model's range and colours."""
        scaled = images.astype(np.float32) * np.float32(self.scale)
        return (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)

    def _resized(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.short_side is None:
            return resize(frame, self.size, self.resample)
        height, width = frame.shape[:2]
        short, long = min(height, width), max(height, width)
        longer = int(self.short_side * long / short)
        size = (longer, self.short_side) if width <= height else (self.short_side, longer)
        return _middle(resize(frame, size, self.resample), self.size)


def resize(frame: NDArray[np.uint8], size: tuple[int, int], resample: Image.Resampling) -> NDArray[np.uint8]:
    """(h, w, 3) to (*size, 3), antialiased."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size[::-1], resample))


def _middle(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of an image; black where it is smaller than `size`."""
    out = np.zeros((*size, 3), np.uint8)
    source, target = [], []
    for have, want in zip(image.shape[:2], size, strict=True):
        top, left = max(0, (have - want) // 2), max(0, math.ceil((want - have) / 2))
        length = min(have, want)
        source.append(slice(top, top + length))
        target.append(slice(left, left + length))
    out[tuple(target)] = image[tuple(source)]
    return out


def read_preprocessing(
    content: Mapping[str, Any], usual: Square, side: int, *, image_size: int = 0, whole: bool = False
) -> Preprocessing:
    """A model's preprocessing from the content of its file, where it says something, else as is usual for its kind.

    Args:
        side: of the square that the network was trained on.
        image_size: another side; 0: the model's own.
        whole: squash images to the square although the model would cut the middle.

    Raises:
        ConfigError: the file says what is not understood.
    """
    cuts = _flag(content, "do_center_crop", usual.cuts)
    resizes = _flag(content, "do_resize", True)
    size = _lengths(content.get("size")) if resizes else None
    crop = _lengths(content.get("crop_size")) if cuts else None
    target = crop if isinstance(crop, tuple) else (crop, crop) if crop else size if isinstance(size, tuple) else None
    target = target or (side, side)
    short = size if isinstance(size, int) else min(size) if isinstance(size, tuple) else None
    short = short or round(usual.short_share * min(target))
    if image_size:
        short, target = round(short * image_size / min(target)), (image_size, image_size)
    mean, std = content.get("image_mean", usual.colours[0]), content.get("image_std", usual.colours[1])
    if not _flag(content, "do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    scale = content.get("rescale_factor", 1 / 255) if _flag(content, "do_rescale", True) else 1.0
    resample = content.get("resample", usual.resample)
    try:
        return Preprocessing(
            target, None if whole or not cuts else short, Image.Resampling(resample), float(scale),
            tuple(float(value) for value in mean), tuple(float(value) for value in std),
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the model's preprocessing cannot be understood: {error}", "copy the model's files again"
        ) from None


def _flag(content: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    found = content.get(name)
    return otherwise if found is None else bool(found)


def _lengths(value: Any) -> int | tuple[int, int] | None:
    """A side (256 or `{"shortest_edge": 256}`), or (height, width)."""
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        if value.get("shortest_edge"):
            return int(value["shortest_edge"])
        if value.get("height") and value.get("width"):
            return int(value["height"]), int(value["width"])
    return None


@dataclass(frozen=True)
class Patches:
    """Images of their own shape, as SigLIP 2 NaFlex takes them: at most `limit` patches each, none cut off or squashed
    by more than a patch.
    """

    base: Preprocessing
    patch: int
    limit: int

    @property
    def short_side_px(self) -> int:
        """Of a square image of as many patches; a wide one has a smaller short side."""
        return math.ceil(self.patch * math.sqrt(self.limit))

    def shape_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image: the largest scale at which they are at most `limit`."""
        low, high = 1e-6, 100.0
        while high - low >= 1e-5:  # as the model's own preprocessing: another limit is another size
            middle = (low + high) / 2
            rows, columns = self._count(middle, height, width)
            low, high = (middle, high) if rows * columns <= self.limit else (low, middle)
        return self._count(low, height, width)

    def _count(self, scale: float, height: int, width: int) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(side * scale / self.patch)) for side in (height, width))
        return rows, columns

    def __call__(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """(n, h, w, 3) to the inputs of Siglip2VisionModel: patches (n, limit, patch * patch * 3), zeros behind the
        last one."""
        rows, columns = self.shape_of(*frames.shape[1:3])
        side = self.patch
        size = (rows * side, columns * side)
        images = np.stack([resize(frame, size, self.base.resample) for frame in frames])
        parts = self.base.coloured(images).reshape(len(frames), rows, side, columns, side, 3)
        parts = parts.transpose(0, 1, 3, 2, 4, 5).reshape(len(frames), rows * columns, -1)
        values = np.zeros((len(frames), self.limit, parts.shape[2]), np.float32)
        values[:, : rows * columns] = parts
        mask = np.zeros((len(frames), self.limit), np.int32)
        mask[:, : rows * columns] = 1
        shapes = np.tile(np.array([rows, columns], np.int64), (len(frames), 1))
        return {"pixel_values": values, "pixel_attention_mask": mask, "spatial_shapes": shapes}

"""Any Unicode text on an image: OpenCV draws ASCII only, and a bare machine has no fonts of its own."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Fonts with Chinese, Japanese and Korean, where the operating system has one.
SYSTEM_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/Hiragino Sans GB.ttc",
    "C:/Windows/Fonts/msyh.ttc",
)
NO_CHARACTER = "\U0010ffff"  # in no font: draws as the box that stands for a missing glyph
ELLIPSIS = "..."


def fit_text(text: str, size_px: int, max_width_px: int) -> str:
    """`text` on one line; its middle is replaced by an ellipsis if it is wider than `max_width_px`."""
    text = " ".join(text.split())
    if text_width(text, size_px) <= max_width_px:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest text that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(_cut(text, middle), size_px) <= max_width_px else (low, middle - 1)
    return _cut(text, low)


def text_width(text: str, size_px: int) -> int:
    """Width of the drawn text, pixels."""
    return int(np.ceil(_font(_font_path(text), size_px).getlength(text)))


def line_height(size_px: int) -> int:
    return round(size_px * 1.45)


def put_text(
    image: NDArray[np.uint8],
    text: str,
    corner_px: tuple[float, float],
    size_px: int,
    color: tuple[int, int, int],
    outline: tuple[int, int, int] | None = None,
) -> None:
    """Draw `text` into `image` (h, w, 3) RGB with its top-left corner at `corner_px` (x, y), cut at the image's edges.

    outline: colour of a thin edge that keeps the text legible on any image.
    """
    if outline is not None:
        _blend(image, _text_mask(text, size_px, max(1, round(size_px / 8))), corner_px, outline)
    _blend(image, _text_mask(text, size_px, 0), corner_px, color)


def _cut(text: str, num_kept: int) -> str:
    head = (num_kept + 1) // 2
    tail = num_kept - head
    return text[:head] + ELLIPSIS + (text[-tail:] if tail else "")


def _blend(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], corner_px: tuple[float, float], color: tuple[int, int, int]
) -> None:
    x, y = (round(c) for c in corner_px)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + mask.shape[1], image.shape[1]), min(y + mask.shape[0], image.shape[0])
    if left >= right or top >= bottom:
        return
    alpha = mask[top - y : bottom - y, left - x : right - x, None].astype(np.float32) / 255
    under = image[top:bottom, left:right]
    under[:] = np.round(under * (1 - alpha) + np.asarray(color, np.float32) * alpha)


@lru_cache(maxsize=512)
def _text_mask(text: str, size_px: int, stroke_px: int) -> NDArray[np.uint8]:
    """Coverage of the text, 0 to 255, in a box of the line's height with margins of a quarter of the size."""
    margin = max(2, size_px // 4)
    canvas = Image.new("L", (text_width(text, size_px) + 2 * margin, line_height(size_px)), 0)
    font = _font(_font_path(text), size_px)
    middle = canvas.height // 2
    ImageDraw.Draw(canvas).text((margin, middle), text, 255, font=font, anchor="lm", stroke_width=stroke_px)
    mask = np.asarray(canvas)
    mask.flags.writeable = False
    return mask


@lru_cache(maxsize=64)
def _font(path: str | None, size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px) if path is None else ImageFont.truetype(path, size_px)


@lru_cache(maxsize=512)
def _font_path(text: str) -> str | None:
    """The font with most of the text's characters; of equals the first."""
    return max(_font_paths(), key=lambda path: sum(_has(path, c) for c in set(text)))


@lru_cache(maxsize=1)
def _font_paths() -> tuple[str | None, ...]:
    """Fonts that exist: DejaVu (Latin, Greek, Cyrillic, Arabic) of matplotlib, the system's, Pillow's (Latin, None)."""
    spec = find_spec("matplotlib")  # finds the package without importing it
    folders = list(spec.submodule_search_locations or []) if spec else []
    bundled = [Path(folder, "mpl-data/fonts/ttf/DejaVuSans.ttf") for folder in folders]
    found = [str(path) for path in (*bundled, *map(Path, SYSTEM_FONTS)) if path.is_file()]
    return (*found, None)


@lru_cache(maxsize=4096)
def _has(path: str | None, character: str) -> bool:
    font = _font(path, 16)
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(NO_CHARACTER))

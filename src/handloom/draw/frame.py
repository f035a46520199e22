"""One frame as a finished image: a small header, and below it the frame with its overlay."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.certainty import short_words
from handloom.draw.overlay import HAND_COLORS, WHITE, draw_overlay, text_px
from handloom.draw.text import fit_text, line_height, put_text, text_width
from handloom.plural import plural
from handloom.schemas.clip import words_of
from handloom.schemas.values import LEFT, RIGHT

BACKGROUND = 24
GREY = (175, 175, 175)
MIN_SHORT_SIDE_PX = 480
NARRATION_LINES = 2

Word = tuple[str, tuple[int, int, int]]  # text and its colour


def draw_frame(image: NDArray[np.uint8], row: dict[str, Any], index: int) -> NDArray[np.uint8]:
    """The frame with hands, tracks and a header: (h', w', 3) RGB, the same size for every frame of a row.

    image: (h, w, 3) RGB, the frame at any size; enlarged where its short side is below 480, so that text is legible.
    row: what `handloom.schemas.tables.row.row_arrays` gives. index: frame of the row.
    """
    image = draw_overlay(enlarge(image, MIN_SHORT_SIDE_PX), row, index)
    time = f"{float(row['frame_s'][index]):.2f} s   {index + 1}/{len(row['frame_s'])}"
    header = draw_header(row, image.shape[1], text_px(image), time)
    return np.concatenate([header, image])


def enlarge(image: NDArray[np.uint8], min_short_side_px: int) -> NDArray[np.uint8]:
    """`image`, enlarged if its short side is below `min_short_side_px`; its long side stays below 4 times that."""
    height, width = image.shape[:2]
    scale = min(min_short_side_px / min(height, width), 4 * min_short_side_px / max(height, width))
    if scale <= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def draw_header(row: dict[str, Any], width: int, size_px: int, right: str) -> NDArray[np.uint8]:
    """(height, width, 3) RGB: clip id and `right`, narration, the quality numbers.

    The height does not depend on `right`, so that all frames of a clip have the same size.
    """
    margin = size_px // 2
    inner = max(1, width - 2 * margin - size_px)
    gap = size_px
    title_width = inner - text_width(right, size_px) - gap
    title = [(fit_text(row["clip_id"], size_px, max(title_width, inner // 2)), WHITE)]
    lines = [title]
    if narration := words_of(row.get("narration"), row.get("verb"), row.get("noun")):
        words = [(word, (240, 228, 66)) for word in narration.split()]
        lines += _flow(words, inner, size_px, " ", NARRATION_LINES)
    lines += _flow(quality_words(row), inner, size_px, "  ", 8)
    step = line_height(size_px)
    header = np.full((step * len(lines) + margin, width, 3), BACKGROUND, np.uint8)
    for number, line in enumerate(lines):
        x = float(margin)
        for text, color in line:
            put_text(header, text, (x, number * step + margin // 2), size_px, color)
            x += text_width(text, size_px)
    if title_width >= inner // 2:
        put_text(header, right, (margin + inner - text_width(right, size_px), margin // 2), size_px, GREY)
    return header


def quality_words(row: dict[str, Any]) -> list[Word]:
    """The row's quality numbers as coloured words; null ones are left out."""
    quality = row.get("quality") or {}
    parts: list[tuple[str, str, tuple[int, int, int]]] = [
        ("hand_coverage_left", "L seen {:.0%}", HAND_COLORS[LEFT]),
        ("hand_coverage_right", "R seen {:.0%}", HAND_COLORS[RIGHT]),
        ("hand_confidence", "confidence {:.2f}", GREY),
        ("hand_jitter_px", "jitter {:.1f} px", GREY),
        ("track_survival", "tracks kept {:.0%}", GREY),
        ("track_motion_px", "motion {:.1f} px", GREY),
        ("blur", "sharpness {:.0f}", GREY),
    ]
    words = [(form.format(quality[name]), color) for name, form, color in parts if quality.get(name) is not None]
    return words + [(text, GREY) for text in [*_oddities(row), *short_words(row)]]


def _oddities(row: dict[str, Any]) -> list[str]:
    """Words about cuts, and about a view that the images contradict."""
    num_cuts, view, seen = (row.get("quality") or {}).get("num_cuts"), row.get("view"), row.get("hand_view")
    found = [plural(int(num_cuts), "cut")] if num_cuts else []
    return [*found, f"view {seen}, not {view}"] if view and seen and view != seen else found


def _flow(words: list[Word], width: int, size_px: int, gap: str, max_lines: int) -> list[list[Word]]:
    """Words in lines of at most `width`; a text that needs more than `max_lines` ends with an ellipsis."""
    lines: list[list[Word]] = []
    used = 0
    for number, (word, color) in enumerate(words):
        text = (gap if lines and used else "") + word
        if lines and used + text_width(text, size_px) <= width:
            lines[-1].append((text, color))
            used += text_width(text, size_px)
        elif len(lines) < max_lines:
            text = fit_text(word, size_px, width)
            lines.append([(text, color)])
            used = text_width(text, size_px)
        else:
            last = "".join(text for text, _ in lines[-1]) + gap + gap.join(text for text, _ in words[number:])
            lines[-1] = [(_cut_end(last, size_px, width), color)]
            break
    return lines


def _cut_end(text: str, size_px: int, width: int) -> str:
    while text and text_width(text + "...", size_px) > width:
        text = text[:-1]
    return text + "..."

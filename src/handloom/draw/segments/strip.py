"""The segments of a clip as a strip of its time, with a lane for each hand."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.frame import BACKGROUND, GREY
from handloom.draw.segments.listed import is_unsure, judged_text
from handloom.draw.segments.things import THING_COLORS
from handloom.draw.text import fit_text, line_height, put_text, text_width
from handloom.geometry.interactions.segments import BY_SHAPE
from handloom.geometry.interactions.words import segment_words
from handloom.schemas.values import LEFT, RIGHT

PHASE_COLORS = {"grasping": (240, 228, 66), "manipulation": (0, 158, 115), None: (110, 110, 110)}
"""Of Okabe and Ito's palette; grey: a movement without an object."""
CONTACT_COLOR = (213, 94, 0)
PALE = 0.45
"""Share of its colour that an unsure segment keeps on the background."""
LANE_PX, TEXT_PX, MARGIN_PX, LETTER_PX = 26, 13, 8, 16
BORDER_PX, TICK_PX, TICKS_APART_PX = 2, 5, 90
DARK, LIGHT = (20, 20, 20), (235, 235, 235)
STEPS = (1, 2, 5)
Color = tuple[int, int, int]


def draw_segments(row: dict[str, Any], width: int) -> NDArray[np.uint8] | None:
    """(h, width, 3) RGB: a lane for each hand seen or acting, time from left to right, and its axis; a line under
    a lane where the hand has contact; above them, what was judged, if nothing was found or a part was not judged.
    None if nothing is known of the clip's segments."""
    segments = row.get("segments")
    if segments is None:
        return None
    hands, head = _hands(row), judged_text(row)
    top = MARGIN_PX + (line_height(TEXT_PX) if head else 0)
    bottom = top + len(hands) * (LANE_PX + 6)
    panel = np.full((bottom + line_height(TEXT_PX) + MARGIN_PX, width, 3), BACKGROUND, np.uint8)
    if head:
        put_text(
            panel, fit_text(head, TEXT_PX, max(width - 2 * MARGIN_PX, 1)), (MARGIN_PX, MARGIN_PX - 4), TEXT_PX, LIGHT
        )
    axis = _Axis(row, MARGIN_PX + LETTER_PX, width - MARGIN_PX)
    for lane, hand in enumerate(hands):
        y = top + lane * (LANE_PX + 6)
        put_text(panel, hand[0].upper(), (MARGIN_PX, y + 4), TEXT_PX, LIGHT)
        own = [one for one in segments if one["hand"] == hand]
        if not own:
            put_text(panel, "no actions", (axis.left + 3, y + 2), TEXT_PX, GREY)
        for one in own:
            _draw_segment(panel, one, axis, y)
    axis.draw(panel, bottom)
    return panel


class _Axis:
    """Seconds of the video's clock to columns of the panel."""

    def __init__(self, row: dict[str, Any], left: int, right: int) -> None:
        ends = [one["end_s"] for one in row["segments"]]
        self.left, self.right = left, right
        self.first_s, self.last_s = float(row["frame_s"][0]), max(float(row["frame_s"][-1]), *ends, -np.inf)

    def __call__(self, at_s: float) -> int:
        share = (min(max(at_s, self.first_s), self.last_s) - self.first_s) / max(self.last_s - self.first_s, 1e-6)
        return round(self.left + share * (self.right - self.left))

    def draw(self, panel: NDArray[np.uint8], y: int) -> None:
        """A line with round times, at least `TICKS_APART_PX` apart."""
        cv2.line(panel, (self.left, y), (max(self.right, self.left), y), GREY, 1)
        step = self._step_s()
        for number in range(int(np.ceil(self.first_s / step - 1e-9)), int(self.last_s / step + 1e-9) + 1):
            x, label = self(number * step), f"{round(number * step, 6):g} s"
            cv2.line(panel, (x, y), (x, y + TICK_PX), GREY, 1)
            put_text(panel, label, (min(x + 2, self.right - text_width(label, TEXT_PX) - 6), y), TEXT_PX, GREY)

    def _step_s(self) -> float:
        least = (self.last_s - self.first_s) * TICKS_APART_PX / max(self.right - self.left, 1)
        power = 10.0 ** np.floor(np.log10(max(least, 1e-3)))
        return float(next(n * power for n in (*STEPS, 10) if n * power >= least - 1e-12))


def _draw_segment(panel: NDArray[np.uint8], one: dict[str, Any], axis: _Axis, y: int) -> None:
    """A bar with words and a border behind it, and the line of its contact."""
    unsure = is_unsure(one)
    a = axis(one["start_s"])
    b = max(axis(one["end_s"]) - 1 - BORDER_PX, a + 2)
    color = PHASE_COLORS.get(one["phase"], PHASE_COLORS[None])
    cv2.rectangle(panel, (a, y), (b, y + LANE_PX - 6), pale(color) if unsure else color, cv2.FILLED)
    words = fitting(segment_words(one), "?" if unsure else "", b - a - 6, may_cut=one["phase"] is not None)
    put_text(panel, words, (a + 1, y + 1), TEXT_PX, LIGHT if unsure or one["phase"] is None else DARK)
    if one["contact_start_s"] is not None:
        ends = axis(one["contact_start_s"]), axis(one["contact_end_s"])
        line = pale(CONTACT_COLOR) if unsure else CONTACT_COLOR
        cv2.rectangle(panel, (ends[0], y + LANE_PX - 3), (ends[1], y + LANE_PX), line, cv2.FILLED)


def fitting(words: str, mark: str, width: int, may_cut: bool) -> str:
    """The words and a mark in a width; the mark alone where nothing is left of them, or they may not be cut: the middle
    of `move without an object` says what it is not."""
    full = " ".join(words.split()) + mark
    short = fit_text(full, TEXT_PX, max(width, 1)) if may_cut else full
    return short if text_width(short, TEXT_PX) <= width else mark


def _hands(row: dict[str, Any]) -> list[str]:
    """The hands that were seen, or have a segment."""
    visible = row.get("hand_visible")
    seen = {name for name, hand in (("left", LEFT), ("right", RIGHT)) if visible is not None and visible[:, hand].any()}
    acting = {one["hand"] for one in row["segments"]}
    return sorted(seen | acting)


def pale(color: Color) -> Color:
    """The colour of what is unsure."""
    red, green, blue = (round(PALE * value + (1 - PALE) * BACKGROUND) for value in color)
    return red, green, blue


def segment_legend(row: dict[str, Any]) -> list[tuple[Color, str]]:
    """(colour, words) of what the strip shows of this clip."""
    segments = row.get("segments") or ()
    words = {"grasping": "reaches for an object", "manipulation": "moves an object", None: "moves without an object"}
    found = [(PHASE_COLORS[phase], text) for phase, text in words.items() if any(s["phase"] == phase for s in segments)]
    if any(map(is_unsure, segments)):
        found.append((pale(PHASE_COLORS["manipulation"]), f"pale, ?: unsure (confidence at most {BY_SHAPE:g})"))
    if any(one["contact_start_s"] is not None for one in segments):
        found.append((CONTACT_COLOR, "contact, also while the hand rests between two actions"))
    if any(len(one["object_tracks"] or ()) for one in segments):
        found.append((THING_COLORS[0], "points of the first object"))
    return found

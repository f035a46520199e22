"""The segments of a clip as a strip of its time, with a lane for each hand."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.frame import BACKGROUND
from handloom.draw.segments.things import THING_COLORS
from handloom.draw.text import fit_text, put_text

PHASE_COLORS = {"grasping": (240, 228, 66), "manipulation": (0, 158, 115), None: (110, 110, 110)}
"""Of Okabe and Ito's palette; grey: a movement without a thing."""
CONTACT_COLOR = (213, 94, 0)
LANE_PX, TEXT_PX, MARGIN_PX, LETTER_PX = 26, 13, 8, 16
DARK, LIGHT = (20, 20, 20), (235, 235, 235)


def draw_segments(row: dict[str, Any], width: int) -> NDArray[np.uint8] | None:
    """(h, width, 3) RGB: a lane for each hand that acts, time from left to right; a line under it where the hand has
    contact. None if the row has no segments."""
    segments = row.get("segments")
    if not segments:
        return None
    hands = [hand for hand in ("left", "right") if any(one["hand"] == hand for one in segments)]
    panel = np.full((len(hands) * (LANE_PX + 6) + 2 * MARGIN_PX, width, 3), BACKGROUND, np.uint8)
    first_s, last_s = float(row["frame_s"][0]), max(float(row["frame_s"][-1]), segments[-1]["end_s"])
    left, right = MARGIN_PX + LETTER_PX, width - MARGIN_PX

    def column(at_s: float) -> int:
        share = (min(max(at_s, first_s), last_s) - first_s) / max(last_s - first_s, 1e-6)
        return round(left + share * (right - left))

    for lane, hand in enumerate(hands):
        y = MARGIN_PX + lane * (LANE_PX + 6)
        put_text(panel, hand[0].upper(), (MARGIN_PX, y + 4), TEXT_PX, LIGHT)
        for one in (one for one in segments if one["hand"] == hand):
            a, b = column(one["start_s"]), max(column(one["end_s"]) - 1, column(one["start_s"]) + 2)
            color = PHASE_COLORS.get(one["phase"], PHASE_COLORS[None])
            cv2.rectangle(panel, (a, y), (b, y + LANE_PX - 6), color, cv2.FILLED)
            words = fit_text(one["text"] or one["phase"] or "", TEXT_PX, max(b - a - 4, 1))
            put_text(panel, words, (a + 3, y + 2), TEXT_PX, DARK)
            if one["contact_start_s"] is not None:
                ends = column(one["contact_start_s"]), column(one["contact_end_s"])
                cv2.rectangle(panel, (ends[0], y + LANE_PX - 3), (ends[1], y + LANE_PX), CONTACT_COLOR, cv2.FILLED)
    return panel


def segment_legend(row: dict[str, Any]) -> list[tuple[tuple[int, int, int], str]]:
    """(colour, words) of what the strip shows of this clip."""
    segments = row.get("segments") or ()
    words = {"grasping": "comes to a thing", "manipulation": "moves a thing", None: "moves without a thing"}
    found = [(PHASE_COLORS[phase], text) for phase, text in words.items() if any(s["phase"] == phase for s in segments)]
    if any(one["contact_start_s"] is not None for one in segments):
        found += [(CONTACT_COLOR, "contact"), (THING_COLORS[0], "points of the first thing")]
    return found

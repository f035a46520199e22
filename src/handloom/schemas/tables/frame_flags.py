"""Why a frame may be bad: the bits of the column `frame_flags`. 0: nothing was found."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError


class FrameFlag(IntFlag):
    """One bit per reason. The meaning of a bit never changes; new bits are added at the end. `FLAGS` describes them."""

    BLURRED = 1 << 0
    DARK = 1 << 1
    SATURATED = 1 << 2
    DUPLICATE = 1 << 3
    NO_HANDS = 1 << 4
    HAND_INFILLED_LEFT = 1 << 5
    HAND_INFILLED_RIGHT = 1 << 6
    HAND_JUMP_LEFT = 1 << 7
    HAND_JUMP_RIGHT = 1 << 8
    HAND_UNSURE_LEFT = 1 << 9
    HAND_UNSURE_RIGHT = 1 << 10
    HAND_OFF_TRACKS_LEFT = 1 << 11
    HAND_OFF_TRACKS_RIGHT = 1 << 12
    HANDS_OVERLAP = 1 << 13
    FEW_TRACKS = 1 << 14
    NO_POSE = 1 << 15
    CAMERA_RESIDUAL = 1 << 16
    TRACKS_LOST = 1 << 17
    CUT = 1 << 18
    HAND_SIDE_UNSURE_LEFT = 1 << 19
    HAND_SIDE_UNSURE_RIGHT = 1 << 20
    HAND_UNSUPPORTED_LEFT = 1 << 21
    HAND_UNSUPPORTED_RIGHT = 1 << 22


FLAGS: dict[str, str] = {
    "BLURRED": "much less detail than the clip's other frames, or next to none",
    "DARK": "next to black",
    "SATURATED": "a large part of the image is white, without any detail",
    "DUPLICATE": "equal to the frame before",
    "NO_HANDS": "no hand is visible; those of other people do not count",
    "HAND_INFILLED_LEFT": "the left hand is interpolated over a short gap",
    "HAND_INFILLED_RIGHT": "the right hand is interpolated over a short gap",
    "HAND_JUMP_LEFT": "the left hand moves faster than a hand can, to or from this frame",
    "HAND_JUMP_RIGHT": "the right hand moves faster than a hand can, to or from this frame",
    "HAND_UNSURE_LEFT": "the left hand: low confidence, or its distance is hardly known",
    "HAND_UNSURE_RIGHT": "the right hand: low confidence, or its distance is hardly known",
    "HAND_OFF_TRACKS_LEFT": "the left hand moves otherwise than the tracked points on it",
    "HAND_OFF_TRACKS_RIGHT": "the right hand moves otherwise than the tracked points on it",
    "HANDS_OVERLAP": "both hands lie on the same place in the image: one hand taken for two",
    "FEW_TRACKS": "few of the points chosen so far are visible",
    "NO_POSE": "the camera's pose is not known",
    "CAMERA_RESIDUAL": "points at rest do not lie where the camera's pose puts them",
    "TRACKS_LOST": "over a third of the visible grid is lost in one step, neither out of the image nor behind a hand",
    "CUT": "another shot begins",
    "HAND_SIDE_UNSURE_LEFT": "the left hand may be the right one, or somebody else's",
    "HAND_SIDE_UNSURE_RIGHT": "the right hand may be the left one, or somebody else's",
    "HAND_UNSUPPORTED_LEFT": "there seems to be no hand at the left hand's keypoints",
    "HAND_UNSUPPORTED_RIGHT": "there seems to be no hand at the right hand's keypoints",
}

NOT_THERE = FrameFlag.NO_HANDS | FrameFlag.NO_POSE
"""Flags of what is absent from a frame, as opposed to what is wrong in it."""


def frame_mask(flags: NDArray[np.integer[Any]], exclude: Sequence[str]) -> NDArray[np.bool_]:
    """(T,) true for frames that have none of the flags in `exclude` (names of `FrameFlag`, in any case).

    Raises:
        ConfigError: a name is not known.
    """
    return (np.asarray(flags) & flag_bits(exclude)) == 0


def flag_bits(names: Sequence[str]) -> int:
    """The bits of several flags, by name; 0 for none. Raises ConfigError for a name that is not known."""
    bits = 0
    for name in [names] if isinstance(names, str) else names:
        if name.upper() not in FrameFlag.__members__:
            near = difflib.get_close_matches(name.upper(), FLAGS, 3, 0.5)
            raise ConfigError(
                f"{name!r} is no frame flag" + (f"; near: {', '.join(near)}" if near else ""),
                f"the flags are {', '.join(FLAGS)}",
            )
        bits |= FrameFlag[name.upper()].value
    return bits


def flag_names(flags: int) -> tuple[str, ...]:
    """The names of the bits set in one frame's flags, lowest first."""
    return tuple(name for name, flag in FrameFlag.__members__.items() if flags & flag.value)

"""The 21 keypoints of a hand: their order, their names, and which of them belong together.

The order is MediaPipe's: the wrist, then thumb, index, middle, ring and little finger, each from its base to its tip.
Numbers below are places in that order, the axis K = 21 of every array of keypoints.
"""

from __future__ import annotations

from itertools import pairwise

Bones = tuple[tuple[int, int], ...]
"""Pairs of keypoints; the first is the one nearer to the wrist, or to the thumb."""

WRIST = 0
THUMB, INDEX, MIDDLE, RING, LITTLE = FINGERS = tuple(tuple(range(base, base + 4)) for base in range(1, 21, 4))
"""Each digit's four keypoints, base to tip. Thumb: CMC, MCP, IP, tip; fingers: MCP, PIP, DIP, tip."""
FINGER_NAMES = ("thumb", "index", "middle", "ring", "little")
KEYPOINT_NAMES = ("wrist", *(f"{finger}_{number}" for finger in FINGER_NAMES for number in range(1, 5)))
"""`thumb_1` is at the thumb's base, `thumb_4` at its tip."""

BASES = tuple(finger[0] for finger in FINGERS)
TIPS = tuple(finger[-1] for finger in FINGERS)
KNUCKLES = BASES[1:]
"""MCP joints of index to little finger."""
MIDDLE_JOINTS = tuple(finger[1] for finger in FINGERS[1:])
"""PIP joints of index to little finger."""
PALM = (WRIST, *KNUCKLES)
"""One rigid, nearly flat body: the part of a hand that does not bend."""
PALM_TRIANGLE = (WRIST, INDEX[0], LITTLE[0])
PALM_DETECTION = (*PALM, THUMB[0], THUMB[1])
"""The seven points of MediaPipe's palm detector, in its order."""

CHAINS = tuple((WRIST, *finger) for finger in FINGERS)
"""Each digit from the wrist out, five keypoints."""
PHALANGES: Bones = tuple(bone for finger in FINGERS for bone in pairwise(finger))
"""Within each digit, 15."""
METACARPALS: Bones = tuple((WRIST, knuckle) for knuckle in KNUCKLES)
"""From the wrist to each knuckle; the thumb's is not among them."""
KNUCKLE_LINE: Bones = tuple(pairwise(KNUCKLES))
PALM_OUTLINE: Bones = ((WRIST, THUMB[0]), (WRIST, INDEX[0]), *KNUCKLE_LINE, (WRIST, LITTLE[0]))
FINGER_BONES: Bones = tuple(bone for chain in CHAINS for bone in pairwise(chain))
"""Each digit from the wrist out, 20."""
BONES: Bones = (*FINGER_BONES, *KNUCKLE_LINE)

"""The embedding `motion` of a clip in a mirror, from the clip's: its numbers change places, and some their sign."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.descriptors import NUM_DIRECTIONS, NUM_FLOW, NUM_LAGS
from handloom.models.embeddings.flow_course import STEPS
from handloom.models.embeddings.hand_course import NUM_TURN, NUM_WAY, OF_A_HAND, TURN_AT

Moves = tuple[NDArray[np.int64], NDArray[np.float32]]

_X_TURNED = np.append((NUM_DIRECTIONS // 2 - np.arange(NUM_DIRECTIONS)) % NUM_DIRECTIONS, NUM_DIRECTIONS)
_Y_TURNED = -np.arange(NUM_DIRECTIONS) % NUM_DIRECTIONS
_IMAGE_AND_QUARTERS = np.array([0, 2, 1, 4, 3])
_HANDS = np.array([1, 0])


def mirrored_motion(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 608) embeddings of clips to those of their mirror images: `encode_motion(..., mirrored=True)`, but for
    points on the middle line of the image and the last digits."""
    return vectors[..., _PLACES] * _SIGNS


def _plain(*shape: int) -> NDArray[np.int64]:
    return np.arange(np.prod(shape)).reshape(shape)


def _moves() -> Moves:
    """The blocks of `handloom.models.embeddings.motion`, in their order."""
    turned = _X_TURNED[:NUM_DIRECTIONS]
    course = np.ones((2, OF_A_HAND), np.float32)
    course[:, :NUM_WAY] = -1  # x of the way
    for direction in (0, 3):  # x of the pointing direction, and of the palm's normal
        course[:, TURN_AT + direction * NUM_TURN : TURN_AT + (direction + 1) * NUM_TURN] = -1
    flow = _plain(STEPS, NUM_FLOW)
    flow[:, :NUM_DIRECTIONS] = flow[:, turned]
    flow_sign = np.ones((STEPS, NUM_FLOW), np.float32)
    flow_sign[:, NUM_DIRECTIONS] = -1  # x of the way
    place = np.concatenate([_plain(2, 4, 3)[_HANDS, ::-1].ravel(), [25, 24, 26, 28, 27, 30, 29], np.arange(31, 35)])
    place_sign = np.ones(35, np.float32)
    place_sign[32] = -1  # y of the right hand from the left one
    edges = _plain(2, 5, NUM_DIRECTIONS)[:, _IMAGE_AND_QUARTERS]
    edges = np.stack([edges[0][:, _Y_TURNED], edges[1][:, turned]])  # gradients of the flow's x, and of its y
    blocks = [
        (_plain(2, OF_A_HAND)[_HANDS], course),
        (_plain(3, 2, 9)[:, _HANDS][..., _X_TURNED], None),
        (place, place_sign),
        (_plain(3, NUM_LAGS)[[1, 0, 2]], None),
        (edges, None),
        (flow, flow_sign),
    ]
    starts = np.cumsum([0, *(places.size for places, _ in blocks)])
    places = [start + places.ravel() for start, (places, _) in zip(starts, blocks, strict=False)]
    signs = [np.ones(moved.size, np.float32) if sign is None else sign.ravel() for moved, sign in blocks]
    return np.concatenate(places), np.concatenate(signs)


_PLACES, _SIGNS = _moves()

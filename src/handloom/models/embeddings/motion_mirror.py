"""The embedding `motion` of a clip in a mirror, from the clip's: its numbers change places, and some their sign."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.descriptors import NUM_DIRECTIONS

Moves = tuple[NDArray[np.int64], NDArray[np.float32]]

_X_TURNED = np.append((NUM_DIRECTIONS // 2 - np.arange(NUM_DIRECTIONS)) % NUM_DIRECTIONS, NUM_DIRECTIONS)
_Y_TURNED = -np.arange(NUM_DIRECTIONS) % NUM_DIRECTIONS
_IMAGE_AND_QUARTERS = np.array([0, 2, 1, 4, 3])
_QUARTERS = np.array([1, 0, 3, 2])
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
    way = np.ones((2, 4, 4), np.float32)
    way[:, 0] = -1  # x of the palm's path
    shape = _plain(2, 46)[_HANDS]
    for first in (30, 38):  # palm, knuckles
        shape[:, first : first + NUM_DIRECTIONS] = shape[:, first + turned]
    place = np.concatenate([_plain(2, 4, 3)[_HANDS, ::-1].ravel(), [25, 24, 26, 28, 27, 30, 29], np.arange(31, 35)])
    place_sign = np.ones(35, np.float32)
    place_sign[32] = -1  # y of the right hand from the left one
    edges = _plain(2, 5, NUM_DIRECTIONS)[:, _IMAGE_AND_QUARTERS]
    edges = np.stack([edges[0][:, _Y_TURNED], edges[1][:, turned]])  # gradients of the flow's x, and of its y
    blocks = [
        (_plain(2, 48)[_HANDS], None),
        (_plain(2, 4, 4)[_HANDS], way),
        (_plain(3, 2, 9)[:, _HANDS][..., _X_TURNED], None),
        (shape, None),
        (place, place_sign),
        (_plain(3, 12)[[1, 0, 2]], None),
        (_plain(3, 5, 9)[:, _IMAGE_AND_QUARTERS][..., _X_TURNED], None),
        (edges, None),
        (_plain(4, 12)[_QUARTERS], None),
    ]
    starts = np.cumsum([0, *(places.size for places, _ in blocks)])
    places = [start + places.ravel() for start, (places, _) in zip(starts, blocks, strict=False)]
    signs = [np.ones(moved.size, np.float32) if sign is None else sign.ravel() for moved, sign in blocks]
    return np.concatenate(places), np.concatenate(signs)


_PLACES, _SIGNS = _moves()

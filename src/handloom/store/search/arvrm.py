"""AR-VRM's similarity, in one place: sim = cos(z_l, z_l) + sum over t of cos(z_ot, z_ot).

z_l is a text's vector, z_ot that of the t-th of T images spread evenly over a clip or episode. A term that one side
lacks (no text, a missing image) is 0.

Source: arXiv 2508.07626.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.store.clip_features import ClipFeatures
from handloom.store.search.ranking import SCORE_DIGITS

VERSION = "1"
"""Of the formula and of the order of equals: reports of training name it."""
BLOCK_NUMBERS = 8 << 20


def similarity(robot: ClipFeatures, human: ClipFeatures) -> NDArray[np.float64]:
    """(N, M) similarity of every episode to every clip, in one block: for small numbers of both."""
    return _flat(robot) @ _flat(human).T


def retrieve(
    robot: ClipFeatures, human: ClipFeatures, topk: int, block_numbers: int = BLOCK_NUMBERS
) -> dict[str, list[tuple[str, float]]]:
    """`{episode id: [(clip id, similarity)]}`: the `topk` most similar clips, best first; of equals (to 6 digits), the
    smaller id.

    block_numbers: numbers of the clips' features that are compared at once, so that memory does not grow with the
    table: the whole (N, M) matrix never exists.
    """
    order = np.argsort(np.array(human.ids, dtype=object), kind="stable")
    wide = _flat(robot)
    best_value = np.full((len(wide), 0), -np.inf)
    best_place = np.zeros((len(wide), 0), np.int64)
    block = max(1, block_numbers // max(1, wide.shape[1]))
    for start in range(0, len(order), block):
        places = order[start : start + block]
        part = ClipFeatures(tuple(human.ids[i] for i in places), human.text[places], human.seen[places])
        value = np.concatenate([best_value, np.round(wide @ _flat(part).T, SCORE_DIGITS)], axis=1)
        place = np.concatenate([best_place, np.broadcast_to(places, (len(wide), len(places)))], axis=1)
        kept = np.argsort(-value, axis=1, kind="stable")[:, :topk]
        best_value, best_place = np.take_along_axis(value, kept, 1), np.take_along_axis(place, kept, 1)
    return {
        episode: [(human.ids[p], float(v)) for p, v in zip(best_place[i], best_value[i], strict=True)]
        for i, episode in enumerate(robot.ids)
    }


def _flat(features: ClipFeatures) -> NDArray[np.float64]:
    """(N, D + T * E): unit vectors concatenated, so that one product is the sum of the cosines."""
    seen = _unit(features.seen)
    return np.concatenate([_unit(features.text), seen.reshape(len(seen), -1)], axis=1)


def _unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The vectors with unit length along the last axis; zeros for a vector that is unknown or zero."""
    wide = vectors.astype(np.float64)
    wide = np.where(np.isfinite(wide).all(-1, keepdims=True), wide, 0.0)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    return wide / np.where(length > 0, length, 1.0)

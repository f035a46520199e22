"""Retrieval of human clips for robot episodes: sim = cos(z_l^R, z_l^H) + sum over t of cos(z_ot^R, z_ot^H) (SPECS 2.3).

z_l is the text encoder's vector, z_ot the CLS vector of the t-th of T pictures spread evenly over the clip or episode.
What one side lacks (no text, a missing picture) adds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handloom.api import Database
from handloom.store.clip_features import ClipFeatures, read_features, write_features

BLOCK_NUMBERS = 8 << 20
"""Numbers of clips' features that are compared at once: memory does not grow with the table."""
COMMIT_ROWS = 64


@dataclass(frozen=True)
class Shown:
    """A clip or episode as the encoders see it. images: (T, h, w, 3) uint8 and which are there (T,), or None."""

    id: str
    text: str | None
    images: NDArray[np.uint8] | None
    images_valid: NDArray[np.bool_] | None


class FeatureMaker:
    """The encoders' vectors of whole clips.

    key: hash of every weight and size that can change them.
    """

    def __init__(self, words: nn.Module, eyes: nn.Module | None) -> None:
        self._words, self._eyes = words.eval(), None if eyes is None else eyes.eval()
        self.sizes = (words.width, 0 if eyes is None else eyes.width)
        self.key = _key(words, eyes)

    @torch.no_grad()
    def features(self, shown: Sequence[Shown], num_steps: int) -> ClipFeatures:
        """Of a few clips at once; not of unit length."""
        text = self._words.encode([one.text for one in shown]).cpu().numpy()
        text[[not one.text for one in shown]] = np.nan
        seen = np.full((len(shown), num_steps, self.sizes[1]), np.nan, np.float32)
        for number, one in enumerate(shown):
            if self._eyes is not None and one.images is not None and one.images_valid.any():
                device = next(self._eyes.parameters()).device
                tokens = self._eyes(torch.from_numpy(one.images).to(device))[:, 0].float().cpu().numpy()
                seen[number] = np.where(one.images_valid[:, None], tokens, np.nan)
        return ClipFeatures(tuple(one.id for one in shown), text.astype(np.float16), seen.astype(np.float16))


def all_features(
    db: Database,
    table: str,
    rows: Mapping[str, str],
    show: Callable[[set[str]], Iterable[Shown]],
    maker: FeatureMaker,
    num_steps: int,
) -> ClipFeatures:
    """Features of all `rows` ({id: run_key or source_key}), sorted by id: read where they are stored, else made.

    show: gives the clips of these ids; asked only for those that have no features yet, which are then stored.
    """
    rows = {row: rows[row] for row in sorted(rows)}
    there = read_features(db, table, rows, maker.key, num_steps, maker.sizes)
    lacking = rows.keys() - set(there.ids)
    if not lacking:
        return there
    waiting: list[Shown] = []
    for one in show(set(lacking)):
        waiting.append(one)
        if len(waiting) == COMMIT_ROWS:
            write_features(db, table, rows, maker.key, maker.features(waiting, num_steps))
            waiting = []
    if waiting:
        write_features(db, table, rows, maker.key, maker.features(waiting, num_steps))
    return read_features(db, table, rows, maker.key, num_steps, maker.sizes)


def similarity(robot: ClipFeatures, human: ClipFeatures) -> NDArray[np.float32]:
    """(N, M) float32 similarity of every robot episode to every human clip, in one block; for few of either."""
    return _flat(robot) @ _flat(human).T


def retrieve(robot: ClipFeatures, human: ClipFeatures, topk: int) -> dict[str, list[tuple[str, float]]]:
    """{episode: the `topk` most similar clips and how similar, best first}; of equals, the smaller id first.

    Clips are compared in blocks: the whole (N, M) never exists.
    """
    order = np.argsort(np.array(human.ids, dtype=object), kind="stable")
    wide = _flat(robot)
    best_value = np.full((len(wide), 0), -np.inf, np.float32)
    best_place = np.zeros((len(wide), 0), np.int64)
    block = max(1, BLOCK_NUMBERS // max(1, wide.shape[1]))
    for start in range(0, len(order), block):
        places = order[start : start + block]
        part = ClipFeatures(tuple(human.ids[i] for i in places), human.text[places], human.seen[places])
        value = np.concatenate([best_value, wide @ _flat(part).T], axis=1)
        place = np.concatenate([best_place, np.broadcast_to(places, (len(wide), len(places)))], axis=1)
        kept = np.argsort(-value, axis=1, kind="stable")[:, :topk]
        best_value, best_place = np.take_along_axis(value, kept, 1), np.take_along_axis(place, kept, 1)
    return {
        episode: [(human.ids[p], float(v)) for p, v in zip(best_place[i], best_value[i], strict=True)]
        for i, episode in enumerate(robot.ids)
    }


def _flat(features: ClipFeatures) -> NDArray[np.float32]:
    """(N, D + T * E): unit vectors side by side, so that one product is the sum of the cosines."""
    seen = _unit(features.seen)
    return np.concatenate([_unit(features.text), seen.reshape(len(seen), -1)], axis=1)


def _unit(vectors: NDArray) -> NDArray[np.float32]:
    """Of unit length along the last axis; zeros for a vector that is unknown or zero."""
    wide = vectors.astype(np.float32)
    wide = np.where(np.isfinite(wide).all(-1, keepdims=True), wide, 0.0)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    return wide / np.where(length > 0, length, 1.0)


def _key(words: nn.Module, eyes: nn.Module | None) -> str:
    digest = hashlib.sha256()
    for part in (words, eyes):
        if part is not None:
            digest.update(f"{part.name} {getattr(part, 'image_size', '')}".encode())
            tensors = part.state_dict() | dict(part.named_buffers())  # colours are no part of the state
            for name, value in sorted(tensors.items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

"""The vectors by which human clips are retrieved for robot episodes (`store.search.arvrm` has the formula).

z_l is the text encoder's vector, z_ot the CLS vector of the t-th of T images spread evenly over the clip or episode.

Source: arXiv 2508.07626.
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
from handloom.store.search.arvrm import similarity
from handloom.train.parts.encoders import ImageEncoder, TextEncoder

COMMIT_ROWS = 64


@dataclass(frozen=True)
class RetrievalInput:
    """A clip or episode for the encoders. images: (T, h, w, 3) uint8. images_valid: (T,), which exist. Both or None."""

    id: str
    text: str | None
    images: NDArray[np.uint8] | None
    images_valid: NDArray[np.bool_] | None


class FeatureMaker:
    """Computes the encoders' vectors of whole clips.

    sizes: numbers in a text's and in an image's vector. key: hash of every weight and size that can change a vector.
    """

    def __init__(self, text_encoder: TextEncoder, image_encoder: ImageEncoder | None) -> None:
        self._text_encoder = text_encoder.eval()
        self._image_encoder = None if image_encoder is None else image_encoder.eval()
        self.sizes = (text_encoder.width, 0 if image_encoder is None else image_encoder.width)
        self.key = _key(text_encoder, image_encoder)

    @torch.no_grad()
    def features(self, inputs: Sequence[RetrievalInput], num_steps: int) -> ClipFeatures:
        """Vectors of a few clips, not of unit length; NaN where a text or an image is missing."""
        text = self._text_encoder.encode([one.text for one in inputs]).cpu().numpy()
        text[[not one.text for one in inputs]] = np.nan
        seen = np.full((len(inputs), num_steps, self.sizes[1]), np.nan, np.float32)
        for number, one in enumerate(inputs):
            valid = one.images_valid
            if self._image_encoder is not None and one.images is not None and valid is not None and valid.any():
                device = next(self._image_encoder.parameters()).device
                tokens = self._image_encoder(torch.from_numpy(one.images).to(device))[:, 0].float().cpu().numpy()
                seen[number] = np.where(valid[:, None], tokens, np.nan)
        return ClipFeatures(tuple(one.id for one in inputs), text.astype(np.float16), seen.astype(np.float16))


def all_features(
    db: Database,
    table: str,
    rows: Mapping[str, str],
    read_inputs: Callable[[set[str]], Iterable[RetrievalInput]],
    maker: FeatureMaker,
    num_steps: int,
) -> ClipFeatures:
    """Features of all `rows` ({id: run_key or source_key}), sorted by id; those that are not stored yet are computed
    and stored.

    read_inputs: the clips of given ids; called for those without stored features.
    """
    rows = {row: rows[row] for row in sorted(rows)}
    there = read_features(db, table, rows, maker.key, num_steps, maker.sizes)
    lacking = rows.keys() - set(there.ids)
    if not lacking:
        return there
    waiting: list[RetrievalInput] = []
    for one in read_inputs(set(lacking)):
        waiting.append(one)
        if len(waiting) == COMMIT_ROWS:
            write_features(db, table, rows, maker.key, maker.features(waiting, num_steps))
            waiting = []
    if waiting:
        write_features(db, table, rows, maker.key, maker.features(waiting, num_steps))
    return read_features(db, table, rows, maker.key, num_steps, maker.sizes)


def at_random(robot: ClipFeatures, human: ClipFeatures, topk: int, seed: int) -> dict[str, list[tuple[str, float]]]:
    """As `retrieve`, but `topk` clips by chance, the same ones for the same seed, episode and clips."""
    found = {}
    for number, episode in enumerate(robot.ids):
        places = np.random.default_rng([seed, *episode.encode()]).permutation(len(human.ids))[:topk]
        some = ClipFeatures(tuple(human.ids[i] for i in places), human.text[places], human.seen[places])
        alone = ClipFeatures((episode,), robot.text[[number]], robot.seen[[number]])
        found[episode] = list(zip(some.ids, similarity(alone, some)[0].tolist(), strict=True))
    return found


def _key(text_encoder: nn.Module, image_encoder: nn.Module | None) -> str:
    digest = hashlib.sha256()
    for part in (text_encoder, image_encoder):
        if part is not None:
            digest.update(f"{part.name} {getattr(part, 'image_size', '')}".encode())
            tensors = part.state_dict() | dict(part.named_buffers())  # means of colours are not in the state
            for name, value in sorted(tensors.items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

"""Windows cut from WebDataset shards, as a training script does; uses nothing of handloom.

A shard's sample is a clip: its frames as JPEG and its arrays as npy (`handloom export webdataset`). Clips are read in
the shards' order, their images decoded once, windows cut as views, mixed in a shuffle buffer and stacked to batches.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

Sample = dict[str, Any]
BUFFER = 400  # windows


class CutWindows:
    """From clips to windows: dicts of (S, ...) views of a clip's arrays; with `images` (S, h, w, 3) uint8, if asked."""

    def __init__(self, num_steps: int, names: Sequence[str], images: bool, stride: int = 1) -> None:
        self.num_steps, self.names, self.images, self.stride = num_steps, tuple(names), images, stride

    def __call__(self, clips: Iterable[Sample]) -> Iterator[Sample]:
        for clip in clips:
            arrays = self._arrays(clip)
            num = len(next(iter(arrays.values())))
            for first in range(0, num - self.num_steps + 1, self.stride):
                yield {name: values[first : first + self.num_steps] for name, values in arrays.items()}

    def _arrays(self, clip: Sample) -> dict[str, NDArray[Any]]:
        arrays = {name: np.load(io.BytesIO(clip[f"{name}.npy"]), allow_pickle=False) for name in self.names}
        if self.images:
            names = sorted(name for name in clip if name.endswith("jpg"))
            arrays["images"] = np.stack([decode(clip[name]) for name in names])
        return arrays


def decode(jpeg: bytes) -> NDArray[np.uint8]:
    """(h, w, 3) RGB."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def stack(windows: list[Sample]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.stack([window[name] for window in windows])) for name in windows[0]}


def batches(shards: Sequence[str], cut: CutWindows, batch_size: int, num_workers: int, buffer: int = BUFFER):
    """A loader; each of several processes reads its own shards. They persist over epochs."""
    data = wds.DataPipeline(
        wds.SimpleShardList(list(shards)), wds.split_by_worker, wds.tarfile_to_samples(), cut,
        wds.shuffle(buffer, initial=buffer, rng=random.Random(0)),
        wds.batched(batch_size, collation_fn=stack, partial=False),
    )  # fmt: skip
    return wds.WebLoader(
        data, batch_size=None, num_workers=num_workers, persistent_workers=num_workers > 0,
        multiprocessing_context="spawn" if num_workers else None,
    )  # fmt: skip


def in_order(shards: Sequence[str], cut: CutWindows) -> Iterator[Sample]:
    """Every window in the shards' order (for tests)."""
    return iter(wds.DataPipeline(wds.SimpleShardList(list(shards)), wds.tarfile_to_samples(), cut))

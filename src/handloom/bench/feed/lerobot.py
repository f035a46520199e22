"""Windows of a LeRobot v3 dataset as lerobot reads them, without its package; uses nothing of handloom.

lerobot 0.4 converts the Parquet files to Arrow files that it maps into memory, takes a window's rows from there, and
decodes the window's images from the video: it seeks to the key frame before and decodes up to the last frame. This
reader does the same, but keeps videos open between windows and copies no number twice, which is faster.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

Window = tuple[int, int]  # episode, first step


def to_arrow(root: Path, out: Path) -> None:
    """Write the dataset's data files as one Arrow file, as lerobot caches it when it first opens a dataset."""
    tables = [pq.read_table(path) for path in sorted((root / "data").rglob("*.parquet"))]
    table = pa.concat_tables(tables).combine_chunks()
    with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


class LeRobotWindows(torch.utils.data.Dataset):
    """Map-style dataset: windows[i] is a dict of arrays (S, ...), images (S, h, w, 3) uint8.

    shapes: `{column: shape of one step}`. video: its key, or None. crop: (h, w) to which images are cut.
    """

    def __init__(
        self, root: Path, arrow: Path, windows: Sequence[Window], num_steps: int, shapes: dict[str, tuple[int, ...]],
        video: str | None, crop: tuple[int, int],
    ) -> None:  # fmt: skip
        self.root, self.arrow, self.windows, self.num_steps = root, arrow, list(windows), num_steps
        self.shapes, self.video, self.crop = shapes, video, crop
        self.fps = json.loads((root / "meta" / "info.json").read_text())["fps"]
        files = sorted((root / "meta" / "episodes").rglob("*.parquet"))
        self.episodes = pa.concat_tables([pq.read_table(path) for path in files]).to_pylist()
        self._opened = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_table", "_videos")} | {
            "_opened": False
        }

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not self._opened:
            self._open()
        number, first = self.windows[index]
        episode = self.episodes[number]
        rows = self._table.slice(episode["dataset_from_index"] + first, self.num_steps)
        found = {name: _array(rows.column(name), shape) for name, shape in self.shapes.items()}
        if self.video is not None:
            found["images"] = self._images(episode, first)
        return found

    def _open(self) -> None:
        self._opened = True
        self._table = pa.ipc.open_file(pa.memory_map(str(self.arrow))).read_all()
        self._videos: dict[str, Any] = {}

    def _images(self, episode: dict[str, Any], first: int) -> NDArray[np.uint8]:
        """(S, h, w, 3) RGB."""
        stem = f"videos/{self.video}"
        place = f"chunk-{episode[f'{stem}/chunk_index']:03d}/file-{episode[f'{stem}/file_index']:03d}.mp4"
        path = str(self.root / stem / place)
        if path not in self._videos:
            self._videos[path] = av.open(path)
        container = self._videos[path]
        stream = container.streams.video[0]
        wanted_s = episode[f"{stem}/from_timestamp"] + first / self.fps
        container.seek(int(wanted_s / stream.time_base), stream=stream)
        out = np.empty((self.num_steps, *self.crop, 3), np.uint8)
        count = 0
        for frame in container.decode(stream):
            if frame.time < wanted_s - 0.5 / self.fps:
                continue
            out[count] = frame.to_ndarray(format="rgb24")[: self.crop[0], : self.crop[1]]
            count += 1
            if count == self.num_steps:
                return out
        raise ValueError(f"{path} ends {self.num_steps - count} frames before the window at {wanted_s:.3f} s does")


def _array(column: pa.ChunkedArray, shape: tuple[int, ...]) -> NDArray[Any]:
    flat = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return flat.flatten().to_numpy(zero_copy_only=False).reshape(len(column), *shape)


def batches(dataset: LeRobotWindows, batch_size: int, num_workers: int) -> torch.utils.data.DataLoader:
    """A loader over the windows in order; its processes persist over epochs."""
    return torch.utils.data.DataLoader(
        dataset, batch_size, num_workers=num_workers, persistent_workers=num_workers > 0, drop_last=True,
        collate_fn=stack, multiprocessing_context="spawn" if num_workers else None,
    )  # fmt: skip


def stack(windows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.stack([window[name] for window in windows])) for name in windows[0]}


def in_order(dataset: LeRobotWindows) -> Iterator[dict[str, Any]]:
    """Every window in order (for tests)."""
    return (dataset[i] for i in range(len(dataset)))

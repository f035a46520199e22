"""The data of `bench feed`: a database, and the same clips as a LeRobot v3 dataset and as WebDataset shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.api import Database
from handloom.bench.feed.lerobot import to_arrow
from handloom.errors import ConfigError
from handloom.export.images import decode_jpeg, jpeg_size
from handloom.export.lerobot.dataset import Episode, Layout, export_lerobot
from handloom.export.lerobot.meta import Feature, video_feature
from handloom.export.webdataset import export_webdataset
from handloom.pipelines.ingest import human
from handloom.pipelines.run.run import run
from handloom.pipelines.synth import synth
from handloom.schemas.settings import RunConfig
from handloom.schemas.tables.row import row_arrays
from handloom.store.filters import in_list

NUM_CLIPS, SEED = 12, 2000
RENDERED: dict[str, Any] = {"width": 384, "height": 288, "fps": 15.0, "duration_s": 3.2, "truth": False}
NUM_SHARDS = 4
VIDEO = "observation.images.ego"
HANDS = ("hand_visible", "hand_keypoints_px", "hand_keypoints_cam_m")
TRACKS = ("track_points_px", "track_depth_m", "track_visible")
ARRAYS = (*HANDS, *TRACKS)
NOTE = "Made by a benchmark of handloom.\n"


@dataclass(frozen=True)
class FeedData:
    """The same clips in three formats. shards: by content, `tracks` or `hands` (with images).

    clip_ids: in the order of the dataset's episodes and of the shards. where: SQL that selects them. image: (h, w) of
    every stored image. shapes: of one step of every column.
    """

    db: Database
    clip_ids: tuple[str, ...]
    hz: float
    image: tuple[int, int]
    shapes: dict[str, tuple[int, ...]]
    lerobot: Path
    arrow: Path
    shards: dict[str, tuple[str, ...]]

    @property
    def where(self) -> str:
        return in_list("clip_id", list(self.clip_ids))


def database(db: str | None, videos: Path | None, num_clips: int, work: Path, say: Callable[[str], None]) -> Database:
    """The given database; else one made in `work` from a folder of videos, or from `num_clips` rendered ones."""
    if db is not None:
        return Database.open(db)
    if videos is None:
        videos = work / "rendered"
        synth(videos, num_clips, SEED, say=say, **RENDERED)
    made = Database.open(work / "db", create=True)
    human.folder(made, str(videos), dataset="bench", view="ego")
    if run(made, RunConfig()).exit == "interrupted":
        raise KeyboardInterrupt  # `run` handled the signal itself
    return made


def prepare(db: Database, num_clips: int, work: Path, say: Callable[[str], None]) -> FeedData:
    """Up to `num_clips` clips of one rate and one image size, written into `work` in the other two formats.

    Raises ConfigError if the database has none with images and tracks.
    """
    ids, hz = _alike(db, num_clips)
    say(f"{len(ids)} clips at {hz:g} Hz: as LeRobot v3 and as WebDataset shards")
    first = _row(db, ids[0])
    width, height = jpeg_size(first["frame_jpeg"][0], ids[0])
    shapes = {name: first[name].shape[1:] for name in ARRAYS}
    features = {name: Feature(str(first[name].dtype), (int(np.prod(shapes[name])),)) for name in ARRAYS}
    features[VIDEO] = video_feature(width + width % 2, height + height % 2)
    lerobot = work / "lerobot"
    layout = Layout(features, hz, pa.schema([pa.field("clip_id", pa.string())]))
    export_lerobot((_episode(_row(db, id_)) for id_ in ids), str(lerobot), layout, card=lambda _: NOTE)
    to_arrow(lerobot, work / "lerobot.arrow")
    shards = {
        "tracks": _write_shards(db, ids, TRACKS, work / "shards-tracks"),
        "hands": _write_shards(db, ids, (*HANDS, "frame_jpeg"), work / "shards-hands"),
    }
    return FeedData(db, tuple(ids), hz, (height, width), shapes, lerobot, work / "lerobot.arrow", shards)


def _alike(db: Database, num_clips: int) -> tuple[list[str], float]:
    """The clips with images and tracks of the most frequent rate and size, in stored order."""
    columns = ["clip_id", "frame_s", "width", "height"]
    there = "frame_jpeg IS NOT NULL AND track_depth_source IS NOT NULL AND num_frames > 1"
    rows = db.read("clips", columns, there).to_pylist()
    kinds: dict[str, tuple[float, int, int]] = {}
    for row in rows:
        steps = np.diff(row["frame_s"])
        if np.ptp(steps) < 0.2 * steps.mean():
            kinds[row["clip_id"]] = (round(1 / steps.mean(), 2), row["width"], row["height"])
    if not kinds:
        raise ConfigError(
            f"{db.uri} has no clip at an even rate with images and track depths", "fill it: `handloom run`"
        )
    kind = Counter(kinds.values()).most_common(1)[0][0]
    ids = [row["clip_id"] for row in rows if kinds.get(row["clip_id"]) == kind][:num_clips]
    return ids, kind[0]


def _row(db: Database, clip_id: str) -> dict[str, Any]:
    columns = ["clip_id", "narration", "frame_s", "frame_jpeg", *ARRAYS]
    return row_arrays(db.row(clip_id, columns).combine_chunks().to_batches()[0])


def _episode(row: dict[str, Any]) -> Episode:
    num = len(row["frame_s"])
    values = {name: row[name].reshape(num, -1) for name in ARRAYS}
    images = {VIDEO: partial(_images, row)}
    return Episode(row["narration"] or "", num, values, images, {"clip_id": row["clip_id"]})


def _images(row: dict[str, Any]) -> Iterator[NDArray[np.uint8]]:
    """Images of even size: an odd one has its last row or column repeated."""
    for number, jpeg in enumerate(row["frame_jpeg"]):
        image = decode_jpeg(jpeg, f"frame {number} of {row['clip_id']}")
        yield np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")


def _write_shards(db: Database, ids: list[str], names: tuple[str, ...], out: Path) -> tuple[str, ...]:
    """About `NUM_SHARDS` tar files with these columns, so that each of two processes has its own."""
    columns = ["clip_id", "num_frames", *names]
    where = in_list("clip_id", ids)
    size = sum(batch.nbytes for batch in db.batches(columns, where, None, 4))
    limit = max(1, size // NUM_SHARDS)
    batches = db.batches(columns, where, None, 4)
    done = export_webdataset(batches, str(out), card=lambda _: NOTE, max_shard_bytes=limit)
    return tuple(str(out / shard.path) for shard in done.shards)

"""A small database to look at, with images, words, numbers and one video; and a client of its server."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from PIL import Image
from starlette.testclient import TestClient
from support.rows import make_clip, make_row

from handloom.api import Database
from handloom.schemas.clip import Clip
from handloom.schemas.tables.robot import RobotEpisode, Signal
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.clips.clip_list import add_clips
from handloom.web.app import make_app
from handloom.web.gallery import Gallery

TILES, TILE = 6, (64, 36)
NUM_FRAMES = 3
STAGES = {"look": ("k1", "k2", None), "frames": ("f1",)}
"""The keys of stages, by clip in turn."""


def jpeg(size: tuple[int, int], number: int, tiles: int = 1) -> bytes:
    """An image of `tiles` plain tiles beside each other, each of a colour of its own."""
    image = np.zeros((size[1], size[0] * tiles, 3), np.uint8)
    for tile in range(tiles):
        image[:, tile * size[0] : (tile + 1) * size[0]] = (40 * tile, 30 * (number % 8), 120)
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=95)
    return out.getvalue()


def gallery_clip(number: int, **values: Any) -> Clip:
    """Clip `number` with words that repeat; every fourth has none."""
    words = {
        "narration": f"open drawer {number}",
        "verb": ("open", "cut", "wipe")[number % 3],
        "noun": ("drawer", "onion")[number % 2],
        "participant": f"P{number % 4}",
    }
    return make_clip(number, **{**({} if number % 4 == 3 else words), **values})


def gallery_row(clip: Clip, number: int, *, stored: bool = True) -> pa.RecordBatch:
    """Its row. Numbers of quality are null in every fifth."""
    seen = ((True, False), (False, True), (True, True), (False, False))[number % 4]
    quality = {} if number % 5 == 4 else {"brightness": (number * 7 % 11) / 11, "blur": float(number)}
    frames = [jpeg((32, 18), number + t) for t in range(NUM_FRAMES)] if stored else None
    row = make_row(clip, num_frames=NUM_FRAMES, hands_seen=seen, quality=quality, frame_jpeg=frames)
    at = row.schema.get_field_index("thumbnail")
    row = row.set_column(at, row.schema.field(at), pa.array([jpeg(TILE, number, TILES)], pa.binary()))
    scale = row.schema.get_field_index("world_scale")
    row = row.set_column(
        scale, row.schema.field(scale), pa.array([("metric", "arbitrary", None)[number % 3]], pa.string())
    )
    for stage, keys in STAGES.items():
        row = row.append_column(key_column(stage), pa.array([keys[number % len(keys)]], pa.string()))
    return row


def gallery_db(path: Path, clips: Sequence[Clip | int], **how: Any) -> Database:
    """A database of these clips."""
    Database.open(path, create=True)
    add(path, clips, **how)
    return Database.open(path)


def add(path: Path, clips: Sequence[Clip | int], first: int = 0, **how: Any) -> None:
    """More rows, in one commit."""
    made = [clip if isinstance(clip, Clip) else gallery_clip(clip) for clip in clips]
    rows = [gallery_row(clip, first + number, **how) for number, clip in enumerate(made)]
    if rows:
        add_clips(Database.open(path), made)
        lance.write_dataset(pa.Table.from_batches(rows), str(path / "clips.lance"), mode="append", max_rows_per_file=4)


def judge(path: Path, verdicts: dict[str, str]) -> None:
    """Verdicts, as judging writes them."""
    rows = pa.table({"clip_id": list(verdicts), "verdict": list(verdicts.values())})
    lance.write_dataset(rows, str(path / "judgements.lance"), mode="overwrite")


def client_of(db: Database, *, token: str | None = None, hosts: Any = None, **how: Any) -> TestClient:
    """A browser's requests to the server of a database; what goes wrong there is an answer, as for a browser."""
    more = {} if hosts is None else {"hosts": hosts}
    app = make_app(Gallery(db, **{"look_every_s": 0.0, **how}), token=token, **more)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False)


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an answer in the layout of safetensors."""
    length = int.from_bytes(data[:8], "little")
    kinds = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
    header, values = json.loads(data[8 : 8 + length]), data[8 + length :]
    assert (8 + length) % 8 == 0
    return {
        name: np.frombuffer(values[slice(*one["data_offsets"])], kinds[one["dtype"]]).reshape(one["shape"])
        for name, one in header.items()
    }


STEPS = 70
CAMERAS = ("observation.images.front", "observation.images.wrist")
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")


def episode_image(number: int, camera: int) -> bytes:
    """An image of an episode."""
    return jpeg((64, 48), number % 8 + camera)


def gallery_episode(index: int, *, dataset: str = "arm", pictures: bool = True, **more: Any) -> RobotEpisode:
    """An episode of two cameras with a pose as its state; image 5 of the first camera is missing."""
    state = np.arange(STEPS * 8, dtype=np.float32).reshape(STEPS, 8)
    if index == 0:
        state[3, 2] = np.nan
    missing = [None if t == 5 else episode_image(t, 0) for t in range(STEPS)]
    values: dict[str, Any] = {
        "state": Signal(state, POSE, None),
        "action": Signal(-state[:, :4], ("dx", "dy", "dz", "close"), None),
        "cameras": CAMERAS,
        "clip_ids": (f"{dataset}:front~{index}:0-1", None),
        "frame_jpeg": [missing, [episode_image(t, 3) for t in range(STEPS)]] if pictures else None,
        "task": ("lift", "push")[index % 2],
        "robot_type": "so101",
    }
    return RobotEpisode(
        **{
            **{"dataset": dataset, "episode_index": index, "fps": 20.0, "frame_s": np.arange(STEPS) / 20},
            **{"source_uri": "/data", "source_version": "lerobot v3.0", "source_key": f"k{index}"},
            **values,
            **more,
        }
    )

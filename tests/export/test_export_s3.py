"""The same export into a bucket, through pyarrow's own S3 client."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import fs
from support.rows import make_row
from support.s3_server import s3_server

from handloom.errors import ConfigError, StoreError
from handloom.export.arm4r.clips import export_arm4r
from handloom.export.lerobot.clips import clip_episode, clip_layout
from handloom.export.lerobot.dataset import export_lerobot
from handloom.export.shards import export_arrow, export_parquet, read_index
from handloom.export.webdataset import export_webdataset
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.row import frames_to_arrow, row_arrays

pytest.importorskip("moto.server", reason="needs moto[server]")
NUM_TRACKS = 2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server() as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield "s3://bucket"


def table(num_rows: int) -> pa.Table:
    schema = clips_schema(NUM_TRACKS)
    columns = [
        pa.array([_any_value(f, n) for n in range(num_rows)], f.type) if not f.nullable else pa.nulls(num_rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _any_value(field: pa.Field, number: int) -> object:
    if pa.types.is_string(field.type):
        return f"{field.name} {number}"
    if pa.types.is_boolean(field.type):
        return number % 2 == 0
    return [float(number)] if pa.types.is_nested(field.type) else number


def test_a_bucket_takes_shards_and_index(bucket: str) -> None:
    rows = table(3)
    out = f"{bucket}/deep/export"
    shards = export_parquet(rows.to_batches(), out, schema=rows.schema, max_shard_bytes=1)
    assert len(shards) == read_index(out)["num_rows"] == 3
    storage, root = fs.FileSystem.from_uri(out)
    back = pa.concat_tables([pq.read_table(f"{root}/{s.path}", filesystem=storage) for s in shards])
    assert back.cast(rows.schema).equals(rows, check_metadata=True)
    with pytest.raises(ConfigError, match="not empty"):
        export_parquet(rows.to_batches(), out, schema=rows.schema)
    export_arrow(rows.to_batches(), out, schema=rows.schema, overwrite=True)
    names = [info.base_name for info in storage.get_file_info(fs.FileSelector(root))]
    assert sorted(names) == ["clips-00000-of-00001.arrow", "index.json"]
    with pytest.raises(StoreError, match="no-such-bucket"):
        export_parquet(rows.to_batches(), "s3://no-such-bucket/x", schema=rows.schema)


def lerobot_row(number: int) -> pa.RecordBatch:
    buffer = io.BytesIO()
    Image.fromarray(np.full((36, 48, 3), 40 * number, np.uint8)).save(buffer, "JPEG")
    return make_row(number, num_frames=5, frame_jpeg=[buffer.getvalue()] * 5)


def arm4r_row(number: int, num_frames: int) -> pa.RecordBatch:
    """A row with ARM4R's grid and a depth for every point that is seen."""
    row = make_row(number, num_frames=num_frames, grid=36, frame_jpeg=[b"jpeg"] * num_frames)
    visible = row_arrays(row)["track_visible"]
    depth_m = np.where(visible, 1, np.nan).astype(np.float32)
    field = row.schema.field("track_depth_m")
    return row.set_column(row.schema.names.index(field.name), field, frames_to_arrow(depth_m, field.type))


def test_a_bucket_takes_the_formats_of_many_files(bucket: str) -> None:
    """LeRobot, WebDataset and ARM4R; overwriting leaves nothing of the earlier export."""
    storage, root = fs.FileSystem.from_uri(f"{bucket}/lerobot")
    layout = clip_layout(15.0, (48, 36), world=False, num_tracks=None)

    def names(under: str) -> list[str]:
        found = storage.get_file_info(fs.FileSelector(under, recursive=True))
        return sorted(info.path.removeprefix(f"{under}/") for info in found if info.type == fs.FileType.File)

    for numbers, overwrite in (((0, 1), False), ((2,), True)):
        episodes = (clip_episode(row_arrays(lerobot_row(n)), layout) for n in numbers)
        limits = {"max_data_bytes": 1, "max_video_bytes": 1}
        options = {"card": lambda info: "# card", "overwrite": overwrite, **limits}
        found = export_lerobot(episodes, f"{bucket}/lerobot", layout, **options)
        assert names(root) == sorted([*found.files, "index.json"])
        assert len([name for name in found.files if name.endswith(".mp4")]) == len(numbers)
    table = pq.read_table(f"{root}/data/chunk-000/file-000.parquet", filesystem=storage)
    np.testing.assert_array_equal(
        np.array(table["observation.state"].to_pylist(), np.float32),
        row_arrays(lerobot_row(2))["hand_keypoints_cam_m"].reshape(-1, 126),
    )
    with storage.open_input_file(f"{root}/videos/observation.images.ego/chunk-000/file-000.mp4") as stream:
        assert b"moov" in stream.read()

    shards = export_webdataset([lerobot_row(0)], f"{bucket}/tar", card=lambda urls: "# card")
    with storage.open_input_stream(f"{root.removesuffix('lerobot')}tar/{shards.shards[0].path}") as stream:
        assert len(stream.read()) == shards.num_bytes

    out = f"{bucket}/arm4r"
    for overwrite in (False, True):
        export_arm4r(
            [arm4r_row(int(overwrite), 31)], out, card=lambda s: "", image_root="/data/arm4r", overwrite=overwrite
        )
    under = root.removesuffix("lerobot") + "arm4r"
    assert len(names(under)) == 3 + 3 * 2 + 1 + 31  # card, clips, index; three arrays; images.json; images
    with storage.open_input_stream(f"{under}/epic_tasks_final/common_task/000000/images.json") as stream:
        first = json.loads(stream.read())["observation/ego_image"][0]
    assert first == "/data/arm4r/frames/000000/frame_0000000000.jpg"
    with pytest.raises(ConfigError, match="--image-root"):
        export_arm4r([arm4r_row(0, 31)], f"{bucket}/other", card=lambda s: "")

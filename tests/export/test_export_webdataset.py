"""WebDataset exports: `webdataset` itself reads the values of the table."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.rows import later_grid, make_clip, make_row

from handloom.errors import ConfigError
from handloom.export.webdataset import export_webdataset, sample_key
from handloom.schemas.tables.row import row_arrays

wds = pytest.importorskip("webdataset")


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def rows(count: int) -> list:
    clips = [
        make_clip(n, narration=None if n else "öffne 箱", dataset="d.x", clip_id=f"d.x:a/b c:{n}") for n in range(count)
    ]
    images = [[jpeg(3 * n + k) for k in range(3)] for n in range(count)]
    later = [None if n else (later_grid(1, 0, 2),) for n in range(count)]
    return [make_row(c, num_frames=3, frame_jpeg=p, later=g) for c, p, g in zip(clips, images, later, strict=True)]


def write(batches: list, out: Path, **options):
    return export_webdataset(batches, str(out), card=lambda urls: f"# card {urls}", **options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
@pytest.mark.parametrize("limit", [1, 10**9])
def test_webdataset_reads_every_sample(tmp_path: Path, limit: int) -> None:
    table = rows(3)
    found = write(table, tmp_path / "out", max_shard_bytes=limit)
    assert found.urls == f"clips-{{000000..00000{2 if limit == 1 else 0}}}.tar"
    dataset = wds.WebDataset(str(tmp_path / "out" / found.urls), shardshuffle=False).decode("rgb8")
    samples = list(dataset)
    del dataset
    gc.collect()
    assert len(samples) == 3
    for row, sample in zip(table, samples, strict=True):
        values = row_arrays(row)
        assert sample["__key__"] == sample_key(values["clip_id"])
        assert sample["json"]["narration"] == values["narration"]
        assert sample["json"]["clip_id"] == values["clip_id"]
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        assert {name.removesuffix(".npy") for name in sample if name.endswith(".npy")} == arrays.keys()
        assert sample["json"]["arrays"] == sorted(arrays)
        assert ("regrid_points_px.npy" in sample) == (row is table[0])
        for name, value in arrays.items():
            assert sample[f"{name}.npy"].dtype == value.dtype
            np.testing.assert_array_equal(sample[f"{name}.npy"], value)
        for n, data in enumerate(values["frame_jpeg"]):
            np.testing.assert_array_equal(sample[f"{n:06d}.jpg"], np.asarray(Image.open(io.BytesIO(data))))


def test_bytes_do_not_depend_on_batches_or_time(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.Table.from_batches(rows(4))
    for name, size in (("a", 1), ("b", 3)):
        write(table.to_batches(max_chunksize=size), tmp_path / name, max_shard_bytes=60_000)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) > 3
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    index = json.loads((tmp_path / "a/index.json").read_text())
    for shard in index["shards"]:
        data = (tmp_path / "a" / shard["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["num_bytes"], shard["sha256"])
    with tarfile.open(tmp_path / "a" / index["shards"][0]["path"]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in tar} == {(0, 0, 0, 0o644)}


def test_keys_have_no_dots_and_differ() -> None:
    ids = ["d:v.1:0-1", "d:v_1:0-1", "d:v/1:0-1", "d:" + "x" * 500 + ":0-1", "d:" + "x" * 500 + ":0-2", "d:箱:0-1"]
    keys = [sample_key(i) for i in ids]
    assert len(set(keys)) == len(ids)
    assert all(len(key) <= 60 and not set("./:") & set(key) for key in keys)


def test_empty_exports_and_used_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no clip"):
        write([], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    write(rows(1), tmp_path / "out")
    with pytest.raises(ConfigError, match="not empty"):
        write(rows(1), tmp_path / "out")
    assert write(rows(2), tmp_path / "out", overwrite=True).num_samples == 2

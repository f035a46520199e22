"""Exports read back as they were written, and a folder shows whether its export is complete."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handloom.errors import ConfigError, ShapeError, StoreError
from handloom.export.rows import bytes_per_row
from handloom.export.shards import export_arrow, export_parquet, read_index
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.tables.arrow import QUALITY_FIELDS, clips_schema
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.tables.row import build_row
from handloom.schemas.values import Camera, CameraPath, ClipAnalysis, Hands, Tracks, VideoInfo

NUM_TRACKS = 3
SCHEMA = clips_schema(NUM_TRACKS)
EXPORTS = {"parquet": export_parquet, "arrow": export_arrow}
formats = pytest.mark.parametrize("form", sorted(EXPORTS))


def make_row(
    seed: int, num_frames: int = 4, *, images: bool = True, embedded: bool = True, narration: str | None = "öffne 箱"
) -> pa.RecordBatch:
    """A row with NaN where nothing was seen, nulls where nothing was computed, images of uneven size."""
    rng = np.random.default_rng(seed)
    visible = rng.random((num_frames, 2)) < 0.6
    keypoints = np.where(visible[..., None, None], rng.normal(size=(num_frames, 2, 21, 2)), np.nan).astype(np.float32)
    tracked = rng.random((num_frames, NUM_TRACKS)) < 0.7
    points = np.where(tracked[..., None], rng.normal(size=(num_frames, NUM_TRACKS, 2)), np.nan).astype(np.float32)
    start_s, end_s = float(seed), seed + 1.0
    return build_row(
        Clip(make_clip_id("t", "v", start_s, end_s), "t", "v", "v.mp4", start_s, end_s, narration=narration),
        info=VideoInfo(64, 48, 30.0, "h264", "yuv420p", 0, 0.0, 1e6, 10),
        decoder="decord",
        frame_s=start_s + np.arange(num_frames) / 15,
        found=ClipAnalysis(
            camera=Camera(np.diag([60.0, 60.0, 1.0]), "assumed"),
            path=CameraPath(None, "none", "none", "static"),
            hands=Hands(
                visible,
                np.zeros_like(visible),
                np.where(visible, 0.9, np.nan).astype(np.float32),
                keypoints,
                rng.normal(size=(num_frames, 2, 21, 3)).astype(np.float32),
            ),
            tracks=Tracks.of_grid(points, tracked),
            quality={name: None if rng.random() < 0.3 else float(rng.normal()) for name in QUALITY_FIELDS},
        ),
        embeddings={
            name: rng.normal(size=spec.dim).astype(np.float32) if embedded else None
            for name, spec in EMBEDDINGS.items()
        },
        frame_jpeg=[rng.bytes(int(rng.integers(0, 200))) for _ in range(num_frames)] if images else None,
        thumbnail=rng.bytes(50),
        run_key="0123456789abcdef",
    )


def read_shards(out: Path) -> Iterator[pa.Table]:
    """The tables of an export, in the order of its index."""
    index = read_index(str(out))
    for shard in index["shards"]:
        path = out / shard["path"]
        yield pq.read_table(path) if index["format"] == "parquet" else pa.ipc.open_file(path).read_all()


def read_back(out: Path) -> pa.Table:
    return pa.concat_tables(read_shards(out))


def values(table: pa.Table) -> list[str]:
    """Rows as text: equal values have equal text, NaN included."""
    return [repr(row) for row in table.to_pylist()]


def cut(table: pa.Table, sizes: list[int]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of these sizes, the rest in one."""
    table, start = table.combine_chunks(), 0
    for size in [*sizes, len(table)]:
        yield from table.slice(start, size).to_batches()
        start += size


row_lists = st.lists(
    st.builds(
        make_row,
        st.integers(0, 10_000),
        st.integers(1, 5),
        images=st.booleans(),
        embedded=st.integers(0, 5).map(bool),
        narration=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    ),
    max_size=6,
)


@formats
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=row_lists, shard_bytes=st.sampled_from([1, 20_000, 10**9]), shard_rows=st.sampled_from([None, 1, 4]))
def test_rows_and_schema_read_back_exactly(tmp_path_factory, form, rows, shard_bytes, shard_rows) -> None:
    out = tmp_path_factory.mktemp("export") / "out"
    shards = EXPORTS[form](
        rows, str(out), schema=SCHEMA, max_shard_bytes=shard_bytes, max_shard_rows=shard_rows, metadata={"run_key": "k"}
    )
    if form == "arrow" or all(row["embedding_motion"].null_count == 0 for row in rows):
        assert read_back(out).schema.equals(SCHEMA, check_metadata=True)
    back = pa.concat_tables(table.cast(SCHEMA) for table in read_shards(out))
    assert back.schema.equals(SCHEMA, check_metadata=True)
    assert values(back) == values(pa.Table.from_batches(rows, SCHEMA))
    back.validate(full=True)
    index = read_index(str(out))
    assert (index["num_rows"], index["source"]) == (len(rows), {"run_key": "k"})
    assert sorted(p.name for p in out.iterdir()) == sorted([s.path for s in shards] + ["index.json"])
    assert all(s.num_rows <= (shard_rows or len(rows)) for s in shards)
    assert all(hashlib.sha256((out / s.path).read_bytes()).hexdigest() == s.sha256 for s in shards)
    assert all((out / s.path).stat().st_size == s.num_bytes for s in shards)


@formats
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 4), max_size=6), shard_bytes=st.sampled_from([30_000, 10**9]))
def test_any_batching_gives_the_same_bytes(tmp_path_factory, form, sizes, shard_bytes) -> None:
    table = pa.Table.from_batches([make_row(n, 1 + n % 4, images=n % 3 > 0) for n in range(8)])
    outs = [str(tmp_path_factory.mktemp("export") / "out") for _ in range(2)]
    cut_up = EXPORTS[form](cut(table, sizes), outs[0], schema=SCHEMA, max_shard_bytes=shard_bytes)
    assert cut_up == EXPORTS[form](cut(table, []), outs[1], schema=SCHEMA, max_shard_bytes=shard_bytes)


@formats
def test_shards_hold_about_the_bytes_asked_for(tmp_path, form) -> None:
    rows = [make_row(n, 5) for n in range(40)]
    shards = EXPORTS[form](rows, str(tmp_path), schema=SCHEMA, max_shard_bytes=100_000)
    assert len(shards) > 1
    assert all(100_000 <= s.num_bytes < 240_000 for s in shards[:-1])  # one row group too many, and a footer
    assert shards[0].path == f"clips-00000-of-{len(shards):05d}.{form}"


OWN_COLUMNS = {
    "large_text": (pa.large_string(), ["ab", None, "öffne"], [2, 0, 6]),
    "large_bytes": (pa.large_binary(), [b"ab", None, b""], [2, 0, 0]),
    "map": (pa.map_(pa.string(), pa.int32()), [[("a", 1), ("bc", 2)], None, []], [11, 0, 0]),
    "pair of texts": (pa.list_(pa.string(), 2), [["a", "bc"], None, ["", "d"]], [3, 0, 1]),
    "vectors": (pa.list_(pa.list_(pa.float32(), 2)), [[[1, 2], [3, 4]], None, []], [16, 0, 0]),
    "decimal": (pa.decimal128(10, 2), [1, None, 2], [16, 0, 16]),
    "unknown": (pa.null(), [None, None, None], [0, 0, 0]),
}


@pytest.mark.parametrize("name", OWN_COLUMNS)
def test_columns_of_the_users_own_are_counted_and_exported(tmp_path, name) -> None:
    """Of any type: pandas and polars write large texts into Lance."""
    kind, own, num_bytes = OWN_COLUMNS[name]
    rows = pa.RecordBatch.from_arrays([pa.array(own, kind)], names=["own"])
    assert bytes_per_row(rows).tolist() == num_bytes
    assert bytes_per_row(rows.slice(1)).tolist() == num_bytes[1:]
    export_parquet([rows], str(tmp_path / "out"), schema=rows.schema)
    assert read_back(tmp_path / "out").column("own").to_pylist() == pa.array(own, kind).to_pylist()


def test_vectors_that_are_null_can_be_read(tmp_path) -> None:
    rows = [make_row(0), make_row(1, embedded=False)]
    export_parquet(rows, str(tmp_path), schema=SCHEMA)
    back = read_back(tmp_path)
    assert back.schema.field("embedding_motion").type == pa.list_(pa.float32())
    assert values(back.cast(SCHEMA)) == values(pa.Table.from_batches(rows))


VECTOR = pa.list_(pa.float32(), 2)
NULL_VECTORS = [
    (pa.list_(VECTOR), [[[1, 2], None], None, []]),
    (pa.struct([("v", VECTOR)]), [{"v": [1, 2]}, {"v": None}, None]),
    (pa.list_(pa.struct([("v", VECTOR), ("path", pa.list_(VECTOR))])), [[{"v": None, "path": [[1, 2]]}], None, []]),
    (pa.list_(VECTOR, 2), [[[1, 2], [3, 4]], None, [[5, 6], [7, 8]]]),
    (pa.large_list(pa.struct([("s", pa.struct([("v", VECTOR)]))])), [[{"s": None}], None, [{"s": {"v": [1, 2]}}]]),
]


@pytest.mark.parametrize(("kind", "own"), NULL_VECTORS, ids=lambda value: str(value) if "list" in str(value) else None)
def test_vectors_that_are_null_within_lists_and_structs_can_be_read(tmp_path, kind, own) -> None:
    table = pa.table({"clip_id": ["a", "b", "c"], "own": pa.array(own, kind)})
    export_parquet(table.to_batches(), str(tmp_path / "nulls"), schema=table.schema)
    back = read_back(tmp_path / "nulls")
    assert back.column("own").to_pylist() == own
    whole = table.filter(table.column("own").is_valid()).slice(0, 0)
    export_parquet(whole.to_batches(), str(tmp_path / "none"), schema=table.schema)
    assert read_back(tmp_path / "none").schema.field("own").type == kind


def test_an_empty_table_keeps_its_schema(tmp_path) -> None:
    (shard,) = export_parquet([], str(tmp_path), schema=SCHEMA)
    assert shard.num_rows == 0
    assert pq.read_schema(tmp_path / shard.path).equals(SCHEMA, check_metadata=True)


def test_progress_counts_up_to_everything(tmp_path) -> None:
    seen: list[tuple[int, int]] = []
    rows = [make_row(n) for n in range(6)]
    shards = export_arrow(rows, str(tmp_path), schema=SCHEMA, max_shard_bytes=1, progress=lambda *at: seen.append(at))
    assert [rows for rows, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert seen == sorted(seen)
    assert seen[-1][1] <= sum(s.num_bytes for s in shards)


def test_a_folder_with_files_is_refused(tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match=r"not empty.*mine\.txt"):
        export_parquet([make_row(0)], str(tmp_path), schema=SCHEMA)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_overwrite_replaces_the_export_and_touches_nothing_else(tmp_path) -> None:
    export_parquet([make_row(n) for n in range(5)], str(tmp_path), schema=SCHEMA, max_shard_bytes=1)
    (tmp_path / "clips-mine.parquet").write_text("keep")
    export_arrow([make_row(9)], str(tmp_path), schema=SCHEMA, overwrite=True)
    names = ["clips-00000-of-00001.arrow", "clips-mine.parquet", "index.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert (tmp_path / "clips-mine.parquet").read_text() == "keep"
    assert values(read_back(tmp_path)) == values(pa.Table.from_batches([make_row(9)]))


@pytest.mark.parametrize("files", [["../secret"], ["clips-/../../x"], ["notes.txt"], None])
def test_overwrite_trusts_no_foreign_index(tmp_path, files) -> None:
    content = {"handloom_export": 1, "files": files}
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="not written by an export"):
        export_parquet([make_row(0)], str(tmp_path), schema=SCHEMA, overwrite=True)
    assert json.loads((tmp_path / "index.json").read_text()) == content


def test_a_failed_replacement_leaves_the_old_export(tmp_path) -> None:
    export_parquet([make_row(1)], str(tmp_path), schema=SCHEMA)

    def broken() -> Iterator[pa.RecordBatch]:
        yield make_row(2)
        raise StoreError("the table is gone")

    with pytest.raises(StoreError, match="gone"):
        export_parquet(broken(), str(tmp_path), schema=SCHEMA, overwrite=True, max_shard_bytes=1)
    assert values(read_back(tmp_path)) == values(pa.Table.from_batches([make_row(1)]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clips-00000-of-00001.parquet", "index.json"]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_killed_export_is_recognised_and_replaced(tmp_path, earlier) -> None:
    if earlier:
        export_parquet([make_row(1), make_row(2)], str(tmp_path), schema=SCHEMA, max_shard_bytes=1)
    script = """
        import os, signal, sys
        sys.path.insert(0, sys.argv[2])
        from test_export_shards import SCHEMA, make_row
        from handloom.export.shards import export_parquet
        def rows():
            for n in range(3):
                yield make_row(n)
            os.kill(os.getpid(), signal.SIGKILL)
        export_parquet(rows(), sys.argv[1], schema=SCHEMA, overwrite=True, max_shard_bytes=1)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert list(tmp_path.glob("*.unfinished"))
    if earlier:
        assert read_index(str(tmp_path))["num_rows"] == 2
    else:
        with pytest.raises(ConfigError, match="not finished"):
            read_index(str(tmp_path))
    export_parquet([make_row(7)], str(tmp_path), schema=SCHEMA, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clips-00000-of-00001.parquet", "index.json"]


@formats
def test_a_full_disk_is_one_clear_error(tmp_path, form) -> None:
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*(too large|space)"):
            EXPORTS[form]([make_row(n, 5) for n in range(50)], str(out), schema=SCHEMA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(out.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/out"):
        export_parquet([make_row(0)], str(tmp_path / "file" / "out"), schema=SCHEMA)
    with pytest.raises(ConfigError, match="nowhere"):
        export_parquet([make_row(0)], "nowhere://bucket/x", schema=SCHEMA)


def test_rows_of_another_schema_are_refused(tmp_path) -> None:
    with pytest.raises(ShapeError, match="missing"):
        export_parquet([make_row(0).drop_columns(["verb"])], str(tmp_path / "a"), schema=SCHEMA)
    with pytest.raises(ShapeError, match="track_query_frame"):
        export_parquet([make_row(0)], str(tmp_path / "b"), schema=clips_schema(NUM_TRACKS + 1))
    assert not list((tmp_path / "b").iterdir())


def test_reading_a_folder_that_is_no_export(tmp_path) -> None:
    with pytest.raises(ConfigError, match="holds no export"):
        read_index(str(tmp_path / "none"))
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        read_index(str(tmp_path))

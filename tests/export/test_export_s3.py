"""The same export into a bucket, through pyarrow's own S3 client."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from handloom.errors import ConfigError, StoreError
from handloom.export.shards import export_arrow, export_parquet, read_index
from handloom.schemas.tables import clips_schema

pytest.importorskip("moto.server", reason="needs moto[server]")
NUM_TRACKS = 2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
    yield "s3://bucket"
    server.stop()


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

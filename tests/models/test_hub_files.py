"""Where a model's files lie: here, on the hub, or on S3, from where they are fetched once and whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import s3fs
from support.s3_server import s3_server

from handloom.errors import ConfigError
from handloom.models.hub.files import local_model


@pytest.fixture
def bucket(monkeypatch):
    with s3_server() as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield s3fs.S3FileSystem(use_listings_cache=False)
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_model_on_s3_is_fetched_once_and_whole(bucket, tmp_path):
    cache = tmp_path / "cache"
    for name, data in {"config.json": b"{}", "model.safetensors": bytes(3000), "deep/other": b"x"}.items():
        bucket.pipe(f"bucket/tiny/{name}", data)
    place = Path(local_model("s3://bucket/tiny", str(cache)))
    assert {file.name: file.stat().st_size for file in place.iterdir()} == {"config.json": 2, "model.safetensors": 3000}
    stamp = (place / "model.safetensors").stat().st_mtime_ns
    assert local_model("s3://bucket/tiny/", str(cache)) == str(place)
    assert (place / "model.safetensors").stat().st_mtime_ns == stamp
    assert not list(cache.glob("*unfinished*"))
    bucket.pipe("bucket/tiny/config.json", b"[]")
    assert local_model("s3://bucket/tiny", str(cache)) != str(place)  # what lies there has changed
    bucket.pipe("bucket/cross.pth", b"weights")
    assert Path(local_model("s3://bucket/cross.pth", str(cache))).read_bytes() == b"weights"


def test_a_model_that_cannot_be_fetched_says_so(bucket, tmp_path):
    bucket.pipe("bucket/tiny/config.json", b"{}")
    with pytest.raises(ConfigError, match="s3://bucket/absent"):
        local_model("s3://bucket/absent", str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be fetched into"):
        local_model("s3://bucket/tiny", str(tmp_path / "file"))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_is_here_and_what_is_the_hubs(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"")
    for given in (str(tmp_path), f"file://{tmp_path}/model.pth"):
        assert local_model(given) == given.removeprefix("file://")
    assert local_model("facebook/vit-mae-base") == "facebook/vit-mae-base"
    with pytest.raises(ConfigError, match="there is no model at"):
        local_model("./absent")
    with pytest.raises(ConfigError, match="no model is named"):
        local_model(" ")

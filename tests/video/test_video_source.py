"""Where videos come from: local files and a real HTTP server on loopback; each remote video is fetched once."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from handloom.errors import ClipError, ConfigError
from handloom.io import remote
from handloom.io.addresses import is_remote
from handloom.io.listing import list_files
from handloom.io.reading import read_bytes
from handloom.io.remote import source_options_from
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Resources, Settings
from handloom.video.fetch.cache import FetchCache
from handloom.video.fetch.steady import Pace
from handloom.video.fetch.version import with_versions
from handloom.video.fetch.video_source import FetchLimits, VideoSource
from handloom.workers.setup import WorkerSetup

BODY = bytes(range(256)) * 4096  # 1 MiB


class Site:
    """Serves /NAME.mp4 whole, of /cut/... half of what it announces, /error/... 500, /secret/... 403; else 404.

    /elsewhere/... leads to the address in `leads_to`.
    """

    def __init__(self) -> None:
        site = self
        self.fetched: list[str] = []
        self.asked: list[str] = []
        self.leads_to = ""
        self.body, self.headers = BODY, {"ETag": '"1"'}
        self.after_get = lambda: None

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                site.asked.append(self.path)
                self.answer(False)

            def do_GET(self) -> None:
                self.answer(True)

            def answer(self, with_body: bool) -> None:
                folder = self.path.split("/")[1]
                if folder == "elsewhere":
                    self.send_response(302)
                    self.send_header("Location", site.leads_to)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                kind = {"error": 500, "secret": 403}.get(folder, 200 if self.path.endswith(".mp4") else 404)
                self.send_response(kind)
                self.send_header("Content-Length", str(len(site.body) if kind == 200 else 0))
                for name, value in site.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body and kind == 200:
                    site.fetched.append(self.path)
                    self.wfile.write(site.body[: len(site.body) // 2] if "/cut/" in self.path else site.body)
                    site.after_get()
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def site():
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


QUICK = FetchLimits(pause_s=0.01)


def source_in(cache: Path, limits: FetchLimits = QUICK, **options: object) -> VideoSource:
    return VideoSource(str(cache), limits=limits, **options)


def clip(uri: str) -> Clip:
    return Clip("d:v:0-1000", "d", "v", uri, 0.0, 1.0)


def failure(source: VideoSource, uri: str) -> ClipError:
    with pytest.raises(ClipError) as caught:
        source.local_path(clip(uri))
    assert caught.value.stage == "fetch"
    assert caught.value.hint
    return caught.value


def test_local_files_are_used_where_they_lie(tmp_path):
    (tmp_path / "v 1.mp4").write_bytes(BODY)
    source = source_in(tmp_path / "cache")
    assert source.local_path(clip(f"{tmp_path}/v 1.mp4")) == f"{tmp_path}/v 1.mp4"
    assert source.local_path(clip(f"file://{tmp_path}/v 1.mp4")) == f"{tmp_path}/v 1.mp4"
    assert not (tmp_path / "cache").exists()
    assert failure(source, f"{tmp_path}/gone.mp4").reason == "video_missing"
    assert failure(source, str(tmp_path)).reason == "video_unreadable"
    assert [is_remote(u) for u in ("/a", "a.mp4", "file:///a", "s3://b/a", "https://h/a")] == [False] * 3 + [True] * 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(BODY)
    path.chmod(0)
    assert failure(source_in(tmp_path / "cache"), str(path)).reason == "video_unreadable"
    path.chmod(stat.S_IRUSR)


def test_a_video_is_fetched_once(tmp_path, site):
    source = source_in(tmp_path / "cache")
    path = source.local_path(clip(f"{site.url}/a.mp4"))
    assert Path(path).read_bytes() == BODY
    assert path.endswith(".mp4")
    assert source.local_path(clip(f"{site.url}/a.mp4")) == path
    assert source_in(tmp_path / "cache").local_path(clip(f"{site.url}/a.mp4")) == path
    assert site.fetched == ["/a.mp4"]
    assert source.local_path(clip(f"{site.url}/b.mp4")) != path


def test_waiting_for_a_video_reports_that_the_worker_lives(tmp_path, site):
    said: list[str] = []
    source = source_in(tmp_path, alive=lambda: said.append("a block has come"))
    source.local_path(clip(f"{site.url}/a.mp4"))
    assert said == ["a block has come"]
    cache = FetchCache(str(tmp_path), 1 << 20)

    def second() -> None:
        with cache.locked("name", lambda: said.append("another fetches it")):
            said.append("done")

    waiting = threading.Thread(target=second)
    with cache.locked("name", lambda: None):
        waiting.start()
        until = time.monotonic() + 240
        while len(said) == 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert set(said[1:]) == {"another fetches it"}
    waiting.join()
    assert said[-1] == "done"


@pytest.mark.parametrize(("known_s", "more"), [(60.0, 0), (0.0, 1)])
def test_one_request_for_the_version_serves_the_clips_of_a_shard(tmp_path, site, known_s, more):
    source = source_in(tmp_path / "cache", replace(QUICK, known_s=known_s))
    source.local_path(clip(f"{site.url}/a.mp4"))
    num_asked = len(site.asked)
    source.local_path(clip(f"{site.url}/a.mp4"))
    assert len(site.asked) == num_asked + more


def test_a_video_that_was_replaced_is_fetched_again(tmp_path, site):
    """The cached copy was found by its address alone, and old bytes were served."""
    for headers in ({"ETag": '"1"'}, {"ETag": '"2"'}, {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}):
        site.headers, site.body = headers, os.urandom(2000)
        path = source_in(tmp_path / "cache").local_path(clip(f"{site.url}/a.mp4"))
        assert Path(path).read_bytes() == site.body
    site.headers, site.body = {}, os.urandom(2001)  # a server that tells no version: another size
    assert Path(source_in(tmp_path / "cache").local_path(clip(f"{site.url}/a.mp4"))).read_bytes() == site.body
    assert len(site.fetched) == 4


def test_a_copy_without_a_version_is_used_for_a_while(tmp_path, site):
    site.headers = {}

    def path_with(unversioned_s: float) -> str:
        return source_in(tmp_path, replace(QUICK, unversioned_s=unversioned_s)).local_path(clip(f"{site.url}/a.mp4"))

    assert path_with(1e6) == path_with(1e6)
    early = path_with(0.01)
    time.sleep(0.02)
    assert path_with(0.01) != early


def test_an_endpoint_has_copies_of_its_own(tmp_path, site):
    options = [{"endpoint_url": "http://one"}, {"endpoint_url": "http://two"}]
    sources = [source_in(tmp_path / "cache", storage_options=given) for given in options]
    assert len({source.local_path(clip(f"{site.url}/a.mp4")) for source in sources}) == 2


def test_a_video_that_is_replaced_while_it_is_fetched(tmp_path, site):
    def replaced_once() -> None:
        site.headers, site.after_get = {"ETag": '"2"'}, lambda: None

    site.after_get = replaced_once
    source = source_in(tmp_path / "cache")
    assert Path(source.local_path(clip(f"{site.url}/a.mp4"))).read_bytes() == BODY
    assert len(site.fetched) == 2
    site.after_get = lambda: site.headers.update(ETag=f'"{len(site.fetched)}"')
    error = failure(source, f"{site.url}/b.mp4")
    assert error.reason == "fetch_failed"
    assert "replaced while it was fetched" in error.problem


def test_another_file_than_the_one_ingested_is_refused(tmp_path, site):
    local, remote = tmp_path / "v.mp4", f"{site.url}/a.mp4"
    local.write_bytes(BODY)
    clips = with_versions([clip(str(local)), clip(remote)])
    source = source_in(tmp_path / "cache")
    for ingested in clips:
        assert source.opened(ingested).version.on(ingested) == ingested
    local.write_bytes(BODY[::-1])
    site.headers = {"ETag": '"2"'}
    for ingested in clips:
        with pytest.raises(ClipError, match="another file than the one ingested: of 1048576 bytes") as caught:
            source_in(tmp_path / "cache").local_path(ingested)
        assert (caught.value.reason, caught.value.stage) == ("video_changed", "fetch")
        assert "ingest again" in caught.value.hint
    with pytest.raises(ClipError, match="another file"):
        source.local_path(clips[0])  # replaced while this source is in use


def test_a_full_disk_is_left_some_room(tmp_path, site):
    usage = shutil.disk_usage(tmp_path)._replace(total=100 << 30)
    free_mib: list[int] = []  # what is free each time it is asked for; the last stays

    def disk_usage(_: Path) -> object:
        return usage._replace(free=(free_mib.pop(0) if len(free_mib) > 1 else free_mib[0]) << 20)

    source = VideoSource(FetchCache(str(tmp_path / "cache"), 1 << 40, disk_usage), limits=QUICK)
    free_mib[:] = [2048]
    kept = source.local_path(clip(f"{site.url}/a.mp4"))
    free_mib[:] = [1024]
    error = failure(source, f"{site.url}/b.mp4")
    assert error.reason == "fetch_failed"
    assert "1048576 bytes are needed, 0 can be used: 1073741824 are free" in error.problem
    assert "resources.fetch_cache_dir" in error.hint
    assert site.fetched == ["/a.mp4"]
    os.utime(kept, (0, 0))  # long unused: it makes room, if that helps
    free_mib[:] = [1024, 1024, 1025]
    assert Path(source.local_path(clip(f"{site.url}/b.mp4"))).exists()
    assert not Path(kept).exists()


def test_the_folder_is_the_nodes_own(tmp_path, monkeypatch):
    """A worker on another node has another TMPDIR: the driver does not decide."""
    setup = WorkerSetup(Settings(), Resources(), {}, str(tmp_path), {}, {})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "of this node"))
    assert setup.decoder()._source._cache.folder == tmp_path / f"of this node/handloom-videos-{os.getuid()}"
    given = replace(setup, resources=Resources(fetch_cache_dir=str(tmp_path / "scratch")))
    assert given.decoder()._source._cache.folder == tmp_path / f"scratch/handloom-videos-{os.getuid()}"


def test_a_cache_that_others_may_fill_is_refused(tmp_path, site, monkeypatch):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    error = failure(source_in(tmp_path / "link"), f"{site.url}/a.mp4")
    assert error.reason == "fetch_failed"
    assert "is a link" in error.problem
    source = source_in(tmp_path / "cache")
    source.local_path(clip(f"{site.url}/a.mp4"))
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) & 0o077 == 0
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert f"of user {os.getuid()}, expected a folder of user 4242" in failure(source, f"{site.url}/a.mp4").problem


def test_what_cannot_be_fetched_says_why_and_leaves_no_part(tmp_path, site):
    source = source_in(tmp_path / "cache", attempts=2)
    assert failure(source, f"{site.url}/gone.txt").reason == "video_missing"
    assert failure(source, f"{site.url}/secret/a.mp4").reason == "video_unreadable"
    for uri in (f"{site.url}/cut/a.mp4", f"{site.url}/error/a.mp4"):
        error = failure(source, uri)
        assert error.reason == "fetch_failed"
        assert uri in error.problem
    assert site.fetched.count("/cut/a.mp4") == 2
    site.server.shutdown()
    site.server.server_close()
    assert failure(source, f"{site.url}/a.mp4").reason == "fetch_failed"
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == {".lock"}


def test_a_silent_server_is_given_up(tmp_path):
    """A slow one is not: aiohttp allows 300 s for a whole file, a clip has a little less."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/video.mp4"
        clip = Clip("c", "d", "v", uri, 0.0, 1.0)
        with pytest.raises(ClipError, match=r"attempts made: 1; .*[Tt]imeout") as caught:
            source_in(tmp_path, replace(QUICK, silent_s=0.3), attempts=1).local_path(clip)
        assert caught.value.reason == "fetch_failed"
    filesystem, _ = remote.open_remote(uri)
    assert filesystem.client_kwargs["timeout"].total is None


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_server_that_sends_almost_nothing_is_given_up(tmp_path, in_parts):
    """It is not silent, but the clip's time ran out: the reason was `hung`."""
    limits = FetchLimits(pace=Pace(within_s=0.6, beat_s=0.1), min_ranged_bytes=1 if in_parts else 1 << 40)
    beats: list[int] = []

    class Dripping(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", "5000000")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            with contextlib.suppress(OSError):
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.03)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        given = clip(f"http://127.0.0.1:{server.server_port}/a.mp4")
        source = source_in(tmp_path, limits, attempts=1, alive=lambda: beats.append(1))
        with pytest.raises(ClipError, match=r"TimeoutError: \d+ bytes came in \d+\.\d s, expected 65536") as caught:
            source.opened(given).supply(0, 1000)
        server.shutdown()
    assert caught.value.reason == "fetch_failed"
    assert beats


@pytest.mark.parametrize(
    "uri",
    [
        "local://{secret}",
        "LOCAL://{secret}",
        "FILE://{secret}",
        "dir://x::file://{secret}",
        "simplecache::file://{secret}",
        "simplecache::s3://bucket/a.mp4",
        "zip://a.mp4::file://{secret}",
        "reference://x",
        "memory://a.mp4",
        "data://text/plain,x",
        "nowhere://x/a.mp4",
        "://x",
    ],
)
def test_other_schemes_are_refused_at_ingest_and_at_fetch(tmp_path, uri):
    """fsspec's `local` would copy any file of this machine into the cache, `dir` and `reference` ended the run."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    uri = uri.format(secret=secret)
    error = failure(source_in(tmp_path / "cache"), uri)
    assert error.reason == "uri_refused"
    assert repr(uri.split("://")[0]) in error.problem
    assert "s3://" in error.problem
    assert "http://" in error.problem
    assert not (tmp_path / "cache").exists()
    for opened in (lambda: list_files(uri, "video folder"), lambda: read_bytes(uri, "camera file")):
        with pytest.raises(ConfigError, match="is not opened") as caught:
            opened()
        assert "s3://" in caught.value.hint


def test_a_store_whose_package_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    error = failure(source_in(tmp_path), "gs://bucket/a.mp4")
    assert error.reason == "fetch_failed"
    assert "gcsfs" in error.problem
    assert "install that package" in error.hint
    with pytest.raises(ConfigError, match=r"gs://bucket cannot be opened: .*gcsfs") as caught:
        list_files("gs://bucket", "video folder")
    assert "install that package" in caught.value.hint


def test_a_server_cannot_lead_to_a_file_or_through_a_chain(tmp_path, site):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    source = source_in(tmp_path / "cache", attempts=1)
    for leads_to in (f"file://{secret}", "s3://bucket/a.mp4"):
        site.leads_to = leads_to
        assert failure(source, f"{site.url}/elsewhere/a.mp4").reason in ("fetch_failed", "video_missing")
    site.leads_to = f"{site.url}/a.mp4"
    assert Path(source.local_path(clip(f"{site.url}/elsewhere/b.mp4"))).read_bytes() == BODY
    chain = f"{site.url}/gone::file://{secret}"
    assert failure(source, chain).reason == "video_missing"


def test_a_cache_that_cannot_be_used(tmp_path, site):
    (tmp_path / "file").write_text("")
    error = failure(source_in(tmp_path / "file" / "cache"), f"{site.url}/a.mp4")
    assert error.reason == "fetch_failed"
    assert "cache" in error.problem


def test_the_longest_unused_videos_make_room(tmp_path, site):
    source = source_in(tmp_path / "cache", cache_mb=2)
    paths = {name: Path(source.local_path(clip(f"{site.url}/{name}.mp4"))) for name in "abc"}
    assert all(path.exists() for path in paths.values()), "a video given out just now is not removed"
    long_ago = time.time() - 3600
    for age, name in enumerate("bac"):
        os.utime(paths[name], (long_ago + age, long_ago + age))
    source.local_path(clip(f"{site.url}/a.mp4"))  # used again
    source.local_path(clip(f"{site.url}/d.mp4"))
    assert {name: path.exists() for name, path in paths.items()} == {"a": True, "b": False, "c": False}


def test_two_processes_fetch_a_video_once(tmp_path, site):
    code = f"""
from handloom.schemas.clip import Clip
from handloom.video.fetch.video_source import VideoSource
print(VideoSource({str(tmp_path / "cache")!r}).local_path(Clip("c", "d", "v", "{site.url}/a.mp4", 0.0, 1.0)))
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=240)[0].strip() for process in both}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == BODY
    assert site.fetched == ["/a.mp4"]


def test_options_come_from_the_usual_variables():
    env = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": "http://a", "HOME": "/"}
    assert source_options_from(env) == {"key": "k", "secret": "s", "endpoint_url": "http://a"}
    assert source_options_from(env | {"AWS_ENDPOINT_URL_S3": "http://b"})["endpoint_url"] == "http://b"
    assert source_options_from({}) == {}


def test_a_bucket(tmp_path, monkeypatch):
    pytest.importorskip("moto")
    from moto.server import ThreadedMotoServer

    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = source_options_from({**os.environ, "AWS_ENDPOINT_URL": f"http://{host}:{port}"})
        import s3fs

        bucket = s3fs.S3FileSystem(**options)
        bucket.mkdir("videos")
        bucket.pipe("videos/P01/a.mp4", BODY)
        source = source_in(tmp_path / "cache", storage_options=options)
        path = source.local_path(clip("s3://videos/P01/a.mp4"))
        assert Path(path).read_bytes() == BODY
        bucket.pipe("videos/P01/a.mp4", BODY[::-1])
        again = source_in(tmp_path / "cache", storage_options=options).local_path(clip("s3://videos/P01/a.mp4"))
        assert Path(again).read_bytes() == BODY[::-1]
        bucket.rm("videos/P01/a.mp4")
        source = source_in(tmp_path / "cache", storage_options=options)
        assert failure(source, "s3://videos/P01/a.mp4").reason == "video_missing"
        assert failure(source, "s3://videos/P01").reason == "video_missing"
        assert failure(source, "s3://videos/P01/b.mp4").reason == "video_missing"
        assert failure(source, "s3://nowhere/b.mp4").reason == "video_missing"
    finally:
        server.stop()

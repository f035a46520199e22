"""Videos behind URIs: listed, or requested by name from a server that does not list; ids as on a local disk."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from handloom.errors import ConfigError
from handloom.ingest.human.epic import ingest_epic
from handloom.ingest.human.folder import ingest_folder
from handloom.schemas.values import VideoInfo

HEADER = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp"


def probe(uri: str) -> VideoInfo:
    return VideoInfo(32, 32, 10.0, "mpeg4", "yuv420p", 0, 0.0, 4.0, 40)


class Listing(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class NoListing(Listing):
    def list_directory(self, path):
        self.send_error(403)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    for path in ("a b/x:1.mp4", "a b/notes.txt", "y.MKV", ".hidden.mp4", "P01/videos/P01_01.MP4"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"0")
    (tmp_path / "EPIC_100_train.csv").write_text(
        f"{HEADER}\nP01_01_0,P01,P01_01,00:00:00.00,00:00:01.00\nP02_01_0,P02,P02_01,00:00:00.00,00:00:01.00\n"
    )
    return root


@pytest.fixture
def serve(tree):
    servers = []

    def start(handler) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tree)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ids(directory, **options):
    return [clip.clip_id for clip in ingest_folder(directory, probe=probe, clip_seconds=2.0, **options).clips]


def test_a_folder_over_http_has_the_ids_of_the_local_one(tree, serve):
    assert ids(serve(Listing)) == ids(str(tree))


def test_a_server_that_does_not_list_is_asked_for_each_video(tree, serve):
    url = serve(NoListing)
    with pytest.raises(ConfigError, match=r"cannot be listed|does not exist"):
        ids(url)
    result = ingest_epic(str(tree.parent / "EPIC_100_train.csv"), url)
    assert [clip.video_uri for clip in result.clips] == [
        f"{url}/P01/videos/P01_01.MP4",
        f"{url}/P02/videos/P02_01.MP4",
    ]
    assert result.counts["videos_missing"] == 1


def test_annotations_can_be_remote_too(tree, serve):
    (tree / "EPIC_100_train.csv").write_bytes((tree.parent / "EPIC_100_train.csv").read_bytes())
    url = serve(Listing)
    assert ingest_epic(f"{url}/EPIC_100_train.csv", url).counts["videos_missing"] == 1
    with pytest.raises(ConfigError, match=r"annotation file .*none.csv cannot be read"):
        ingest_epic(f"{url}/none.csv", url)


def test_a_server_that_is_down_is_named(tree):
    result = ingest_epic(str(tree.parent / "EPIC_100_train.csv"), "http://127.0.0.1:9")
    assert len(result.clips) == result.counts["videos_missing"] == 2
    assert "http://127.0.0.1:9 cannot be listed" in result.problems[0]
    assert result.problems[0].endswith("requested each of 2 videos by name, found none")


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ConfigError, match="nope://x cannot be opened"):
        ids("nope://x")


def test_a_bucket_has_the_ids_of_the_local_folder(tree, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1" if name.endswith("REGION") else "testing")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        _upload(boto3.client("s3", endpoint_url=endpoint), tree)
        options = {"storage_options": {"endpoint_url": endpoint}}
        assert ids("s3://bucket/tree/", **options) == ids(str(tree))
        epic = ingest_epic(str(tree.parent / "EPIC_100_train.csv"), "s3://bucket/tree", **options)
        assert [clip.video_uri for clip in epic.clips] == [
            f"s3://bucket/tree/P0{i}/videos/P0{i}_01.MP4" for i in (1, 2)
        ]
        assert epic.counts["videos_missing"] == 1
        with pytest.raises(ConfigError, match=r"does not exist|cannot be listed"):
            ids("s3://bucket/none", **options)
        with pytest.raises(ConfigError, match=r"does not exist|cannot be listed"):
            ids("s3://no-such-bucket/none", **options)
    finally:
        server.stop()


def _upload(client, tree):
    client.create_bucket(Bucket="bucket")
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            client.put_object(Bucket="bucket", Key=f"tree/{path.relative_to(tree)}", Body=path.read_bytes())
    client.put_object(Bucket="bucket", Key="tree/empty/", Body=b"")

"""An S3 server on this machine, with one empty bucket named `bucket`."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment variables that a user sets. All servers of a process share their buckets: they are emptied."""
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    try:
        send(f"{endpoint}/moto-api/reset", "POST")
        send(f"{endpoint}/bucket")
        yield {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": endpoint,
        }
    finally:
        server.stop()


def send(url: str, method: str = "PUT", body: bytes = b"") -> None:
    headers = {"Content-Type": "application/octet-stream"}  # the server would parse urllib's default as a form
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=240):
        pass

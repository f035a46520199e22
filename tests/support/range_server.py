"""A web server on loopback that serves ranges, and counts the bytes it sends."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer:
    """Serves the files of a folder. num_bytes: sent so far. has_ranges: False: always whole files."""

    def __init__(self, folder: Path) -> None:
        self.num_bytes, self.has_ranges, self.num_gets = 0, True, 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(False)

            def do_GET(self) -> None:
                site.num_gets += 1
                self.answer(True)

            def answer(self, with_body: bool) -> None:
                file = folder / self.path.lstrip("/")
                body = file.read_bytes() if file.is_file() else b""
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if site.has_ranges else None
                self.send_response(404 if not body else 206 if asked else 200)
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()[:16]}"')
                if asked:
                    start, end = int(asked[1]), min(int(asked[2]), len(body) - 1)
                    self.send_header("Content-Range", f"bytes {start}-{end}/{len(body)}")
                    body = body[start : end + 1]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    site.num_bytes += len(body)
                    self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def range_server(folder: Path) -> Iterator[RangeServer]:
    server = RangeServer(folder)
    try:
        yield server
    finally:
        server.close()

"""A server that answers chat completions as it is told: well, late, with nonsense, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """status: 0: the connection is cut. cut: the body ends half-way. wait: no reply before this is set."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    wait: threading.Event | None = None


def said(text: Any, **choice: Any) -> Reply:
    """A chat completion with this text, of 100 and 7 tokens."""
    one = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | choice
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    return Reply(json.dumps({"choices": [one], "usage": usage}).encode())


@dataclass
class FakeEndpoint:
    """requests: `(headers, body)` of each, in order."""

    base_url: str
    requests: list[tuple[dict[str, str], dict[str, Any]]]


@contextmanager
def fake_endpoint(answer: Callable[[int, dict[str, Any]], Reply]) -> Iterator[FakeEndpoint]:
    """answer: gets the number of the request, from 0, and its body."""
    requests: list[tuple[dict[str, str], dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((dict(self.headers), body | {"path": self.path}))
            reply = answer(len(requests) - 1, body)
            if reply.wait is not None:
                reply.wait.wait(20)
            if reply.status == 0:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(reply.body) * (2 if reply.cut else 1)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(reply.body)
            except OSError:
                return  # the client has read enough

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield FakeEndpoint(f"http://127.0.0.1:{server.server_port}/v1", requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

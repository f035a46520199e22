"""Which videos are there, and that their clips come first."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.rows import make_clip

from handloom.io.presence import presence
from handloom.pipelines.run.changed_videos import present_first


class Answers(BaseHTTPRequestHandler):
    """`/404` is answered with 404, and so on."""

    def do_HEAD(self):
        self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


def test_a_video_is_missing_only_where_that_is_known(tmp_path):
    (tmp_path / "there.mp4").touch()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    web = f"http://127.0.0.1:{server.server_port}"
    try:
        found = presence([f"{web}/200", f"{web}/404", f"{web}/403", f"{web}/503", f"file://{tmp_path}/there.mp4"])
    finally:
        server.shutdown()
        server.server_close()
    assert list(found.values()) == [True, False, None, None, True]
    odd = {f"{tmp_path}/there.mp4/x": False, f"{tmp_path}/{'n' * 300}": None, "a\0b": None, "dir:///tmp": None}
    assert presence(odd) == odd


def test_clips_whose_video_is_there_come_first_in_their_order(tmp_path):
    clips = [make_clip(n, video_uri=f"{tmp_path}/{n // 2}.mp4") for n in range(40)]
    for n in range(0, 20, 3):
        (tmp_path / f"{n}.mp4").touch()
    clips.append(make_clip(40, video_uri="s3://nowhere/x.mp4", video_bytes=5))
    clips.append(make_clip(41, video_uri="s3://nowhere/y.mp4"))  # not there when it was ingested
    there = [clip for n, clip in enumerate(clips) if (n // 2 % 3 == 0 and n < 40) or n == 40]
    assert present_first(clips) == there + [clip for clip in clips if clip not in there]
    assert present_first(clips[2:6]) == clips[2:6]

"""A turned phone: clips before and after the change have their own sizes; one across it is rejected, with the time."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.decoded import chunks_of
from support.made_videos import HZ, encoded, lay
from support.numbered_video import numbers_of

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource


@pytest.fixture
def decoder(tmp_path):
    decoder = Decoder(HZ, 360, DecodeLimits(), VideoSource(str(tmp_path / "cache")))
    yield decoder
    decoder.close()


def test_clips_around_a_change_of_size(tmp_path, decoder):
    sources = (
        encoded("h264-b", num=20),
        encoded("h264-b", (96, 128), first=20, num=20),
        encoded("h264", (96, 12), num=20),
    )
    parts = [Path(lay(tmp_path / f"{n}.ts", source)).read_bytes() for n, source in enumerate(sources)]
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(parts))
    first_s = decoder.probe(Clip("c", "d", "v", str(path), 0.0, None)).start_s
    spans = [(0.4, 0.8), (0.8, 1.6), (0.6, 1.0), (0.0, 0.4), (1.8, 2.4)]
    clips = [Clip(f"c{n}", "d", "v", str(path), first_s + a, first_s + b) for n, (a, b) in enumerate(spans)]
    found = []
    for item in decoder.stream(clips):
        if isinstance(item, ClipError):
            found.append((item.reason, item.problem))
            continue
        try:
            numbers = [n for chunk in chunks_of(item) for n in numbers_of(chunk)]
        except ClipError as error:
            found.append((error.reason, error.problem))
            continue
        info = item.header.info
        assert item.header.size == (info.width, info.height)
        found.append((info.width, info.height, numbers, info.notes))
    changes = f"the image changes from 128 x 96 to 96 x 128 px at {first_s + 0.8:.3f} s"
    notes = ("clock_restarts", "size_changes")
    assert found == [
        (128, 96, list(range(10, 20)), notes),
        (96, 128, list(range(20, 40)), notes),
        ("size_changes", changes),
        (128, 96, list(range(10)), notes),
        ("too_small", "the image is 96 x 12 px, expected at least 16 on a side"),
    ]

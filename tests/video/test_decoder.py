"""Decoding processes: the right frames from one process; crashes, hangs, and a parent that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support.decoded import chunks_of
from support.numbered_video import numbers_of, write_numbered

from handloom.errors import ClipError
from handloom.schemas.clip import Clip, make_clip_id
from handloom.video.decode.decoder import DecodedClip, DecodeLimits, Decoder
from handloom.video.decode.process import DecodingProcess
from handloom.video.fetch.video_source import VideoSource
from handloom.video.write import Encoding

HZ, NUM = 30, 120
LONG = Encoding(gop=250, preset="ultrafast")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, str]:
    """`big`: frames large enough that a buffer of 1 MB holds one chunk; the others small."""
    folder = tmp_path_factory.mktemp("videos")
    times = np.arange(NUM) / HZ
    return {
        "big": write_numbered(folder / "big.mp4", times, LONG, 640, 480),
        "plain": write_numbered(folder / "plain.mp4", times, Encoding(gop=12, b_frames=3)),
        "turned": write_numbered(folder / "turned.mp4", 5 + times, Encoding(rotation=90)),
        "deep": write_numbered(folder / "deep.mp4", times, Encoding(pix_fmt="yuv420p10le")),
    }


@pytest.fixture
def make_decoder(tmp_path):
    made: list[Decoder] = []

    def make(hz: float = 15.0, short_side_px: int = 360, **limits: float) -> Decoder:
        made.append(Decoder(hz, short_side_px, DecodeLimits(**limits), VideoSource(str(tmp_path / "cache"))))
        return made[-1]

    yield make
    for decoder in made:
        decoder.close()


def clip(uri: str, start_s: float, end_s: float | None) -> Clip:
    return Clip(make_clip_id("d", os.path.basename(uri), start_s, end_s), "d", "v", uri, start_s, end_s)


def numbers(decoded: DecodedClip) -> list[int]:
    return [n for chunk in chunks_of(decoded) for n in numbers_of(chunk)]


def outcome(item: DecodedClip | ClipError) -> list[int] | str:
    """The numbers of a clip's frames, or the reason why it has none."""
    try:
        return item.reason if isinstance(item, ClipError) else numbers(item)
    except ClipError as error:
        return error.reason


def child_of(decoder: Decoder) -> DecodingProcess:
    assert decoder._process is not None
    return decoder._process


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_clips_of_any_video_in_any_order(videos, make_decoder):
    """Consecutive, overlapping, backward, with other videos and bad clips in between: one launcher for all."""
    spans = [("plain", 0, 1), ("plain", 1, 2), ("turned", 5, 6), ("plain", 1.5, 3), ("plain", 0.2, 0.8), ("deep", 3, 4)]
    spans += [("plain", 1, 1), ("turned", 8, 9.3), ("turned", 1, 2), ("turned", 6, None), ("gone", 0, 1)]
    spans += [("deep", 0, 4)]
    clips = [clip(videos.get(name, "/nowhere/gone.mp4"), start, end) for name, start, end in spans]
    decoder = make_decoder()
    found, pids = [], set()
    for (name, start_s, end_s), item in zip(spans, decoder.stream(clips), strict=True):
        if isinstance(item, ClipError):
            found.append((name, start_s, item.reason))
            continue
        first_s = 5 if name == "turned" else 0
        end_s = first_s + NUM / HZ if end_s is None else end_s
        expected = list(range(round((start_s - first_s) * HZ), min(NUM, round((end_s - first_s) * HZ)), 2))
        assert item.header.frame_s == pytest.approx([first_s + n / HZ for n in expected], abs=1e-4)
        assert item.header.decoder == ("decord" if name == "plain" else "pyav")
        assert item.header.size == (128, 96)
        assert numbers(item) == expected
        pids.add(decoder._launcher._process.pid)
    assert found == [("plain", 1, "bad_range"), ("turned", 1, "outside_video"), ("gone", 0, "video_missing")]
    assert len(pids) == 1


def test_facts_without_frames(videos, make_decoder):
    decoder = make_decoder()
    info = decoder.probe(clip(videos["turned"], 0, None))
    assert (info.width, info.height, info.rotation, info.num_frames) == (128, 96, 90, NUM)
    assert (info.start_s, info.end_s, info.fps) == pytest.approx((5, 9, HZ), abs=0.05)
    with pytest.raises(ClipError) as caught:
        decoder.probe(clip(__file__, 0, None))
    assert caught.value.reason == "video_unreadable"
    stream = decoder.stream([clip(videos["big"], 0, 4), clip(videos["big"], 0, 0.1)], max_bytes=2 << 20)
    too_big = next(stream)
    assert len(too_big.header.frame_s) == 60
    assert too_big.header.num_bytes == 60 * 480 * 360 * 3
    assert not numbers(too_big)
    assert numbers(next(stream)) == [0, 2]


def test_skipped_frames_do_not_reach_the_next_clip(videos, make_decoder):
    clips = [clip(videos["big"], 0, 4), clip(videos["big"], 1, 2)]
    stream = make_decoder(hz=30).stream(clips)
    first = next(stream)
    next(first.chunks(lambda: None))
    second = next(stream)
    assert numbers(second) == list(range(30, 60))
    with pytest.raises(RuntimeError, match="already"):
        numbers(first)


def test_a_child_killed_in_a_clip_costs_no_frame(videos, make_decoder):
    """The clip is sent again by PyAV, the next one by decord; a crash between two streams has no effect."""
    decoder = make_decoder(hz=30, short_side_px=480, ahead_mb=1)
    stream = decoder.stream([clip(videos["big"], 0, 4), clip(videos["big"], 1, 2)])
    first = next(stream)
    found: list[int] = []
    begun: list[str] = []

    def begin() -> None:
        found.clear()
        begun.append(first.header.decoder)

    for chunk in first.chunks(begin):
        if not found and len(begun) == 1:
            os.kill(child_of(decoder).pid, signal.SIGKILL)
        found += numbers_of(chunk)
    assert begun == ["decord", "pyav"]
    assert found == list(range(NUM))
    second = next(stream)
    assert second.header.decoder == "decord"
    assert numbers(second) == list(range(30, 60))
    assert not list(stream)
    child_of(decoder).end()
    while is_running(child_of(decoder).pid):
        time.sleep(0.01)
    (third,) = decoder.stream([clip(videos["plain"], 0, 1)])
    assert third.header.decoder == "decord"


def test_a_child_killed_twice_in_a_clip_is_a_reject(videos, make_decoder):
    decoder = make_decoder(hz=30, short_side_px=480, ahead_mb=1)
    stream = decoder.stream([clip(videos["big"], 0, 4), clip(videos["plain"], 1, 2)])
    first = next(stream)
    begun: list[str] = []
    chunks = first.chunks(lambda: begun.append(first.header.decoder))
    for num_before in (0, 1):
        while len(begun) <= num_before:
            next(chunks)
        os.kill(child_of(decoder).pid, signal.SIGKILL)
    with pytest.raises(ClipError) as caught:
        list(chunks)
    assert begun == ["decord", "pyav"]
    assert caught.value.reason == "decoder_died"
    assert "-9" in caught.value.problem
    assert numbers(next(stream)) == list(range(30, 60))


@pytest.mark.parametrize("busy", [True, False])
def test_a_child_that_hangs_is_ended_at_the_time_limit(videos, make_decoder, busy):
    """Stopped in the middle of a message or between two messages: the next clip decodes."""
    decoder = make_decoder(hz=30, short_side_px=480, ahead_mb=1, timeout_s=4.0)
    decoder.probe(clip(videos["big"], 0, None))
    if not busy:
        os.kill(child_of(decoder).pid, signal.SIGSTOP)
    stream = decoder.stream([clip(videos["big"], 0, 4), clip(videos["plain"], 1, 2)])
    item = next(stream)
    if isinstance(item, DecodedClip):
        chunks = item.chunks(lambda: None)
        next(chunks)
        time.sleep(0.3)  # the child fills its socket
        os.kill(child_of(decoder).pid, signal.SIGSTOP)
        with pytest.raises(ClipError) as caught:
            list(chunks)
        item = caught.value
    assert item.reason == "decode_timeout"
    assert numbers(next(stream)) == list(range(30, 60))


def test_images_beyond_the_memory_limit(tmp_path, videos, make_decoder):
    path = tmp_path / "huge.mp4"
    write_numbered(path, np.arange(6) / HZ, LONG, 4096, 3072)
    decoder = make_decoder(hz=30, short_side_px=3072, memory_mb=192)
    clips = [clip(str(path), 0, 0.2), clip(videos["plain"], 0, 0.1)]
    assert [outcome(item) for item in decoder.stream(clips)] == ["decode_memory", [0, 1, 2]]


def test_an_abandoned_stream_leaves_nothing_behind(videos, make_decoder):
    decoder = make_decoder(hz=30, short_side_px=480, ahead_mb=1, timeout_s=10_000)  # nothing waits for that
    stream = decoder.stream([clip(videos["big"], 0, 4)] * 3)
    next(next(stream).chunks(lambda: None))
    pid = child_of(decoder).pid
    stream.close()
    assert not is_running(pid)
    assert not [t for t in threading.enumerate() if t is not threading.main_thread() and "_pump" in t.name]
    (after,) = decoder.stream([clip(videos["plain"], 1, 2)])
    pid = child_of(decoder).pid
    assert after.header.decoder == "decord"
    decoder.close()
    assert not is_running(pid)


@pytest.mark.parametrize("busy", [True, False])
def test_the_child_ends_with_its_parent(videos, tmp_path, busy):
    code = f"""
import sys, time
from handloom.schemas.clip import Clip
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource
decoder = Decoder(30, 480, DecodeLimits(ahead_mb=1), VideoSource({str(tmp_path)!r}))
stream = decoder.stream([Clip("c", "d", "v", {videos["big"]!r}, 0.0, 4.0 if {busy} else 0.1)])
decoded = next(stream)
next(decoded.chunks(lambda: None)) if {busy} else list(decoded.chunks(lambda: None))
print(decoder._process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    deadline = time.monotonic() + 240
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)

"""A clip of a remote video is read without the rest of the video, and is the same clip."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from support.decoded import chunks_of
from support.numbered_video import numbered_image
from support.range_server import RangeServer, range_server

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.video.container.packets import read_packet_index
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.decode.readers import AvReader
from handloom.video.decode.wire import GarbledError, Line, Request, replies
from handloom.video.fetch.cache import FetchCache
from handloom.video.fetch.partial_file import BLOCK_BYTES, Ranged, packet_data
from handloom.video.fetch.sparse_copy import SparseCopy
from handloom.video.fetch.video_source import ChangedMeanwhile, FetchLimits, VideoSource

NUM, HZ = 900, 30  # half a minute
RANGED = {
    "moov last": ("mp4", {}),
    "moov first": ("mp4", {"movflags": "faststart"}),
    "quicktime": ("mov", {}),
}
WHOLE = {
    "fragmented": ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "matroska": ("mkv", {}),
    "transport stream": ("ts", {}),
    "headers in the stream": ("mp4", {"tag": "avc3"}),
}


def with_noise(number: int, rng: np.random.Generator) -> np.ndarray:
    return (numbered_image(number).astype(int) + rng.integers(-40, 40, (96, 128, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> Path:
    """Images of noise, so that half a minute is 7 MB; B-frames, a key frame every second, and sound."""
    path = tmp_path_factory.mktemp("encoded") / "v.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("libx264", rate=HZ), out.add_stream("aac", rate=16_000)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "14", "bf": "2", "g": str(HZ)}
        for number in range(NUM):
            for packet in video.encode(av.VideoFrame.from_ndarray(with_noise(number, rng), format="rgb24")):
                out.mux(packet)
            if number % HZ == 0:
                second = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
                second.sample_rate = 16_000
                for packet in sound.encode(second):
                    out.mux(packet)
        for stream in (video, sound):
            for packet in stream.encode(None):
                out.mux(packet)
    return path


def lay(path: Path, encoded: Path, options: dict[str, str]) -> Path:
    """The same packets in another container; `tag`: of the codec."""
    options = dict(options)
    tag = options.pop("tag", None)
    with av.open(str(encoded)) as given, av.open(str(path), "w", options=options) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in given.streams}
        if tag:
            streams[0].codec_context.codec_tag = tag
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


@pytest.fixture
def server(tmp_path):
    (tmp_path / "site").mkdir()
    with range_server(tmp_path / "site") as running:
        yield running


def source_in(cache: Path, min_ranged_bytes: int = 1 << 20, **options) -> VideoSource:
    return VideoSource(str(cache), limits=FetchLimits(min_ranged_bytes=min_ranged_bytes, first_blocks=1), **options)


def decode(source: VideoSource, uri: str, *spans: tuple[float, float]) -> list[tuple]:
    """(decoder, facts, times, frames) of each clip."""
    decoder = Decoder(10.0, 96, DecodeLimits(), source)
    clips = [Clip(f"c{number}", "d", "v", uri, *span) for number, span in enumerate(spans)]
    found = []
    try:
        for item in decoder.stream(clips):
            if isinstance(item, ClipError):
                raise item
            frames = np.concatenate(chunks_of(item))
            found.append((item.header.decoder, item.header.info, item.header.frame_s.tolist(), frames))
        return found
    finally:
        decoder.close()


def expected(path: Path, times_s: list[float]) -> np.ndarray:
    """The frames at these times, from the whole file."""
    index = read_packet_index(str(path))
    indices = np.searchsorted(index.times_s, times_s)
    return np.concatenate(list(AvReader(str(path), index).read(indices, (128, 96))))


@pytest.mark.parametrize("kind", RANGED)
def test_parts_give_the_frames_and_facts_of_the_whole_file(tmp_path, server: RangeServer, encoded, kind):
    suffix, options = RANGED[kind]
    path = lay(tmp_path / f"site/v.{suffix}", encoded, options)
    spans = ((20.25, 22.0), (0.0, 1.0), (29.0, 30.0))
    local = decode(source_in(tmp_path / "none"), str(path), *spans)
    found = decode(source_in(tmp_path / "cache"), f"{server.url}/{path.name}", *spans)
    assert server.num_bytes < 0.45 * path.stat().st_size
    for (decoder, info, times_s, frames), (_, whole_info, whole_times_s, _) in zip(found, local, strict=True):
        assert decoder == "pyav"
        assert (info, times_s) == (whole_info, whole_times_s)
        assert np.array_equal(frames, expected(path, times_s))


def test_one_clip_costs_its_part_and_the_index(tmp_path, server, encoded):
    path = lay(tmp_path / "site/v.mp4", encoded, {})
    decode(source_in(tmp_path / "cache"), f"{server.url}/v.mp4", (20.25, 22.0))
    assert server.num_bytes < 0.35 * path.stat().st_size
    before = server.num_bytes
    decode(source_in(tmp_path / "cache"), f"{server.url}/v.mp4", (20.25, 22.0))
    assert server.num_bytes == before, "another worker of the node finds the parts"


def test_once_half_is_there_the_rest_is_fetched_and_the_rows_are_the_same(tmp_path, server, encoded):
    path = lay(tmp_path / "site/v.mp4", encoded, {})
    source, uri = source_in(tmp_path / "cache"), f"{server.url}/v.mp4"
    in_parts = decode(source, uri, (2.0, 3.0))[0]
    decode(source, uri, *((float(second), second + 1.0) for second in range(0, 24, 2)))
    whole = [file for file in (tmp_path / "cache").iterdir() if file.suffix == ".mp4" and "some" not in file.name]
    assert [file.read_bytes() for file in whole] == [path.read_bytes()]
    assert server.num_bytes <= path.stat().st_size + 2 * BLOCK_BYTES
    before = server.num_bytes
    again = decode(source_in(tmp_path / "cache"), uri, (2.0, 3.0))[0]
    assert server.num_bytes == before
    assert again[:3] == in_parts[:3]
    assert np.array_equal(again[3], in_parts[3])


def test_a_small_video_is_fetched_whole_and_read_alike(tmp_path, server, encoded):
    """Whether parts were fetched must not show in a row."""
    lay(tmp_path / "site/v.mp4", encoded, {})
    in_parts = decode(source_in(tmp_path / "cache"), f"{server.url}/v.mp4", (2.0, 3.0))[0]
    whole = decode(source_in(tmp_path / "other cache", 1 << 40), f"{server.url}/v.mp4", (2.0, 3.0))[0]
    assert not list((tmp_path / "other cache").glob("some-*"))
    assert whole[:3] == in_parts[:3]
    assert np.array_equal(whole[3], in_parts[3])


@pytest.mark.parametrize("kind", WHOLE)
def test_other_files_are_fetched_whole(tmp_path, server, encoded, kind):
    suffix, options = WHOLE[kind]
    path = lay(tmp_path / f"site/v.{suffix}", encoded, options)
    local = decode(source_in(tmp_path / "none"), str(path), (20.25, 22.0))[0]
    found = decode(source_in(tmp_path / "cache"), f"{server.url}/{path.name}", (20.25, 22.0))[0]
    assert found[:3] == local[:3]
    assert np.array_equal(found[3], local[3])


def test_a_server_without_ranges_sends_it_whole(tmp_path, server, encoded):
    path = lay(tmp_path / "site/v.mp4", encoded, {})
    server.has_ranges = False
    source = source_in(tmp_path / "cache")
    _, _, times_s, frames = decode(source, f"{server.url}/v.mp4", (20.25, 22.0))[0]
    assert np.array_equal(frames, expected(path, times_s))
    num_gets = server.num_gets
    decode(source, f"{server.url}/v.mp4", (2.0, 3.0))
    assert server.num_gets == num_gets


def test_a_large_file_from_a_server_without_ranges(tmp_path, server):
    """fsspec asks for it in blocks, the first of 13 MiB here; `python -m http.server` sends whole files only."""
    (tmp_path / "site/v.mp4").write_bytes(np.random.default_rng(0).bytes(14 << 20))
    server.has_ranges = False
    clip = Clip("d:v:0-1000", "d", "v", f"{server.url}/v.mp4", 0.0, 1.0)
    fetched = source_in(tmp_path / "cache", attempts=1).whole(clip).path
    assert Path(fetched).read_bytes() == (tmp_path / "site/v.mp4").read_bytes()


def test_a_video_that_is_replaced_while_it_is_read(tmp_path, server, encoded):
    path = lay(tmp_path / "site/v.mp4", encoded, {})
    source = source_in(tmp_path / "cache")
    decode(source, f"{server.url}/v.mp4", (2.0, 3.0))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ClipError, match="replaced while it was read") as caught:
        decode(source, f"{server.url}/v.mp4", (20.0, 21.0))
    assert caught.value.reason == "fetch_failed"  # tried again at the end of the shard
    decode(source, f"{server.url}/v.mp4", (20.0, 21.0))


def test_the_index_of_parts_is_that_of_the_file(tmp_path, encoded):
    """Except where decoding can begin: libav takes that from the data, here it is the file's own list."""
    for suffix, options in RANGED.values():
        path = lay(tmp_path / f"v.{suffix}", encoded, options)
        whole, parts = read_packet_index(str(path)), read_packet_index(Ranged(str(path), lambda at, size: 1 << 40))
        for name in ("info", "container", "cut_at_s", "counted", "open_gop", "hides_packets", "varies"):
            assert getattr(whole, name) == getattr(parts, name), name
        for one, other in ((whole, parts), (whole.keys, parts.keys)):
            for name in ("times_s", "frame_of", "packet_of", "untimed_s", "number", "stamp", "dts", "pos"):
                assert np.array_equal(getattr(one, name, 0), getattr(other, name, 0)), name


def test_what_is_no_plain_mp4(tmp_path):
    def box(kind: bytes, size: int) -> bytes:
        return (8 + size).to_bytes(4, "big") + kind + bytes(size)

    def places(data: bytes) -> list[tuple[int, int]] | None:
        return packet_data(lambda at, size: data[at : at + size], len(data))

    assert places(box(b"ftyp", 8) + box(b"mdat", 100) + box(b"moov", 50)) == [(24, 124)]
    large = (1).to_bytes(4, "big") + b"mdat" + (116).to_bytes(8, "big") + bytes(100)
    assert places(box(b"ftyp", 8) + box(b"moov", 50) + large) == [(90, 190)]
    assert places(box(b"ftyp", 8) + box(b"moov", 50) + (0).to_bytes(4, "big") + b"mdat" + bytes(10)) == [(82, 92)]
    assert places(box(b"ftyp", 8) + box(b"moov", 50) + box(b"mdat", 100)[:50]) == [(82, 124)]  # cut short
    for other in (
        b"",
        bytes(100),
        b"\x1a\x45\xdf\xa3" + bytes(100),
        box(b"ftyp", 8) + box(b"mdat", 9),
        box(b"ftyp", 8) + box(b"moov", 50) + box(b"moof", 9) + box(b"mdat", 9),
        box(b"ftyp", 8) + box(b"moov", 50) + box(b"free", 0) * 100 + box(b"mdat", 9),
    ):
        assert places(other) is None


def test_parts_are_fetched_once_and_more_at_a_time_in_one_direction(tmp_path):
    size = 40 * BLOCK_BYTES + 5
    content = np.random.default_rng(0).bytes(size)
    fetched: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        fetched.append((start // BLOCK_BYTES, -(-end // BLOCK_BYTES)))
        return content[start:end]

    cache = FetchCache(str(tmp_path / "cache"), 1 << 30)
    copy = SparseCopy(cache, "v.mp4", size, fetch)
    assert copy.supply(size - 3, 3) == size  # the end first, as an index that lies last is read
    at = 0
    while at < 12 * BLOCK_BYTES:
        at = copy.supply(at, 1000)
    other = SparseCopy(cache, "v.mp4", size, fetch)
    assert other.supply(100, 1000) == at == 12 * BLOCK_BYTES
    assert fetched == [(40, 41), (0, 4), (4, 12)]
    assert copy.path.read_bytes()[:at] == content[:at]
    assert not (tmp_path / "cache/v.mp4").exists()
    copy.supply(at, 9 * BLOCK_BYTES)
    assert (tmp_path / "cache/v.mp4").read_bytes() == content
    assert sum(end - start for start, end in fetched) == 41
    assert other.supply(0, size) == size


def test_a_part_that_does_not_arrive_is_not_counted_as_there(tmp_path):
    answers_ = iter([b"", ChangedMeanwhile("x"), b"x" * BLOCK_BYTES])

    def fetch(start: int, end: int) -> bytes:
        answer = next(answers_)
        if isinstance(answer, Exception):
            raise answer
        return answer

    copy = SparseCopy(FetchCache(str(tmp_path / "cache"), 1 << 30), "v.mp4", BLOCK_BYTES, fetch)
    for _ in range(2):
        with pytest.raises(OSError, match=r"0 of \d+ bytes came|x"):
            copy.supply(0, 10)
    assert copy.supply(0, 10) == BLOCK_BYTES


@pytest.mark.parametrize("message", [{"at": -1, "size": 5}, {"at": 0, "size": 0}, {"at": "0", "size": 5}, {"size": 5}])
def test_a_process_that_asks_for_no_part_of_its_file(message):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=Line(theirs).send, args=({"kind": "need", **message},)).start()
        request = Request(Clip("c", "d", "v", "", 0.0, 1.0), "v.mp4", 10.0, 96, ranged=True)
        with pytest.raises(GarbledError):
            list(replies(Line(ours, 5.0), request, lambda at, size: at + size))


def test_only_a_process_that_reads_in_parts_may_request_one():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=Line(theirs).send, args=({"kind": "need", "at": 0, "size": 5},)).start()
        with pytest.raises(GarbledError, match="does not belong there"):
            list(replies(Line(ours, 5.0), Request(Clip("c", "d", "v", "", 0.0, 1.0), "v.mp4", 10.0, 96)))

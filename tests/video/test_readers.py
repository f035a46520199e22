"""Both decoders return the frames that the container's times name; each image shows its own number."""

from __future__ import annotations

import av
import decord
import numpy as np
import pytest
from support.numbered_video import numbers_of, write_numbered

from handloom.video.container.containers import NotAVideoError
from handloom.video.container.packets import read_packet_index
from handloom.video.decode.readers import AvReader, DecodeFailedError, DecordReader, suits_decord
from handloom.video.write import Encoding

NUM = 150
SIZE = (128, 96)
COUNT = np.arange(NUM)
VARIABLE = np.cumsum(np.random.default_rng(1).uniform(0.005, 0.1, NUM))
GAP = np.concatenate([COUNT[:50] / 30, COUNT[50:] / 30 + 2.0])


def gop(length: int, b_frames: int = 2, **options: object) -> Encoding:
    return Encoding(gop=length, b_frames=b_frames, options=(("sc_threshold", "0"), *options.items()))


PLAIN = {
    "30fps": (COUNT / 30, gop(30)),
    "59.94fps": (COUNT * 1001 / 60_000, gop(12, 5)),
    "90fps": (COUNT / 90, gop(250, 0)),
    "variable": (VARIABLE, gop(12)),
    "variable-one-gop": (VARIABLE, gop(250, 5)),
    "gap": (GAP, gop(30, 3)),
    "all-key": (COUNT / 25, gop(1, 0)),
    "starts-at-5s": (5.0 + COUNT / 30, gop(12, 5)),
}
ODD = {
    "open-gop": (COUNT / 30, gop(12, 5, **{"x264-params": "open-gop=1"})),
    "10-bit": (COUNT / 30, Encoding(pix_fmt="yuv420p10le")),
    "4:4:4": (COUNT / 30, Encoding(pix_fmt="yuv444p")),
    "turned-90": (COUNT / 30, Encoding(rotation=90)),
    "turned-180": (5.0 + VARIABLE, Encoding(rotation=180)),
    "turned-270": (COUNT / 30, Encoding(rotation=270)),
}


def ranges() -> list[np.ndarray]:
    """Consecutive, overlapping, backward, skipping and single-frame reads, as clips in any order ask for them."""
    rng = np.random.default_rng(7)
    fixed = [(0, 30, 2), (30, 60, 2), (50, 90, 1), (10, 40, 3), (0, 1, 1), (NUM - 1, NUM, 1), (0, NUM, 20)]
    chosen = [np.arange(*bounds) for bounds in [*fixed, (99, NUM, 1)]]
    chosen += [np.unique(rng.integers(0, NUM, rng.integers(1, 30))) for _ in range(5)]
    starts = [int(at) for at in rng.integers(0, NUM - 1, 5)]
    return chosen + [np.arange(at, min(NUM, at + 40), rng.integers(1, 8)) for at in starts]


def check_numbers(reader: DecordReader | AvReader, size: tuple[int, int] = SIZE) -> None:
    for wanted in ranges():
        chunks = list(reader.read(wanted, size))
        assert all(chunk.shape[1:] == (size[1], size[0], 3) for chunk in chunks)
        assert [n for chunk in chunks for n in numbers_of(chunk)] == wanted.tolist()


@pytest.mark.parametrize("name", PLAIN)
def test_plain_video_through_both_decoders(tmp_path, name):
    frame_s, encoding = PLAIN[name]
    path = write_numbered(tmp_path / "v.mp4", frame_s, encoding)
    index = read_packet_index(path)
    assert suits_decord(index)
    assert index.times_s == pytest.approx(frame_s, abs=1 / 90_000)
    check_numbers(DecordReader(path, index, SIZE))
    check_numbers(AvReader(path, index))


@pytest.mark.parametrize("name", ODD)
def test_odd_video_through_pyav(tmp_path, name):
    frame_s, encoding = ODD[name]
    path = write_numbered(tmp_path / "v.mp4", frame_s, encoding)
    index = read_packet_index(path)
    assert not suits_decord(index)
    assert index.times_s == pytest.approx(frame_s, abs=1 / 90_000)
    assert (index.info.width, index.info.height) == SIZE
    check_numbers(AvReader(path, index))


def test_decord_is_wrong_after_a_seek_in_open_gops(tmp_path):
    """Why `suits_decord` refuses them; if this test fails, decord has been fixed."""
    path = write_numbered(tmp_path / "v.mp4", *ODD["open-gop"])
    reader = DecordReader(path, read_packet_index(path), SIZE)
    with pytest.raises(AssertionError):
        check_numbers(reader)


def test_odd_sizes(tmp_path):
    path = write_numbered(tmp_path / "v.mp4", COUNT[:20] / 30, Encoding(pix_fmt="yuv444p"), 131, 97)
    index = read_packet_index(path)
    assert (index.info.width, index.info.height) == (131, 97)
    chunks = AvReader(path, index).read(np.arange(20), (130, 96))
    assert [n for chunk in chunks for n in numbers_of(chunk)] == list(range(20))


def test_decoders_agree_in_their_pixels(tmp_path):
    """Both use the same scaler: a clip that falls back to PyAV differs by rounding only."""
    path = write_numbered(tmp_path / "v.mp4", COUNT[:40] / 30, gop(12), 192, 144)
    index = read_packet_index(path)
    for size in ((192, 144), SIZE, (100, 76)):
        first, second = (
            np.concatenate(list(reader.read(np.arange(3, 40, 4), size))).astype(int)
            for reader in (DecordReader(path, index, size), AvReader(path, index))
        )
        assert np.abs(first - second).mean() < 0.5


def test_times_are_those_of_the_packets(tmp_path):
    path = write_numbered(tmp_path / "v.mp4", 5.0 + VARIABLE, gop(12, 5))
    with av.open(path) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    index = read_packet_index(path)
    assert index.times_s.tolist() == sorted(float(p.pts * p.time_base) for p in packets)
    assert sorted(index.keys.stamp) == sorted(p.pts for p in packets if p.is_keyframe)
    info = index.info
    assert (info.num_frames, info.start_s) == (NUM, index.times_s[0])
    assert 0 < info.end_s - index.times_s[-1] <= 0.1 + 1e-4  # a step: MP4 stores durations in decoding order


def test_consecutive_clips_need_no_seek(tmp_path):
    path = write_numbered(tmp_path / "v.mp4", COUNT / 30, gop(250))
    reader = AvReader(path, read_packet_index(path))
    list(reader.read(np.arange(0, 40, 2), SIZE))
    stream_of_frames = reader._frames
    list(reader.read(np.arange(40, 80, 2), SIZE))
    assert reader._frames is stream_of_frames
    list(reader.read(np.arange(60, 80, 2), SIZE))  # backwards: that needs one
    assert reader._frames is not stream_of_frames


def test_a_far_clip_is_reached_by_a_seek(tmp_path):
    path = write_numbered(tmp_path / "v.mp4", COUNT / 30, gop(10))
    reader = AvReader(path, read_packet_index(path))
    list(reader.read(np.arange(0, 5), SIZE))
    stream_of_frames = reader._frames
    list(reader.read(np.arange(120, 125), SIZE))
    assert reader._frames is not stream_of_frames


def test_decord_refuses_a_count_or_clock_that_is_not_the_containers(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", COUNT[:30] / 30)
    other = write_numbered(tmp_path / "b.mp4", COUNT[:29] / 30)
    slower = write_numbered(tmp_path / "c.mp4", COUNT[:30] / 25)
    with pytest.raises(DecodeFailedError, match="decord counts 30 frames, the container 29"):
        DecordReader(path, read_packet_index(other), SIZE)
    with pytest.raises(DecodeFailedError, match="timestamps"):
        DecordReader(path, read_packet_index(slower), SIZE)


def test_a_file_that_is_no_video_is_refused(tmp_path):
    contents = {"empty": b"", "text": b"no video\n" * 50, "random": np.random.default_rng(0).bytes(9000)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NotAVideoError, match="libav cannot open it") as caught:
            read_packet_index(str(tmp_path / name))
        assert caught.value.reason == "video_unreadable"


@pytest.fixture(autouse=True)
def _quiet_decord():
    decord.logging.set_level(decord.logging.QUIET)

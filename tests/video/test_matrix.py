"""Every container, codec and condition: the right image at the right time, judged by libav's plain decoding in order.

A file is written, decoded from its first packet to its last without any seek, and then read in pieces by our readers:
at the start, across groups of pictures, at the end, backwards. decord is tried wherever `suits_decord` lets it.
"""

from __future__ import annotations

import contextlib
import re
from array import array
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from support.field_video import write_fields
from support.made_videos import CLOCK_HZ, GOP, HZ, NUM, STEP, Encoded, encoded, lay, with_edits, with_second_header
from support.numbered_video import number_of, numbered_image, numbers_of

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.video.container.containers import NotAVideoError
from handloom.video.container.frame_stamps import Scan, stamp_frames
from handloom.video.container.output_order import times_on_grid
from handloom.video.container.packets import PacketIndex, is_shown, read_packet_index, size_header
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.decode.readers import AvReader, DecodeFailedError, DecordReader, ImageSizeError, suits_decord
from handloom.video.fetch.video_source import VideoSource

SIZE = (128, 96)
WRAP = 1 << 33  # of the 90 kHz clock of transport and program streams
CELLS = {
    "mp4": "h264 h264-b h264-open h264-fields hevc hevc-open vp9 av1 mpeg4 mpeg4-b mpeg2-b mjpeg",
    "mov": "h264 h264-b hevc mpeg4-b mpeg2-b mjpeg",
    "mkv": "h264 h264-b h264-open hevc hevc-open vp8 vp9 av1 mpeg4 mpeg4-b mpeg2-b mjpeg",
    "webm": "vp8 vp9 av1",
    "ts": "h264 h264-b h264-open h264-fields h264-refresh hevc hevc-open mpeg2-b",
    "m2ts": "h264 h264-b hevc-open mpeg2-b",
    "mpg": "mpeg2-b",
    "avi": "h264 h264-b h264-open vp9 mpeg4 mpeg4-b mpeg2-b mjpeg",
    "flv": "h264 h264-b hevc vp9 av1",
}
BY_DECORD = {
    "mp4": "h264 h264-b h264-fields hevc vp9 mpeg4",
    "mov": "h264 h264-b hevc",
    "mkv": "h264 h264-b hevc vp9 mpeg4",
    "webm": "vp9",
}


@pytest.fixture(autouse=True)
def _quiet_decord():
    decord.logging.set_level(decord.logging.QUIET)


def plain(path: str, stream: int = 0) -> tuple[list[int], list[float]]:
    """(numbers, times_s) of all frames, decoded in order from the first packet on."""
    frames, scaler = [], VideoReformatter()  # kept: one per frame takes 0.45 ms, mostly to start threads
    with av.open(path) as container:
        for packet in container.demux(container.streams[stream]):
            with contextlib.suppress(av.InvalidDataError):  # ffmpeg also continues with the next packet
                frames += [f for f in packet.decode() if not f.is_corrupt]
        images = (scaler.reformat(f, format="rgb24").to_ndarray() for f in frames)
        return numbers_of(images), [f.time for f in frames]


def readers(path: str, index: PacketIndex, by_decord: bool = True) -> Iterable[AvReader | DecordReader]:
    yield AvReader(path, index)
    if by_decord and suits_decord(index):
        yield DecordReader(path, index, SIZE)


def pieces(num: int) -> list[np.ndarray]:
    spans = [(0, 8, 1), (GOP - 3, 2 * GOP + 4, 2), (num - 7, num, 1), (num // 2, num // 2 + 9, 1), (num - 1, num, 1)]
    spans += [(0, 1, 1), (GOP, GOP + 1, 1), (2 * GOP - 1, 2 * GOP + 1, 1), (0, num, 1)]
    return [np.arange(max(start, 0), min(end, num), step) for start, end, step in spans]


def check(path: str, numbers: list[int], times_s: Iterable[float], by_decord: bool = True) -> PacketIndex:
    """The index has `times_s`, and every reader finds `numbers` at them, whatever it read before."""
    index = read_packet_index(path)
    assert index.times_s == pytest.approx(list(times_s), abs=0.0011)  # Matroska and Flash count milliseconds
    assert index.info.num_frames == len(numbers)
    for reader in readers(path, index, by_decord):
        for wanted in pieces(len(numbers)):
            found = [n for chunk in reader.read(wanted, SIZE) for n in numbers_of(chunk)]
            assert found == [numbers[at] for at in wanted], (reader.name, wanted)
    return index


@pytest.mark.parametrize(
    ("kind", "codec"), [(kind, codec) for kind, codecs in CELLS.items() for codec in codecs.split()]
)
def test_every_frame_of_every_codec_in_every_container(tmp_path, kind, codec):
    path = lay(tmp_path / f"v.{kind}", encoded(codec))
    numbers, times_s = plain(path)
    assert numbers == list(range(NUM))
    # AVI stores no presentation times, and libav guesses them late or out of order: frame n has the time of chunk n.
    index = check(path, numbers, np.arange(NUM) / HZ if kind == "avi" else times_s)
    assert suits_decord(index) == (codec in BY_DECORD.get(kind, "").split())
    assert index.cut_at_s is None
    assert set(index.info.notes) == ({"interlaced"} if codec == "h264-fields" else set())


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "ts", "m2ts", "mpg", "flv"])
def test_gaps_and_a_late_start(tmp_path, kind):
    """Two seconds are missing after 17 frames, and the first frame stands at 5 s."""
    codec = "mpeg2-b" if kind == "mpg" else "h264-b"
    path = lay(tmp_path / f"v.{kind}", encoded(codec), shift=lambda n: 5 * HZ * STEP + (n >= 17) * 2 * HZ * STEP)
    numbers, times_s = plain(path)
    assert numbers == list(range(NUM))
    assert np.diff(times_s).max() == pytest.approx(2 + 1 / HZ, abs=0.002)
    check(path, numbers, times_s)


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "h264-b"), ("mp4", "hevc"), ("mkv", "h264-b"), ("webm", "vp9")])
def test_files_without_a_table_of_contents(tmp_path, kind, codec):
    path = lay(tmp_path / f"v.{kind}", encoded(codec), indexed=False)
    numbers, times_s = plain(path)
    assert numbers == list(range(NUM))
    if kind != "mp4":  # the pipeline then uses PyAV
        with pytest.raises(DecodeFailedError, match="duration"):
            DecordReader(path, read_packet_index(path), SIZE)
    check(path, numbers, times_s, by_decord=kind == "mp4")


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("num", [5, 40])
def test_fields_in_packets_of_their_own(tmp_path, num, apart):
    """Camcorders code fields: two packets per frame, the second without a time or half a frame later."""
    images = [numbered_image(n, 64, 64) for n in range(num)]
    path = write_fields(tmp_path / "v.ts", images, GOP, HZ, apart)
    numbers, times_s = plain(path)
    assert numbers == list(range(num))
    index = check(path, numbers, times_s)
    assert index.info.notes == ("interlaced",)
    assert index.info.fps == pytest.approx(HZ)


def two_a_packet(folder: Path, **options) -> str:
    """A transport stream with two frames in one packet: only the first has a time."""
    path = folder / "v.ts"
    with av.open(lay(folder / "apart.ts", encoded("h264"), **options)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        packets = [p for p in source.demux(video=0) if p.size]
        for first, second in zip(packets[::2], packets[1::2], strict=True):
            both = av.Packet(bytes(first) + bytes(second))
            both.pts, both.dts, both.time_base, both.stream = first.pts, first.dts, first.time_base, stream
            both.is_keyframe = first.is_keyframe
            target.mux(both)
    return str(path)


def test_a_constant_rate_gives_times_to_frames_without(tmp_path):
    path = two_a_packet(tmp_path)
    start_s = plain(path)[1][0]
    index = check(path, list(range(NUM)), np.arange(NUM) / HZ + start_s)
    assert index.info.notes == ()
    assert not len(index.untimed_s)


@pytest.mark.parametrize("codec", ["h264", "h264-b", "h264-open"])
def test_several_frames_in_a_packet_of_a_program_stream(tmp_path, codec):
    path = lay(tmp_path / "v.mpg", encoded(codec))
    with av.open(path) as container:
        assert any(p.pts is None for p in container.demux(video=0) if p.size)
    numbers, times_s = plain(path)
    index = check(path, numbers, np.arange(len(numbers)) / HZ + times_s[0])
    assert numbers == list(range(NUM))
    assert index.info.notes == ()


def test_a_gap_leaves_frames_without_a_time(tmp_path):
    """Two seconds are missing after 17 frames: a frame without a time may be before or after them."""
    path = two_a_packet(tmp_path, shift=lambda n: (n >= 17) * 2 * HZ * STEP)
    index = read_packet_index(path)
    assert index.info.notes == ("untimed_left_out",)
    assert len(index.untimed_s) == len(index.times_s) == NUM // 2
    clip = Clip("d:v:0-1", "d", "v", path, 0.0, None)
    source = VideoSource(str(tmp_path / "cache"))
    with contextlib.closing(Decoder(HZ, 96, DecodeLimits(timeout_s=20), source)) as decoder:
        (error,) = decoder.stream([clip])
    assert isinstance(error, ClipError)
    assert error.reason == "damaged"
    assert f"{NUM // 2} of the clip's {NUM} frames have no time" in str(error)
    assert "ffmpeg" in str(error)


@pytest.mark.parametrize("fault", ["none", "another's time", "jitter", "a lost frame"])
def test_times_are_computed_only_if_every_known_time_confirms_the_grid(fault):
    """30000 frames of 23.976 Hz in ticks of 90 kHz, two of three without a time."""
    order, true = np.arange(30000), np.rint(5000 + np.arange(30000) * 3753.75).astype(np.int64)
    known, stamp = order % 3 == 0, true.copy()
    if fault == "another's time":
        stamp[300] = stamp[303]
    elif fault == "jitter":
        stamp[300] += 400
    elif fault == "a lost frame":
        stamp[20000:] += 3754
    found = times_on_grid(order, stamp, known)
    if fault in ("none", "another's time"):
        assert np.abs(found - true).max() <= 1
    else:
        assert found is None


@pytest.mark.parametrize("codec", ["h264", "mpeg4", "mjpeg"])
def test_avi_with_dropped_frames(tmp_path, codec):
    """The muxer writes an empty chunk for each missing frame; here the last of a group, to which no other refers."""
    path = lay(tmp_path / "v.avi", encoded(codec), keep=lambda n: n < 2 * GOP - 4 or n >= 2 * GOP)
    numbers = [n for n in range(NUM) if n < 2 * GOP - 4 or n >= 2 * GOP]
    assert plain(path)[0] == numbers
    assert check(path, numbers, np.array(numbers) / HZ).cut_at_s is None


@pytest.mark.parametrize("codec", ["h264", "mpeg4-b"])
def test_an_avi_that_is_cut_short_is_detected(tmp_path, codec):
    path = Path(lay(tmp_path / "v.avi", encoded(codec)))
    data = path.read_bytes()
    first, last = data.find(b"movi"), data.find(b"idx1")
    path.write_bytes(data[: first + (last - first) * 2 // 3])
    index = read_packet_index(str(path))
    assert index.cut_at_s == pytest.approx(index.info.num_frames / HZ, abs=0.05)
    assert index.info.end_s == pytest.approx(NUM / HZ)  # as its header announces
    found = [n for chunk in AvReader(str(path), index).read(np.arange(GOP + 5), SIZE) for n in numbers_of(chunk)]
    assert found == list(range(GOP + 5))


EDITS = {
    "late": ([(0.48, 0.8)], range(12, 32), None),
    "late-at-a-key-frame": ([(0.8, 0.8)], range(20, 40), None),
    "two": ([(0.0, 0.4), (1.2, 0.4)], [*range(10), *range(30, 40)], None),
    "shown-twice": ([(0.0, 0.4), (0.0, 0.4)], [*range(10), *range(10)], None),
    "end-hidden": ([(0.0, 0.64)], range(16), None),
    "begins-with-nothing": ([(-1, 1.0), (0.0, 1.6)], range(NUM), 1.0),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("codec", ["h264", "h264-b", "hevc"])
def test_edit_lists(tmp_path, name, codec):
    edits, numbers, start_s = EDITS[name]
    path = with_edits(lay(tmp_path / "v.mp4", encoded(codec)), edits)
    found, times_s = plain(path)
    assert found == list(numbers)
    assert times_s == pytest.approx((start_s or 0) + np.arange(len(found)) / HZ, abs=0.002)
    assert check(path, found, times_s).cut_at_s is None


# What the display matrix (a, b, c, d) does to an image: shown x = a x + c y, shown y = b x + d y.
ORIENTATIONS: dict[tuple[int, int, int, int], tuple[int, bool]] = {
    (1, 0, 0, 1): (0, False), (0, 1, -1, 0): (90, False), (-1, 0, 0, -1): (180, False), (0, -1, 1, 0): (270, False),
    (-1, 0, 0, 1): (0, True), (0, -1, -1, 0): (90, True), (1, 0, 0, -1): (180, True), (0, 1, 1, 0): (270, True),
}  # fmt: skip


def stored_under(matrix: tuple[int, int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of the matrix, on images, pixel by pixel."""
    a, b, c, d = matrix

    def stored(seen: np.ndarray) -> np.ndarray:
        height, width = seen.shape[:2] if a else seen.shape[1::-1]
        y, x = np.mgrid[:height, :width]
        seen_x, seen_y = a * x + c * y, b * x + d * y
        return seen[seen_y % seen.shape[0], seen_x % seen.shape[1]]  # -1 is the last one, -2 the one before ...

    def shifted(seen: np.ndarray) -> np.ndarray:  # ... so a mirrored axis begins at -1, not at 0
        return np.roll(stored(seen), (-1 if min(c, d) < 0 else 0, -1 if min(a, b) < 0 else 0), (0, 1))

    return shifted


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_every_turn_and_mirror_of_the_display_matrix(tmp_path, matrix):
    source = encoded("h264-b", num=12, stored=stored_under(matrix))
    path = lay(tmp_path / "v.mp4", source, matrix=matrix)
    index = check(path, list(range(12)), np.arange(12) / HZ)
    info = index.info
    assert (info.width, info.height) == SIZE
    assert (info.rotation, info.mirrored) == ORIENTATIONS[matrix]
    assert info.notes == (("mirrored",) if info.mirrored else ())
    assert suits_decord(index) == (matrix == (1, 0, 0, 1))


def test_a_turn_of_pixels_that_are_not_square(tmp_path):
    """Columns are added before the image is turned; Matroska stores the rotation in another way."""
    quarter = (0, 1, -1, 0)
    stored = stored_under(quarter)
    for kind in ("mp4", "mkv"):
        source = encoded(
            "h264",
            (96, 128),
            num=12,
            stored=lambda p: stored(p)[:, (np.arange(96) * 4 + 2) // 3],
            pixel_aspect=Fraction(4, 3),
        )
        index = read_packet_index(lay(tmp_path / f"v.{kind}", source, matrix=quarter))
        assert (index.info.width, index.info.height, index.info.rotation) == (96, 128, 90)
        reader = AvReader(str(tmp_path / f"v.{kind}"), index)
        assert [n for chunk in reader.read(np.arange(12), (96, 128)) for n in numbers_of(chunk)] == list(range(12))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "mpg", "avi"])
@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(8, 9)])
def test_pixels_that_are_not_square(tmp_path, kind, aspect):
    """Stored with fewer or more columns than shown; players, and handloom, scale it to square pixels."""
    columns = {Fraction(4, 3): 96, Fraction(8, 9): 144}[aspect]
    nearest = (np.arange(columns) + 0.5) * SIZE[0] / columns
    codec = {"mpg": "mpeg2-b", "avi": "mpeg4"}.get(kind, "h264-b")
    if kind == "mpg" and aspect == Fraction(8, 9):
        pytest.skip("MPEG-2 says the shape of the image, in four steps")
    source = encoded(codec, num=12, stored=Columns(tuple(nearest.astype(int))), pixel_aspect=aspect)
    path = lay(tmp_path / f"v.{kind}", source)
    index = read_packet_index(path)
    assert index.info.pixel_aspect == pytest.approx(float(aspect))
    assert (index.info.width, index.info.height) == SIZE
    for reader in readers(path, index):
        assert [n for chunk in reader.read(np.arange(12), SIZE) for n in numbers_of(chunk)] == list(range(12))


def test_pixels_stay_square_where_a_width_was_rounded(tmp_path):
    """ffmpeg's scaler writes 640:639 with a width of 426; frames are not scaled."""
    path = lay(tmp_path / "v.mp4", encoded("h264", num=12, pixel_aspect=Fraction(640, 639)))
    with av.open(path) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(640, 639)
    info = read_packet_index(path).info
    assert (info.width, info.height, info.pixel_aspect) == (*SIZE, 1.0)


class Columns:
    """Picks columns of an image. As a class, so that equal picks are encoded once."""

    def __init__(self, columns: tuple[int, ...]) -> None:
        self.columns = columns

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return image[:, list(self.columns)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns) and other.columns == self.columns

    def __hash__(self) -> int:
        return hash(self.columns)


def test_of_two_streams_one_is_taken_for_facts_and_images(tmp_path):
    small, large = encoded("h264", (64, 48), num=12), encoded("h264-b", first=100)
    other = encoded("h264-b", first=500)
    cases = {
        "first-of-equals.mp4": ((large, other), (True, True), 0, range(100, 100 + NUM)),
        "larger.mkv": ((small, large), (True, True), 1, range(100, 100 + NUM)),
        "default.mp4": ((large, other), (False, True), 1, range(500, 500 + NUM)),
        "one-jpeg.mov": ((encoded("mjpeg", (320, 240), num=1), large), (True, True), 1, range(100, 100 + NUM)),
        "larger.ts": ((small, large), (True, True), 1, range(100, 100 + NUM)),
    }
    for name, (sources, default, stream, numbers) in cases.items():
        path = lay(tmp_path / name, *sources, default=default)
        found, times_s = plain(path, stream)
        assert found == list(numbers), name
        index = check(path, found, times_s)
        assert (index.info.width, index.info.height, index.info.stream) == (*SIZE, stream), name
        assert index.info.notes == ("several_streams",), name
        assert not suits_decord(index), name


STARTS = [
    (kind, codec) for codec in ("h264", "h264-b", "h264-open", "hevc", "hevc-open", "mpeg2-b") for kind in ("ts", "mkv")
]


@pytest.mark.parametrize(("kind", "codec"), [*STARTS, ("ts", "h264-refresh"), ("mpg", "mpeg2-b"), ("flv", "h264-b")])
def test_a_start_in_the_middle_of_a_group_of_images(tmp_path, kind, codec):
    """The video begins with the first frame that comes out whole."""
    path = lay(tmp_path / f"v.{kind}", encoded(codec), keep=lambda n: n >= 4)
    found, times_s = plain(path)
    assert found == list(range(found[0], NUM))
    index = check(path, found, times_s)
    assert index.info.start_s == index.times_s[0]
    assert "start_left_out" in index.info.notes


@pytest.mark.parametrize("codec", ["h264-open", "hevc-open", "mpeg2-b"])
@pytest.mark.parametrize("kind", ["ts", "mkv", "mp4"])
def test_leading_frames_of_a_cut_at_an_open_group(tmp_path, kind, codec):
    """Cut at a key frame: the frames stored after it but shown before it refer to frames that were cut off."""
    source = encoded(codec)
    with av.open(lay(tmp_path / "whole.ts", source)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    second = [n for n, packet in enumerate(packets) if packet.is_keyframe][1]
    path = lay(tmp_path / f"v.{kind}", source, keep=lambda n: n >= second)
    found, times_s = plain(path)
    assert found == list(range(found[0], NUM))
    index = check(path, found, times_s)
    assert len(found) < NUM - second
    # In MP4 the muxer's edit list hides them.
    assert index.info.notes == (() if kind == "mp4" else ("start_left_out",))


@pytest.mark.parametrize(("kind", "codec"), [("ts", "h264-b"), ("m2ts", "h264"), ("mpg", "mpeg2-b"), ("ts", "hevc")])
def test_the_clock_wraps(tmp_path, kind, codec):
    """Its 33 bits begin again after 20 frames: times go on."""
    path = lay(tmp_path / f"v.{kind}", encoded(codec), shift=lambda n: WRAP - 20 * STEP)
    numbers, times_s = plain(path)
    assert numbers == list(range(NUM))
    assert np.diff(times_s) == pytest.approx(1 / HZ, abs=1e-4)
    check(path, numbers, times_s)


@pytest.mark.parametrize("codec", ["h264", "h264-b", "hevc", "mpeg2-b"])
def test_joined_files_whose_clock_starts_again(tmp_path, codec):
    """Three parts with the same times, one after the other: the times of later parts continue."""
    parts = [lay(tmp_path / f"{first}.ts", encoded(codec, first=first)) for first in (0, 100, 200)]
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    numbers, times_s = plain(str(path))
    assert numbers == [first + n for first in (0, 100, 200) for n in range(NUM)]
    index = check(str(path), numbers, times_s[0] + np.arange(3 * NUM) / HZ)
    assert index.info.notes == ("clock_restarts",)
    assert index.info.end_s == pytest.approx(times_s[0] + 3 * NUM / HZ, abs=0.001)


@pytest.mark.parametrize("damaged", [9 * CLOCK_HZ, -9 * CLOCK_HZ])
def test_one_damaged_time_is_no_other_clock(damaged):
    times = [n * STEP + (damaged if n == 20 else 0) for n in range(NUM)]
    scan = Scan(array("q", times), array("q", times), key=bytearray([1] * NUM), shown=bytearray([1] * NUM))
    stamps = stamp_frames(scan, "mpegts", "h264", Fraction(1, CLOCK_HZ))
    assert stamps.stamp.tolist() == times
    assert stamps.notes == ()


def test_two_frames_of_a_program_stream_do_not_share_a_time():
    """Times as libav gave them for a file of ffmpeg's `-f vob`: I 258000 is shown at 264000, after two B-frames."""
    pts = [255000, 249000, 252000, 258000, 258000, 261000, 273000, 267000, 270000, 276000]
    dts = [246000, 249000, 252000, 255000, 258000, 261000, 264000, 267000, 270000, 276000]
    key = bytearray([1, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    scan = Scan(array("q", pts), array("q", dts), key=key, shown=bytearray([1] * len(pts)))
    stamps = stamp_frames(scan, "mpeg", "mpeg2video", Fraction(1, CLOCK_HZ))
    assert stamps.stamp.tolist() == [*pts[:3], 264000, *pts[4:]]
    assert stamps.usable.all()


@pytest.mark.parametrize("cut", [0.55, 0.7, 0.8])
def test_a_stream_cut_anywhere_has_its_whole_frames(tmp_path, cut):
    """A transport stream that begins and ends at any packet."""
    whole = Path(lay(tmp_path / "whole.ts", encoded("h264-b"))).read_bytes()
    first, last = 188 * int(len(whole) * 0.1 / 188), 188 * int(len(whole) * cut / 188)
    path = tmp_path / "v.ts"
    path.write_bytes(whole[:376] + whole[first:last])  # with its tables, which are sent every tenth of a second
    numbers, times_s = plain(str(path))
    index = read_packet_index(str(path))
    reader = AvReader(str(path), index)
    num = len(numbers) - 1  # the last may be half an image
    assert index.times_s[:num] == pytest.approx(times_s[:num], abs=1e-3)
    assert [n for chunk in reader.read(np.arange(num), SIZE) for n in numbers_of(chunk)] == numbers[:num]


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("ts", "h264-b"),
        ("ts", "hevc"),
        ("mkv", "h264-b"),
        ("mkv", "hevc"),
        ("mkv", "vp9"),
        ("mkv", "vp8"),
    ],
)
def test_a_size_that_changes(tmp_path, kind, codec):
    """Clips of one size are read at that size; one across the change is refused, with the time of the change."""
    upright, lying = encoded(codec, (96, 128), num=20), encoded(codec, num=20)
    path = joined(tmp_path / f"v.{kind}", codec, lying, upright)
    index = read_packet_index(path)
    assert not suits_decord(index)
    assert "size_changes" in index.info.notes
    reader = AvReader(path, index)
    assert reader.shown_size(3) == (128, 96)
    assert reader.shown_size(25) == (96, 128)
    second = np.concatenate(list(reader.read(np.arange(21, 30), (96, 128))))
    assert [number_of(image) for image in second] == list(range(1, 10))
    with pytest.raises(ImageSizeError) as caught:
        list(reader.read(np.arange(12, 30, 3), SIZE))
    assert (caught.value.before, caught.value.after) == ((128, 96), (96, 128))
    assert caught.value.at_s == pytest.approx(index.times_s[20])


def test_an_mp4_with_two_headers(tmp_path):
    """MP4 stores headers apart from the frames; libav returns the second with the first frame that needs it."""
    upright, lying = encoded("h264-bare", (96, 128), num=20), encoded("h264-bare", num=20)
    path = joined(tmp_path / "v.mp4", "h264-bare", lying, upright)
    index = read_packet_index(with_second_header(path, lay(tmp_path / "other.mp4", upright), 20))
    assert index.info.notes == ("size_changes",)
    assert not suits_decord(index)
    with pytest.raises(ImageSizeError) as caught:
        list(AvReader(path, index).read(np.arange(NUM), SIZE))
    assert caught.value.at_s == pytest.approx(20 / HZ)


def joined(path: Path, codec: str, *sources: Encoded) -> str:
    """The sources one after the other in one stream, with the header of the first."""
    if path.suffix == ".ts":
        parts = [Path(lay(path.with_name(f"{n}.ts"), source)).read_bytes() for n, source in enumerate(sources)]
        path.write_bytes(b"".join(parts))
        return str(path)
    # In transport streams, and in VP8 and VP9, each key frame carries its own header.
    inner = "mp4" if codec == "h264-bare" else "webm" if codec.startswith("vp") else "ts"
    with av.open(str(path), "w", format="mp4" if path.suffix == ".mp4" else "matroska") as target:
        stream, at = None, 0
        for number, source in enumerate(sources):
            with av.open(lay(path.with_name(f"{number}.{inner}"), source)) as container:
                template = container.streams.video[0]
                stream = stream or target.add_stream_from_template(template, opaque=True)
                packets = (p for p in container.demux(template) if p.size)
                for (pts, dts), packet in zip(source.times, packets, strict=True):
                    packet.time_base, packet.duration = Fraction(1, HZ), 1
                    packet.pts, packet.dts, packet.stream = at + pts, at + dts, stream
                    target.mux(packet)
            at += len(source.times)
    return str(path)


def test_headers_that_set_the_size():
    """None for data that is too short or of another codec. VP8 marks frames that are only referred to."""
    assert size_header("h264", b"\0\0\0\1\x67abc\0\0\0\1\x68d") == size_header("h264", b"\0\0\0\4\x67abc") == b"\x67abc"
    assert size_header("hevc", b"\0\0\1\x40\1a\0\0\1\x42\1b") == b"\x42\1b"
    assert size_header("mpeg4", b"\0\0\1\x20layer\0\0\1\xb6image") == b"\x20layer"
    for codec in ("h264", "hevc", "vp8", "vp9", "mpeg4", "mjpeg"):
        assert size_header(codec, b"") is None
        assert size_header(codec, b"\0\0\0\xff") is None
    assert is_shown("vp8", memoryview(b"\x10"))
    assert not is_shown("vp8", memoryview(b"\x01"))


def test_hdr_is_named(tmp_path):
    for number, note in ((16, "hdr_pq"), (18, "hdr_hlg")):
        path = lay(tmp_path / f"{note}.mp4", encoded("h264", num=12, color_trc=number))
        assert read_packet_index(path).info.notes == (note,)


def test_files_that_name_other_files_are_refused(tmp_path):
    """A playlist or list of files with a video's name opens no other file, here or elsewhere."""
    lay(tmp_path / "secret.ts", encoded("h264"))
    lists = {
        "a.mp4": "ffconcat version 1.0\nfile secret.ts\n",
        "b.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "c.mp4": "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period/></MPD>",
        "d.mp4": "YUV4MPEG2 W16 H16 F25:1 C420\nFRAME\n" + " " * 384,
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(NotAVideoError, match="libav cannot open it") as caught:
            read_packet_index(str(tmp_path / name))
        assert caught.value.reason == "video_unreadable"
    assert re.search("MP4 and QuickTime.*AVI", caught.value.problem)

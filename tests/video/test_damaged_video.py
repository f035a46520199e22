"""Damaged and foreign files give the right frames or a ClipError with a reason; decoding of other clips goes on."""

from __future__ import annotations

import wave

import av
import numpy as np
import pytest
from support.numbered_video import numbers_of, write_numbered

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.reject import REASONS
from handloom.video.decode.decoder import DecodedClip, DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource
from handloom.video.write import Encoding

HZ, NUM = 30, 90
GOP = Encoding(gop=15, options=(("sc_threshold", "0"),))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """One for all tests: after any file the next clip must decode."""
    decoder = Decoder(HZ, 360, DecodeLimits(timeout_s=20), VideoSource(str(tmp_path_factory.mktemp("cache"))))
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def moov_last(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "v.mp4"
    write_numbered(path, np.arange(NUM) / HZ, GOP)
    return path.read_bytes()


@pytest.fixture(scope="module")
def moov_first(tmp_path_factory, moov_last) -> bytes:
    folder = tmp_path_factory.mktemp("faststart")
    (folder / "in.mp4").write_bytes(moov_last)
    options = {"movflags": "faststart", "movie_timescale": "90000"}
    with av.open(folder / "in.mp4") as source, av.open(folder / "out.mp4", "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = (folder / "out.mp4").read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")
    return data


def clip(path, start_s: float = 0.0, end_s: float | None = None) -> Clip:
    return Clip(f"d:{path}:0-1", "d", "v", str(path), start_s, end_s)


def outcome(decoder: Decoder, wanted: Clip) -> list[int] | str:
    """The numbers of the clip's frames, or the reason why it has none."""
    (item,) = (i if isinstance(i, ClipError) else (drained(i, found := []), found) for i in decoder.stream([wanted]))
    if isinstance(item, ClipError):
        assert item.problem
        assert item.hint
        return item.reason
    return [n for chunk in item[1] for n in numbers_of(chunk)] if item[0] == "frames" else item[0]


def drained(item: DecodedClip, chunks: list[np.ndarray] | None = None) -> str:
    """Read a clip to its end: `frames` or a reason; `chunks`, if given, receives the images."""
    chunks = [] if chunks is None else chunks
    try:
        for chunk in item.chunks(chunks.clear):
            chunks.append(chunk)
    except ClipError as error:
        return error.reason
    return "frames"


def test_files_that_hold_no_video(tmp_path, decoder, moov_last):
    rng = np.random.default_rng(0)
    contents = {
        "empty.mp4": (b"", "video_unreadable"),
        "random.mp4": (rng.bytes(50_000), "video_unreadable"),
        "text.mp4": (b"once upon a time\n" * 100, "video_unreadable"),
        "no-moov.mp4": (moov_last[: moov_last.find(b"moov") - 4], "video_unreadable"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert outcome(decoder, clip(tmp_path / name)) == reason
    with wave.open(str(tmp_path / "wave.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    assert outcome(decoder, clip(tmp_path / "wave.mp4")) == "video_unreadable"
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.rate = 8000
        container.mux([*stream.encode(silence), *stream.encode(None)])
    assert outcome(decoder, clip(tmp_path / "sound.mp4")) == "no_video_stream"
    (tmp_path / "whole.mp4").write_bytes(moov_last)
    assert outcome(decoder, clip(tmp_path / "whole.mp4")) == list(range(NUM))


@pytest.mark.parametrize("share", [0.4, 0.6, 0.7, 0.75, 0.97])
def test_a_file_cut_short_gives_the_clips_that_it_still_holds(tmp_path, decoder, moov_first, share):
    """A clip within the rest has its right frames; one beyond it is `damaged`."""
    path = tmp_path / "cut.mp4"
    first = moov_first.find(b"mdat")
    path.write_bytes(moov_first[: first + int((len(moov_first) - first) * share)])
    assert outcome(decoder, clip(path)) == "damaged"
    found = [outcome(decoder, clip(path, i / HZ, (i + 10) / HZ)) for i in range(0, NUM, 10)]
    whole = [list(range(i, i + 10)) for i in range(0, NUM, 10)]
    num_good = sum(item != "damaged" for item in found)
    assert found == whole[:num_good] + ["damaged"] * (len(whole) - num_good)
    assert 0 < num_good < len(whole)


def test_damage_in_the_middle_costs_the_clips_that_need_it(tmp_path, decoder, moov_first):
    """One lost packet: the clip of its group of pictures is lost, all other clips are whole."""
    path = tmp_path / "middle.mp4"
    path.write_bytes(moov_first)
    with av.open(path) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    hit = packets[52]  # late enough in its group that the group before has no images to come
    number = round(float(hit.pts * hit.time_base) * HZ)
    data = bytearray(moov_first)
    data[hit.pos : hit.pos + hit.size] = bytes(hit.size)
    path.write_bytes(data)
    for first in range(0, NUM, 15):  # the groups of pictures
        found = outcome(decoder, clip(path, first / HZ, (first + 15) / HZ))
        assert found == ("damaged" if first <= number < first + 15 else list(range(first, first + 15)))


@pytest.mark.parametrize("num_trials", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_scattered_damage_gives_frames_or_a_reason(tmp_path, decoder, moov_first, num_trials):
    """Flipped bytes anywhere, in the header too: never a hang, a crash or an unknown error."""
    rng = np.random.default_rng(5)
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(moov_first)
    reasons = set()
    for trial in range(num_trials):
        data = bytearray(moov_first)
        first = 0 if trial % 2 else moov_first.find(b"mdat")
        for at in rng.integers(first, len(data), rng.integers(1, 60)):
            data[at] ^= int(rng.integers(1, 256))
        path = tmp_path / f"{trial}.mp4"
        path.write_bytes(data)
        for item in decoder.stream([clip(path, 0.0, 3.0), clip(path)]):
            reasons.add(item.reason if isinstance(item, ClipError) else drained(item))
    assert "damaged" in reasons
    assert reasons - {"frames"} <= REASONS.keys()
    assert outcome(decoder, clip(whole)) == list(range(NUM))

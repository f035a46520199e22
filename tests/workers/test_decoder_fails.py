"""A video on which decord fails inside the clip: each reader of clips has PyAV's frames, each of them once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from support.decoded import HeldFrames, chunks_of
from support.extraction import new_database
from support.numbered_video import number_of, numbers_of, write_numbered
from support.rows import digests

from handloom.bench.images import Images
from handloom.errors import ClipError
from handloom.ingest.robot.images import encode_chosen
from handloom.pipelines.show import show
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.values import VideoInfo
from handloom.stages.extract import Extractor
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.video.container.packets import read_packet_index
from handloom.video.decode.decoder import DecodedClip, DecodeLimits, Decoder, Header
from handloom.video.fetch.video_source import VideoSource
from handloom.video.write import Encoding
from handloom.workers.actors import InlineFrames

NUM, HZ = 60, 30
WANTED = list(range(0, NUM, 2))  # at the 15 Hz of the settings
DAMAGED = 51  # no other frame refers to it, and the clip does not need it


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    encoding = Encoding(gop=45, b_frames=2, options=(("sc_threshold", "0"),))
    write_numbered(path, np.arange(NUM) / HZ, encoding, 320, 240)
    with av.open(path) as container:
        (hit,) = (p for p in container.demux(video=0) if p.size and round(float(p.pts * p.time_base) * HZ) == DAMAGED)
    data = bytearray(path.read_bytes())
    data[hit.pos : hit.pos + hit.size] = bytes(hit.size)
    path.write_bytes(data)
    return Clip("d:v:0-2000", "d", "v", str(path), 0.0, 2.0)


@contextmanager
def decoded(clip: Clip, folder: Path) -> Iterator[DecodedClip]:
    """The clip, decord's first frames on their way."""
    video = Settings().video
    decoder = Decoder(video.sample_hz, video.short_side_px, DecodeLimits(), VideoSource(str(folder)))
    stream = decoder.stream([clip])
    item = next(stream)
    assert item.header.decoder == "decord"
    yield item
    assert item.header.decoder == "pyav"
    assert not list(stream)
    decoder.close()


@pytest.fixture(scope="module")
def row(clip, tmp_path_factory) -> pa.RecordBatch:
    with decoded(clip, tmp_path_factory.mktemp("cache")) as item:
        return Extractor(Settings(), "key").row(item)


def test_a_row_is_that_of_the_frames_that_came_last(clip, row, tmp_path):
    with decoded(clip, tmp_path) as item:
        held = HeldFrames(item.clip, item.header, tuple(chunks_of(item)))
        again = Extractor(Settings(), "key").row(replace(held, header=item.header))
    assert digests(row) == digests(again)
    assert row.column("decoder").to_pylist() == ["pyav"]


def test_frames_for_the_object_store(clip, tmp_path):
    came: list[int] = []
    with decoded(clip, tmp_path) as item:
        inline = InlineFrames.of(item, lambda: came.append(1))
    assert numbers_of(inline.frames.frames) == WANTED
    assert inline.frames.header.decoder == "pyav"
    assert len(came) in (2, 3)  # two chunks of PyAV's, and one of decord's if it was sent before decord had failed


def test_images_of_an_episode(clip, tmp_path):
    """A step's image is encoded again when the other decoder sends it; a step without a frame has none."""
    with decoded(clip, tmp_path) as item:
        found = encode_chosen(item, np.array([0, 3, -1, 20]), lambda image: str(number_of(image)).encode())
    assert found == [b"0", b"6", None, b"40"]


def test_show_draws_each_frame_once(clip, row, tmp_path):
    db = new_database(tmp_path / "db", [clip])
    Committer(db, "key", row.schema).commit([write_fragment(db.uri, [row], row.schema)])
    assert show(db, clip.clip_id, tmp_path / "out.mp4") == "video"
    with av.open(tmp_path / "out.mp4") as container:
        assert len(list(container.decode(video=0))) == len(WANTED)


def test_benchmarks_have_the_same_frames(clip):
    images = Images(clip.video_uri, read_packet_index(clip.video_uri), np.array(WANTED), (320, 240))
    assert images.decoder == "decord"
    assert [n for chunk in chunks_of(images) for n in numbers_of(chunk)] == WANTED
    assert images.decoder == "pyav"


def test_other_times_from_the_second_decoder_are_refused(clip):
    """The file was written to meanwhile: neither the frames before nor those that would come are the clip's."""
    info = VideoInfo(320, 240, 30.0, "h264", "yuv420p", 0, 0.0, 2.0, NUM)
    first, second = (Header(info, name, np.arange(n) / 15, (320, 240)) for name, n in (("decord", 30), ("pyav", 29)))
    item = DecodedClip(clip, first, iter([("chunk", np.zeros((16, 240, 320, 3), np.uint8)), ("header", second)]))
    with pytest.raises(ClipError) as caught:
        chunks_of(item)
    assert caught.value.reason == "video_changed"

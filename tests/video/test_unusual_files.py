"""Small files with misleading names, rare pixel formats or hardly any content: the right frames, or the reason."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from support.numbered_video import numbered_image, numbers_of, write_numbered

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource
from handloom.video.write import Encoding, write_video

HZ, NUM = 30, 6
FRAME_S = np.arange(NUM) / HZ


def write_as(path: Path, container: str, codec: str, pix_fmt: str, width: int = 128, height: int = 96) -> None:
    """Numbered images in this container, whatever the name says."""
    with av.open(str(path), "w", format=container) as target:
        stream = target.add_stream(codec, rate=HZ, options={"crf": "4"} if codec.startswith("libvpx") else {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for number in range(NUM):
            frame = av.VideoFrame.from_ndarray(numbered_image(number, width, height), format="rgb24")
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def test_every_unusual_file_gives_its_frames_or_the_reason(tmp_path):
    write_as(tmp_path / "webm_named.mp4", "webm", "libvpx-vp9", "yuv420p")
    write_as(tmp_path / "mp4_named.avi", "mp4", "libx264", "yuv420p")
    write_as(tmp_path / "hevc_10_bits.mp4", "mp4", "libx265", "yuv420p10le")
    write_as(tmp_path / "odd_size.mkv", "matroska", "libx264", "yuv444p", 127, 95)
    write_numbered(tmp_path / "one_frame.mp4", FRAME_S[:1])
    write_video(tmp_path / "black.mp4", np.zeros((NUM, 96, 128, 3), np.uint8), FRAME_S)
    write_video(tmp_path / "2x2.mp4", np.zeros((NUM, 2, 2, 3), np.uint8), FRAME_S)
    write_as(tmp_path / "grey.mp4", "mp4", "libx264", "gray")
    write_numbered(tmp_path / "turned.mp4", FRAME_S, Encoding(rotation=90))
    expected = {path.name: list(range(NUM)) for path in tmp_path.iterdir()}
    expected |= {"one_frame.mp4": [0], "black.mp4": [0] * NUM, "2x2.mp4": "too_small", "grey.mp4": [0] * NUM}
    decoder = Decoder(HZ, 96, DecodeLimits(timeout_s=30), VideoSource())
    clips = [Clip(f"d:{name}:0-end", "d", name, str(tmp_path / name), 0.0, None) for name in sorted(expected)]
    found = {}
    for item in decoder.stream(clips):
        if isinstance(item, ClipError):
            found[item.clip_id.split(":")[1]] = item.reason
            continue
        frames = np.concatenate([chunk.copy() for chunk in item.chunks(lambda: None)])
        has_no_colour = item.clip.video_id in ("black.mp4", "grey.mp4")
        found[item.clip.video_id] = [0] * len(frames) if has_no_colour else numbers_of(frames)
        if has_no_colour:
            assert np.ptp(frames.astype(int), axis=-1).max() <= 2
    decoder.close()
    assert found == expected

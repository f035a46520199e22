"""A decoding process does not run ahead of slow models."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from handloom.schemas.clip import Clip
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource
from handloom.video.write import Encoding, write_video


def test_a_long_video_fed_to_slow_models_stays_small(tmp_path):
    """decord's own thread would decode the whole file: 1000 frames of 0.7 MB."""
    image = np.random.default_rng(0).integers(0, 255, (45, 80, 3), np.uint8)
    image = np.kron(image, np.ones((8, 8, 1), np.uint8))
    path = tmp_path / "long.mp4"
    frames = (np.roll(image, 5 * i, axis=1) for i in range(1200))
    write_video(path, frames, np.arange(1200) / 10, Encoding(gop=250, preset="ultrafast"))
    clips = [Clip(f"t:long:{s}", "t", "long", str(path), float(s), s + 8.0) for s in (24, 72)]
    decoder = Decoder(5, 360, DecodeLimits(), VideoSource(str(tmp_path / "cache")))
    peak_mib = 0.0
    try:
        for item in decoder.stream(clips):
            for _ in item.chunks(lambda: None):
                time.sleep(0.5)
                pid = decoder._process.pid
                peak_mib = max(peak_mib, int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20)
    finally:
        decoder.close()
    assert peak_mib < 300, peak_mib

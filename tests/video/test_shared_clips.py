"""Real clips, where this checkout has them: the decoders agree, and each damaged file ends as it must."""

from __future__ import annotations

import os
from pathlib import Path

import decord
import numpy as np
import pytest

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.video.container.packets import read_packet_index
from handloom.video.decode.decoder import DecodeLimits, Decoder, DecoderSwitched
from handloom.video.decode.readers import AvReader, DecodeFailedError, DecordReader, suits_decord
from handloom.video.fetch.source import VideoSource
from handloom.video.grid import working_size

CLIPS = Path(os.environ.get("HANDLOOM_SHARED") or Path(__file__).parents[3] / "shared") / "clips"
VIDEOS = sorted((CLIPS / "videos").glob("*")) if CLIPS.is_dir() else []
pytestmark = pytest.mark.skipif(not VIDEOS, reason="the shared clips are not here")

SHORT_SIDE_PX = 180
# The reason, or number of frames at 15 Hz and decoder. Long ones up to 1 s only; None: see the test.
ENDS_S = {"10_webm_named.mp4": 1.0, "11_mp4_named.avi": 1.0, "12_rotation_90.mp4": 1.0, "14_vfr.mp4": 1.0}
BAD = {
    "01_truncated_tail_moov_first.mp4": "damaged",
    "02_truncated_moov_missing.mp4": "video_unreadable",
    "03_zero_bytes.mp4": "video_unreadable",
    "04_random_bytes.mp4": "video_unreadable",
    "05_text_file.mp4": "video_unreadable",
    "06_audio_only.mp4": "no_video_stream",
    "07_one_frame.mp4": (1, "decord"),
    "08_2x2_pixels.mp4": "too_small",
    "09_corrupt_middle.mp4": "damaged",
    "10_webm_named.mp4": (15, "decord"),
    "11_mp4_named.avi": (15, "decord"),
    "12_rotation_90.mp4": (15, "pyav"),
    "13_edit_list_start.mp4": (48, "pyav"),
    "14_vfr.mp4": (None, "decord"),
    "15_h265_10bit.mp4": (45, "pyav"),
    "16_odd_size_yuv444.mp4": (15, "pyav"),
    "17_all_black.mp4": (30, "decord"),
    "18_gray_pixfmt.mp4": (30, "decord"),
    "19_decord_repo_corrupted.mp4": "damaged",
    "20_start_offset_5s.mp4": (47, "decord"),
}


def sub_ranges(num: int, seed: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    starts, steps, lengths = rng.integers(0, num, count), rng.integers(1, 4, count), rng.integers(1, 20, count)
    return [np.arange(a, min(num, a + n * s), s) for a, s, n in zip(starts, steps, lengths, strict=True)]


def compare(path: Path, count: int) -> float:
    """Largest mean absolute difference of a frame, grey levels of 255, between the two decoders."""
    index = read_packet_index(str(path))
    if not suits_decord(index):
        pytest.skip("not read by decord")
    size = working_size(index.info.width, index.info.height, SHORT_SIDE_PX)
    decord.logging.set_level(decord.logging.QUIET)
    try:
        first = DecordReader(str(path), index, size)
    except DecodeFailedError as error:
        pytest.skip(f"not read by decord: {error.problem}")
    second, worst = AvReader(str(path), index), 0.0
    for wanted in sub_ranges(len(index.times_s), path.stat().st_size, count):
        pairs = zip(first.read(wanted, size), second.read(wanted, size), strict=True)
        worst = max(worst, *(float(np.abs(a.astype(int) - b).mean((1, 2, 3)).max()) for a, b in pairs))
    return worst


QUICK = {"egodex_add_remove_lid_0.mp4", "ego4d_tokyo_table.mp4", "decord_pancake.mkv", "vitra_ego4d_03cc49c3.mp4"}


@pytest.mark.parametrize("path", [p for p in VIDEOS if p.name in QUICK], ids=lambda p: p.name)
def test_decoders_agree_on_real_clips(path):
    assert compare(path, 4) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("path", VIDEOS, ids=lambda p: p.name)
def test_decoders_agree_on_every_real_clip(path):
    assert compare(path, 8) < 1.0


def test_every_damaged_file_ends_as_it_must(tmp_path):
    decoder = Decoder(15.0, 64, DecodeLimits(timeout_s=30), VideoSource(str(tmp_path)))
    clips = [Clip(f"bad:{name}:0-end", "bad", name, str(CLIPS / "bad" / name), 0.0, ENDS_S.get(name)) for name in BAD]
    found: dict[str, object] = {}
    for item in decoder.stream(clips):
        if isinstance(item, ClipError):
            found[item.clip_id.split(":")[1]] = item.reason
            continue
        name, num = item.clip.video_id, 0
        while not item.finished:
            try:
                num = sum(len(chunk) for chunk in item.chunks())
                found[name] = (num, item.header.decoder)
                assert num == len(item.header.frame_s)
            except DecoderSwitched:
                continue
            except ClipError as error:
                found[name] = error.reason
    decoder.close()
    num_vfr, which = found["14_vfr.mp4"]
    assert 5 < num_vfr <= 15
    assert found | {"14_vfr.mp4": (None, which)} == BAD

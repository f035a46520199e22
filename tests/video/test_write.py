"""PyAV reads back what write_video wrote: times, rotation, start, B-frames, format."""

from __future__ import annotations

import av
import numpy as np
import pytest

from handloom.errors import ConfigError, ShapeError
from handloom.video.write import Encoding, write_video


def images(num: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Grey images that brighten from frame to frame, with a white top-left corner."""
    out = []
    for i in range(num):
        image = np.full((height, width, 3), 20 + 6 * i, np.uint8)
        image[: height // 4, : width // 4] = 255
        out.append(image)
    return out


def read_back(path) -> tuple[list[float], list[av.VideoFrame]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], frames


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("start_s", [0.0, 5.0])
def test_any_frame_times_are_kept(tmp_path, b_frames, start_s):
    steps = np.random.default_rng(0).uniform(0.005, 0.2, 24)
    frame_s = start_s + np.cumsum(steps) - steps[0]
    write_video(tmp_path / "v.mp4", images(24), frame_s, Encoding(b_frames=b_frames, gop=12))
    times, frames = read_back(tmp_path / "v.mp4")
    assert times == pytest.approx(frame_s, abs=1 / 90_000)
    levels = [frame.to_ndarray(format="rgb24")[30, 40].mean() for frame in frames]
    assert levels == pytest.approx([20 + 6 * i for i in range(24)], abs=3)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotation_tag_turns_the_stored_image_back(tmp_path, rotation):
    shown = images(4)[3]
    write_video(tmp_path / "v.mp4", [shown] * 4, np.arange(4) / 30, Encoding(rotation=rotation))
    _, frames = read_back(tmp_path / "v.mp4")
    stored = frames[0].to_ndarray(format="rgb24")
    assert stored.shape[:2] == ((64, 48) if rotation != 180 else (48, 64))
    assert frames[0].rotation % 360 == -rotation % 360  # PyAV counts counter-clockwise
    seen = np.rot90(stored, -rotation // 90)
    assert np.abs(seen.astype(int) - shown).mean() < 3


def test_gop_and_pixel_format(tmp_path):
    options = Encoding(pix_fmt="yuv420p10le", gop=5, b_frames=0, options=(("sc_threshold", "0"),))
    write_video(tmp_path / "v.mp4", images(15), np.arange(15) / 25, options)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].format.name == "yuv420p10le"
        assert [frame.key_frame for frame in container.decode(video=0)] == [i % 5 == 0 for i in range(15)]


def test_b_frames_are_there(tmp_path):
    write_video(tmp_path / "v.mp4", images(15), np.arange(15) / 25, Encoding(b_frames=3))
    _, frames = read_back(tmp_path / "v.mp4")
    assert av.video.frame.PictureType.B in {frame.pict_type for frame in frames}


def test_the_same_frames_give_the_same_bytes(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, iter(images(10)), np.arange(10) / 30)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_wrong_input_is_refused(tmp_path):
    path = tmp_path / "v.mp4"
    with pytest.raises(ShapeError, match="3 frames for 4"):
        write_video(path, images(3), np.arange(4) / 30)
    with pytest.raises(ShapeError, match="frame 4"):
        write_video(path, images(5), np.arange(4) / 30)
    with pytest.raises(ConfigError, match="must rise"):
        write_video(path, images(2), [0.1, 0.1])
    with pytest.raises(ConfigError, match="quarter turn"):
        Encoding(rotation=45)
    with pytest.raises(ConfigError, match="63x47"):
        write_video(path, images(2, 47, 63), [0.0, 0.1])

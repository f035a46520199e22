"""Depth maps in files: both layouts, matched by time, and every error."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handloom.errors import ClipError, ConfigError
from handloom.models.depth.given import GivenDepth
from handloom.schemas.clip import Clip
from handloom.schemas.settings import DepthConfig
from handloom.schemas.values import Camera, DepthMaps, VideoInfo
from handloom.video.decode.frame_store import FrameStore

CLIP = Clip("test:kitchen/v:2000-3000", "test", "kitchen/v", "v.mp4", 2.0, 3.0)
INFO = VideoInfo(640, 480, 30.0, "h264", "yuv420p", 0, 0.0, 9.0, 270)
CAMERA = Camera(np.eye(3), "given")
FRAME_S = 2.0 + np.arange(5) / 15
MAPS = np.random.default_rng(0).uniform(0.3, 2.0, (5, 48, 64)).astype(np.float32)


def read(folder, frame_s=FRAME_S) -> DepthMaps | None:
    return GivenDepth(DepthConfig(provider="given", folder=str(folder))).maps(CLIP, INFO, FrameStore(frame_s), CAMERA)


def save(folder, **content):
    path = folder / "kitchen" / "v.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **content)


def test_an_archive_is_matched_by_time_in_any_order(tmp_path):
    order = np.array([3, 0, 4, 1])  # no map for frame 2
    save(tmp_path, frame_s=FRAME_S[order] + 0.01, depth_m=MAPS[order])
    maps = read(tmp_path)
    assert (maps.scale, maps.source) == ("metric", "given")
    np.testing.assert_array_equal(maps.depth_m[[0, 1, 3, 4]], MAPS[[0, 1, 3, 4]])
    assert np.isnan(maps.depth_m[2]).all()


def test_files_are_named_by_their_time(tmp_path):
    folder = tmp_path / "kitchen" / "v"
    folder.mkdir(parents=True)
    for t, s in enumerate(FRAME_S):
        name = f"{round(s * 1000):08d}"
        if t % 2:
            cv2.imwrite(str(folder / f"{name}.png"), np.round(MAPS[t] * 1000).astype(np.uint16))
        else:
            np.save(folder / f"{name}.npy", MAPS[t])
    (folder / "notes.txt").write_text("not a map")
    np.testing.assert_allclose(read(tmp_path).depth_m, MAPS, atol=6e-4)


def test_zero_and_values_that_are_not_finite_are_unknown(tmp_path):
    depth = MAPS.copy()
    depth[0, 0, :4] = [0, np.nan, np.inf, -1]
    save(tmp_path, frame_s=FRAME_S, depth_m=depth, scale="arbitrary")
    maps = read(tmp_path)
    assert np.isnan(maps.depth_m[0, 0, :4]).all()
    assert maps.scale == "arbitrary"
    assert np.isfinite(maps.depth_m).sum() == depth.size - 4


def test_a_clip_without_maps_has_none(tmp_path):
    assert read(tmp_path) is None
    save(tmp_path, frame_s=FRAME_S + 100, depth_m=MAPS)
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"frame_s": FRAME_S, "depth_m": MAPS[:, :, :40]},
            "they are 40 x 48 px, expected the whole image of the 640",
        ),
        ({"frame_s": FRAME_S[:3], "depth_m": MAPS}, r"depth_m is \(5, 48, 64\) and frame_s \(3,\)"),
        ({"frame_s": FRAME_S, "depth": MAPS}, r"lacks depth_m \(found"),
        ({"frame_s": FRAME_S, "depth_m": MAPS, "scale": "feet"}, "scale is 'feet'"),
    ],
)
def test_malformed_archives_say_what_is_wrong(tmp_path, content, message):
    save(tmp_path, **content)
    with pytest.raises(ClipError, match=message) as caught:
        read(tmp_path)
    assert caught.value.reason == "bad_depth"


def test_malformed_files_say_what_is_wrong(tmp_path):
    folder = tmp_path / "kitchen" / "v"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "00002000.png"), np.zeros((48, 64), np.uint8))
    with pytest.raises(ClipError, match=r"uint8 .* expected one channel of 16 bits"):
        read(tmp_path)
    (folder / "00002000.png").write_bytes(b"no image")
    with pytest.raises(ClipError, match="no image"):
        read(tmp_path)
    (folder / "00002000.png").unlink()
    np.save(folder / "00002000.npy", MAPS[0])
    np.save(folder / "00002067.npy", MAPS[0][::2, ::2])
    with pytest.raises(ClipError, match=r"the map at 2\.067 s is 32 x 24 px"):
        read(tmp_path)


def test_a_broken_archive_is_a_reject(tmp_path):
    save(tmp_path, frame_s=FRAME_S, depth_m=MAPS)
    path = tmp_path / "kitchen" / "v.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ClipError, match="cannot be used"):
        read(tmp_path)


def test_the_folder_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        GivenDepth(DepthConfig(provider="given", folder=str(tmp_path / "none")))

"""The CoTracker3 adapter, through the real torch.hub, on a local repository with its entry point's signature.

The stand-in model answers every query with the shift between frames, so that axes, scales, order and the direction of
time are tested; the weights of the real one cannot be had everywhere.
"""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from handloom.errors import ClipError, ConfigError
from handloom.models.tracks.cotracker import CoTracker3, model_identity
from handloom.models.tracks.lucas_kanade import query_grid
from handloom.schemas.clip import Clip
from handloom.schemas.settings import TracksConfig
from handloom.schemas.values import HandPoints, TrackKind, VideoInfo
from handloom.video.decode.frame_store import FrameStore

torch = pytest.importorskip("torch")

CLIP = Clip("test:v:0-1000", "test", "v", "v.mp4", 0.0, 1.0)
INFO = VideoInfo(320, 192, 15.0, "h264", "yuv420p", 0, 0.0, 1.0, 9)  # twice the working size
SHIFT = np.array([2.0, -1.0])
HUBCONF = """
import torch

class Shifts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(1, 2, bias=False)
        torch.nn.init.zeros_(self.model.weight)

    @torch.no_grad()
    def forward(self, video, queries=None, segm_mask=None, grid_size=0, grid_query_frame=0, backward_tracking=False):
        assert video.dtype == torch.float32 and video.shape[2] == 3 and video.max() > 2
        since = torch.arange(video.shape[1])[None, :, None] - queries[:, None, :, 0]
        tracks = queries[:, None, :, 1:] + since[..., None] * self.model.weight[:, 0]
        visible = torch.ones(tracks.shape[:3], dtype=torch.bool)
        if not backward_tracking:
            visible &= since >= 0
        return tracks, visible

def cotracker3_offline(*, pretrained=True, **kwargs):
    if pretrained:
        raise OSError("no network")
    return Shifts()
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("co-tracker")
    (folder / "hubconf.py").write_text(HUBCONF)
    torch.save({"weight": torch.tensor(SHIFT, dtype=torch.float32)[:, None]}, folder / "scaled_offline.pth")
    return folder


def config(repo, checkpoint: bool = True, **more) -> TracksConfig:
    path = str(repo / "scaled_offline.pth") if checkpoint else ""
    return TracksConfig(
        tracker="cotracker3", grid=6, extra=24, cotracker_repo=str(repo), cotracker_checkpoint=path, **more
    )


def frames(num: int = 9) -> FrameStore:
    store = FrameStore(np.arange(num) / 15)
    soft = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (96, 160, 3)), (0, 0), 1.5)
    store.append(np.repeat(soft[None].astype(np.uint8), num, axis=0))
    return store


def no_hands(num: int) -> HandPoints:
    nan = np.full((num, 2, 21, 3), np.nan, np.float32)
    return HandPoints(np.zeros((num, 2), bool), np.zeros((num, 2), bool), nan[..., 0, 0], nan[..., :2], nan)


def test_points_come_back_in_source_pixels_from_their_own_frame_both_ways_in_time(repo):
    tracks = CoTracker3(config(repo)).track(CLIP, INFO, frames(), no_hands(9))
    np.testing.assert_allclose(tracks.points_px[0, :36], query_grid(320, 192, 6), atol=1e-3)
    assert (tracks.kind[:36] == TrackKind.GRID).all()
    used = np.flatnonzero(tracks.query_frame >= 0)
    assert (tracks.query_frame[used] > 0).any()
    start = tracks.points_px[tracks.query_frame[used], used]
    since = np.arange(9)[:, None] - tracks.query_frame[used]
    expected = start + since[..., None] * 2 * SHIFT
    inside = np.all((expected > 0) & (expected < [318, 190]), axis=-1)
    np.testing.assert_allclose(tracks.points_px[:, used][inside], expected[inside], atol=1e-3)
    assert tracks.visible[:, used][inside].all()
    outside = np.any((expected < -1) | (expected > [320, 192]), axis=-1)
    assert not tracks.visible[:, used][outside].any()
    np.testing.assert_array_equal(np.isnan(tracks.points_px).any(-1), ~tracks.visible)


def test_what_cannot_be_loaded_says_what_to_do(repo, tmp_path):
    with pytest.raises(ConfigError, match="no network"):
        CoTracker3(config(repo, checkpoint=False))
    with pytest.raises(ConfigError, match="cannot be loaded from"):
        CoTracker3(TracksConfig(tracker="cotracker3", cotracker_repo=str(tmp_path)))
    torch.save({"other": torch.zeros(1)}, tmp_path / "bad.pth")
    bad = config(repo).model_copy(update={"cotracker_checkpoint": str(tmp_path / "bad.pth")})
    with pytest.raises(ConfigError, match="cannot be used"):
        CoTracker3(bad)


def test_a_clip_too_long_for_the_model_is_a_reject(repo):
    with pytest.raises(ClipError, match="9 frames, CoTracker3 takes at most 4"):
        CoTracker3(config(repo), max_frames=4).track(CLIP, INFO, frames(), no_hands(9))


def test_the_identity_is_the_digest_of_code_and_weights(repo, tmp_path):
    first = model_identity(config(repo))
    assert first.startswith("code ")
    copy = tmp_path / "copy"
    shutil.copytree(repo, copy)
    assert model_identity(config(copy)) == first
    torch.save({"weight": torch.zeros(2, 1)}, copy / "scaled_offline.pth")
    assert model_identity(config(copy)).split(",")[0] == first.split(",")[0]
    assert model_identity(config(copy)) != first
    (repo / "notes.py").write_text("")
    assert model_identity(config(repo)) != first


def test_weights_that_cannot_be_found_are_an_error(repo):
    with pytest.raises(ConfigError, match="no network"):
        model_identity(config(repo, checkpoint=False))


def test_a_device_that_is_not_there_is_an_error(repo):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match=r"tracks\.device = 'cuda', but torch sees no CUDA device"):
        CoTracker3(config(repo, device="cuda"))

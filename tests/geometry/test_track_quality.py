"""Points that are lost in a step, with and without a reason."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.geometry.tracks.quality import lost_shares, track_quality
from handloom.schemas.values import Hands, Tracks, VideoInfo

INFO = VideoInfo(640, 360, 15.0, "h264", "yuv420p", 0, 0.0, 1.0, 4)


def scene(shift: float = 0.0) -> tuple[Tracks, Hands]:
    """A grid of 20 x 10 points that moves to the right by `shift` a frame, and no hands."""
    grid = np.stack(np.meshgrid(np.linspace(20, 620, 20), np.linspace(20, 340, 10)), -1).reshape(-1, 2)
    points = (grid + np.arange(4)[:, None, None] * [shift, 0]).astype(np.float32)
    unseen = np.zeros((4, 2), bool)
    hands = np.full((4, 2, 21, 3), np.nan, np.float32)
    return Tracks.of_grid(points, np.ones((4, 200), bool)), Hands(
        unseen, unseen.copy(), hands[..., 0, 0], hands[..., :2], hands
    )


def test_the_lost_share_of_each_step():
    tracks, hands = scene()
    tracks.visible[2:, :100] = False
    lost = lost_shares(tracks, hands, INFO)
    np.testing.assert_allclose(lost, [np.nan, 0, 0.5, 0])
    assert track_quality(tracks, lost)["track_lost_step"] == 0.5
    np.testing.assert_allclose(lost_shares(tracks, hands, INFO, cuts=[2]), [np.nan, 0, np.nan, 0])


def test_points_that_leave_the_image_or_go_behind_a_hand_have_a_reason():
    tracks, hands = scene(100.0)
    tracks.visible[:] = tracks.points_px[..., 0] < 640
    np.testing.assert_allclose(lost_shares(tracks, hands, INFO), [np.nan, 0, 0, 0])
    tracks, hands = scene()
    hands.visible[1:, 0] = True
    hands.keypoints_px[1:, 0] = np.random.default_rng(0).uniform([100, 100], [300, 300], (21, 2))
    behind = np.all((tracks.points_px[0] > 100) & (tracks.points_px[0] < 300), axis=1)
    tracks.visible[1:, behind] = False
    assert behind.sum() > 20
    np.testing.assert_allclose(lost_shares(tracks, hands, INFO)[1:], 0)


@pytest.mark.parametrize("num", [0, 1])
def test_without_a_step_nothing_is_known(num):
    tracks, hands = scene()
    tracks = Tracks.of_grid(tracks.points_px[:num], tracks.visible[:num])
    lost = lost_shares(tracks, hands, INFO)
    assert np.isnan(lost).all()
    assert track_quality(tracks, lost)["track_lost_step"] is None


def test_where_little_of_the_grid_was_visible_the_share_is_unknown():
    tracks, hands = scene()
    tracks.visible[1:, 10:] = False
    tracks.visible[2:] = False
    lost = lost_shares(tracks, hands, INFO)
    assert lost[1] == 0.95
    assert np.isnan(lost[2:]).all()

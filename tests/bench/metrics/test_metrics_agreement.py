"""Agreement of two sets of tracks, on synthetic ones."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.bench.metrics.agreement import agreement, reversal

SIZE = (640, 480)


def grid(num: int = 12, inset: float = 40) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(inset, 639 - inset, num), np.linspace(inset, 479 - inset, num))
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def moved(points: np.ndarray, num: int = 9) -> np.ndarray:
    """A zoom and a shift, of points as they lie on the first of `num` frames."""
    t = np.arange(num)[:, None, None]
    return (points - [320, 240]) * (1 + 0.01 * t) + [320, 240] + [3, 1] * t


def test_the_same_tracks_agree_whatever_their_order_and_unit():
    px = moved(grid())
    depth = np.broadcast_to(np.linspace(0.5, 2, 144), (9, 144))
    order = np.random.default_rng(0).permutation(144)
    seen = np.ones((9, 144), bool)
    seen[:, :72] = False
    found = agreement(px, seen, depth, px[:, order] + 0.5, 3 * depth[:, order], SIZE)
    assert found["median_px"] == pytest.approx(0.5 * 2**0.5)
    assert (found["within_4_px"], found["points"]) == (1.0, 144)
    assert found["depth_correlation"] == pytest.approx(1.0)
    assert found["depth_error"] == pytest.approx(0.0, abs=1e-9)
    assert found["compared"] == pytest.approx(0.5, abs=0.05)


def test_depth_that_has_no_value_is_left_out():
    px = moved(grid())
    seen, theirs = np.ones((9, 144), bool), px.copy()
    theirs[1:, :, 0] += 6
    found = agreement(px, seen, np.full((9, 144), np.nan), theirs, np.ones((9, 144)), SIZE)
    assert (found["within_4_px"], found["within_8_px"]) == (0.0, 1.0)
    assert np.isnan(found["depth_correlation"])


def test_a_clip_followed_backwards_agrees_where_both_are_seen():
    forward = moved(grid())
    start = grid(15, 20)  # of the last frame: where these points were before
    zoom = 1 + 0.01 * np.arange(9)[:, None, None]
    world = (start - [3 * 8, 8] - [320, 240]) / 1.08
    back = world * zoom + [320, 240] + [3, 1] * np.arange(9)[:, None, None]
    seen, back_seen = np.ones((9, 144), bool), np.ones((9, 225), bool)
    found = reversal(forward, seen, back, back_seen, SIZE)
    assert found["median_px"] < 1e-9
    assert found["compared"] == 1.0
    assert reversal(forward + 5 * (np.arange(9) < 8)[:, None, None], seen, back, back_seen, SIZE)["within_8_px"] == 1.0
    back_seen[:8] = False
    assert np.isnan(reversal(forward, seen, back, back_seen, SIZE)["median_px"])
    assert np.isnan(reversal(forward, seen & False, back, back_seen, SIZE)["compared"])


def test_a_triangle_over_an_edge_is_not_used():
    back = np.tile(grid(15, 20), (9, 1, 1))
    back[:8, 112] += 400  # one corner went elsewhere
    found = reversal(np.tile(grid(), (9, 1, 1)), np.ones((9, 144), bool), back, np.ones((9, 225), bool), SIZE)
    assert found["median_px"] < 1e-9
    assert found["compared"] < 1.0

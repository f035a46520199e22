"""Track metrics: hand-computed cases, and what must not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from handloom.bench.metrics.tracks import evaluated, mean_scores, swapped, tapvid, tapvid_3d
from handloom.schemas.values import Camera
from handloom.synth.follow import LEFT_HAND, RIGHT_HAND, follow
from handloom.synth.render.render import render_all
from handloom.synth.script.demo import synth_specs

SIZE = (256, 256)
CAMERA = Camera(np.array([[200.0, 0, 128], [0, 200, 128], [0, 0, 1]]), "given")


def still(num_frames: int = 3, num: int = 4):
    px = np.tile(np.linspace(20, 200, num)[:, None], (num_frames, 1, 2))
    return px, np.ones(px.shape[:2], bool), np.ones(px.shape[:2], bool)


def test_a_perfect_prediction_scores_one():
    px, visible, where = still()
    assert tapvid(px, visible, px, visible, where, SIZE) == {"oa": 1, "delta_avg": 1, "aj": 1}


def test_three_px_off_is_within_three_of_five_thresholds():
    """Within 4, 8, 16: delta 3/5. Jaccard 1 at those; 0 at 1 and 2, where every point is also a false positive."""
    px, visible, where = still()
    assert tapvid(px, visible, px + np.array([3, 0]), visible, where, SIZE) == {"oa": 1, "delta_avg": 0.6, "aj": 0.6}


def test_pixels_are_those_of_a_256_image():
    px, visible, where = still()
    found = tapvid(4 * px, visible, 4 * px + np.array([12, 0]), visible, where, (1024, 1024))
    assert found["delta_avg"] == 0.6


def test_jaccard_of_false_and_missed_points_by_hand():
    """One of four points is hidden but predicted visible, one is visible but predicted hidden: 2 / (3 + 1)."""
    px, visible, where = still(1)
    truth, said = visible.copy(), visible.copy()
    truth[0, 0], said[0, 1] = False, False
    assert tapvid(px, truth, px, said, where, SIZE) == pytest.approx({"oa": 0.5, "delta_avg": 1, "aj": 0.5})


def test_an_unknown_point_is_within_nothing_and_its_flag_decides_occlusion():
    px, visible, where = still(1)
    lost, said = px.copy(), visible.copy()
    lost[0, 0], said[0, 0] = np.nan, False
    assert tapvid(px, visible, lost, said, where, SIZE) == {"oa": 0.75, "delta_avg": 0.75, "aj": 0.75}
    assert tapvid(px, ~visible, lost, ~visible, where, SIZE)["oa"] == 1


def test_only_frames_after_the_query_count():
    where = evaluated(np.array([0, 1]), 3)
    np.testing.assert_array_equal(where, [[False, False], [True, False], [True, True]])
    px, visible, _ = still(3, 2)
    wrong = px.copy()
    wrong[~where] += 100
    assert tapvid(px, visible, wrong, visible, where, SIZE)["aj"] == 1


def test_nothing_to_measure_is_nan():
    px, visible, where = still()
    assert np.isnan(list(tapvid(px, visible, px, visible, ~where, SIZE).values())).all()
    hidden = tapvid(px, ~visible, px, ~visible, where, SIZE)
    assert hidden["oa"] == 1
    assert np.isnan([hidden["delta_avg"], hidden["aj"]]).all()


def cam(depth_m: float = 2.0):
    px, visible, where = still()
    return np.concatenate([(px - 128) / 200 * depth_m, np.full((*px.shape[:2], 1), depth_m)], axis=-1), visible, where


@pytest.mark.parametrize("depth_m", [0.5, 2.0])
def test_3d_thresholds_grow_with_depth(depth_m: float):
    """3 px at z are 3 z / 200 metres: 45 mm are 4.5 px at 2 m (within 8, 16), 18 px at 0.5 m (within none)."""
    points, visible, where = cam(depth_m)
    found = tapvid_3d(points, visible, points + np.array([0, 0, 0.045]), visible, where, CAMERA)
    assert found["apd_3d"] == found["aj_3d"] == (0.4 if depth_m == 2.0 else 0.0)


def test_3d_thresholds_are_those_of_the_lenss_own_pixels():
    """25 mm across at a depth of 1 m are 5 px in the middle (within 8, 16), and a third of that at 63 degrees."""
    lens = replace(CAMERA, distortion=np.zeros(4), model="fisheye")
    seen = np.ones((2, 1), bool)
    for slope, apd in ((0.0, 0.4), (2.0, 0.8)):
        point = np.tile([slope, 0.0, 1.0], (2, 1, 1))
        moved = point + np.array([0, 0.025, 0])
        assert tapvid_3d(point, seen, moved, seen, seen, lens)["apd_3d"] == apd
        assert tapvid_3d(point, seen, moved, seen, seen, CAMERA)["apd_3d"] == 0.4


def test_median_scaling_forgives_a_wrong_unit_and_nothing_else():
    points, visible, where = cam()
    assert tapvid_3d(points, visible, 3 * points, visible, where, CAMERA)["aj_3d"] == 0
    assert tapvid_3d(points, visible, 3 * points, visible, where, CAMERA, "median")["aj_3d"] == 1
    bent = points * [1, 1, 1.2]
    assert tapvid_3d(points, visible, bent, visible, where, CAMERA, "median")["aj_3d"] < 1


def test_unknown_depth_is_within_nothing():
    points, visible, where = cam()
    lost = points.copy()
    lost[:, 0] = np.nan
    for scaling in ("none", "median"):
        found = tapvid_3d(points, visible, lost, visible, where, CAMERA, scaling)
        assert found["apd_3d"] == 0.75
        assert found["aj_3d"] == pytest.approx(3 / 5)  # said to be seen, and nowhere: missed, and a false positive


def test_clips_count_alike_and_unmeasured_ones_are_left_out():
    assert mean_scores([{"a": 1.0}, {"a": 0.0}, {"a": float("nan")}]) == {"a": 0.5}
    assert np.isnan(mean_scores([{"a": float("nan")}])["a"])
    assert mean_scores([]) == {}


def test_a_track_that_ends_on_another_object_is_swapped():
    """Object 1 in the left half, object 2 in the right one; they change places after frame 1."""
    ids = np.ones((3, 64, 256), np.uint8)
    ids[:2, :, 128:] = 2
    ids[2, :, :128] = 2
    kind = np.array([1, 1, 2, -1, 1, 1])
    px = np.tile(np.array([[20.0, 32]]), (3, 6, 1))
    px[:, 2, 0] = 200
    px[2, 0, 0] = 200  # goes with its thing
    px[2, 2, 0] = 126  # two pixels from its own thing: no swap
    visible = np.ones((3, 6), bool)
    visible[2, 4] = False  # said to be hidden: it was last seen on its thing
    px[2, 5] = (-30, 32)  # left the image
    where = evaluated(np.zeros(6, int), 3)
    wrong, followed = swapped(ids, kind, px, visible, where, (256, 64))
    np.testing.assert_array_equal(wrong, [False, True, False, False, False, False])
    np.testing.assert_array_equal(followed, [True, True, True, False, True, True])
    visible[1:] = False
    assert not swapped(ids, kind, px, visible, where, (256, 64))[1].any()


def test_swaps_where_rendered_hands_cross():
    """True tracks are never swapped; points that stay in place end on the other hand or on the table."""
    spec = next(spec for spec in synth_specs(20, seed=3, duration_s=1.5) if spec.action == "cross")
    _, truth = render_all(replace(spec, width=128, height=96, fps=6.0, distortion=()))
    on_hands = np.argwhere(np.isin(truth.ids[0], (LEFT_HAND, RIGHT_HAND)))[::7]
    query = np.zeros(len(on_hands), int)
    tracks = follow(truth, on_hands[:, ::-1].astype(float), query)
    where = evaluated(query, len(truth.frame_s))
    wrong, followed = swapped(truth.ids, tracks.kind, tracks.px, tracks.visible, where, (128, 96))
    assert followed.sum() > 10
    assert not wrong.any()
    stuck = np.tile(tracks.px[:1], (len(truth.frame_s), 1, 1))
    wrong, _ = swapped(truth.ids, tracks.kind, stuck, np.ones(stuck.shape[:2], bool), where, (128, 96))
    assert wrong.mean() > 0.3

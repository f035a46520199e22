"""`bench wearer` counts whose hands were found, and where they went."""

from __future__ import annotations

import numpy as np

from handloom.bench.wearer.measure import Counts, composed, goals_of, of_scene, results_of
from handloom.synth.script.scene import Person, SceneSpec

SCENE = SceneSpec("reach", seed=8, hands="main", duration_s=1.5, fps=6.0, person=Person("opposite", "rotate"))


def test_a_scene_is_counted_by_its_truth():
    found = of_scene(SCENE, 3)
    assert (found.group, found.clip, found.own, found.own_lost) == ("opposite", "003", 9, 0)
    assert found.others == found.others_out >= 9


def test_two_clips_in_one_picture():
    lower = np.full((40, 60, 3), 9, np.uint8)
    upper = np.zeros((20, 30, 3), np.uint8)
    upper[:4, :4] = 200
    picture = composed(lower, upper)
    assert picture.shape == (64, 60, 3)  # 36 px wide, as high as its width says
    np.testing.assert_array_equal(picture[24:], lower)
    bright = np.argwhere(picture[:24].max(axis=-1) > 150)
    assert bright.min(axis=0).tolist() >= [18, 42]  # turned: from its first corner to its last


def test_shares_are_over_all_found_hands():
    found = [
        Counts("left", "1", 10, 4, 50, 1, 8.0),
        Counts("opposite", "0", 30, 30, 50, 0, 10.0),
        Counts("alone", "a", 0, 0, 40, 0, 9.0),
    ]
    told = results_of(found)
    pooled = {"clips": 2, "others": 40, "others_kept_out": 0.85, "own": 100, "own_lost": 0.01, "cpu_ms_per_frame": 9.0}
    assert told["rendered"] == pooled
    assert told["left"]["others_kept_out"] == 0.4
    assert told["alone"]["others_kept_out"] is None
    assert [one["clip"] for one in told["clips"]] == ["a", "1", "0"]
    met = {one["name"]: one["met"] for one in goals_of(told)}
    assert {name for name, is_met in met.items() if is_met} == {
        "others_kept_out_rendered", "own_lost_rendered", "own_lost_alone"
    }  # fmt: skip
    assert met["own_lost_composed"] is met["others_kept_out_composed"] is None

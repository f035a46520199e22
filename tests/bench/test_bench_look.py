"""`bench look`: altered copies find their clips."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.bench.catalogue import run_benchmark
from handloom.bench.look.copies import COPIES
from handloom.bench.look.measure import bench_look
from handloom.bench.watch import Watch
from handloom.errors import ConfigError


def test_a_small_report(rendered):
    report = bench_look(rendered, Watch(print, quick=True))
    results = report["results"]
    assert (results["clips"], results["clips_unreadable"]) == (3, 0)
    for name in ("look", "appearance"):
        assert results[name]["found_first"].keys() == results[name]["same_video_first"].keys() == COPIES.keys()
        assert results[name]["clip_cpu_ms"] > 0
    assert results["look"]["found_first"]["mirrored"] == 1
    assert len(report["goals"]) == len(COPIES)


def test_copies_are_altered_and_keep_their_shape():
    images = np.random.default_rng(0).integers(0, 256, (2, 30, 50, 3)).astype(np.uint8)
    made = {name: copy(images, np.random.default_rng(1)) for name, copy in COPIES.items()}
    assert {name: copy.shape[1:3] for name, copy in made.items() if "cropped" not in name} == dict.fromkeys(
        ["mirrored", "recoloured"], (30, 50)
    )
    assert made["cropped to 36 %"].shape[1:3] == (18, 30)
    assert all(copy.dtype == np.uint8 for copy in made.values())
    np.testing.assert_array_equal(made["mirrored"][:, :, ::-1], images)
    assert np.abs(made["recoloured"].astype(int) - images).max() > 5


def test_what_it_does_not_take():
    with pytest.raises(ConfigError, match="takes no --clips"):
        run_benchmark("look", None, None, print, num_clips=3)

"""Rows of other kinds of processors, as far as libraries can be told to compute as on one: equal within TOLERANCE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.elsewhere import table_elsewhere

from handloom.kernels import AVX2
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.tables.stage_columns import STATE_PREFIX

AVX512 = AVX2["NPY_DISABLE_CPU_FEATURES"]
OTHERS = {
    "avx2": dict(AVX2),
    "without-fma": {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": f"AVX F16C FMA3 AVX2 {AVX512}"},
    "zen": {"OPENBLAS_CORETYPE": "Zen"},
    "skylakex": {"OPENBLAS_CORETYPE": "SkylakeX"},
}
SSE_OPENCV = {"OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FP16,AVX"}

TOLERANCE = {
    "camera_matrix": 0.1,
    "camera_distortion": 1e-4,
    "camera_focal_sigma": 1e-4,
    "world_from_camera": 1e-5,
    "hand_confidence": 1e-5,
    "hand_keypoints_cam_m": 1e-4,
    "hand_keypoints_world_m": 1e-4,
    "hand_sigma_m": 1e-5,
    "track_depth_m": 5e-4,
    "track_points_world_m": 5e-4,
    "embedding_motion": 1e-5,
    "embedding_appearance": 1e-5,
    "embedding_look": 1e-5,
    "embedding_text": 1e-5,
    "motion_steps": 1e-3,
    "segments": 1e-3,
    "quality": 1e-2,
}
"""Largest difference by column, in its unit; columns that are not here are equal. docs/reproducibility.md has both the
promise and what was measured.
"""

with open("/proc/cpuinfo") as info:
    FLAGS = set(info.read().split())


def parts(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(column, value); the numbers of `quality` one by one."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from ((name, (inner, item)) for inner, item in value.items())
        else:
            yield name, value


def distance(a: Any, b: Any) -> float:
    """Largest difference; infinite where one is unknown and the other is not, or where no difference is meant."""
    if isinstance(a, tuple) and isinstance(b, tuple) and a[0] == b[0]:
        a, b = (np.nan if value is None else value for value in (a[1], b[1]))
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((distance(a[name], b[name]) for name in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max(map(distance, a, b), default=0.0)
    kinds = (np.ndarray, float, int)
    if not isinstance(a, kinds) or not isinstance(b, kinds) or np.asarray(a).dtype.kind not in "fiub":
        return 0.0 if a == b else np.inf
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    known = ~np.isnan(a)
    return float(np.max(np.abs(a[known] - b[known]), initial=0.0))


def test_the_distance_sees_every_difference():
    nan = np.array([np.nan, 1.0])
    assert distance(nan, nan) == 0
    assert distance(nan, np.array([0.0, 1.0])) == np.inf
    assert distance(("x", None), ("x", 0.0)) == distance("metric", "none") == distance([b"a"], [b"b"]) == np.inf
    assert distance(np.array([True]), np.array([False])) == 1.0
    assert distance(("x", 1.5), ("x", 1.0)) == 0.5
    assert distance([{"x": 1.5, "y": None}], [{"x": 1.0, "y": None}]) == 0.5
    assert distance([{"x": 1.0}], [{"x": None}]) == distance([{"x": 1.0}], [{"z": 1.0}]) == distance([], [{}]) == np.inf


def assert_near(here: pa.RecordBatch, there: pa.Table, index: int) -> None:
    both = (row_arrays(here), row_arrays(there, index))
    stored = [{n: v for n, v in values.items() if not n.startswith(STATE_PREFIX)} for values in both]  # compressed
    ours, theirs = (list(parts(values)) for values in stored)
    off: dict[str, float] = {}
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        off[name] = max(off.get(name, 0.0), distance(a, b))
    assert {name: far for name, far in off.items() if far > TOLERANCE.get(name, 0.0)} == {}


@pytest.fixture
def compare(tmp_path, two, extractor):
    if not {"avx2", "fma"} <= FLAGS:
        pytest.skip("OpenBLAS has these kernels on x86-64 only")

    def against(env: Mapping[str, str]) -> None:
        there = table_elsewhere(tmp_path, two, env)
        for index, held in enumerate(two):
            assert_near(extractor.row(held), there, index)

    return against


def test_rows_of_another_kernel_are_near(compare):
    """The farthest of those that change BLAS and numpy: sums in another order, and no fused products."""
    compare(OTHERS["without-fma"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in OTHERS if kind != "without-fma"])
def test_rows_of_all_other_kernels_are_near(compare, kind):
    if kind == "skylakex" and "avx512bw" not in FLAGS:
        pytest.skip("not a processor with AVX-512")
    compare(OTHERS[kind])


@pytest.mark.slow
def test_what_is_discrete_seldom_flips_where_images_are_computed_otherwise(tmp_path, two, extractor):
    """OpenCV without AVX2 follows single points elsewhere."""
    there = table_elsewhere(tmp_path, two, SSE_OPENCV)
    for index, held in enumerate(two):
        a, b = row_arrays(extractor.row(held)), row_arrays(there, index)
        assert (a["track_visible"] != b["track_visible"]).mean() < 0.02
        assert (a["hand_visible"] == b["hand_visible"]).all()
        both = a["track_visible"] & b["track_visible"]
        apart = np.linalg.norm(a["track_points_px"] - b["track_points_px"], axis=-1)[both]
        assert (apart < 0.1).mean() > 0.98
        assert a["embedding_motion"] @ b["embedding_motion"] > 0.99

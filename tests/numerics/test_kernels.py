"""The variables that pin the arithmetic, and what the libraries make of them."""

from __future__ import annotations

import json
import subprocess
import sys

from handloom.kernels import AVX2, ONE_THREAD, PINNED, kernels


def test_a_processor_without_avx2_keeps_its_own_code():
    assert kernels(frozenset({"sse2", "avx"})) == {}
    assert kernels(frozenset({"avx2", "fma", "avx512f"})) == AVX2


def test_libraries_obey_the_variables():
    """The names are read by numpy and OpenCV alone: one that a new version no longer knows would pin nothing."""
    code = """
import json, cv2, numpy  # 256: AVX512_SKX
from numpy.core._multiarray_umath import __cpu_features__ as features
print(json.dumps([cv2.checkHardwareSupport(256), features["AVX512F"]]))
"""
    env = {"PATH": "/usr/bin:/bin", **ONE_THREAD, **PINNED}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if AVX2.items() <= PINNED.items():
        assert json.loads(done.stdout) == [False, False]

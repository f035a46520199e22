"""What `bench accuracy` compares with, on real pictures."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handloom.bench.accuracy.plain import mediapipe_hands
from handloom.bench.metrics.hands import hand_errors
from handloom.bench.truth.cases import EGODEX, Case, load
from handloom.video.decode.frame_store import FrameStore

CLIPS = Path(os.environ.get("HANDLOOM_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "clips"
VIDEO, TRUTH = CLIPS / "videos/egodex_open_close_1.mp4", CLIPS / "gt/egodex/egodex_open_close_1.hdf5"
NUM = 9


@pytest.mark.skipif(not (VIDEO.exists() and TRUTH.exists()), reason="needs the shared clips")
def test_a_third_hand_of_mediapipes_is_kept_and_counted():
    """Asked for two hands, it gives three in frames 6 and 7."""
    pytest.importorskip("h5py")
    whole = load(Case("open_close_1", EGODEX, VIDEO, TRUTH), sample_hz=15.0, short_side_px=360)
    few = FrameStore(whole.frames.frame_s[:NUM])
    few.append(np.stack([whole.frames.rgb(t) for t in range(NUM)]))
    whole.frames.close()
    found, cpu_s = mediapipe_hands(replace(whole, frames=few, world_from_camera=whole.world_from_camera[:NUM]))
    few.close()
    there = np.isfinite(found.keypoints_px).all(axis=(2, 3))
    assert there.sum(axis=1).max() == 3
    assert found.handedness.shape == there.shape
    assert (np.isfinite(found.keypoints_cam_m).all(axis=(2, 3)) <= there).all()
    assert cpu_s > 0
    truth = whole.hands
    truth = replace(truth, **{k: getattr(truth, k)[:NUM] for k in vars(truth) if k != "focal_px"})
    errors = hand_errors(truth, found)
    assert errors.num_false >= 1
    assert errors.num_found <= errors.num_visible

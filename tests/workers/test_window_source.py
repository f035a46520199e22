"""Windows on Ray Data: each once, equal to `windows[i]`, of the table version they are pinned to."""

from __future__ import annotations

import numpy as np
import pytest
from support.window_tables import clip_row, write_clips

from handloom.windows.dataset import Memory
from handloom.windows.neighbours import Neighbours
from handloom.workers.training.window_source import window_dataset

pytest.importorskip("torch")
LENGTHS = (12, 5, 20, 9, 2, 7)


@pytest.mark.parametrize("block_mb", [0, 128])  # a block per clip, and one of all
def test_each_window_comes_once_and_of_its_version(tmp_path, ray_address, block_mb):
    db = write_clips(tmp_path, [clip_row(n, length) for n, length in enumerate(LENGTHS)])
    fields = ["hands", "images", "narration", "verb", "embedding_motion"]
    windows = db.windows(2, 1, fields, pad=True, memory=Memory(block_mb=block_mb))
    write_clips(tmp_path, [clip_row(6, 8)], mode="append")
    expected = {(sample["clip_id"], sample["now_s"]): sample for sample in windows}
    shards = window_dataset(windows, seed=1).split(2)
    rows = [row for shard in shards for row in shard.iter_rows()]
    assert len(rows) == len(expected) == len(windows) == sum(LENGTHS)
    for row in rows:
        sample = expected.pop((row["clip_id"], row["now_s"]))
        assert row.keys() == sample.keys()
        for name, value in sample.items():
            np.testing.assert_array_equal(row[name], value, err_msg=name)


def test_lists_in_samples_are_kept(tmp_path, ray_address):
    db = write_clips(tmp_path, [clip_row(n, 6) for n in range(4)])
    windows = db.windows(2, 1, ["hands"], neighbours=Neighbours(2), where="video_id <> 'v3'")
    for row in window_dataset(windows, shuffle=False).iter_rows():
        expected = next(s for s in windows if (s["clip_id"], s["now_s"]) == (row["clip_id"], row["now_s"]))
        for found, near in zip(row["neighbours"], expected["neighbours"], strict=True):
            assert found["clip_id"] == near["clip_id"]
            np.testing.assert_array_equal(found["hand_keypoints_px"], near["hand_keypoints_px"])

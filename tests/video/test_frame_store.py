"""Frames are read as they were appended, from memory and from the file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handloom.errors import ShapeError
from handloom.video.decode.frame_store import FrameStore


@pytest.mark.parametrize("memory_frames", [0, 5, 100])
def test_frames_are_read_as_they_were_appended(memory_frames):
    rng = np.random.default_rng(memory_frames)
    frames = rng.integers(0, 255, (23, 6, 8, 3), np.uint8)
    store = FrameStore(np.arange(23) / 15, memory_bytes=memory_frames * frames[0].nbytes)
    for start in range(0, 23, 4):
        store.append(frames[start : start + 4])
    assert len(store) == 23
    for index in rng.permutation(23):
        assert np.array_equal(store.rgb(int(index)), frames[index])
        grey = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
        assert np.array_equal(store.grey(int(index)), grey)
        assert np.array_equal(store.grey(int(index)), grey)
    for index in (-1, 23):
        with pytest.raises(IndexError):
            store.rgb(index)
    with pytest.raises(ShapeError):
        store.append(frames[:1, :4])
    store.clear()  # another decoder sends the clip again, here in another size
    assert len(store) == 0
    store.append(frames[::-1, :4])
    assert np.array_equal(store.rgb(3), frames[19, :4])
    assert np.array_equal(store.grey(3), cv2.cvtColor(frames[19, :4], cv2.COLOR_RGB2GRAY))
    store.close()
    store.close()

"""Numbers of images whose content is known."""

import numpy as np
import pytest

from handloom.geometry.image_stats import ImageStats


def numbers_of(frames, chunk=2):
    stats = ImageStats()
    stats.begin()
    for at in range(0, len(frames), chunk):
        stats.feed(np.stack(frames[at : at + chunk]))
    return stats.finish()


def test_detail_brightness_white_and_repeats():
    noise = np.random.default_rng(0).integers(0, 200, (36, 64, 3), np.uint8)
    black, half = np.zeros_like(noise), np.zeros_like(noise)
    half[:18] = 255
    found = numbers_of([noise, noise, black, half, half])
    assert found.repeat.tolist() == [False, True, False, False, True]
    assert found.white_share == pytest.approx([0, 0, 0, 0.5, 0.5])
    assert found.brightness[2:] == pytest.approx([0, 0.5, 0.5])
    assert found.sharpness[0] == found.sharpness[1] > found.sharpness[3] > found.sharpness[2] == 0
    quality = found.quality()
    assert quality["duplicate_share"] == 0.5
    assert quality["blur"] == np.median(found.sharpness)


def test_chunks_do_not_change_the_numbers():
    frames = list(np.random.default_rng(1).integers(0, 255, (5, 18, 32, 3), np.uint8))
    one, all_ = numbers_of(frames, 1), numbers_of(frames, 5)
    assert one.sharpness.tolist() == all_.sharpness.tolist()
    assert one.repeat.tolist() == all_.repeat.tolist()


def test_one_frame_and_none():
    assert numbers_of([np.zeros((8, 8, 3), np.uint8)]).quality()["duplicate_share"] is None
    stats = ImageStats()
    stats.begin()
    assert set(stats.finish().quality().values()) == {None}

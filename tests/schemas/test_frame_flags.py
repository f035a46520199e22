"""The bits of `frame_flags`, and frames chosen by them."""

import numpy as np
import pytest

from handloom.errors import ConfigError
from handloom.schemas.tables.frame_flags import FLAGS, FrameFlag, flag_bits, flag_names, frame_mask


def test_every_flag_has_a_meaning_and_fits_the_column():
    assert list(FLAGS) == [flag.name for flag in FrameFlag]
    assert sum(FrameFlag) < 2**31
    values = [flag.value for flag in FrameFlag]
    assert values == sorted(set(values))
    assert all(value.bit_count() == 1 for value in values)


def test_frames_without_excluded_flags():
    flags = np.array([0, FrameFlag.DARK, FrameFlag.DARK | FrameFlag.NO_POSE, FrameFlag.NO_HANDS], np.int32)
    assert frame_mask(flags, []).tolist() == [True] * 4
    assert frame_mask(flags, ["dark"]).tolist() == [True, False, False, True]
    assert frame_mask(flags, ["NO_POSE", "NO_HANDS"]).tolist() == [True, True, False, False]
    assert frame_mask(np.zeros(0, np.int32), ["DARK"]).shape == (0,)


def test_names_and_bits_are_inverse():
    for flag in FrameFlag:
        assert flag_names(flag_bits([flag.name])) == (flag.name,)


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(ConfigError, match="'HAND_JUMP' is no frame flag; near: HAND_JUMP_LEFT") as caught:
        frame_mask(np.zeros(3, np.int32), ["HAND_JUMP"])
    assert "CAMERA_RESIDUAL" in caught.value.hint

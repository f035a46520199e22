"""The wearer's hands and somebody else's, on hands put together here; found ones: tests/models/test_others_hands.py."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.geometry.hands.tracklets import Detections
from handloom.geometry.hands.wearer import others_log_odds, px_per_m

SIZE = (640, 480)
NUM, HZ = 30, 15.0
# A hand of 0.18 m around its wrist, fingers to the right.
OUTLINE_M = np.array(
    [(0.0, 0.0)] + [(0.06 + 0.04 * step, 0.02 * (finger - 2)) for finger in range(5) for step in range(4)]
)
Followed = tuple[np.ndarray, np.ndarray, np.ndarray, float]  # frames, places (n, 21, 2), metric (n, 21, 3), right


def hand(x: float, y: float, angle_deg: float, far_m: float = 0.45, right: float = 0.5, frames=range(NUM)) -> Followed:
    """One that rests: wrist at (x, y), fingers towards `angle_deg`, 90 is up in the image; seen by a usual lens."""
    turn = np.radians(-angle_deg)
    shape = OUTLINE_M @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    num = len(frames)
    metric = np.tile(np.column_stack([shape, np.zeros(21)]), (num, 1, 1))
    return np.array(frames), np.tile(shape * 450.0 / far_m + [x, y], (num, 1, 1)), metric, right


def told(*hands: Followed, size: tuple[int, int] = SIZE, confidence: float = 0.9) -> list[float]:
    """The log-odds of each followed hand that it is somebody else's."""
    if not hands:
        nothing = np.empty(0)
        empty = Detections(np.empty(0, np.int64), np.empty((0, 21, 2)), nothing, nothing)
        return others_log_odds(empty, np.empty((0, 21, 3)), np.empty(0, np.int64), nothing, size)[0].tolist()
    frame = np.concatenate([each[0] for each in hands])
    track = np.repeat(np.arange(len(hands)), [len(each[0]) for each in hands])
    order = np.lexsort((track, frame))
    points, metric = (np.concatenate([each[at] for each in hands]) for at in (1, 2))
    right = np.array([each[3] for each in hands])[track]
    found = Detections(frame[order], points[order], right[order], np.full(len(frame), confidence))
    log_odds, _ = others_log_odds(found, metric[order], track[order], np.arange(NUM) / HZ, size)
    return [float(log_odds[track[order] == name][0]) for name in range(len(hands))]


LEFT, RIGHT = hand(200, 350, 65), hand(440, 350, 115)  # of the wearer
OPPOSITE = hand(330, 60, -80, far_m=0.9)


def test_forearms_from_below_are_the_wearers_and_those_from_above_somebody_elses():
    left, right, other = told(LEFT, RIGHT, OPPOSITE)
    assert left < -3
    assert right < -3
    assert other > 3
    assert told(OPPOSITE)[0] > 0  # without any of the wearer's
    assert told(hand(330, 60, -80))[0] > 0  # as near as the wearer's
    assert told(hand(320, 250, 90, far_m=0.9))[0] < 0  # as far as somebody else's


@pytest.mark.parametrize("hands", [(LEFT, RIGHT), (LEFT, OPPOSITE), (hand(30, 200, 10, 0.7), hand(600, 90, 170))])
def test_a_mirrored_or_enlarged_clip_is_told_alike(hands):
    def mirrored(one: Followed) -> Followed:
        points, metric = one[1].copy(), one[2].copy()
        points[..., 0], metric[..., 0] = SIZE[0] - 1 - points[..., 0], -metric[..., 0]
        return one[0], points, metric, 1 - one[3]

    expected = told(*hands)
    assert told(*map(mirrored, hands)) == pytest.approx(expected)
    larger = [(frames, (points + 0.5) * 2 - 0.5, metric, right) for frames, points, metric, right in hands]
    assert told(*larger, size=(2 * SIZE[0], 2 * SIZE[1])) == pytest.approx(expected, abs=0.02)
    assert told(*hands[::-1])[::-1] == pytest.approx(expected)


def test_a_far_hand_is_doubted_more_beside_a_near_one():
    side = dict(x=30, y=220, angle_deg=0)  # from the middle of the left border
    near, far = (told(RIGHT, hand(**side, far_m=far_m))[1] for far_m in (0.45, 1.0))
    assert far > near + 1


def test_of_three_hands_at_once_one_is_somebody_elses():
    """Two left hands and a right one, all from below: the farther left one."""
    left, right, third = hand(150, 350, 65, 0.45, 0.05), hand(440, 350, 115, 0.45, 0.95), hand(290, 330, 80, 0.7, 0.05)
    together = told(left, right, third)
    assert together[2] > 0
    assert max(together[:2]) < -1
    assert max(told(left, right, third, confidence=0.6)) < -3  # a third one that is not sure
    for two in ((left, right), (left, third), (right, third)):
        assert max(told(*two)) < -3


def test_two_hands_of_one_side_are_doubted_more_than_a_left_and_a_right_one():
    left, side = hand(200, 350, 65, right=0.05), dict(x=560, y=220, angle_deg=160)
    assert told(left, hand(**side, right=0.05))[1] > told(left, hand(**side, right=0.95))[1] + 1.5


def test_pieces_of_one_hand_are_one_hand():
    whole = told(hand(330, 60, -80, 0.6), RIGHT)
    pieces = told(hand(330, 60, -80, 0.6, frames=range(12)), hand(330, 60, -80, 0.6, frames=range(14, NUM)), RIGHT)
    assert pieces[0] == pieces[1] == pytest.approx(whole[0], abs=0.1)
    twice = told(hand(330, 60, -80, 0.6), hand(333, 62, -80, 0.6), RIGHT)
    assert twice[0] == twice[1]
    short = told(hand(330, 60, -80, 0.6, frames=range(3)), RIGHT)
    assert short[0] < whole[0]


def test_pixels_per_metre_is_focal_length_over_distance():
    _, points, metric, _ = hand(300, 200, 40, far_m=0.5)
    np.testing.assert_allclose(px_per_m(points, metric), 900.0)
    assert len(told()) == 0

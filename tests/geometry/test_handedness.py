"""Left and right over a whole clip, on hands put together here; real ones are in tests/models/test_hands.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handloom.geometry.hands.handedness import VIEW_PRIOR, Assignment, assign
from handloom.geometry.hands.tracklets import Detections, hand_size, is_duplicate, keep_hands, link
from handloom.schemas.values import LEFT, RIGHT

WIDTH, HEIGHT = 640, 360
# A hand's outline around its wrist, fingers to the right (0 degrees), size about 1.
OUTLINE = np.array(
    [(0, 0)] + [(0.35 + 0.2 * step, 0.12 * (finger - 2)) for finger in range(5) for step in range(4)], float
)


def hand(x: float, y: float, angle_deg: float, size_px: float = 70.0) -> np.ndarray:
    """(21, 2) keypoints: wrist at (x, y), fingers towards `angle_deg`; 90 is up in the image."""
    turn = np.radians(-angle_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return OUTLINE @ rotation.T * size_px + [x, y]


def detections(*rows: tuple[int, np.ndarray, float]) -> Detections:
    """Rows of frame, keypoints and the model's probability of a right hand."""
    frame, points, right = zip(*rows, strict=True)
    return Detections(np.array(frame), np.array(points), np.array(right, float), np.full(len(rows), 0.9))


def assigned(found: Detections, view: str | None = None, hz: float = 15.0) -> Assignment:
    seconds = np.arange(found.frame.max() + 1) / hz
    return assign(found, link(found), seconds, WIDTH, view)


def labels(found: Detections, view: str | None = None) -> np.ndarray:
    return assigned(found, view).hand


def mirrored(found: Detections) -> Detections:
    points = found.keypoints_px.copy()
    points[..., 0] = WIDTH - 1 - points[..., 0]
    return Detections(found.frame, points, 1 - found.right_probability, found.confidence)


@st.composite
def clips(draw) -> Detections:
    """Up to 12 frames with no, one or two hands anywhere, with any probability by the model."""
    place = st.tuples(st.integers(0, WIDTH), st.integers(0, HEIGHT), st.integers(0, 359), st.integers(30, 90))
    rows = []
    for frame in range(draw(st.integers(1, 12))):
        for x, y, angle, size in draw(st.lists(place, max_size=2)):
            rows.append((frame, hand(x, y, angle, size), draw(st.integers(1, 99)) / 100))
    return detections(*(rows or [(0, hand(300, 300, 90), 0.6)]))


@settings(deadline=None)  # a deadline fails on a busy machine
@given(clips(), st.sampled_from([None, "ego", "exo"]))
def test_any_clip_gets_one_hand_a_slot_and_one_slot_a_tracklet(found, view):
    kept, _ = keep_hands(found)
    assert set(found.frame[kept]) == set(found.frame)  # no frame loses its last hand
    found = found.take(kept)
    tracklet = link(found)
    hands = assign(found, tracklet, np.arange(20) / 15, WIDTH, view).hand
    slots = list(zip(found.frame, hands, strict=True))
    assert len(set(slots)) == len(slots)
    for name in set(tracklet):
        assert len(set(hands[tracklet == name])) == 1
        assert (np.diff(found.frame[tracklet == name]) == 1).all()


def test_a_mirrored_clip_has_its_hands_swapped():
    rng = np.random.default_rng(1)
    rows = []
    for frame in range(20):
        rows.append((frame, hand(200 + 3 * frame, 280, 60 + rng.normal(0, 5)), rng.uniform(0.1, 0.6)))
        if frame % 5:
            rows.append((frame, hand(430 - 2 * frame, 260, 120 + rng.normal(0, 5)), rng.uniform(0.3, 0.9)))
    found = detections(*rows)
    for view in (None, "ego", "exo"):
        assert (labels(mirrored(found), view) == 1 - labels(found, view)).all()


def test_no_hands_is_no_error():
    none = Detections(np.empty(0, int), np.empty((0, 21, 2)), np.empty(0), np.empty(0))
    assert len(keep_hands(none)[0]) == len(link(none)) == 0
    for view in (None, "ego"):
        found = assign(none, link(none), np.empty(0), WIDTH, view)
        assert len(found.hand) == len(found.margin) == 0


def test_a_model_that_wavers_does_not_make_the_label_flicker():
    right = [0.95, 0.9, 0.1, 0.97, 0.2, 0.9, 0.95, 0.9]
    found = detections(*((t, hand(300 + 5 * t, 200, 270), p) for t, p in enumerate(right)))
    assert labels(found).tolist() == [RIGHT] * len(right)


def test_a_hand_lost_for_a_moment_comes_back_as_itself():
    rows = [(t, hand(300, 200, 250), 0.95) for t in range(10)]
    rows += [(t, hand(306, 204, 250), 0.2) for t in (12, 13)]  # seen again at the same place, called left
    assert labels(detections(*rows), "exo").tolist() == [RIGHT] * 12


@pytest.mark.parametrize("view", [None, "ego"])
def test_in_first_person_views_forearms_outweigh_the_model(view):
    """Both hands called right throughout, as MediaPipe does with a left hand seen from its thumb's side."""
    rows = []
    for t in range(30):
        rows.append((t, hand(180, 270, 65), 0.85))
        if t > 20:
            rows.append((t, hand(450, 250, 120), 0.9))
    found = detections(*rows)
    assert (labels(found, view) == (found.keypoints_px[:, 0, 0] > 300)).all()


@pytest.mark.parametrize("view", [None, "exo"])
def test_in_views_from_outside_the_model_decides(view):
    """A person who faces the camera: forearms from above, the right hand at the left of the image."""
    rows = []
    for t in range(20):
        rows += [(t, hand(180, 120, 280), 0.95), (t, hand(470, 130, 255), 0.06)]
    found = detections(*rows)
    assert (labels(found, view) == np.where(found.keypoints_px[:, 0, 0] < 300, RIGHT, LEFT)).all()


def test_a_raised_hand_that_the_model_is_sure_of_keeps_its_label():
    found = detections(*((t, hand(220, 260, 80), 0.99) for t in range(30)))
    assert labels(found).tolist() == [RIGHT] * 30


def test_two_detections_of_one_hand_are_one():
    first, second = hand(300, 200, 90), hand(306, 195, 80)
    assert is_duplicate(first, second)
    assert not is_duplicate(first, hand(350, 200, 90))
    found = Detections(np.array([0, 0]), np.stack([first, second]), np.array([0.9, 0.2]), np.array([0.6, 0.8]))
    assert keep_hands(found)[0].tolist() == [1]


@pytest.mark.parametrize("along", [0.3, 0.45])
def test_a_hand_and_its_forearm_are_not_two_hands(along):
    """One detection takes the forearm for its palm: it begins behind the wrist and its fingers reach the hand's."""
    fingers = hand(300, 200, 90)
    size = hand_size(fingers)
    forearm = fingers.copy()
    forearm[..., 1] = 200 + 1.6 * (fingers[..., 1] - 200) + along * size
    assert is_duplicate(fingers, forearm)
    assert is_duplicate(forearm, fingers)
    beside = hand(300 + 0.8 * size, 200, 90)
    assert not is_duplicate(fingers, beside)


def test_hands_that_pass_each_other_keep_their_tracklets_or_break_them():
    rows = []
    for t in range(20):
        rows += [(t, hand(150 + 18 * t, 200, 60), 0.1), (t, hand(490 - 18 * t, 240, 120), 0.9)]
    found = detections(*rows)
    tracklet = link(found)
    truth = np.arange(len(found)) % 2
    for name in set(tracklet):
        assert len(set(truth[tracklet == name])) == 1


def test_a_longer_step_links_only_what_was_followed():
    """Half a hand between two frames: the same hand if the search went from one to the other, else not."""
    found = detections((0, hand(300, 200, 90), 0.9), (1, hand(345, 200, 90), 0.9))
    assert len(set(link(found))) == len(set(link(found, np.array([4, 4])))) == 1
    assert len(set(link(found, np.array([4, 5])))) == 2


def person_across_the_table() -> tuple[Detections, np.ndarray]:
    """Seen from outside: the right hand at the image's left, gone after a second; the left one lost for a moment."""
    rows = []
    for t in range(60):
        if t < 20:
            rows.append((t, hand(180, 120 - 2 * t, 280), 0.95))
        if t != 30:
            rows.append((t, hand(470, 130, 255), 0.04))
    found = detections(*rows)
    return found, np.where(found.keypoints_px[:, 0, 0] < 300, RIGHT, LEFT)


@pytest.mark.parametrize("view", [None, "exo", "ego"])
def test_a_wrong_view_exchanges_no_hands(view):
    found, truth = person_across_the_table()
    sides = assigned(found, view)
    assert (sides.hand == truth).all()
    assert not sides.ego
    assert sides.ego_log_odds < -VIEW_PRIOR
    assert (sides.margin > 2).all()


def test_hands_that_go_on_are_not_exchanged_whatever_the_evidence():
    """Both hands called wrong for a second after a frame in which nothing was seen: they are where they were."""
    rows = []
    for t in range(40):
        left, right = (0.05, 0.97) if t < 20 else (0.97, 0.03)
        if t != 20:
            rows += [(t, hand(180, 270, 65), left), (t, hand(450, 250, 120), right)]
    found = detections(*rows)
    for view in (None, "exo", "ego"):
        left = labels(found, view) == LEFT
        assert (left == (found.keypoints_px[:, 0, 0] < 300)).all()


def test_another_hand_may_come_where_one_has_left_some_time_ago():
    rows = [(t, hand(250, 200, 60), 0.03) for t in range(10)] + [(t, hand(260, 210, 120), 0.97) for t in range(40, 50)]
    for view in (None, "ego", "exo"):
        assert labels(detections(*rows), view).tolist() == [LEFT] * 10 + [RIGHT] * 10


def test_a_margin_says_how_sure_the_sides_are():
    sure = assigned(detections(*((t, hand(200, 270, 62), 0.03) for t in range(30))), "ego")
    torn = assigned(detections(*((t, hand(320, 270, 90), 0.5) for t in range(30))), "ego")
    assert (sure.margin > 8).all()
    assert (torn.margin < 2).all()
    # By the model a left hand, by its place in a head camera's image a right one: no surer than the view is.
    either = detections((0, hand(420, 270, 118), 0.15))
    assert labels(either, "ego") != labels(either, "exo")
    found = assigned(either)
    assert found.margin[0] <= abs(found.ego_log_odds)


def test_of_three_hands_the_two_that_stay_are_kept_in_every_frame():
    """A third one, surer in every other frame, is somebody else's: it takes no place, and the sides become unsure."""
    rows, track = [], []
    for t in range(12):
        rows += [(t, hand(150, 250, 60), 0.1), (t, hand(450, 250, 120), 0.9)]
        track += [0, 1]
        if 4 <= t < 8:
            rows.append((t, hand(300, 60, 270), 0.5))
            track.append(2)
    frame, points, right = zip(*rows, strict=True)
    confidence = np.where(np.array(track) == 2, 0.99, 0.9)
    found = Detections(np.array(frame), np.array(points), np.array(right), confidence)
    kept, crowded = keep_hands(found, np.array(track))
    assert np.array(track)[kept].tolist() == [0, 1] * 12
    assert found.frame[kept][crowded].tolist() == [4, 4, 5, 5, 6, 6, 7, 7]

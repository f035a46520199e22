"""Colours of hands on drawn images: any hand, as long as its colours differ from the surroundings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handloom.models.hands.colours import HandColours
from handloom.video.decode.frame_store import FrameStore

HEIGHT, WIDTH, NUM = 180, 320, 8
SKIN, GLOVE, TABLE = (196, 142, 110), (40, 60, 150), (120, 120, 110)
# A hand of about 70 px: the wrist at the origin, fingers up.
SHAPE = np.array(
    [(0, 0)] + [(14 * (finger - 2) * (1 + 0.2 * joint), -28 - 13 * joint) for finger in range(5) for joint in range(4)],
    float,
)


def hand_at(x: float, y: float) -> np.ndarray:
    return SHAPE + np.array([x, y])


def draw(image: np.ndarray, points: np.ndarray, colour: tuple[int, int, int]) -> None:
    for finger in range(5):
        chain = np.round(points[[0, *range(1 + 4 * finger, 5 + 4 * finger)]]).astype(np.int32)
        cv2.polylines(image, [chain], False, colour, 11)


def clip(colours: tuple, background: tuple[int, int, int] = TABLE) -> tuple[FrameStore, np.ndarray]:
    """Both hands in `colours`, moving over noise: the frames and the (T, 2, 21, 2) keypoints."""
    rng = np.random.default_rng(0)
    points = np.stack([[hand_at(90 + 4 * t, 140), hand_at(230 - 3 * t, 150)] for t in range(NUM)])
    frames = FrameStore(np.arange(NUM) / 15)
    for hands in points:
        image = np.full((HEIGHT, WIDTH, 3), background, np.uint8)
        for hand, colour in zip(hands, colours, strict=True):
            draw(image, hand, colour)
        frames.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)[None])
    return frames, points


SEEN, SURE = np.ones((NUM, 2), bool), np.full((NUM, 2), 0.95)


@pytest.mark.parametrize("colours", [(SKIN, SKIN), (GLOVE, GLOVE), (SKIN, GLOVE)])
def test_a_skeleton_beside_its_hand_scores_low(colours):
    frames, points = clip(colours)
    found = HandColours.learn(frames, points, SEEN, SURE)
    frame, hand = np.nonzero(SEEN)
    on = found.scores(frames, frame, points[frame, hand])
    beside = found.scores(frames, frame, points[frame, hand] + [0.0, -75.0])
    assert found.usual > 1
    assert on.min() > 0.6
    assert beside.max() < 0


def test_hands_that_look_like_the_table_are_not_judged():
    frames, points = clip((TABLE, TABLE))
    assert HandColours.learn(frames, points, SEEN, SURE) is None


def test_too_few_detections_are_not_judged():
    frames, points = clip((SKIN, SKIN))
    few = np.zeros_like(SEEN)
    few[0] = few[1, 0] = True
    assert HandColours.learn(frames, points, few, SURE) is None


def test_hands_outside_the_image_have_no_score():
    frames, points = clip((SKIN, SKIN))
    found = HandColours.learn(frames, points, SEEN, SURE)
    outside = found.scores(frames, np.array([0, 0]), points[0] + [0.0, 160.0])
    assert np.isnan(outside).all()
    assert len(found.scores(frames, np.zeros(0, int), np.zeros((0, 21, 2)))) == 0

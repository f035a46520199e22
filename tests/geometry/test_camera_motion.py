"""Dominant camera motion: found under outliers, whatever the image size, the same bytes again, NaN where unknown."""

import cv2
import numpy as np
import pytest

from handloom.geometry.camera.motion import dominant_homography, warp

WIDTH, HEIGHT = 640, 360
CORNERS = np.array([[0, 0], [WIDTH, 0], [0, HEIGHT], [WIDTH, HEIGHT]], float)


def random_homography(rng: np.random.Generator) -> np.ndarray:
    angle, zoom = rng.normal(0, 0.03), 1 + rng.normal(0, 0.03)
    shift, tilt = rng.normal(0, 0.03, 2) * WIDTH, rng.normal(0, 0.03, 2) / WIDTH
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]], [*tilt, 1]])


def matches(rng: np.random.Generator, homography: np.ndarray, num: int, outliers: float, noise_px: float = 0.2):
    source = rng.uniform(0, 1, (num, 2)) * [WIDTH, HEIGHT]
    target = warp(homography, source) + rng.normal(0, noise_px, source.shape)
    wrong = rng.permutation(num)[: round(outliers * num)]
    target[wrong] += rng.uniform(-0.1, 0.1, (len(wrong), 2)) * WIDTH
    return source, target, wrong


@pytest.mark.parametrize("outliers", [0.0, 0.3, 0.5])
def test_homography_is_recovered_under_outliers(outliers: float) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        truth = random_homography(rng)
        source, target, wrong = matches(rng, truth, 800, outliers)
        found, inliers = dominant_homography(source, target, WIDTH, HEIGHT)
        assert np.abs(warp(found, CORNERS) - warp(truth, CORNERS)).max() < 0.5
        assert inliers.sum() >= 0.95 * (800 - len(wrong))


def test_points_on_one_moving_object_are_outvoted() -> None:
    rng = np.random.default_rng(0)
    truth = random_homography(rng)
    source, target, _ = matches(rng, truth, 600, 0.0)
    target[source[:, 0] < 0.3 * WIDTH] += [25, -10]
    found, _ = dominant_homography(source, target, WIDTH, HEIGHT)
    assert np.abs(warp(found, CORNERS) - warp(truth, CORNERS)).max() < 2


def test_image_size_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    source, target, _ = matches(rng, random_homography(rng), 500, 0.2)
    small, _ = dominant_homography(source, target, WIDTH, HEIGHT)
    large, _ = dominant_homography(source * 3 + 1, target * 3 + 1, WIDTH * 3, HEIGHT * 3)
    assert np.allclose(warp(large, CORNERS * 3 + 1), warp(small, CORNERS) * 3 + 1, atol=0.05)


def test_same_bytes_whatever_the_global_state_of_opencv() -> None:
    rng = np.random.default_rng(2)
    source, target, _ = matches(rng, random_homography(rng), 500, 0.4)
    threads = cv2.getNumThreads()
    answers = []
    try:
        for seed, num_threads in ((1, 1), (99, 2), (7, 4)):
            cv2.setRNGSeed(seed)
            cv2.setNumThreads(num_threads)
            answers.append(dominant_homography(source, target, WIDTH, HEIGHT)[0].tobytes())
            answers.append(dominant_homography(source[:12], target[:12], WIDTH, HEIGHT)[0].tobytes())
    finally:
        cv2.setNumThreads(threads)
        cv2.setRNGSeed(0)
    assert answers[::2] == [answers[0]] * 3
    assert answers[1::2] == [answers[1]] * 3


@pytest.mark.parametrize("num", [4, 7, 8, 15, 23, 24])
def test_few_points_still_give_the_shift(num: int) -> None:
    rng = np.random.default_rng(num)
    source = rng.uniform(0, 1, (num, 2)) * [WIDTH, HEIGHT]
    found, inliers = dominant_homography(source, source + np.array([7.0, -3.0]), WIDTH, HEIGHT)
    assert np.allclose(warp(found, CORNERS), CORNERS + np.array([7, -3]), atol=0.1)
    assert inliers.all()


def test_unknown_is_nan() -> None:
    three = np.random.default_rng(0).uniform(0, 300, (3, 2))
    homography, inliers = dominant_homography(three, three, WIDTH, HEIGHT)
    assert np.isnan(homography).all()
    assert inliers.tolist() == [False] * 3


def test_degenerate_points_do_not_break_it() -> None:
    line = np.stack([np.linspace(0, 600, 100), np.full(100, 50.0)], axis=1)
    for source in (line, np.full((100, 2), 20.0)):
        target = source + np.array([4.0, 0.0])
        found, _ = dominant_homography(source, target, WIDTH, HEIGHT)
        assert np.allclose(warp(found, source), target, atol=0.2)

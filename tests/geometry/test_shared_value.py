"""A value that clips share: never surer than they agree, robust against a wrong one, with the prior counted once."""

import math

import numpy as np
import pytest

from handloom.geometry.camera.intrinsics import parse_camera
from handloom.geometry.shared_value import apart, bend_of, distortion_of, field_of_view_deg, together

ASSUMED = (0.7, 0.33)


def test_clips_that_agree_are_surer_together_and_near_their_middle():
    one = together([0.40], [0.08], ASSUMED)
    four = together([0.38, 0.40, 0.41, 0.42], [0.08] * 4, ASSUMED)
    many = together([0.38, 0.40, 0.41, 0.42] * 50, [0.08] * 200, ASSUMED)
    assert four.value == pytest.approx(0.40, rel=0.03)
    assert one.sigma > four.sigma > many.sigma > 0.05
    assert four.agree
    assert not (four.far > 3).any()


def test_the_assumption_counts_once_and_counts_little_against_many():
    near, far = (together([0.40] * 6, [0.1] * 6, (value, 0.33)) for value in (0.4, 0.7))
    assert far.value == pytest.approx(near.value, rel=0.03)
    assert together([0.40] * 6, [0.1] * 6, (0.7, 0.01)).value == pytest.approx(0.7, rel=0.03)


def test_one_clip_that_is_wrong_and_sure_does_not_decide():
    found = together([0.39, 0.40, 0.41, 0.38, 0.60], [0.08, 0.08, 0.08, 0.08, 0.03], ASSUMED)
    assert found.value == pytest.approx(0.395, rel=0.04)
    assert found.agree
    assert np.flatnonzero(found.far > 3).tolist() == [4]
    assert found.weight[4] < 0.05
    assert found.weight.sum() == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 5, 60])
def test_two_lenses_in_one_group_do_not_pass_for_one(count):
    assert not together([0.40] * count + [0.60] * count, [0.05] * 2 * count, ASSUMED).agree


def test_the_sigma_is_never_smaller_than_the_disagreement():
    rng = np.random.default_rng(0)
    for spread in (0.02, 0.1):
        logs = rng.normal(math.log(0.4), spread, 12)
        found = together(np.exp(logs), np.full(12, 0.01), ASSUMED)
        assert found.sigma >= logs.std(ddof=1) / math.sqrt(12)


def test_sigmas_are_honest():
    """Clips that differ by more than their sigmas, one in ten wrong altogether."""
    rng = np.random.default_rng(1)
    for count in (2, 6):
        errors = []
        for _ in range(80):
            true, sigma = rng.normal(math.log(0.5), 0.33), rng.uniform(0.03, 0.15, count)
            logs = true + rng.normal(0, 1, count) * sigma + rng.normal(0, 0.04, count) + rng.normal(0, 0.04)
            logs += (rng.uniform(size=count) < 0.1) * rng.normal(0, 0.4, count)
            found = together(np.exp(logs), sigma, (0.5, 0.33))
            errors.append((math.log(found.value) - true) / found.sigma)
        assert abs(np.mean(errors)) < 0.25
        assert np.mean(np.abs(errors) < 2) > 0.92
        assert np.mean(np.abs(errors) < 1) < 0.9


def test_order_does_not_matter_and_a_factor_is_a_factor():
    values, sigmas = [0.39, 0.42, 0.36, 0.55], [0.05, 0.1, 0.07, 0.04]
    found = together(values, sigmas, ASSUMED)
    turned = together(values[::-1], sigmas[::-1], ASSUMED)
    scaled = together([2 * value for value in values], sigmas, (1.4, 0.33))
    assert turned.value == pytest.approx(found.value, rel=1e-9)
    assert scaled.value == pytest.approx(2 * found.value, rel=1e-6)
    assert scaled.sigma == pytest.approx(found.sigma, rel=1e-5)


def test_groups_of_two_values_are_told_apart():
    one, other = (together([value] * 3, [0.05] * 3, ASSUMED) for value in (0.4, 0.6))
    assert apart(one, other)
    assert not apart(one, one)


@pytest.mark.parametrize("bend", [1 / 3, 0.36, 0.31, 0.25, 0.1, 0.0, -0.05])
def test_a_bend_becomes_a_lens_and_a_lens_its_bend(bend):
    text = '{{"fov_deg": {}, "distortion": {}}}'
    distortion = distortion_of(bend)
    written = "null" if distortion is None else str(distortion).replace("'", '"')
    camera = parse_camera(text.format(100, written), 640, 360)
    assert bend_of(camera.model, camera.distortion) == pytest.approx(bend, abs=1e-4)
    focal = camera.camera_matrix[0, 0] / 640
    assert field_of_view_deg(focal, camera.model, camera.distortion) == pytest.approx(100, abs=1e-6)

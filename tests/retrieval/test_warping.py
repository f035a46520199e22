"""Subsequence dynamic time warping: equal to a plain loop; a cut or stretched piece is found where it was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.movements import movement

from handloom.errors import ShapeError
from handloom.models.embeddings.hand_steps import GRID_S, WIDTH, hand_steps
from handloom.retrieval.movement.warping import alignments, best_match, best_matches, match, matches


def plain(query, reference):
    """Number by number: the least sum over all paths with steps (+1, +1) and (+1, +2), and the path's ends."""
    n, m = len(query), len(reference)
    cost = [[float(np.sqrt(((query[i] - reference[j]) ** 2).sum())) for j in range(m)] for i in range(n)]
    total = [[cost[0][j] if i == 0 else np.inf for j in range(m)] for i in range(n)]
    first = [[j for j in range(m)] for _ in range(n)]
    for i in range(1, n):
        for j in range(m):
            for step in (1, 2):
                if j - step >= 0 and total[i - 1][j - step] + cost[i][j] < total[i][j]:
                    total[i][j] = total[i - 1][j - step] + cost[i][j]
                    first[i][j] = first[i - 1][j - step]
    last = min(range(m), key=lambda j: total[n - 1][j])
    return total[n - 1][last] / n, first[n - 1][last], last


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 20), st.integers(1, 3))
def test_it_equals_a_plain_loop(seed, n, m, dim):
    rng = np.random.default_rng(seed)
    query, reference = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    found = match(query, reference)
    if n > m:
        assert found is None
        return
    distance, first, last = plain(query, reference)
    assert found.distance == pytest.approx(distance, abs=1e-9)
    assert (found.first, found.last) == (first, last)
    assert n - 1 <= last - first <= 2 * (n - 1)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 9), st.lists(st.integers(1, 20), max_size=6))
def test_many_references_together_are_each_alone(seed, n, lengths):
    rng = np.random.default_rng(seed)
    query, references = rng.normal(size=(n, 3)), [rng.normal(size=(m, 3)) for m in lengths]
    for together, alone in ((matches, match), (best_matches, best_match)):
        for found, one in zip(together(query, references), references, strict=True):
            expected = alone(query, one)
            assert (found is None) == (expected is None)
            if expected is not None:
                assert found.distance == pytest.approx(expected.distance, abs=1e-12)
                assert found[1:] == expected[1:]


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(4, 12), st.integers(0, 20))
def test_a_cut_piece_is_found_where_it_was(seed, n, at):
    reference = np.random.default_rng(seed).normal(size=(40, 5))
    found = best_match(reference[at : at + n], reference)
    assert found.distance == pytest.approx(0, abs=1e-6)
    assert (found.first, found.last) == (at, at + n - 1)


@pytest.mark.parametrize("speed", [0.5, 0.7, 1.0, 1.5, 2.0])
def test_a_stretched_movement_is_found_where_it_was(speed):
    """1 to 3 s of a movement, as another clip shows it slower or faster."""
    points, frame_s = movement(3, 6.0)
    inside = (frame_s >= 1) & (frame_s <= 3)
    query = hand_steps(points[inside], frame_s[inside])
    other = hand_steps(*movement(3, 6.0, speed))
    found = best_match(query.values, other.values)
    start_s, end_s = other.times_s[found.first] * speed, other.times_s[found.last] * speed
    assert start_s == pytest.approx(1, abs=0.25)
    assert end_s == pytest.approx(3, abs=0.25)
    others = [best_match(query.values, hand_steps(*movement(seed, 6.0)).values).distance for seed in range(10, 30)]
    assert found.distance < min(others)


def test_steps_of_a_hand_do_not_depend_on_size_rate_and_lens_and_a_mirror_swaps_the_hands():
    points, frame_s = movement(0, 2.0)
    steps = hand_steps(points, frame_s)
    assert steps.values.shape == (21, 2 * WIDTH)
    assert not steps.values[:, :WIDTH].any()
    assert steps.seen[:, 1].all()
    larger = hand_steps(2 * points, frame_s)
    np.testing.assert_allclose(larger.values, steps.values, atol=1e-5)
    fewer = hand_steps(points[::2], frame_s[::2])
    assert np.abs(fewer.values - steps.values).mean() < 0.03
    mirrored = hand_steps(points[:, ::-1] * [-1, 1, 1], frame_s, mirrored=True)
    np.testing.assert_allclose(mirrored.values, steps.values, atol=1e-6)


def test_a_hand_is_interpolated_over_short_gaps_alone():
    points, frame_s = movement(1, 4.0)
    whole = hand_steps(points, frame_s)
    points[20:25] = np.nan  # 0.4 s from the last seen frame to the next
    points[40:] = np.nan
    steps = hand_steps(points, frame_s)
    last_s = frame_s[39]
    np.testing.assert_array_equal(steps.seen[:, 1], steps.times_s <= last_s + 1e-6)
    assert np.abs(steps.values[: int(last_s / GRID_S)] - whole.values[: int(last_s / GRID_S)]).max() < 0.5
    points[20:30] = np.nan
    assert not hand_steps(points, frame_s).seen[16:18].any()
    with pytest.raises(ShapeError, match="expected"):
        hand_steps(points[:, :1], frame_s)
    assert len(hand_steps(points[:1], frame_s[:1]).values) == 1


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 9))
def test_whole_sequences_are_aligned_as_by_a_plain_loop(seed, n, band):
    rng = np.random.default_rng(seed)
    queries, references = rng.normal(size=(2, n, 3)), rng.normal(size=(3, n, 3))
    found = alignments(queries, references, band, 0.3)
    for q, query in enumerate(queries):
        for r, reference in enumerate(references):
            total = {(-1, -1): 0.0}
            for i in range(n):
                for j in range(max(0, i - band), min(n, i + band + 1)):
                    alone = min(total.get((i - 1, j), np.inf), total.get((i, j - 1), np.inf)) + 0.3
                    step = float(np.linalg.norm(query[i] - reference[j]))
                    total[i, j] = step + min(total.get((i - 1, j - 1), np.inf), alone)
            assert found[q, r] == pytest.approx(total[n - 1, n - 1] / n, abs=1e-6)

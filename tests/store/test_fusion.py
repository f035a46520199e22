"""Rankings combined: reciprocal ranks and weighted scores equal plain loops; an unsafe sum is not called safe."""

import numpy as np
import pytest

from handloom.store.search.fusion import Ranking, by_rank, by_weights, parts_of
from handloom.store.search.ranking import Scored, best_clips


def scores(seed, num=200):
    return dict(zip([f"c{i:03}" for i in range(num)], np.random.default_rng(seed).random(num).round(2), strict=True))


def ranking(name, values, depth, weight=1.0, **more):
    listed = [Scored(float(score), clip, int(clip[1:])) for clip, score in values.items()]
    return Ranking(name, best_clips(listed, depth), weight, complete=depth >= len(values), **more)


def test_reciprocal_ranks_equal_a_plain_loop():
    values = {"a": scores(0), "b": scores(1), "c": scores(2)}
    weights = {"a": 1.0, "b": 0.5, "c": 2.0}
    given = [ranking(name, values[name], 50, weights[name]) for name in values]
    total = {}
    for one in given:
        for found in one.scored:
            rank = 1 + sum(other.score > found.score for other in one.scored)
            total[found.clip_id] = total.get(found.clip_id, 0) + one.weight / (60 + rank)
    expected = sorted(total, key=lambda clip: (-round(total[clip], 9), clip))[:20]
    found = by_rank(given)[:20]
    assert [one.clip_id for one in found] == expected
    assert [one.score for one in found] == pytest.approx([total[clip] for clip in expected], abs=1e-9)
    parts = parts_of(given, expected[:1])[expected[0]]
    assert set(parts) <= {"a", "b", "c"}
    assert all(part.rank >= 1 for part in parts.values())


@pytest.mark.parametrize("depth", [10, 60, 200])
def test_weighted_scores_equal_a_full_sum_wherever_they_say_so(depth):
    safe = 0
    for seed in range(20):
        values = {"a": scores(seed), "b": scores(seed + 100)}
        given = [ranking("a", values["a"], depth, 1.0), ranking("b", values["b"], depth, 0.4)]
        rest = lambda name, clips, values=values: {clip: values[name][clip] for clip in clips}
        found, bound = by_weights(given, rest)
        exact = found[4].score > bound
        total = {clip: round(values["a"][clip] + 0.4 * values["b"][clip], 6) for clip in values["a"]}
        expected = sorted(total, key=lambda clip: (-total[clip], clip))[:5]
        if exact:
            safe += 1
            assert [one.clip_id for one in found[:5]] == expected
    assert safe == 20 if depth == 200 else safe >= 0
    if depth == 60:
        assert safe > 10

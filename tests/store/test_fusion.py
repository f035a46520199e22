"""Rankings combined: reciprocal ranks and weighted scores equal plain loops; an unsafe sum is not called safe."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handloom.store.search.fusion import Ranking, by_rank, by_weights, parts_of
from handloom.store.search.ranking import Scored, best_clips, first_of_equal


def scores(seed, num=200):
    return dict(zip([f"c{i:03}" for i in range(num)], np.random.default_rng(seed).random(num).round(2), strict=True))


def ranking(name, values, depth, weight=1.0, **more):
    listed = [Scored(float(score), clip, int(clip[1:])) for clip, score in values.items()]
    return Ranking(name, best_clips(listed, depth), weight, complete=depth >= len(values), **more)


@given(st.lists(st.tuples(st.sampled_from([0.5, 0.25, 1.0]), st.sampled_from("abcdef"), st.integers(0, 3))))
def test_each_clip_is_once_among_the_best_with_its_best_row(found):
    """As by sorting all, at every depth; of words too, whose equal scores are cut before they leave Arrow."""
    scored = [Scored(*one) for one in found]
    best = {one.clip_id: one for one in sorted(scored)}
    expected = sorted(best.values(), key=lambda one: (-one.score, one.clip_id))
    columns = [[one[at] for one in scored] for at in range(3)]
    kinds = {"_score": pa.float64(), "clip_id": pa.string(), "_rowid": pa.uint64()}
    rows = pa.table(columns, pa.schema(list(kinds.items())))
    for k in range(1, len(scored) + 2):
        assert best_clips(scored, k) == expected[:k]
        least = sorted(columns[0], reverse=True)[min(k, len(scored)) - 1] if scored else 0.0
        tied = rows.filter(pa.array([score >= least for score in columns[0]], pa.bool_()))
        cut = [Scored(*row.values()) for row in first_of_equal(tied, k).to_pylist()]
        expected_of_tied = {one.clip_id: one for one in sorted(Scored(*row.values()) for row in tied.to_pylist())}
        assert best_clips(cut, k) == best_clips(expected_of_tied.values(), k)


def test_reciprocal_ranks_equal_a_plain_loop():
    values = {"a": scores(0), "b": scores(1), "c": scores(2)}
    weights = {"a": 1.0, "b": 0.5, "c": 2.0}
    rankings = [ranking(name, values[name], 50, weights[name]) for name in values]
    total = {}
    for one in rankings:
        for found in one.scored:
            rank = 1 + sum(other.score > found.score for other in one.scored)
            total[found.clip_id] = total.get(found.clip_id, 0) + one.weight / (60 + rank)
    expected = sorted(total, key=lambda clip: (-round(total[clip], 9), clip))[:20]
    found = by_rank(rankings)[:20]
    assert [one.clip_id for one in found] == expected
    assert [one.score for one in found] == pytest.approx([total[clip] for clip in expected], abs=1e-9)
    parts = parts_of(rankings, expected[:1])[expected[0]]
    assert set(parts) <= {"a", "b", "c"}
    assert all(part.rank >= 1 for part in parts.values())


@pytest.mark.parametrize("depth", [10, 60, 200])
def test_weighted_scores_equal_a_full_sum_wherever_they_say_so(depth):
    safe = 0
    for seed in range(20):
        values = {"a": scores(seed), "b": scores(seed + 100)}
        rankings = [ranking("a", values["a"], depth, 1.0), ranking("b", values["b"], depth, 0.4)]
        rest = lambda name, clips, values=values: {clip: values[name][clip] for clip in clips}
        found, bound = by_weights(rankings, rest)
        exact = found[4].score > bound
        total = {clip: round(values["a"][clip] + 0.4 * values["b"][clip], 6) for clip in values["a"]}
        expected = sorted(total, key=lambda clip: (-total[clip], clip))[:5]
        if exact:
            safe += 1
            assert [one.clip_id for one in found[:5]] == expected
    assert safe == 20 if depth == 200 else safe >= 0
    if depth == 60:
        assert safe > 10

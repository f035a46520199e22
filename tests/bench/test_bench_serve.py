"""`bench serve`: its rows, its arithmetic, and a small run in a real browser."""

import numpy as np
import pyarrow as pa
import pytest
from support.browsing import chromium
from support.rows import make_row

from handloom.bench.serve.measure import Size, bench_serve, goals_of, goals_of_lean, lost_frames, spread
from handloom.bench.serve.rows import CLUSTERED, LEAN_DIM, UNKNOWN, Templates, Texts, copies, leaner, sentences
from handloom.bench.watch import Watch
from handloom.schemas.tables.arrow import QUALITY_FIELDS
from handloom.stages.stage import embedding_field

NUM = 250


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    made = pa.Table.from_batches([make_row(number) for number in range(3)])
    for name, dim in (("look", 16), ("text", 512)):
        made = made.append_column(
            embedding_field(name, dim, model="m", version="1"), pa.nulls(3, pa.list_(pa.float32(), dim))
        )
    return copies(Templates("0123456789abcdef", made), Texts(), 32, NUM, 4096)


def test_rows_have_words_numbers_and_vectors_of_their_own(rows):
    assert len(set(rows.column("clip_id").to_pylist())) == NUM
    for name in (*CLUSTERED, "text"):
        vectors = np.array([one for one in rows.column(f"embedding_{name}").to_pylist() if one is not None])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    silent = [words is None for words in rows.column("narration").to_pylist()]
    assert 0 < np.mean(silent) < 3 * UNKNOWN
    assert silent == [vector is None for vector in rows.column("embedding_text").to_pylist()]


def test_lean_rows_keep_facts_words_numbers_and_the_vectors_of_words():
    """What a million rows can have; the rest is null, not left out."""
    made = pa.Table.from_batches([make_row(number) for number in range(3)])
    some = leaner(made)
    assert some.column_names == made.column_names
    for name in ("clip_id", "frame_s", "quality", "thumbnail", "run_key", "hand_left"):
        assert some.column(name).equals(made.column(name)), name
    for name in ("hand_keypoints_px", "track_points_px", "frame_jpeg", "world_from_camera"):
        assert some.column(name).null_count == 3
    assert some.schema.field("embedding_motion").type.list_size == LEAN_DIM
    assert some.nbytes < made.nbytes / 2


def test_quality_is_spread_shares_stay_shares_and_some_is_unknown(rows):
    quality = rows.column("quality")
    assert quality.type.names == list(QUALITY_FIELDS)
    blur = quality.field("blur").to_numpy(zero_copy_only=False)
    assert 0 < np.isnan(blur).mean() < 3 * UNKNOWN
    assert np.nanmax(blur) > 1.5 * np.nanmin(blur) > 0
    assert np.nanmax(quality.field("hand_coverage").to_numpy(zero_copy_only=False)) <= 1
    assert quality.field("num_cuts").null_count == NUM, "no template knows it"


def test_the_arithmetic():
    assert spread([1.0, 2.0, 3.0]) == {"calls": 3, "p50_ms": 2.0, "p95_ms": 2.9, "max_ms": 3.0}
    assert lost_frames([16.7, 16.7, 50.0, 17.9]) == 2
    assert len(set(sentences(200))) == 200
    assert {goal["met"] for goal in goals_of({})} == {None}
    assert {goal["met"] for goal in goals_of_lean({})} == {None}
    measured = {"requests": {"words": {"p95_ms": 2001.0}}, "server_after_requests": {"peak_bytes": 3 << 30}}
    assert [goal["met"] for goal in goals_of_lean(measured)] == [None, None, False, None, None, True]
    fast = {"first_hit": {"words": {"p95_ms": 199.0}}, "scrub": {"p95_ms": 101.0}}
    assert [goal["met"] for goal in goals_of(fast)] == [True, None, None, False]


@pytest.mark.slow
def test_a_small_report(tmp_path):
    with chromium():  # or it is skipped
        pass
    size = Size(rows=96, scenes=1, searches=2, loads=1, clips=1, cards=60)
    results = bench_serve(tmp_path, Watch([].append), size)["results"]
    assert set(results["first_hit"]) == {"words", "like_a_clip", "filter"}
    times = [results["scrub"], results["page_load"], *results["first_hit"].values(), *results["requests"].values()]
    for found in times:
        assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["max_ms"]
    assert 0 < results["start"]["answer_s"] < results["start"]["page_s"] < results["start"]["words_s"]
    assert results["scrub"]["calls"] == 14
    assert results["scroll"]["cards"] >= 60
    assert results["scroll"]["thumbnails"] > 0
    assert results["page_memory_after"]["js_heap_bytes"] > 0
    again = bench_serve(tmp_path, Watch([].append), size)["results"]
    assert again["table"] == results["table"], "the table is kept"

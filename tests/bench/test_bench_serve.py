"""`bench serve` on a small table: every kind of query is asked of a real server, and is in the report."""

from handloom.bench.serve.measure import WARM_UP, Size, bench_serve, queries
from handloom.bench.watch import Watch

SIZE = Size(rows=600, dim=16, calls=4)


def test_a_small_report():
    report = bench_serve(Watch([].append, quick=True), SIZE)
    kinds = report["results"]["kinds"]
    assert set(kinds) == set(queries(SIZE))
    for found in kinds.values():
        assert found["answer"]["calls"] == SIZE.calls
        assert 0 < found["answer"]["p50_ms"] <= found["first_hit"]["p95_ms"]
    assert kinds["text"]["thumbnail"]["calls"] == SIZE.calls  # there are hits
    (goal,) = report["goals"]
    assert goal["value"] == max(found["first_hit"]["p95_ms"] for found in kinds.values())


def test_no_query_is_asked_twice():
    """The answer to the second would be kept."""
    for kind, query in queries(Size()).items():
        assert len({str(query(n)) for n in range(Size().calls + WARM_UP)}) == Size().calls + WARM_UP, kind

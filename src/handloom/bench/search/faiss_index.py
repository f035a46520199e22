"""FAISS beside ours in the same run: the same vectors in the same number of partitions, in memory, without rows."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.bench.search.times import Times
from handloom.bench.search.truth import Nearest, recall

TRAINED_ON = 40  # rows a partition; FAISS warns below 39


def measure(
    parts: Iterable[NDArray[np.float32]],
    num_rows: int,
    num_partitions: int,
    num_probes: int,
    queries: NDArray[np.float32],
    nearest: Nearest,
) -> dict[str, Any] | None:
    """IVF with uncompressed vectors; None if `faiss-cpu` is not installed.

    parts: all vectors, in order.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        return None
    dim, k = queries.shape[1], nearest.of_all.shape[1]
    began = time.perf_counter()
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, num_partitions, faiss.METRIC_INNER_PRODUCT)
    waiting: list[NDArray[np.float32]] = []
    for part in parts:
        waiting.append(part)
        if not index.is_trained and sum(map(len, waiting)) >= min(num_rows, TRAINED_ON * num_partitions):
            index.train(np.concatenate(waiting))
        if index.is_trained:
            index.add(np.concatenate(waiting))
            waiting.clear()
    build_s = time.perf_counter() - began
    index.nprobe = num_probes
    selector = faiss.IDSelectorBatch(nearest.filtered)
    only = faiss.SearchParametersIVF(sel=selector, nprobe=num_probes)
    plain, filtered = Times(), Times()
    found = [plain.of(partial(_ids, index, q, k)) for q in queries]
    some = [filtered.of(partial(_ids, index, q, k, params=only)) for q in queries]
    return {
        "index": f"IVF{num_partitions},Flat",
        "probes": num_probes,
        "threads": faiss.omp_get_max_threads(),
        "build_s": round(build_s, 1),
        "memory_bytes": int(index.ntotal) * (4 * dim + 8),
        "all": plain.numbers() | {"recall": round(recall(found, nearest.of_all), 4)},
        "filtered": filtered.numbers() | {"recall": round(recall(some, nearest.of_one_person), 4)},
    }


def _ids(index: Any, query: NDArray[np.float32], k: int, **how: Any) -> list[int]:
    return index.search(query[None], k, **how)[1][0].tolist()

"""Search by one thing: similar clips by an embedding or by words, best first, with an SQL filter.

The order is the same on every machine: by falling score, equal scores (to 6 digits) by clip_id. Queries of several
parts are `handloom.retrieval.search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.store.embodiment import HUMAN
from handloom.store.location import lance_errors
from handloom.store.search.fusion import parts_of
from handloom.store.search.results import Hit, Hits, Part, read_hits
from handloom.store.search.scope import embedding_of, open_scope, row_of
from handloom.store.stages.row_keys import StageKeys
from handloom.store.tables import Tables

__all__ = ["Hit", "Hits", "Part", "embedding_of", "row_of", "search"]


def search(
    db: Tables,
    *,
    clip: str | None = None,
    vector: NDArray[np.floating[Any]] | None = None,
    vectors: Sequence[NDArray[np.floating[Any]]] | None = None,
    text: str | None = None,
    by: str = "motion",
    k: int = 10,
    where: str | None = None,
    embodiment: str = HUMAN,
    columns: Sequence[str] = (),
    exclude: Sequence[str] = (),
    version: int | None = None,
    stage_keys: StageKeys = None,
) -> Hits:
    """The `k` clips nearest to a clip, to vectors, or to words. Exactly one of `clip`, `vector`, `vectors`, `text`.

    Arguments as in `handloom.retrieval.search.search`; text is compared by its words alone.

    Raises:
        ConfigError: an argument or the SQL cannot be used.
        StoreError: nothing is processed yet, the clip is unknown or has no such embedding, the table cannot be read.
    """
    if sum(value is not None for value in (clip, vector, vectors, text)) != 1:
        raise ConfigError("search takes exactly one of clip, vector, vectors and text")
    if k < 1:
        raise ConfigError(f"k is {k}, expected 1 or more")
    scope = open_scope(
        db,
        where=where,
        embodiment=embodiment,
        columns=columns,
        exclude=[*exclude, *([clip] if clip is not None else [])],
        version=version,
        stage_keys=stage_keys,
        compared=[] if text is not None else [by],
    )
    with lance_errors("search clips", db.location.table_uri("clips")):
        if text is not None:
            found = scope.by_words("words", text, k)
        else:
            if clip is not None:
                vectors = [embedding_of(db, clip, by, scope.table.version)]
            found = scope.by_vectors(by, by, [vector] if vector is not None else vectors or (), k)
        if not found.scored:
            scope.check_demand()
        parts = parts_of([found], [one.clip_id for one in found.scored])
        hits = read_hits(scope.table, found.scored, columns, parts)
    scoring = "cosine" if text is None else "bm25"
    return Hits(hits, scope.table.version, found.exact, found.num_with, found.num_without, scoring)

"""Search: similar clips by an embedding or by words, best first, narrowed by an SQL filter.

The order is the same on every machine: score downwards, equal scores (to 6 digits) by clip_id.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lance
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.store.embodiment import HUMAN, narrowed
from handloom.store.location import lance_errors
from handloom.store.search.index import TEXT_COLUMNS, index_names, vector_index_name
from handloom.store.search.ranking import Scored, approximate, best_clips, by_text, rows_at, scan
from handloom.store.sql import clause, filtered, forms_of, in_list
from handloom.store.tables import Tables

HIT_COLUMNS = ("clip_id", "dataset", "video_id", "video_uri", "start_s", "end_s", "narration", "verb", "noun")
MAX_COMPARED_IDS = 20_000


@dataclass(frozen=True)
class Hit:
    """One clip found. score: cosine similarity (1 is equal) or, for text, BM25 (higher is better)."""

    clip_id: str
    score: float
    dataset: str
    video_id: str
    video_uri: str
    start_s: float
    end_s: float | None
    narration: str | None
    verb: str | None
    noun: str | None
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)  # the extra columns that were asked for


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """Clips found, best first. version: of `clips`, to pin what was searched. exact: no approximate index was used."""

    hits: tuple[Hit, ...]
    version: int
    exact: bool = True

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


def search(
    db: Tables,
    *,
    clip: str | None = None,
    vector: NDArray[np.floating] | None = None,
    vectors: Sequence[NDArray[np.floating]] | None = None,
    text: str | None = None,
    by: str = "motion",
    k: int = 10,
    where: str | None = None,
    embodiment: str = HUMAN,
    columns: Sequence[str] = (),
    exclude: Sequence[str] = (),
    version: int | None = None,
) -> Hits:
    """The `k` clips nearest to a clip, to vectors, or to words. Exactly one of `clip`, `vector`, `vectors`, `text`.

    Args:
        clip: id of a stored clip; the clip itself is left out of the hits.
        vector: (D,) of the embedding `by`; need not be unit norm.
        vectors: several, scored by the best of them (a query and its mirror image).
        text: words to find in narration, verb and noun together; inflected English forms match, and parts of what is
            written without spaces.
        by: `motion` or `appearance`; ignored for text.
        where: SQL filter, applied before the search: all `k` hits pass it.
        embodiment: whose clips are found: those of people (`human`), of robots (`robot`), or `all`. The clip that is
            searched by may be any.
        columns: further columns of `clips`, in `Hit.more`.
        exclude: ids to leave out.
        version: version of `clips` to search; the newest by default.

    Raises:
        ConfigError: an argument or the SQL cannot be used.
        StoreError: nothing is processed yet, the clip is unknown or has no such embedding, the store cannot be read.
    """
    if sum(value is not None for value in (clip, vector, vectors, text)) != 1:
        raise ConfigError("search takes exactly one of clip, vector, vectors and text")
    if k < 1:
        raise ConfigError(f"k is {k}, expected 1 or more")
    table = db.table("clips", version)
    if table is None:
        raise StoreError(f"{db.uri} holds no processed clips yet", "process them with `handloom run --db DB`")
    _check(table, where, columns)
    where = narrowed(db, where, embodiment)
    left_out = {*exclude, *(forms_of(clip) if clip is not None else [])}
    num_wanted = k + len(left_out)
    exact = True
    with lance_errors("search clips", db.location.table_uri("clips")):
        if text is not None:
            _check_text(table, text)
            scored = by_text(table, text, num_wanted, where)
        else:
            column = _column(by)
            if clip is not None:
                vectors = [embedding_of(db, clip, by, version)]
            queries = _queries([vector] if vector is not None else vectors, column, table)
            exact = vector_index_name(column) not in index_names(table)
            scored = (scan if exact else approximate)(table, column, queries, num_wanted, where)
        best = best_clips((found for found in scored if found.clip_id not in left_out), k)
        return Hits(_hits(table, best, columns), table.version, exact)


def embedding_of(db: Tables, clip_id: str, by: str, version: int | None = None) -> NDArray[np.float32]:
    """The stored embedding `by` of a clip: (D,). Raises StoreError if the clip or its embedding is not there."""
    cell = db.row(clip_id, [_column(by)], version).column(0)[0]
    if not cell.is_valid:
        raise StoreError(f"clip {clip_id} has no {by} embedding", "search by another embedding, or by text")
    return cell.values.to_numpy(zero_copy_only=False)


def unknown_clip(db: Tables, clip_id: str) -> StoreError:
    """Why a clip has no row: rejected, not processed yet, or unknown; then the nearest ids."""
    only = in_list("clip_id", forms_of(clip_id))
    rejected = db.read("rejects", where=only)
    if rejected.num_rows:
        reject = rejected.to_pylist()[0]
        return StoreError(f"clip {clip_id} was rejected at {reject['stage']} ({reject['reason']}): {reject['detail']}")
    if db.count("clip_list", only):
        return StoreError(f"clip {clip_id} is not processed yet", "process it with `handloom run --db DB`")
    known = db.clips(["clip_id"])
    ids = known.column("clip_id").to_pylist() if known.num_rows else []
    close = [i for i in ids if clip_id in i][:3] or difflib.get_close_matches(clip_id, ids[:MAX_COMPARED_IDS], 3, 0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"`handloom status --db {db.uri} --clips` lists all"
    return StoreError(f"there is no clip {clip_id!r} in {db.uri}", hint)


def _hits(table: lance.LanceDataset, best: list[Scored], columns: Sequence[str]) -> tuple[Hit, ...]:
    wanted = list(dict.fromkeys([*HIT_COLUMNS, *columns]))
    rows = {row["_rowid"]: row for row in rows_at(table, [found.row_id for found in best], wanted)}
    return tuple(
        Hit(
            score=found.score,
            **{name: rows[found.row_id][name] for name in HIT_COLUMNS},
            more={name: rows[found.row_id][name] for name in columns},
        )
        for found in best
    )


def _queries(
    vectors: Sequence[NDArray[np.floating]] | None, column: str, table: lance.LanceDataset
) -> NDArray[np.float64]:
    """Query vectors as (Q, D) of unit norm."""
    dim = table.schema.field(column).type.list_size
    queries = [np.asarray(v, np.float64).reshape(-1) for v in vectors or ()]
    if not queries or any(len(q) != dim for q in queries):
        raise ConfigError(f"the query vectors have {[len(q) for q in queries]} numbers, {column} has {dim}")
    norms = [float(np.linalg.norm(q)) for q in queries]
    if not all(np.isfinite(n) and n > 0 for n in norms):
        raise ConfigError("a query vector is zero or not finite", "was anything seen in the query's video?")
    return np.stack([q / n for q, n in zip(queries, norms, strict=True)])


def _column(by: str) -> str:
    if by not in EMBEDDINGS:
        raise ConfigError(f"there is no embedding {by!r}", f"search by {' or '.join(EMBEDDINGS)}")
    return EMBEDDINGS[by].column


def _check_text(table: lance.LanceDataset, text: str) -> None:
    if not text.strip():
        raise ConfigError("the text to search for is empty", "give one or more words")
    if not index_names(table) >= {f"{column}_text" for column in TEXT_COLUMNS}:
        raise StoreError(f"{table.uri} has no text index", "build it with `handloom index --db DB`")


def _check(table: lance.LanceDataset, where: str | None, columns: Sequence[str]) -> None:
    unknown = [name for name in columns if name not in table.schema.names]
    if unknown:
        raise ConfigError(f"there is no column {', '.join(unknown)}", f"columns: {', '.join(table.schema.names)}")
    if where is not None:
        with filtered(where, table.schema):
            table.scanner(columns=["clip_id"], filter=clause(where)).explain_plan()

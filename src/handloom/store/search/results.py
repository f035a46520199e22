"""What a search returns: clips, best first, with what each part of the query says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, overload

import lance
import pyarrow as pa

from handloom.store.filters import clause, filtered
from handloom.store.retry import past_lost_indexes
from handloom.store.search.copies import HIT_COLUMNS, rows_at
from handloom.store.search.ranking import Scored

LISTED = "listed"
"""`Hits.scoring` of clips that were not compared with anything."""


class Part(NamedTuple):
    """What one part of a query says of a clip. score: higher is better (cosine, BM25, or 1 / (1 + distance) of a
    trajectory). rank: 1 is best, equal scores share one; None: the clip is beyond the ranks that were compared."""

    score: float
    rank: int | None


@dataclass(frozen=True)
class Hit:
    """One clip found. score: that of the whole query (`Hits.scoring`), higher is better; NaN without a query. parts: of
    each part of the query by name; a part that says nothing of this clip is left out. match_start_s, match_end_s: where
    in the clip the asked movement is, seconds of the video's clock; None where no times were asked for."""

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
    parts: Mapping[str, Part] = field(default_factory=dict, hash=False)
    match_start_s: float | None = None
    match_end_s: float | None = None


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """Clips found, best first. version: of `clips`, to pin what was searched. exact: every clip that passes the filter
    was compared. num_with, num_without: clips that pass the filter and have the embedding, or lack it; None: not
    counted (words, an approximate index, several parts). scoring: what `Hit.score` is: `cosine`, `motion`, `bm25`,
    `moment`, `arvrm`; `rrf` or `weights` where several parts were combined; `listed` without a query, where `num_with`
    counts all that pass. unused: parts that could not be used, and why.
    num_duplicates: near-duplicates of better hits, left out; None: they were not asked to be.
    """

    hits: tuple[Hit, ...]
    version: int
    exact: bool = True
    num_with: int | None = None
    num_without: int | None = None
    scoring: str = "cosine"
    unused: Mapping[str, str] = field(default_factory=dict, hash=False)
    num_duplicates: int | None = None

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Hits: ...
    def __getitem__(self, index: int | slice) -> Hit | Hits:
        return replace(self, hits=self.hits[index]) if isinstance(index, slice) else self.hits[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


def first_hits(table: lance.LanceDataset, where: str | None, k: int) -> Hits:
    """The first `k` clips that pass a filter, as they are stored: `num_with` counts all that pass, scores are NaN.

    Raises ConfigError for a filter that Lance cannot use.
    """

    def read(use_indexes: bool) -> tuple[pa.Table, int]:
        scan = partial(table.scanner, filter=clause(where), with_row_id=True, use_scalar_index=use_indexes)
        return scan(columns=["clip_id"], limit=k).to_table(), scan(columns=[]).count_rows()

    with filtered(where, table):
        rows, num = past_lost_indexes(table.uri, read)
    pairs = zip(rows.column("clip_id").to_pylist(), rows.column("_rowid").to_pylist(), strict=True)
    first = [Scored(math.nan, clip_id, row_id) for clip_id, row_id in pairs]
    return Hits(read_hits(table, first, (), {}), table.version, num_with=num, scoring=LISTED)


def read_hits(
    table: lance.LanceDataset,
    best: Sequence[Scored],
    columns: Sequence[str],
    parts: Mapping[str, Mapping[str, Part]],
    times: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[Hit, ...]:
    """The rows of these clips as hits, in this order. parts: by clip, then by name. times: of the matches, by clip."""
    wanted = list(dict.fromkeys([*HIT_COLUMNS, *columns]))
    rows = {row["_rowid"]: row for row in rows_at(table, [found.row_id for found in best], wanted)}
    hits = []
    for found in best:
        row = rows[found.row_id]
        start_s, end_s = (times or {}).get(found.clip_id, (None, None))
        hits.append(
            Hit(
                score=found.score,
                **{name: row[name] for name in HIT_COLUMNS},
                more={name: row[name] for name in columns},
                parts=parts.get(found.clip_id, {}),
                match_start_s=start_s,
                match_end_s=end_s,
            )
        )
    return tuple(hits)

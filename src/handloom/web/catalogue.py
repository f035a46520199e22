"""All clips of one version of `clips` in memory, as far as lists need them: filters, counts, distributions, order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.arrow import QUALITY_FIELDS
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.filters import clause, filtered, stages_of
from handloom.store.location import lance_errors
from handloom.store.retry import past_lost_indexes
from handloom.store.search.index import TEXT_COLUMNS
from handloom.web.answers import NotThere
from handloom.web.distributions import Distribution, floats

COLUMNS = (
    *("clip_id", "dataset", "video_id", "start_s", "end_s", "duration_s", "num_frames", "width", "height"),
    *("narration", "verb", "noun", "participant", "hand_left", "hand_right", "world_scale", "run_key"),
)
WORDS = ("dataset", "verb", "noun", "participant")
"""Facets that are columns of text."""
FACETS = (*WORDS, "hand", "scale", "flag")
HANDS = ("none", "left", "right", "both")
FLAGS = ("none", "good", "bad")
NUMBERS = {"duration_s": "length of the clip", "num_frames": "frames that were looked at"}
"""Beside `quality`, what may be a range and sorts, and what it means."""
MOST_VALUES = 1000
"""Of a facet, the most frequent: EPIC-KITCHENS has 97 verbs and 300 nouns."""
STATES = ("current", "outdated", "missing", "rejected")
Mask = NDArray[np.bool_]
_serials = itertools.count()


@dataclass(frozen=True)
class Filters:
    """What is chosen. chosen: values by facet, "" stands for null. ranges: (least, most) by number, None is open.
    where: SQL. stages: (stage, one of `STATES`)."""

    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    where: str | None = None
    stages: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Known:
    """What is known outside of `clips`. verdicts: by clip. keys: today's, by stage. rejected: clips by stage."""

    verdicts: Mapping[str, str]
    keys: Callable[[], Mapping[str, str | None]]
    rejected: Callable[[str], frozenset[str]]


class Catalogue:
    """The clips of one version, by their place in the list. Columns that few look at are read when first asked for.

    newest: of an older version only the clips that this one still has: what was removed is shown in no version.
    """

    def __init__(self, db: Database, table: Any, newest: Catalogue | None = None) -> None:
        self.db, self.table = db, table
        self.serial = next(_serials)
        """Another one for every catalogue: of one version there may be several, with and without removed clips."""
        self._still: pa.ChunkedArray | None = None
        self.version: int | None = None if table is None else table.version
        self.schema = pa.schema([]) if table is None else table.schema
        self._lock = threading.Lock()
        self._orders: dict[str, NDArray[np.int64]] = {}
        self._masks: dict[str, Mask] = {}
        self._ranks: dict[str, NDArray[np.intp]] = {}
        self._more: dict[str, pa.ChunkedArray] = {}
        self._flags: tuple[Mapping[str, str], NDArray[np.int32]] | None = None
        columns = [name for name in (*COLUMNS, "quality") if name in self.schema.names]
        rows = pa.table({}) if table is None else self._read(columns, with_row_id=True)
        if newest is not None:
            self._still = pc.is_in(rows.column("clip_id"), newest.ids)
            rows = rows.filter(self._still)
        self.num_clips = rows.num_rows
        self.row_ids = np.empty(0, np.uint64) if table is None else rows.column("_rowid").to_numpy()
        self.numbers = {name: floats(rows.column(name)) for name in NUMBERS if name in rows.column_names}
        if "quality" in rows.column_names:
            struct = rows.column("quality").combine_chunks()
            names = [part.name for part in struct.type]
            self.numbers |= {name: floats(pc.struct_field(struct, name)) for name in QUALITY_FIELDS if name in names}
        kept = [name for name in COLUMNS if name in rows.column_names]
        self.rows = rows.select(kept).combine_chunks() if kept else rows
        self.codes = {name: _encoded(self.rows.column(name)) for name in WORDS if name in kept}
        if table is not None:
            left, right = (self.rows.column(f"hand_{side}").to_numpy().astype(np.int32) for side in ("left", "right"))
            self.codes["hand"] = (left + 2 * right, list(HANDS))
            if "world_scale" in kept:
                self.codes["scale"] = _encoded(self.rows.column("world_scale"))

    def warm(self) -> Catalogue:
        """Make what the first pages need."""
        _ = self.places, self._distributions
        return self

    @property
    def ids(self) -> pa.ChunkedArray:
        """(n,) the ids of the clips."""
        return self.rows.column("clip_id") if self.table is not None else pa.chunked_array([], pa.string())

    @cached_property
    def has_words(self) -> bool:
        """Whether anything was said of any clip."""
        return any(
            self.rows.column(name).null_count < self.num_clips
            for name in TEXT_COLUMNS
            if name in self.rows.column_names
        )

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each clip."""
        ids = self.rows.column("clip_id").to_pylist() if self.num_clips else []
        return {clip_id: place for place, clip_id in enumerate(ids)}

    def place(self, clip_id: str) -> int:
        """The place of one clip. Raises NotThere, which says why it has no row."""
        found = self.places.get(clip_id)
        if found is None:
            raise self._absent(clip_id)
        return found

    def key(self, place: int) -> tuple[int | None, int]:
        """What the row at a place is known by: its version and its id there."""
        return self.version, int(self.row_ids[place])

    def _absent(self, clip_id: str) -> NotThere:
        try:
            self.db.row(clip_id, ["clip_id"], self.version)
        except StoreError as error:
            return NotThere(error.problem, error.hint)
        if self._still is not None:
            problem = f"clip {clip_id} was removed after version {self.version}"
            return NotThere(problem, "the gallery shows no clip that the newest version does not have")
        return NotThere(f"clip {clip_id} came with a later version than {self.version}", "load the page again")

    def facts(self, places: Sequence[int] | NDArray[np.int64]) -> list[dict[str, Any]]:
        """What lists show of some clips."""
        rows = self.rows.take(pa.array(places, pa.int64())).to_pylist() if len(places) else []
        for row in rows:
            row.pop("run_key", None)
        return rows

    def _read(self, columns: Sequence[str], with_row_id: bool = False) -> pa.Table:
        with lance_errors("read table clips", self.table.uri):
            rows = self.table.to_table(columns=list(columns), with_row_id=with_row_id)
        return rows if self._still is None else rows.filter(self._still)

    def column(self, name: str) -> pa.ChunkedArray:
        """A small column of all clips, kept. Null where the table lacks it."""
        with self._lock:
            if name not in self._more:
                absent = pa.chunked_array([pa.nulls(self.num_clips)])
                self._more[name] = self._read([name]).column(0) if name in self.schema.names else absent
            return self._more[name]

    # Filters

    def flag_codes(self, verdicts: Mapping[str, str]) -> NDArray[np.int32]:
        """(n,) places in `FLAGS`."""
        kept = self._flags
        if kept is None or kept[0] is not verdicts:
            codes = np.zeros(self.num_clips, np.int32)
            for clip_id, verdict in verdicts.items():
                place = self.places.get(clip_id)
                if place is not None and verdict in FLAGS:
                    codes[place] = FLAGS.index(verdict)
            kept = self._flags = (verdicts, codes)
        return kept[1]

    def _facet(self, name: str, known: Known) -> tuple[NDArray[np.int32], list[str]]:
        if name == "flag":
            return self.flag_codes(known.verdicts), list(FLAGS)
        return self.codes.get(name, (np.full(self.num_clips, -1, np.int32), []))

    def masks(self, filters: Filters, known: Known) -> dict[str, Mask]:
        """A mask of the clips that pass, by part of the filters: a facet's name, `q.NAME`, `where`, `stage`.

        Raises ConfigError for an unknown number, stage or state, and for SQL that cannot be used.
        """
        found = {}
        for name, values in filters.chosen.items():
            codes, words = self._facet(name, known)
            at = {word: code for code, word in enumerate(words)}
            found[name] = np.isin(codes, [-1 if value == "" else at.get(value, -2) for value in values])
        for name, (least, most) in filters.ranges.items():
            values_of = self.number(name)
            mask = ~np.isnan(values_of)
            mask &= True if least is None else values_of >= values_of.dtype.type(least)  # as SQL compares
            found[f"q.{name}"] = mask & (True if most is None else values_of <= values_of.dtype.type(most))
        if filters.where is not None:
            found["where"] = self._passing(filters.where)
        for stage, state in filters.stages:
            mask = self._in_state(stage, state, known)
            found["stage"] = found["stage"] & mask if "stage" in found else mask
        return found

    def number(self, name: str) -> NDArray[np.floating[Any]]:
        """(n,) NaN unknown. Raises ConfigError for a number that there is not."""
        if name in self.numbers:
            return self.numbers[name]
        if not self.num_clips:
            return np.empty(0, np.float32)
        raise ConfigError(f"there is no number {name!r}", f"expected one of: {', '.join(self.numbers)}")

    def _passing(self, where: str) -> Mask:
        """The clips that pass an SQL filter; the last filters are kept."""
        condition = clause(self.db.expanded(where)) or "true"  # judgements change, the clips of this version do not
        with self._lock:
            kept = self._masks.get(condition)
        if kept is not None or self.table is None:
            return np.zeros(self.num_clips, np.bool_) if kept is None else kept
        with lance_errors("filter table clips", self.table.uri), filtered(where, self.table):

            def read(use_indexes: bool) -> pa.Table:
                scan = self.table.scanner(columns=[], filter=condition, with_row_id=True, use_scalar_index=use_indexes)
                return scan.to_table()

            ids = past_lost_indexes(self.table.uri, read).column("_rowid").to_numpy()
        mask = np.isin(self.row_ids, ids)
        with self._lock:
            while len(self._masks) >= 16:
                self._masks.pop(next(iter(self._masks)))
            self._masks[condition] = mask
        return mask

    def check_stage(self, stage: str, state: str) -> None:
        """Raise ConfigError for a stage that the table has no keys of, and for another state."""
        stages = stages_of(self.schema)
        if self.num_clips and stage not in stages:
            raise ConfigError(f"there is no stage {stage!r}", f"expected one of: {', '.join(stages)}")
        if state not in STATES:
            raise ConfigError(f"stage={stage}:{state}", f"expected {stage}: and one of {', '.join(STATES)}")

    def _in_state(self, stage: str, state: str, known: Known) -> Mask:
        self.check_stage(stage, state)
        if state == "rejected":
            mask = np.zeros(self.num_clips, np.bool_)
            mask[[self.places[one] for one in known.rejected(stage) if one in self.places]] = True
            return mask
        keys = self.column(key_column(stage))
        missing = keys.is_null().to_numpy()
        if state == "missing":
            return missing
        key = known.keys().get(stage)
        same = np.zeros(self.num_clips, np.bool_)
        if key is not None:
            same = pc.fill_null(pc.equal(keys, key), False).to_numpy()
        return same if state == "current" else ~missing & ~same

    # Counts

    def facets(self, masks: Mapping[str, Mask], known: Known, within: Mask | None = None) -> dict[str, list[list[Any]]]:
        """`[[value, count], ...]` of each facet, the most frequent first, equal ones by name, unknown after them. A
        facet's own choice does not count.

        within: of these clips alone.
        """
        told = {}
        everywhere = self._passing_but("", masks, within)
        for name in FACETS:
            at = self._passing_but(name, masks, within) if name in masks else everywhere
            codes, words = self._facet(name, known)
            counts = np.bincount(codes[at] + 1, minlength=len(words) + 1)
            order = np.lexsort((self._name_ranks(name, words), -counts))[:MOST_VALUES]
            values = [None, *words]
            told[name] = [[values[place], int(counts[place])] for place in order if counts[place]]
        return told

    def telling(self, verdicts: Mapping[str, str]) -> list[str]:
        """The facets by which clips of this version differ; `flag` as soon as one is judged."""
        found = [name for name, (codes, _) in self.codes.items() if len(codes) and codes.min() != codes.max()]
        return [*found, "flag"] if self.flag_codes(verdicts).any() else found

    def _name_ranks(self, name: str, words: Sequence[str]) -> NDArray[np.intp]:
        """(1 + n,) the order of a facet's values by name, null first in the array and last in the order; kept."""
        if name not in self._ranks:
            by_name = sorted(range(len(words)), key=lambda at: (words[at].casefold(), words[at]))
            self._ranks[name] = np.argsort([*(1 + at for at in by_name), 0])
        return self._ranks[name]

    def passing(self, masks: Mapping[str, Mask], within: Mask | None = None) -> Mask:
        """The clips that pass all masks."""
        found = np.ones(self.num_clips, np.bool_) if within is None else within.copy()
        for mask in masks.values():
            found &= mask
        return found

    def _passing_but(self, own: str, masks: Mapping[str, Mask], within: Mask | None) -> NDArray[np.intp]:
        """Places of the clips that pass all masks but one. To count at masks takes five times as long as at places."""
        return np.flatnonzero(self.passing({part: mask for part, mask in masks.items() if part != own}, within))

    def histograms(self, masks: Mapping[str, Mask], within: Mask | None = None) -> dict[str, dict[str, Any]]:
        """The distribution of each number: over all clips (`all`), and over those that pass, but for its own range."""
        told = {}
        everywhere = self._passing_but("", masks, within)
        for name, distribution in self._distributions.items():
            at = self._passing_but(own, masks, within) if (own := f"q.{name}") in masks else everywhere
            told[name] = distribution.histogram(at)
        return told

    def standing(self, name: str, value: float | None) -> dict[str, float | None]:
        """Where a clip's value stands among those of the others: `Distribution.standing`."""
        found = self._distributions.get(name)
        return {"place": None, "equal": None} if found is None else found.standing(value)

    @cached_property
    def _distributions(self) -> dict[str, Distribution]:
        return {name: Distribution(values) for name, values in self.numbers.items()}

    # Order

    def order(self, sort: str) -> NDArray[np.int64]:
        """The places of all clips in an order: `NAME`, `-NAME` of a number or `clip_id`, `random:SEED`, "" as stored.

        Unknown numbers come last. Raises ConfigError for another word.
        """
        with self._lock:
            if sort in self._orders:
                return self._orders[sort]
        order = self._ordered(sort)
        with self._lock:
            while len(self._orders) >= 8:
                self._orders.pop(next(iter(self._orders)))
            self._orders[sort] = order
        return order

    def sorted_by(self, sort: str) -> NDArray[np.float64] | None:
        """The number (n,) of all clips that this order is by, NaN where unknown; None where it is by none."""
        return self.numbers.get(sort.removeprefix("-"))

    def _ordered(self, sort: str) -> NDArray[np.int64]:
        if not sort or not self.num_clips:
            return np.arange(self.num_clips)
        if sort.startswith("random:"):
            seed = [ord(letter) for letter in sort.removeprefix("random:")[:64]]
            return np.random.default_rng([0, *seed]).permutation(self.num_clips)
        name, down = sort.removeprefix("-"), sort.startswith("-")
        if name == "clip_id":
            order = pc.sort_indices(self.rows.column(name), sort_keys=[("", "descending" if down else "ascending")])
            return order.to_numpy().astype(np.int64)
        values = self.numbers.get(name)
        if values is None:
            names = ", ".join(["clip_id", "random:SEED", *self.numbers])
            raise ConfigError(f"sort={sort!r}", f"expected one of these, or with - before it: {names}")
        return np.argsort(-values if down else values, kind="stable")


def _encoded(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[str]]:
    """(n,) places in the list of values, -1 for null; the list."""
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return codes, coded.dictionary.to_pylist()

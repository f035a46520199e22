"""Similar clips for every sample: by an embedding, or from a mapping."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.embeddings import embedding_columns, no_embedding
from handloom.store.embodiment import narrowed, robot_datasets
from handloom.store.search.ranking import SCORE_DIGITS
from handloom.store.stages.row_keys import key_spread, note_mixed, stages_behind, with_demand
from handloom.windows.plan import long_enough
from handloom.windows.rows.images import ImageCache
from handloom.windows.rows.reader import RowReader
from handloom.windows.sample import Sample, spread_window
from handloom.windows.spec import VIDEO_OF, WindowSpec, check_columns, make_spec
from handloom.windows.split import held_out_of, joined_videos

if TYPE_CHECKING:
    from handloom.store.tables import Tables
    from handloom.windows.plan import Plan


@dataclass(frozen=True)
class Neighbours:
    """The `k` clips of other videos that are nearest by cosine, best first; equal scores (to 6 digits) go by clip_id.

    They are chosen among the clips that pass the windows' filter. Windows with a split get neighbours of the training
    split alone, so that held-out clips are neither trained on nor looked up.

    by: `motion`, `appearance`, or NAME of any other column `embedding_NAME`. ids: instead of `by`, the neighbours of
    every clip (or episode), of which the first k are taken. fields: of the neighbours' samples; by default those of the
    windows; required for robot episodes. version: of `clips`, for robot episodes; None is the newest.
    """

    k: int
    by: str = "motion"
    ids: Mapping[str, Sequence[str]] | None = None
    fields: Sequence[str] | None = None
    version: int | None = None


def columns_for(wanted: Neighbours | Mapping[str, Sequence[str]] | None) -> list[str]:
    """The columns by which neighbours are found."""
    return [f"embedding_{wanted.by}"] if isinstance(wanted, Neighbours) and wanted.ids is None else []


class Finder:
    """A clip's neighbours as samples. Ids and embeddings are read once per process, at the first call.

    Brute force: 1e5 clips of 608 numbers take 243 MB, and 20 ms a query on one core, once per clip and process.
    """

    def __init__(
        self,
        db: Tables,
        spec: WindowSpec,
        version: int,
        wanted: Neighbours | Mapping[str, Sequence[str]],
        max_bytes: int = 256 << 20,
    ) -> None:
        """Raises ConfigError for neighbours that these windows cannot have, StoreError if there are no clips."""
        if not isinstance(wanted, Neighbours):
            wanted = Neighbours(max((len(ids) for ids in wanted.values()), default=0), ids=wanted)
        other_table = spec.table != "clips"
        if wanted.k < 1 or (other_table and (wanted.ids is None or wanted.fields is None)):
            raise ConfigError(
                f"{wanted.k} neighbours for windows of {spec.table}",
                "k is 1 or more; episodes need ids={episode_id: clip_ids} and the fields of the clips",
            )
        self._db = db
        self._wanted = wanted
        self._max_bytes = max_bytes
        self._version = version if not other_table else _clips_version(db, wanted.version)
        self._spec = _clip_spec(spec, wanted.fields)
        check_columns(self._spec, db.existing_table("clips", self._version).schema)
        where = with_demand(spec.where, dict(spec.stage_keys))
        self._pool = (None, None) if other_table else (where, spec.split)
        self._reader = RowReader(db.location, self._spec, self._version, max_bytes)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_now_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._now_place: dict[str, int] = {}
        self._now_pool: _Pool | None = None
        self._now_found: dict[str, list[int]] = {}
        self._now_images = ImageCache(self._max_bytes)

    def key(self) -> str:
        """Hash of the choice of neighbours and of the spec of their samples."""
        wanted = self._wanted
        ids = None if wanted.ids is None else sorted((key, list(names)) for key, names in wanted.ids.items())
        content = [wanted.k, wanted.by, ids, self._spec.key(), self._pool]
        content += [] if self._spec.table == "clips" and wanted.version is None else [self._version]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def samples(self, id_: str) -> list[Sample]:
        """The neighbours of a clip (or episode), best first: S frames of each, evenly from its first to its last.

        Raises ConfigError if the mapping lacks the clip or names one that is not in the table, or if too few clips of
        other videos have the embedding.
        """
        rows = [self._reader.row(place) for place in self.places(id_)]
        return [spread_window(row, self._spec, self._now_images) for row in rows]

    def places(self, id_: str) -> list[int]:
        """Rows of the neighbours in `clips`, best first."""
        if id_ not in self._now_found:
            self._now_found[id_] = self._near(id_) if self._wanted.ids is None else self._named(id_, self._wanted.ids)
        return self._now_found[id_]

    def check(self, plan: Plan) -> None:
        """Find the neighbours of the first clip, so that a ConfigError is raised early."""
        if len(plan.ids):
            self.places(plan.ids[0].as_py())

    def _place_of(self) -> dict[str, int]:
        """The row of every clip, read once."""
        if not self._now_place:
            rows = self._db.read("clips", ["clip_id"], version=self._version)
            self._now_place = {id_: place for place, id_ in enumerate(rows.column(0).to_pylist())}
        return self._now_place

    def _near(self, id_: str) -> list[int]:
        by, place_of = self._wanted.by, self._place_of()
        if self._now_pool is None:
            self._now_pool = _read_pool(self._db, self._spec, self._version, by, *self._pool)
        found = self._now_pool
        own = found.number.get(id_)
        if own is None or not np.isfinite(found.vectors[own]).all():
            raise ConfigError(
                f"clip {id_} has no {by} embedding, so it has no neighbours", f"where='embedding_{by} IS NOT NULL'"
            )
        scores = (found.vectors @ found.vectors[own]).astype(np.float64).round(SCORE_DIGITS)
        scores[(found.videos == found.videos[own]) | ~found.allowed | ~np.isfinite(scores)] = -np.inf
        num = int(np.isfinite(scores).sum())
        if num < self._wanted.k:
            raise ConfigError(
                f"{self._wanted.k} neighbours of {id_} are asked for, but only {num} allowed clips of other videos "
                f"have a {by} embedding",
                "ask for fewer, or add videos",
            )
        last = np.partition(scores, len(scores) - self._wanted.k)[len(scores) - self._wanted.k]
        best = np.flatnonzero(scores >= last)
        best = best[np.lexsort((found.ids[best], -scores[best]))][: self._wanted.k]
        return [place_of[str(name)] for name in found.ids[best]]

    def _named(self, id_: str, ids: Mapping[str, Sequence[str]]) -> list[int]:
        names, place_of = list(ids.get(id_, ()))[: self._wanted.k], self._place_of()
        if len(names) < self._wanted.k:
            problem = f"names {len(names)} of {self._wanted.k} neighbours of" if names else "lacks"
            raise ConfigError(f"the mapping of neighbours {problem} {id_}", "give every clip of the windows as many")
        unknown = [name for name in names if name not in place_of]
        if unknown:
            raise ConfigError(
                f"neighbour {unknown[0]!r} of {id_} has no row in version {self._version} of clips",
                "compute the mapping from the version that is trained on",
            )
        return [place_of[name] for name in names]


@dataclass(frozen=True, eq=False)
class _Pool:
    """All R clips. ids: (R,). number: {id: its place}. videos: (R,) as numbers. vectors: (R, D), NaN for null. allowed:
    (R,) which may be neighbours."""

    ids: NDArray[np.str_]
    number: dict[str, int]
    videos: NDArray[np.int64]
    vectors: NDArray[np.float32]
    allowed: NDArray[np.bool_]


def _read_pool(db: Tables, spec: WindowSpec, version: int, by: str, where: str | None, split: str | None) -> _Pool:
    column = f"embedding_{by}"
    table = db.existing_table("clips", version)
    if by not in embedding_columns(table.schema):
        raise ConfigError(f"neighbours by {by!r}: {no_embedding(by, table.schema)}")
    rows = db.read("clips", ["clip_id", *VIDEO_OF["clips"], column], version=version)
    ids = np.array(rows.column("clip_id").to_pylist())
    parts = [rows.column(name).to_pylist() for name in VIDEO_OF["clips"]]
    numbers = np.unique(["/".join(names) for names in zip(*parts, strict=True)], return_inverse=True)[1]
    allowed = np.ones(len(ids), bool)
    where = narrowed(db, where, spec.embodiment)
    if where is not None:
        allowed &= np.isin(ids, db.read("clips", ["clip_id"], where, version).column(0).to_pylist())
    if split is not None:
        joined = joined_videos(table, spec)
        allowed &= ~held_out_of(rows, spec, robot_datasets(db), long_enough(table, spec), joined)
    note_mixed(key_spread(table, stages_behind(table.schema, [column]), where), f"neighbours by {by} in {db.uri}")
    vectors = _matrix(rows.column(column).combine_chunks())
    return _Pool(ids, {name: n for n, name in enumerate(ids.tolist())}, numbers, vectors, allowed)


def _clip_spec(spec: WindowSpec, fields: Sequence[str] | None) -> WindowSpec:
    """What a neighbour's sample holds: the windows' steps and image size, of `clips`."""
    if fields is None:
        return replace(spec, where=None, split=None, spans=())
    return make_spec(
        past=spec.past,
        future=spec.future,
        fields=fields,
        image_size=spec.image_size,
        seed=spec.seed,
        held_out_share=spec.held_out_share,
    )


def _clips_version(db: Tables, version: int | None) -> int:
    table = db.table("clips", version)
    if table is None:
        raise StoreError(f"{db.uri} has no clips to be neighbours", "extract some with `handloom run --db DB`")
    return table.version


def _matrix(column: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """(R, D), NaN for null."""
    width = column.type.list_size
    matrix = np.full((len(column), width), np.nan, np.float32)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    matrix[there] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return matrix

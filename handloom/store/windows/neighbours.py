"""Similar clips for every sample: by an embedding, or as a mapping says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.store.windows.spec import ID_OF, VIDEO_OF

if TYPE_CHECKING:
    from handloom.store.database import Database
    from handloom.store.windows.plan import Plan


@dataclass(frozen=True)
class Neighbours:
    """The `k` clips of other videos whose embedding `by` is nearest (cosine), best first; ties go by id."""

    k: int
    by: str = "motion"


class Finder:
    """Tells the places of a clip's neighbours in the table. Reads ids and embeddings once per process, when asked.

    Brute force: 1e5 clips of 608 numbers are 243 MB and 20 ms a query on one core.
    """

    def __init__(
        self, db: Database, table: str, version: int, wanted: Neighbours | Mapping[str, Sequence[str]]
    ) -> None:
        if isinstance(wanted, Neighbours) and (wanted.k < 1 or table != "clips"):
            raise ConfigError(f"{wanted} of table {table}", "k is 1 or more, and only clips have embeddings")
        self._db = db
        self._table = table
        self._version = version
        self._wanted = wanted if isinstance(wanted, Neighbours) else {key: tuple(ids) for key, ids in wanted.items()}
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_db", "_table", "_version", "_wanted")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._place: dict[str, int] = {}
        self._videos: NDArray[np.str_] | None = None
        self._vectors: NDArray[np.float32] | None = None
        self._found: dict[str, list[int]] = {}

    def places(self, id_: str) -> list[int]:
        """Rows of the neighbours of a clip, best first.

        Raises ConfigError where a mapping lacks the clip or names one that is not in the table.
        """
        if id_ not in self._found:
            self._load()
            self._found[id_] = self._near(id_) if isinstance(self._wanted, Neighbours) else self._named(id_)
        return self._found[id_]

    def check(self, plan: Plan) -> None:
        """Raise ConfigError early, where the first clip's neighbours cannot be found."""
        self.places(plan.ids[0].as_py())

    def _load(self) -> None:
        if self._place:
            return
        id_column = ID_OF[self._table]
        by_embedding = isinstance(self._wanted, Neighbours)
        columns = [id_column, *(VIDEO_OF[self._table] if by_embedding else ())]
        columns += [f"embedding_{self._wanted.by}"] if by_embedding else []
        schema = self._db.table(self._table, self._version).schema
        if by_embedding and columns[-1] not in schema.names:
            known = ", ".join(n.removeprefix("embedding_") for n in schema.names if n.startswith("embedding_"))
            raise ConfigError(f"neighbours by {self._wanted.by!r}: no such embedding", f"expected one of: {known}")
        rows = self._db.read(self._table, list(dict.fromkeys(columns)), version=self._version)
        self._place = {id_: place for place, id_ in enumerate(rows.column(id_column).to_pylist())}
        if by_embedding:
            parts = [rows.column(name).to_pylist() for name in VIDEO_OF[self._table]]
            self._videos = np.array(["/".join(names) for names in zip(*parts, strict=True)])
            self._vectors = _matrix(rows.column(columns[-1]).combine_chunks())

    def _near(self, id_: str) -> list[int]:
        own = self._place[id_]
        scores = self._vectors @ self._vectors[own]
        other = (self._videos != self._videos[own]) & np.isfinite(scores)
        if not np.isfinite(self._vectors[own]).all():
            raise ConfigError(
                f"clip {id_} has no {self._wanted.by} embedding, so nothing is near it",
                f"where='embedding_{self._wanted.by} IS NOT NULL'",
            )
        if other.sum() < self._wanted.k:
            raise ConfigError(
                f"{self._wanted.k} neighbours of {id_} are asked for, {int(other.sum())} clips of other videos have a "
                f"{self._wanted.by} embedding",
                "ask for fewer, or add videos",
            )
        best = np.argsort(np.where(other, -scores, np.inf), kind="stable")[: self._wanted.k]
        return [int(place) for place in best]

    def _named(self, id_: str) -> list[int]:
        names = self._wanted.get(id_)
        if names is None:
            raise ConfigError(f"the mapping of neighbours lacks {id_}", "give every clip of the windows its neighbours")
        unknown = [name for name in names if name not in self._place]
        if unknown:
            raise ConfigError(
                f"neighbour {unknown[0]!r} of {id_} has no row in version {self._version} of {self._table}",
                "compute the mapping on the version that is trained on",
            )
        return [self._place[name] for name in names]


def _matrix(column: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """(R, D), NaN for null."""
    width = column.type.list_size
    matrix = np.full((len(column), width), np.nan, np.float32)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    matrix[there] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return matrix

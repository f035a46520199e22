"""The parts of a query that are not text: what each compares, made from a clip, a video, an image or a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.retrieval import video
from handloom.retrieval.movement.courses import SCORING, Courses, can_align
from handloom.retrieval.movement.moments import Movement, knows_what_moves, rank_moments
from handloom.retrieval.movement.trajectory import read_trajectory, row_of_trajectory
from handloom.retrieval.query import ARVRM, DEFAULT_BY, NoPart, PartQuery
from handloom.retrieval.ranges import frames_in, motion_of, piece
from handloom.retrieval.video import OnStage
from handloom.retrieval.words import TEXT, text_vector, todays_vector
from handloom.schemas.tables.row import row_arrays
from handloom.store.search.scope import OtherWords, Scope, embedding_of, row_of

MOMENT = "moment"
Vectors = Sequence[NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Asked:
    """What a query gives: see `handloom.retrieval.search.search`. by: weights by name."""

    text: str | None = None
    clip: str | None = None
    video: str | None = None
    image: Any = None
    trajectory: Any = None
    vectors: Vectors | None = None
    from_s: float | None = None
    to_s: float | None = None
    by: Mapping[str, float] = field(default_factory=dict)
    mirror: bool = False
    start_s: float = 0.0
    end_s: float | None = None
    hz: float | None = None
    source_options: dict[str, Any] | None = None
    longest_s: float | None = None
    on_stage: OnStage | None = None

    @property
    def text_alone(self) -> bool:
        return self.text is not None and not self.sources

    @property
    def has_range(self) -> bool:
        return self.from_s is not None or self.to_s is not None

    @cached_property
    def sources(self) -> list[str]:
        """The names of what is given."""
        given = ("clip", "video", "image", "trajectory", "vectors")
        return [name for name in given if getattr(self, name) is not None]

    def has_source(self) -> bool:
        return bool(self.sources)

    def names(self) -> dict[str, float]:
        """The embeddings to compare a clip, a video or vectors by, with their weights."""
        return dict(self.by) or {DEFAULT_BY: 1.0}

    def compared(self) -> list[str]:
        """The embeddings that a name was given for, or that are compared by default: they must be in the table."""
        compares = {"clip", "video", "vectors"} & set(self.sources)
        return list(self.by) or ([DEFAULT_BY] if compares else [])

    def check(self) -> None:
        """Raise ConfigError for arguments that do not go together."""
        moving = {"clip", "video", "trajectory"} & set(self.sources)
        if self.mirror and (not moving or (moving != {"trajectory"} and DEFAULT_BY not in self.names())):
            raise ConfigError(
                "mirror compares motion: it goes with a clip or a video compared by motion, or with a trajectory"
            )
        if self.hz is not None and self.trajectory is None:
            raise ConfigError("hz is the rate of a trajectory, and there is none", "leave it out")
        ranged = {"clip", "video"} & set(self.sources)
        if self.has_range and len(ranged) != 1:
            what = " and ".join(sorted(ranged)) or "neither"
            raise ConfigError(f"a range goes with one clip or one video, got {what}", "give one of them, or no range")
        if (self.start_s or self.end_s is not None) and self.video is None:
            raise ConfigError(
                f"start_s and end_s choose a part of a video, got {', '.join(self.sources) or 'text'}",
                "leave them out; from_s and to_s choose a part of a clip",
            )
        if (self.start_s or self.end_s is not None) and self.has_range:
            raise ConfigError(
                "start_s, end_s and from_s, to_s are given",
                "from_s, to_s: find when such a piece is in other clips; start_s, end_s: compare it whole",
            )
        if self.vectors is not None and len(self.names()) > 1:
            raise ConfigError(f"vectors are of one embedding, by has {', '.join(self.by)}", "search by one")
        if ARVRM in self.by and (self.sources != ["clip"] or len(self.by) > 1 or self.has_range or self.mirror):
            raise ConfigError(f"by {ARVRM} compares a whole clip, alone", "give one clip, by arvrm")


def vector_parts(scope: Scope, asked: Asked) -> dict[str, Callable[[], PartQuery]]:
    """By name, what makes each part; it raises one of `UNUSABLE` where the part says nothing here."""
    made: dict[str, Callable[[], PartQuery]] = {}
    several = len(asked.sources) > 1
    source = _Source(scope, asked)
    if asked.text_alone:
        made = {name: _maker(source, "text", name, name, weight) for name, weight in asked.by.items()}
    compared = set(made)
    for origin in asked.sources:
        prefix = f"{origin}." if several else ""
        for name, weight in _names(scope, asked, origin).items():
            made[f"{prefix}{name}"] = _maker(source, origin, name, f"{prefix}{name}", weight)
            compared.add(DEFAULT_BY if name == MOMENT else name)
    return made | {name: _refusal(asked, name) for name in asked.by if name not in compared}


def _refusal(asked: Asked, name: str) -> Callable[[], PartQuery]:
    """In place of a part by an embedding that nothing of the query has."""

    def refuse() -> PartQuery:
        raise NoPart(f"{' and '.join(asked.sources)} cannot be compared by {name}", "give a clip or a video as well")

    return refuse


def _names(scope: Scope, asked: Asked, origin: str) -> dict[str, float]:
    """What a source is compared by, with weights. A range is compared by its movement in place of `motion`."""
    if origin == "trajectory":
        return {MOMENT: asked.by.get(DEFAULT_BY, 1.0)}
    if origin == "image":
        from handloom.retrieval.pictures import LOOK, image_names

        able = image_names(scope.db, scope.schema)
        named = {name: weight for name, weight in asked.by.items() if name in able}
        return named or (dict(asked.by) if asked.sources == ["image"] else {}) or {LOOK: 1.0}
    names = asked.names()
    if asked.has_range and origin in ("clip", "video"):
        return {MOMENT if name == DEFAULT_BY else name: weight for name, weight in names.items()}
    return names


def _maker(source: _Source, origin: str, by: str, name: str, weight: float) -> Callable[[], PartQuery]:
    return lambda: source.part(origin, by, name, weight)


class _Source:
    """What the query's clip, video, image and trajectory hold; each is read once, when first needed."""

    def __init__(self, scope: Scope, asked: Asked) -> None:
        self._scope, self._asked = scope, asked

    def part(self, origin: str, by: str, name: str, weight: float) -> PartQuery:
        """One part. Raises one of `UNUSABLE`, or ConfigError, StoreError."""
        if by == ARVRM:
            from handloom.retrieval.analogy import arvrm_part

            return arvrm_part(self._scope, self._named("clip"), name)
        if by == MOMENT:
            moving, by_hands = knows_what_moves(self._scope), origin == "trajectory"
            movement = Movement(self._row(origin), self._what(origin), self._asked.mirror, moving, by_hands)
            return PartQuery(name, lambda depth: rank_moments(self._scope, name, movement, depth, weight), None, MOMENT)
        vectors = self._vectors(origin, by)
        if by == DEFAULT_BY and origin in ("clip", "video") and can_align(self._scope, vectors):
            courses = Courses(self._scope, name, vectors, weight)
            return PartQuery(name, courses.rank, courses.scores, SCORING)
        return PartQuery(
            name,
            lambda depth: self._scope.by_vectors(name, by, vectors, depth, weight),
            lambda row_ids: self._scope.vector_scores(by, vectors, row_ids),
        )

    def _vectors(self, origin: str, by: str) -> Vectors:
        asked, scope = self._asked, self._scope
        if origin == "vectors" and asked.vectors is not None:
            return asked.vectors
        if origin == "text":
            return [text_vector(scope, by, self._named("text"))]
        if origin == "image" or (asked.has_range and origin == "clip"):
            from handloom.retrieval.pictures import stored_frames, vector_of

            frames = self._image[None] if origin == "image" else stored_frames(self._clip_row)
            self._need_column(by)
            return [vector_of(scope.db, scope.schema, by, frames)]
        if origin == "clip" and not (asked.mirror and by == DEFAULT_BY):
            return [self._stored(by)]
        row = self._row(origin)
        mirrored = motion_of(row, mirrored=True) if asked.mirror and by == DEFAULT_BY else None
        there = [vector for vector in (row.get(f"embedding_{by}"), mirrored) if vector is not None]
        if not there and by == DEFAULT_BY:
            raise NoPart(
                f"{self._what(origin)} has no motion embedding: no hand and no track is visible in two frames in a row",
                "try by appearance",
            )
        if not there:
            raise NoPart(f"{self._what(origin)} has no {by} embedding: its stage gives none", "try by motion")
        return there

    def _stored(self, by: str) -> NDArray[np.floating[Any]]:
        """The clip's embedding; that of its words is made anew where an ingest has changed them since."""
        try:
            return embedding_of(self._scope.db, self._named("clip"), by, self._scope.table.version)
        except OtherWords:
            if by != TEXT:
                raise
            return todays_vector(self._scope, self._named("clip"))

    def _need_column(self, by: str) -> None:
        """Raise NoPart if the table lacks the embedding that images are compared with by default."""
        if f"embedding_{by}" not in self._scope.schema.names:
            raise NoPart(
                f"the table has no embedding_{by} to compare images with",
                "the next `handloom run` computes it where frames are stored",
            )

    def _what(self, origin: str) -> str:
        span = ""
        if self._asked.has_range and origin != "trajectory":
            ends = [f"{value:g}" if value is not None else "" for value in (self._asked.from_s, self._asked.to_s)]
            span = f" ({ends[0] or 'start'} to {ends[1] or 'end'} s)"
        return "the trajectory" if origin == "trajectory" else f"{getattr(self._asked, origin)}{span}"

    def _named(self, origin: str) -> str:
        """The query's clip, video or text. Raises ConfigError: it has none."""
        value = getattr(self._asked, origin)
        if not isinstance(value, str):
            raise ConfigError(f"the query has no {origin}", f"give {origin}=...")
        return value

    def _row(self, origin: str) -> dict[str, Any]:
        return getattr(self, f"_{origin}_row")

    @cached_property
    def _clip_row(self) -> dict[str, Any]:
        row = row_arrays(row_of(self._scope.db, self._named("clip"), None, self._scope.table.version))
        if not self._asked.has_range:
            return row
        return piece(row, frames_in(row, self._asked.from_s, self._asked.to_s))

    @cached_property
    def _video_row(self) -> dict[str, Any]:
        asked = self._asked
        start_s, end_s = (asked.from_s or 0.0, asked.to_s) if asked.has_range else (asked.start_s, asked.end_s)
        by = [name for name in asked.names() if not (asked.has_range and name == DEFAULT_BY)]
        movement = asked.has_range or (asked.mirror and DEFAULT_BY in asked.names())
        return video.extract(
            self._scope.db,
            self._named("video"),
            start_s,
            end_s,
            asked.source_options,
            by=by,
            movement=movement,
            longest_s=asked.longest_s,
            on_stage=asked.on_stage,
        )

    @cached_property
    def _trajectory_row(self) -> dict[str, Any]:
        return row_of_trajectory(read_trajectory(self._asked.trajectory, self._asked.hz))

    @cached_property
    def _image(self) -> NDArray[np.uint8]:
        from handloom.retrieval.pictures import read_image

        return read_image(self._asked.image)

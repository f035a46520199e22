"""Search by several things at once: text, clips, videos, images, movements, pieces of them, and SQL.

Each part of a query ranks the clips. Several rankings become one by reciprocal rank fusion or by weighted scores; each
hit keeps what every part said of it. The order is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, HandloomError
from handloom.plural import plural
from handloom.retrieval.parts import Asked, PartQuery, vector_parts
from handloom.retrieval.query import ARVRM, UNUSABLE, By, weights_of
from handloom.retrieval.ranges import check_range
from handloom.retrieval.video import OnStage
from handloom.retrieval.words import MEANING, WORDS, apart, check_text, part_of, rank_text
from handloom.schemas.tables.duplicates import COLUMN as GROUP
from handloom.store.embodiment import HUMAN
from handloom.store.location import lance_errors
from handloom.store.search.copies import rows_at
from handloom.store.search.fusion import RRF_K, Ranking, by_rank, by_weights, parts_of
from handloom.store.search.ranking import Scored, best_clips
from handloom.store.search.results import Hits, Part, read_hits
from handloom.store.search.scope import Scope, open_scope
from handloom.store.stages.row_keys import StageKeys
from handloom.store.tables import Tables

DEPTH = 1000
"""Clips of each part that are combined. In reciprocal rank fusion rank 1000 adds a seventeenth of rank 1."""
MAX_DEPTH = 64_000
NO_WORDS = "no clip that is searched has a word of the text"


def search(
    db: Tables,
    *,
    text: str | None = None,
    clip: str | None = None,
    video: str | None = None,
    image: str | Path | NDArray[np.uint8] | None = None,
    trajectory: Any = None,
    vector: NDArray[np.floating[Any]] | None = None,
    vectors: Sequence[NDArray[np.floating[Any]]] | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
    by: By = None,
    weights: bool = False,
    meaning: bool = True,
    mirror: bool = False,
    duplicates: bool = True,
    k: int = 10,
    where: str | None = None,
    embodiment: str = HUMAN,
    columns: Sequence[str] = (),
    exclude: Sequence[str] = (),
    version: int | None = None,
    stage_keys: StageKeys = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    hz: float | None = None,
    source_options: dict[str, Any] | None = None,
    longest_s: float | None = None,
    on_stage: OnStage | None = None,
) -> Hits:
    """The `k` clips that are most like what is asked for: any of text, clip, video, image, trajectory and vectors.

    Args:
        text: found by its words in narration, verb and noun together (inflected English forms match, and parts of words
            in scripts without spaces), and by its meaning; the same of each column of captions.
        clip: id of a stored clip; the clip itself is left out of the hits.
        video: any file; extracted in memory with the settings of the database.
        image: a file, or (h, w, 3) uint8 RGB.
        trajectory: a file or a pair (keypoints, frame_s): see `handloom.retrieval.movement.trajectory.read_trajectory`.
        vector: (D,) of the embedding `by`; need not be unit norm. vectors: several; a clip's score is the best one's.
        from_s, to_s: seconds of the video's clock: movements like this piece of `clip` or `video` are found, and when:
            `Hit.match_start_s`, `match_end_s`. The same for a trajectory.
        by: `motion` (the default), `appearance`, `look`, or NAME of any other column `embedding_NAME`; several, with
            weights: `["motion", "look=0.5"]` or `{"motion": 1, "look": 0.5}`. `arvrm`: AR-VRM's sum of cosines. Clips
            without an embedding are left out of its ranking. With text alone: declared networks of texts, or of
            images and texts.
        weights: add the weighted scores in place of reciprocal ranks. BM25 counts relative to its best score.
        meaning: False: text by words alone.
        mirror: also find the left/right mirrored motion: of a query and its mirror image the better score counts.
        duplicates: False: of near-duplicates (the column `duplicate_group`) the best one alone. Clips without a group
            stay; `Hits.unused` says how many.
        where: SQL filter, applied before the search: all `k` hits pass it.
        embodiment: of the clips that are found: `human`, `robot` or `all`. `clip` may be of either.
        columns: more columns of `clips`, for `Hit.more`. exclude: ids to leave out.
        version: version of `clips` to search; the newest by default.
        stage_keys: only rows with these keys, by stage; `current`: that of the last run, for the stages that write the
            compared embeddings. None: rows of any key; several keys of such a stage are logged as a warning.
        start_s, end_s: the part of `video` that is used. hz: rate of a trajectory without times.
        source_options: of the filesystem of a remote video.
        longest_s: a longer `video`, or part of it, is an error; None: it is extracted however long that takes.
        on_stage: called while `video` is extracted, with the name of the stage and a number of frames, many times a
            second; an exception that it raises ends the search.

    Raises:
        ConfigError: an argument, the SQL, a file or every part of the query cannot be used.
        StoreError: nothing is processed yet, the clip is unknown or has no such embedding, the table cannot be read.
    """
    asked = Asked(
        text=text,
        clip=clip,
        video=video,
        image=image,
        trajectory=trajectory,
        vectors=[vector] if vector is not None else vectors,
        from_s=from_s,
        to_s=to_s,
        by=weights_of(by),
        mirror=mirror,
        start_s=start_s,
        end_s=end_s,
        hz=hz,
        source_options=source_options,
        longest_s=longest_s,
        on_stage=on_stage,
    )
    if vector is not None and vectors is not None:
        raise ConfigError("vector and vectors are given", "put all of them into vectors")
    _check(asked, k, meaning, {"exclude": exclude, "columns": columns})
    scope = open_scope(
        db,
        where=where,
        embodiment=embodiment,
        columns=columns,
        exclude=[*exclude, *([clip] if clip is not None else [])],
        version=version,
        stage_keys=stage_keys,
        compared=[name for name in asked.compared() if name != ARVRM],
    )
    if not duplicates and GROUP not in scope.schema.names:
        hint = f"group them: `handloom duplicates --db {db.uri}`"
        raise ConfigError("near-duplicates shall be left out, and the table has no groups of them yet", hint)
    with lance_errors("search clips", db.location.table_uri("clips")):
        parts, unused, why = _usable(scope, asked)
        if text is None and not parts:
            raise why
        query = _Query(scope, text, meaning, parts, weights, k, not duplicates, unused)
        return query.answer(columns)


def _check(asked: Asked, k: int, meaning: bool, lists: Mapping[str, Sequence[str]]) -> None:
    if not isinstance(k, int) or k < 1:
        raise ConfigError(f"k is {k!r}, expected a whole number, 1 or more")
    for name, given in lists.items():
        if isinstance(given, str):  # letter by letter it would be read
            raise ConfigError(f"{name}={given!r}: expected a list", f"{name}=[{given!r}]")
    if asked.text is not None:
        check_text(asked.text)
    elif not meaning:
        raise ConfigError("meaning=False (exact) is about a text, and there is none", "leave it out, or give a text")
    if asked.text is None and not asked.has_source():
        raise ConfigError(
            "search takes at least one of text, clip, video, image, trajectory and vector, got none",
            "name what the clips shall be like; `Database.clips(where=...)` lists clips by SQL alone",
        )
    check_range(asked.from_s, asked.to_s)
    asked.check()


def _usable(scope: Scope, asked: Asked) -> tuple[list[PartQuery], dict[str, str], HandloomError]:
    """The parts that can be ranked, those that cannot with the reason, and the first such error."""
    parts: list[PartQuery] = []
    unused: dict[str, str] = {}
    why: HandloomError = ConfigError("no part of the query can be used")
    for name, make in vector_parts(scope, asked).items():
        try:
            parts.append(make())
        except UNUSABLE as error:
            why = why if unused else error
            unused[name] = error.problem
    return parts, unused, why


class _Query:
    """The parts of one query over a scope."""

    def __init__(
        self,
        scope: Scope,
        text: str | None,
        meaning: bool,
        parts: Sequence[PartQuery],
        weights: bool,
        k: int,
        distinct: bool,
        unused: dict[str, str],
    ) -> None:
        self._scope, self._text, self._meaning, self._parts = scope, text, meaning, parts
        self._weights, self._k, self._distinct, self._unused = weights, k, distinct, unused

    def answer(self, columns: Sequence[str]) -> Hits:
        """Rank, combine and read the hits."""
        k = 2 * self._k if self._distinct else self._k
        rankings, best, sure = self._best(k)
        kept, num_duplicates = self._kept(best)
        while self._distinct and len(kept) < self._k and len(best) == k < MAX_DEPTH:
            k *= 4
            rankings, best, sure = self._best(k)
            kept, num_duplicates = self._kept(best)
        best = kept
        if not best:
            self._scope.check_demand()
        for one in rankings:
            if len(rankings) > 1 and not one.scored:
                self._unused.setdefault(one.name, NO_WORDS if part_of(one.name) == WORDS else "it finds no clip")
        times = {clip_id: span for one in rankings for clip_id, span in one.times.items()}
        hits = read_hits(self._scope.table, best, columns, self._filled(rankings, best), times)
        alone = rankings[0] if len(rankings) == 1 and self._text is None else None
        return Hits(
            hits,
            self._scope.table.version,
            sure and all(one.exact for one in rankings),
            alone.num_with if alone else None,
            alone.num_without if alone else None,
            self._scoring(rankings),
            self._unused,
            num_duplicates,
        )

    def _best(self, k: int) -> tuple[list[Ranking], list[Scored], bool]:
        """The rankings, their best `k` clips, and whether no other clip can be among these."""
        single = len(self._parts) == 1 and self._text is None
        depth = k if single else max(DEPTH, k)
        rankings = self._rank(depth)
        best, sure = self._combine(rankings, k)
        while not sure and depth < MAX_DEPTH and all(one.exact for one in rankings):
            depth *= 8
            rankings = self._rank(depth)
            best, sure = self._combine(rankings, k)
        return rankings, best, sure

    def _kept(self, best: list[Scored]) -> tuple[list[Scored], int | None]:
        """At most `k` of them; of those of one group the first one, where that is asked, and how many that left out."""
        if not self._distinct:
            return best, None
        rows = rows_at(self._scope.table, [one.row_id for one in best], [GROUP])
        group_of = {row["_rowid"]: row[GROUP] for row in rows}
        kept, seen, num_left = [], set(), 0
        for one in best:
            group = group_of[one.row_id]
            if group is not None and group in seen:
                num_left += 1
                continue
            kept.append(one)
            seen.add(group)
            if len(kept) == self._k:
                break
        if num_without := sum(group_of[one.row_id] is None for one in kept):
            found = f"{num_without} of the {plural(len(kept), 'clip')} found"
            hint = f"`handloom duplicates --db {self._scope.db.uri}` gives new rows theirs"
            self._unused["duplicates"] = f"{found} {'has' if num_without == 1 else 'have'} no group; {hint}"
        return kept, num_left

    def _rank(self, depth: int) -> list[Ranking]:
        found = [part.rank(depth) for part in self._parts]
        if self._text is not None:
            of_text, unused = rank_text(self._scope, self._text, depth, meaning=self._meaning)
            self._unused |= unused
            found = [*of_text, *found]
        return found

    def _combine(self, rankings: Sequence[Ranking], k: int) -> tuple[list[Scored], bool]:
        """The best `k` clips, and whether no clip that the rankings do not list can be among them."""
        bound = -math.inf
        found = [one for one in rankings if one.scored]
        if len(found) < 2:
            scored: Sequence[Scored] = found[0].scored if found else ()
            penalty = 2.0  # of cosines
        elif self._weights:
            scored, bound = by_weights(rankings, self._score_rest)
            penalty = sum(one.weight for one in found)
        else:
            scored = by_rank(rankings)
            penalty = sum(one.weight for one in found) / RRF_K
        if self._text is not None and any(part_of(one.name) == MEANING for one in found):
            scored = apart(self._scope, self._text, scored, penalty)
        best = best_clips(scored, k)
        return best, bound == -math.inf or (len(best) == k and best[-1].score > bound)

    def _score_rest(self, name: str, clips: Mapping[str, int]) -> Mapping[str, float]:
        part = next((part for part in self._parts if part.name == name), None)
        if part is None or part.scores is None:
            return {}
        return part.scores(list(clips.values()))

    def _filled(self, rankings: Sequence[Ranking], best: Sequence[Scored]) -> dict[str, dict[str, Part]]:
        """Scores of all hits in all parts; those beyond a part's ranks are computed."""
        parts = parts_of(rankings, [one.clip_id for one in best])
        for part in self._parts if len(rankings) > 1 else ():
            rest = {one.clip_id: one.row_id for one in best if part.name not in parts[one.clip_id]}
            for clip_id, score in (self._score_rest(part.name, rest) if rest else {}).items():
                parts[clip_id][part.name] = Part(score, None)
        return parts

    def _scoring(self, rankings: Sequence[Ranking]) -> str:
        found = [one.name for one in rankings if one.scored] or [one.name for one in rankings]
        if len(found) > 1:
            return "weights" if self._weights else "rrf"
        kinds = {WORDS: "bm25", MEANING: "cosine"} | {part.name: part.scoring for part in self._parts}
        return kinds.get(found[0]) or kinds[part_of(found[0])]

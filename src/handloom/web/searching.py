"""The search page: a query to clips in order, with counts beside them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.background import BackgroundTask
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handloom.errors import ConfigError, HandloomError
from handloom.retrieval.words import MEANING
from handloom.store.filters import both, calls_only
from handloom.store.search.results import Hits, Part
from handloom.web.answers import (
    Stopped,
    TookTooLong,
    Waiting,
    asked_version,
    blocking,
    gone_away,
    json_answer,
    number,
    uploaded,
    whole_number,
)
from handloom.web.as_sql import sql_of
from handloom.web.catalogue import FACETS, FLAGS, Catalogue, Filters, Known
from handloom.web.clips.media import Uploads
from handloom.web.dataset import lassoed
from handloom.web.gallery import Gallery

MOST_TEXT, MOST_WHERE, MOST_LIMIT = 2000, 4000, 200
FUNCTIONS = {
    "judged", "stage_key", "abs", "ceil", "floor", "round", "sqrt", "power", "ln", "log", "exp", "isnan", "nanvl",
    "cast", "try_cast", "coalesce", "nullif", "greatest", "least", "lower", "upper", "trim", "length",
    "char_length", "left", "right", "substr", "strpos", "starts_with", "ends_with", "contains", "regexp_like",
    "array_length", "array_has", "array_has_any", "array_has_all", "array_contains", "array_element", "get_field",
    "date_part", "date_trunc", "now", "to_timestamp",
}  # fmt: skip
"""What the SQL of an address may call: nothing that makes large values out of small ones (`repeat`, `range`,
`replace`), as no memory of the server bounds them."""
DEPTHS = (100, 400, 2000)
"""How many clips are ranked: as many as a page needs. The last is the end of every ranked list."""
MOST_RANKED = DEPTHS[-1]
KEPT_QUERIES = 32
EXTRACT_S, LONGEST_VIDEO_S = 120.0, 60.0
"""A search by a video that is not in the table takes so long at most; so much of one is extracted. What is given up
goes on in its thread, and the next one waits for it."""
BOTH = ("motion", "look")


@dataclass(frozen=True)
class Query:
    """What is asked for by likeness. upload: the id of one. by: names of embeddings, with `=WEIGHT` or without."""

    text: str | None = None
    clip: str | None = None
    upload: str | None = None
    by: tuple[str, ...] = ()
    from_s: float | None = None
    to_s: float | None = None
    words: bool = False  # of a text: only clips that hold its words
    waiting: Waiting = field(default_factory=Waiting, compare=False)

    @property
    def ranks(self) -> bool:
        return any(one is not None for one in (self.text, self.clip, self.upload))


@dataclass(frozen=True)
class Ranked:
    """Clips in the order of a ranking. complete: no other clip is like the query."""

    hits: Hits
    places: NDArray[np.int64]
    complete: bool

    @cached_property
    def sharing(self) -> Counter[tuple[str, int | None]]:
        """How many of these clips have a rank of a part: equal scores share one."""
        return Counter((name, part.rank) for hit in self.hits for name, part in hit.parts.items())


class Searches:
    """Searches of one gallery: rankings are kept, so that the next page needs none."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._lock = threading.Lock()
        self._ranked: OrderedDict[Any, Ranked] = OrderedDict()
        self.uploads = Uploads(gallery)

    # Rankings

    def rank(self, catalogue: Catalogue, query: Query, where: str | None, num: int) -> Ranked:
        """At least `num` clips like the query, or all there are, up to `MOST_RANKED`."""
        depth = next((depth for depth in DEPTHS if depth >= num), MOST_RANKED)
        key = (catalogue.serial, query, where)
        with self._lock:
            found = self._ranked.get(key)
        if found is None or (len(found.hits) < depth and not found.complete):
            found = self._search(catalogue, query, where, MOST_RANKED if query.upload is not None else depth)
            with self._lock:
                self._ranked[key] = found
                self._ranked.move_to_end(key)
                while len(self._ranked) > KEPT_QUERIES:
                    self._ranked.popitem(last=False)
        return found

    def _search(self, catalogue: Catalogue, query: Query, where: str | None, depth: int) -> Ranked:
        asked: dict[str, Any] = {
            "text": query.text,
            "clip": query.clip,
            "by": query.by or None,
            "from_s": query.from_s,
            "to_s": query.to_s,
            "where": where,
            "k": depth,
            "embodiment": "all",
            "version": catalogue.version,
            "meaning": not query.words,
        }
        if query.upload is not None:
            upload = self.uploads.get(query.upload)
            asked |= {upload.kind: str(upload.path), "longest_s": LONGEST_VIDEO_S}
            try:
                with self.uploads.read(upload, query.waiting) as on_stage:
                    hits: Hits = self._gallery.db.search(**asked, on_stage=on_stage)
            except ConfigError as error:
                raise ConfigError(upload.told(error.problem), error.hint) from error
            hits = replace(hits, unused={part: upload.told(why) for part, why in hits.unused.items()})
        else:
            hits = self._gallery.db.search(**asked)
        complete, places = len(hits) < depth, catalogue.places
        hits = replace(hits, hits=tuple(hit for hit in hits if hit.clip_id in places))  # without what was removed since
        return Ranked(hits, np.array([places[hit.clip_id] for hit in hits], np.int64), complete)

    # Answers

    def answer(
        self,
        query: Query,
        filters: Filters,
        *,
        version: int | None,
        sort: str,
        offset: int,
        limit: int,
        facets: bool,
    ) -> tuple[dict[str, Any], Catalogue, list[int]]:
        """One page of a search, and the places of its clips."""
        begun = time.perf_counter()
        catalogue, known = self._gallery.catalogue(version), self._gallery.known()
        masks = catalogue.masks(filters, known)
        passing = catalogue.passing(masks)
        told: dict[str, Any] = {"version": catalogue.version, "offset": offset, "exact": True, "scoring": None}
        told |= {"unused": {}, "num_listed_at_most": None}
        within: NDArray[np.bool_] | None = None
        found: Ranked | None = None
        if query.ranks and catalogue.num_clips:
            itself = None if query.clip is None else catalogue.place(query.clip)
            if facets and query.text is not None:  # first: without other filters the ranking is the same
                within = self._found_by_words(catalogue, query, filters, known)
            need = MOST_RANKED if sort else offset + limit
            found = self.rank(catalogue, query, sql_of(catalogue, filters, known), need)
            places = found.places
            if sort:
                rank_of = np.empty(catalogue.num_clips, np.int64)
                rank_of[catalogue.order(sort)] = np.arange(catalogue.num_clips)
                places = places[np.argsort(rank_of[places], kind="stable")]
            others = int(passing.sum()) - int(itself is not None and passing[itself])
            total = len(places) if found.complete else min(others, MOST_RANKED)
            told |= {"exact": found.hits.exact, "scoring": found.hits.scoring, "unused": dict(found.hits.unused)}
            told["num_listed_at_most"] = MOST_RANKED
        else:
            order = catalogue.order(sort)
            places = order[passing[order]]
            total = len(places)
        page = places[offset : offset + limit].tolist()
        told |= {"total": total, "hits": self._hits(catalogue, page, known, found, catalogue.sorted_by(sort))}
        if facets:
            told["num_counted"] = int((passing if within is None else passing & within).sum())
            told["facets"] = catalogue.facets(masks, known, within)
            told["histograms"] = catalogue.histograms(masks, within)
        told["took_ms"] = round(1000 * (time.perf_counter() - begun), 2)
        return told, catalogue, page

    def _found_by_words(
        self, catalogue: Catalogue, query: Query, filters: Filters, known: Known
    ) -> NDArray[np.bool_] | None:
        """The clips that the query finds whatever else is chosen; None where it ranks all, or more than are listed."""
        bare = replace(filters, chosen={}, ranges={}, stages=())
        where = sql_of(catalogue, bare, known)
        ranks_all = not query.words and MEANING not in self.rank(catalogue, query, where, DEPTHS[0]).hits.unused
        if ranks_all and catalogue.passing(catalogue.masks(bare, known)).sum() > MOST_RANKED:
            return None  # it ranks all clips that have words; to list 2,000 of them takes five times as long
        found = self.rank(catalogue, query, where, MOST_RANKED)
        if not found.complete:
            return None
        mask = np.zeros(catalogue.num_clips, np.bool_)
        mask[found.places] = True
        return mask

    def _hits(
        self,
        catalogue: Catalogue,
        page: list[int],
        known: Known,
        found: Ranked | None,
        values: NDArray[np.float64] | None,
    ) -> list[dict[str, Any]]:
        flags = catalogue.flag_codes(known.verdicts)
        frames = self._gallery.has_frames(catalogue, page)
        by_id = {hit.clip_id: hit for hit in found.hits} if found is not None else {}
        told = []
        for place, row, has_frames in zip(page, catalogue.facts(page), frames, strict=True):
            hit = by_id.get(row["clip_id"])
            parts = {} if hit is None or found is None else _parts_told(hit.parts, found.sharing)
            flag = FLAGS[flags[place]]
            told.append(
                row
                | {
                    "score": None if hit is None else hit.score,
                    "parts": parts,
                    "match_start_s": None if hit is None else hit.match_start_s,
                    "match_end_s": None if hit is None else hit.match_end_s,
                    "flag": None if flag == "none" else flag,
                    "has_frames": has_frames,
                    "sort_value": None if values is None else float(values[place]),
                }
            )
        return told


def _parts_told(parts: Mapping[str, Part], sharing: Counter[tuple[str, int | None]]) -> dict[str, dict[str, Any]]:
    """What each part says of a clip; equal: how many of the ranked clips have its rank."""
    ranked = {name: None if part.rank is None else sharing[name, part.rank] for name, part in parts.items()}
    return {name: part._asdict() | {"equal": ranked[name]} for name, part in parts.items()}


def filters_of(params: QueryParams) -> Filters:
    """The filters in an address. Raises ConfigError for one that is no filter."""
    chosen = {name: tuple(params.getlist(name)) for name in FACETS if name in params}
    ranges = {}
    for name, value in params.multi_items():
        if not name.startswith("q."):
            continue
        least, colon, most = value.partition(":")
        if not colon:
            raise ConfigError(f"{name}={value!r}", f"expected {name}=LEAST:MOST, either may be left out")
        ranges[name[2:]] = (number(least, name), number(most, name))
    stages = []
    for value in params.getlist("stage"):
        stage, _, state = value.partition(":")
        stages.append((stage, state))
    where = params.get("where") or None
    if where is not None and len(where) > MOST_WHERE:
        raise ConfigError(f"where has {len(where)} characters", f"at most {MOST_WHERE}")
    if where is not None:
        calls_only(where, FUNCTIONS)
    if sum(map(len, chosen.values())) + len(stages) + len(ranges) > 1000:
        raise ConfigError("more than 1000 filters are chosen", "choose fewer")
    return Filters(chosen, ranges, where, tuple(stages))


def query_of(params: QueryParams) -> Query:
    """What an address searches by. Raises ConfigError for too long a text."""
    text = (params.get("text") or "").strip() or None
    if text is not None and len(text) > MOST_TEXT:
        raise ConfigError(f"the text has {len(text)} characters", f"at most {MOST_TEXT}")
    clip, upload = params.get("clip") or None, params.get("query") or None
    by = tuple(BOTH if params.get("by") == "both" else [one for one in (params.get("by") or "").split(",") if one])
    from_s, to_s = (number(params.get(name), name) for name in ("from_s", "to_s"))
    words = params.get("words") == "1" and text is not None and not clip and not upload
    return Query(text, clip, upload, by if clip or upload else (), from_s, to_s, words)


def routes(gallery: Gallery) -> list[Route]:
    """`/api/search` and `/api/upload`."""
    searches = Searches(gallery)

    async def bring_strips(catalogue: Catalogue, places: list[int]) -> None:
        with contextlib.suppress(HandloomError):  # who asks for these thumbnails is told
            await blocking(gallery.bring_strips, catalogue, places)

    async def search(request: Request) -> Response:
        params = request.query_params
        page: dict[str, Any] = {
            "version": asked_version(request),
            "sort": params.get("sort", ""),
            "offset": whole_number(params.get("offset"), "offset", 0, 0, 1 << 40),
            "limit": whole_number(params.get("limit"), "limit", 60, 1, MOST_LIMIT),
            "facets": params.get("facets", "0") not in ("", "0", "false"),
        }
        query = query_of(params)
        filters = filters_of(params)
        if lasso := params.get("lasso"):
            chosen = await blocking(lassoed, gallery, lasso, page["version"])
            filters = replace(filters, where=both(filters.where, chosen))
        answered = partial(searches.answer, query, filters, **page)
        try:
            by_file = query.upload is not None
            told, catalogue, places = await (
                query.waiting.result(request, answered, EXTRACT_S) if by_file else blocking(answered)
            )
        except Stopped:
            return gone_away(request)
        except TookTooLong as error:
            if query.upload is None:
                raise
            hint = "other videos may be read before it: load again in a minute; a shorter one takes less"
            raise TookTooLong(error.problem, hint) from error
        answer = json_answer(request, told)
        answer.background = BackgroundTask(bring_strips, catalogue, places)
        return answer

    async def upload(request: Request) -> Response:
        begun = time.perf_counter()
        async with uploaded(request) as file:
            key, kept = await blocking(searches.uploads.keep, file.file, file.filename or "", limit_s=None)
        took_ms = round(1000 * (time.perf_counter() - begun), 2)
        return json_answer(request, {"query": key, "kind": kept.kind, "name": kept.name, "took_ms": took_ms})

    async def doing(request: Request) -> Response:
        found = searches.uploads.get(request.query_params.get("query", ""))
        return json_answer(request, {"kind": found.kind, "name": found.name, "doing": found.doing})

    return [
        Route("/api/search", search),
        Route("/api/upload", upload, methods=["POST"]),
        Route("/api/upload", doing),
    ]

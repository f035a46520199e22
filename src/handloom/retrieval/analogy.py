"""AR-VRM's retrieval of clips for a clip, by name: the texts' vectors, and those of ten images spread over each clip.

z_l is the column `embedding_text`. z_ot is `look` of single stored frames; it is computed once for each clip and kept
in the table `clip_features`, as the recipe keeps its own, under a key of the encoder and of the row's images.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.retrieval.query import NoPart, PartQuery
from handloom.retrieval.words import TEXT
from handloom.schemas.tables.embeddings import embedding_columns
from handloom.schemas.tables.stage_columns import key_column, owner_of
from handloom.store.clip_features import ClipFeatures, read_features, write_features
from handloom.store.filters import clause, in_list
from handloom.store.search.arvrm import retrieve
from handloom.store.search.fusion import Ranking
from handloom.store.search.ranking import Scored
from handloom.store.search.scope import Scope, row_of
from handloom.video.stored_frames import decode_jpeg

log = logging.getLogger(__name__)

STEPS = 10
"""Images of a clip, as in the recipe."""
SECONDS_A_CLIP = 0.1
MAX_NEW_CLIPS = 5000  # 8 minutes
SILENT_CLIPS = 100
MAX_CLIPS = 50_000  # 26 kB each
ROWS_AT_ONCE = 16
IMAGES_STAGE = "frames"


def arvrm_part(scope: Scope, clip: str, name: str) -> PartQuery:
    """The ranking of all clips that pass by their similarity to a clip: every one is compared.

    Raises:
        NoPart: the table has no vectors of texts, or nothing of the clip can be compared.
        ConfigError: the images of too many clips would have to be encoded.
    """
    if TEXT not in embedding_columns(scope.schema):
        raise NoPart("AR-VRM's similarity compares embedding_text, which the table lacks", "the next run computes it")

    def rank(depth: int) -> Ranking:
        rows = _light_rows(scope, scope.where)
        asked = _light_rows(scope, in_list("clip_id", row_of(scope.db, clip, ["clip_id"]).column(0).to_pylist()))
        rows = {**rows, **asked}
        if len(rows) > MAX_CLIPS:
            problem = f"{len(rows)} clips pass, and AR-VRM's similarity compares at most {MAX_CLIPS}, all of them"
            raise ConfigError(problem, "narrow it with a filter, or search by text and look")
        seen = _seen(scope, {id_: key for id_, (key, _, _) in rows.items()})
        whole = ClipFeatures(tuple(rows), np.stack([text for _, text, _ in rows.values()]), seen)
        (own,) = asked
        place = whole.ids.index(own)
        query = ClipFeatures((own,), whole.text[[place]], whole.seen[[place]])
        if not np.isfinite(query.text).any() and not np.isfinite(query.seen).any():
            raise NoPart(f"clip {clip} has neither words nor stored frames", "search by motion")
        others = [i for i, id_ in enumerate(whole.ids) if id_ not in scope.left_out and id_ != own]
        human = ClipFeatures(tuple(whole.ids[i] for i in others), whole.text[others], whole.seen[others])
        found = retrieve(query, human, depth)[own] if others else []
        scored = [Scored(score, id_, rows[id_][2]) for id_, score in found]
        return Ranking(name, scored, complete=len(scored) == len(others), num_with=len(others), num_without=0)

    return PartQuery(name, rank, None, "arvrm")


def _light_rows(scope: Scope, where: str | None) -> dict[str, tuple[str, NDArray[np.float16], int]]:
    """`{clip_id: (key of its images, vector of its words, row id)}`; NaN without words, or with others since."""
    field = scope.schema.field(f"embedding_{TEXT}")
    owner = owner_of(field)
    keys_of = {stage: key_column(stage) for stage in (IMAGES_STAGE, owner) if stage is not None}
    keys_of = {stage: column for stage, column in keys_of.items() if column in scope.schema.names}
    columns = ["clip_id", "run_key", field.name, *keys_of.values()]
    found = {}
    for batch in scope.table.to_batches(columns=columns, filter=clause(where), with_row_id=True):
        keys = {stage: batch.column(column).to_pylist() for stage, column in keys_of.items()}
        run_keys, row_ids = (batch.column(name).to_pylist() for name in ("run_key", "_rowid"))
        for index, id_ in enumerate(batch.column("clip_id").to_pylist()):
            cell = batch.column(field.name)[index]
            of_today = owner is None or owner not in keys or keys[owner][index] is not None
            known = cell.is_valid and of_today
            text = cell.values.to_numpy(zero_copy_only=False) if known else np.full(field.type.list_size, np.nan)
            key = keys[IMAGES_STAGE][index] if IMAGES_STAGE in keys else None
            found[id_] = (key or run_keys[index], text.astype(np.float16), row_ids[index])
    return found


def _seen(scope: Scope, keys: dict[str, str]) -> NDArray[np.float16]:
    """(N, T, E) image vectors of the clips, in their order; those that are not kept yet are computed."""
    from handloom.models.embeddings.look import LookEncoder, look_identity

    encoder_key = hashlib.sha256(json.dumps(look_identity(), sort_keys=True).encode()).hexdigest()[:16]
    sizes = (scope.schema.field(f"embedding_{TEXT}").type.list_size, LookEncoder.dim)
    there = read_features(scope.db, "clips", keys, encoder_key, STEPS, sizes)
    kept = dict(zip(there.ids, there.seen, strict=True))
    lacking = [id_ for id_ in keys if id_ not in kept]
    if len(lacking) > MAX_NEW_CLIPS:
        problem = f"the images of {len(lacking)} clips are not encoded yet, more than {MAX_NEW_CLIPS} in one search"
        hint = "narrow it with a filter, part by part: what a search has encoded is kept for the next one"
        raise ConfigError(problem, hint)
    if lacking:
        level = logging.WARNING if len(lacking) > SILENT_CLIPS else logging.INFO
        told = "encoding %d images of each of %d clips, about %d s, once: they are kept"
        log.log(level, told, STEPS, len(lacking), SECONDS_A_CLIP * len(lacking))
        encoder = LookEncoder()
        for ids, seen in _encoded(scope, lacking, encoder):
            kept.update(zip(ids, seen, strict=True))
            _keep(scope, keys, encoder_key, ids, seen, sizes[0])
    return np.stack([kept[id_] for id_ in keys])


def _encoded(scope: Scope, clip_ids: Sequence[str], encoder: Any) -> Iterator[tuple[list[str], NDArray[np.float16]]]:
    """(ids, (n, T, E)) of a few clips after another; NaN for a clip without stored frames."""
    for start in range(0, len(clip_ids), ROWS_AT_ONCE):
        ids = list(clip_ids[start : start + ROWS_AT_ONCE])
        seen = np.full((len(ids), STEPS, encoder.dim), np.nan, np.float16)
        rows = scope.table.to_table(columns=["clip_id", "frame_jpeg"], filter=in_list("clip_id", ids))
        place = {id_: number for number, id_ in enumerate(ids)}
        for id_, cell in zip(rows.column("clip_id").to_pylist(), rows.column("frame_jpeg"), strict=True):
            if cell.is_valid and len(cell.values):
                seen[place[id_]] = encoder.encode(_spread(cell.values))
        yield ids, seen


def _spread(jpegs: pa.Array) -> NDArray[np.uint8]:
    """T images, evenly from the first to the last."""
    frames = np.round(np.linspace(0, len(jpegs) - 1, STEPS)).astype(np.int64)
    return np.stack([decode_jpeg(jpegs[int(i)].as_py()) for i in frames])


def _keep(
    scope: Scope, keys: dict[str, str], encoder_key: str, ids: list[str], seen: NDArray[np.float16], dim: int
) -> None:
    no_text = np.full((len(ids), dim), np.nan, np.float16)
    try:
        write_features(scope.db, "clips", keys, encoder_key, ClipFeatures(tuple(ids), no_text, seen))
    except StoreError as error:
        log.warning("the images' vectors are not kept for the next search: %s", error.problem)

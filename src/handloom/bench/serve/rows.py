"""Rows for `bench serve`: those of a few rendered clips, extracted as a run does, under many ids.

Each row has real images, hands, tracks, segments and stage keys. Words, people, quality and embeddings are its own: as
the rows of `bench search`, with a spread, and some of them null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from handloom.api import Database
from handloom.bench.extract.clips import readable
from handloom.bench.search.rows import (
    NOUNS,
    VERBS,
    Vectors,
    narration_of,
    vectors_to_arrow,
    words_of,
    write,
)
from handloom.bench.stages.rows import Maker
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.models.language.sentences import SentenceEncoder
from handloom.models.language.words import vector_of
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig
from handloom.store.clips.clip_list import add_clips
from handloom.store.search.index import build_indexes
from handloom.synth.clip import write_clip
from handloom.synth.script.demo import demo_specs

SMALL: dict[str, dict[str, Any]] = {
    "video": {"sample_hz": 8.0},
    "frames": {"short_side_px": 96, "jpeg_quality": 80, "thumbnail_frames": 4, "thumbnail_height_px": 72},
    "tracks": {"grid": 6, "extra": 16},
}
"""Settings of small rows: 8 frames of a clip, of about 3 kB each."""
SCENE: dict[str, Any] = {"width": 320, "height": 240, "fps": 16.0, "duration_s": 2.0}
SCENE_OF_LEAN: dict[str, Any] = SCENE | {"width": 160, "height": 120}
LEAN: dict[str, dict[str, Any]] = {
    **SMALL,
    "frames": {"store": False, "short_side_px": 48, "thumbnail_frames": 1, "thumbnail_height_px": 48},
}
LEAN_DIM = 32
"""Width of the embeddings of lean rows; that of words is the encoder's."""
LEAN_COLUMNS = ("frame_s", "quality", "thumbnail", "embedding_text")
"""Of lean rows: what is neither a fact of the clip nor a key, and still there."""
CLIP_S = 1.0
FRAGMENT_ROWS, LEAN_FRAGMENT_ROWS = 2048, 16384
DATASETS = ("kitchen", "workshop", "laboratory")
UNKNOWN = 0.05
"""Share of the rows in which a value is null, drawn for each column."""
CLUSTERED = ("motion", "appearance", "look")
LISTED_COLUMNS = ("clip_id", "dataset", "video_id", "video_uri", "start_s", "end_s", "narration", "verb", "noun",
                  "participant")  # fmt: skip


class Texts:
    """`embedding_text` of verb and noun, each encoded when it is first asked for."""

    def __init__(self) -> None:
        self._encoder = SentenceEncoder()
        self._known: dict[tuple[str, str], NDArray[np.float32]] = {}

    def __call__(self, verb: str, noun: str) -> NDArray[np.float32]:
        """(D,)."""
        if (verb, noun) not in self._known:
            vector = vector_of(self._encoder, narration_of(verb, noun), verb, noun)
            if vector is None:
                raise ConfigError(f"no words in {verb!r} {noun!r}", "expected a verb and a noun")
            self._known[verb, noun] = vector
        return self._known[verb, noun]


@dataclass(frozen=True)
class Templates:
    """Rows that are repeated: as many as clips were extracted. fragment_rows: of the table that is written."""

    run_key: str
    rows: pa.Table
    fragment_rows: int = FRAGMENT_ROWS


def make_templates(folder: Path, num_scenes: int, watch: Watch, *, lean: bool = False) -> Templates:
    """Render scenes into `folder`, where their videos stay, and extract clips of a second.

    lean: rows of some hundred bytes beside the vectors of their words: for tables of a million.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, spec in enumerate(demo_specs(num_scenes, seed=0)):
        watch.say(f"rendering scene {number + 1} of {num_scenes}")
        scene = replace(spec, **(SCENE_OF_LEAN if lean else SCENE))
        write_clip(scene, folder / f"scene_{number}.mp4", truth=False)
    watch.say("extracting clips")
    maker = Maker(RunConfig(**(LEAN if lean else SMALL)).settings())
    made = maker.fresh(readable(folder, CLIP_S))
    rows = pa.Table.from_batches(made.rows, maker.graph.schema())
    return Templates(maker.run_key, leaner(rows), LEAN_FRAGMENT_ROWS) if lean else Templates(maker.run_key, rows)


def leaner(rows: pa.Table) -> pa.Table:
    """The rows without hands, tracks, segments and states, and with narrow columns for embeddings."""
    for at, field in enumerate(rows.schema):
        is_long = pa.types.is_nested(field.type) or pa.types.is_binary(field.type)
        if not is_long or field.name in LEAN_COLUMNS or not field.nullable:
            continue
        if field.name in map("embedding_{}".format, CLUSTERED):
            field = field.with_type(pa.list_(pa.float32(), LEAN_DIM))
        rows = rows.set_column(at, field, pa.nulls(rows.num_rows, field.type))
    return rows


def write_rows(db: Database, templates: Templates, num: int, watch: Watch) -> None:
    """Write `num` rows and list their clips; `handloom index` follows."""
    before, listed, texts = 0, [], Texts()

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, num, templates.fragment_rows):
            rows = copies(templates, texts, first, min(templates.fragment_rows, num - first), num)
            listed.append(rows.select(LISTED_COLUMNS))
            yield rows

    watch.part(f"writing {num} rows")
    for written in write(db, templates.run_key, templates.rows.schema, batches()):
        watch.did(f"{written} rows", units=written - before)
        before = written
    watch.part("listing and indexing them")
    add_clips(db, (Clip(**row) for rows in listed for row in rows.to_pylist()))
    build_indexes(db)


def copies(templates: Templates, texts: Texts, first: int, num: int, num_rows: int) -> pa.RecordBatch:
    """Rows from number `first` on, of `num_rows` in all."""
    rng = np.random.default_rng([7, first])
    schema = templates.rows.schema
    rows = templates.rows.take(pa.array(rng.integers(templates.rows.num_rows, size=num))).combine_chunks()
    words = words_of(first, num)
    silent, nameless = rng.random(num) < UNKNOWN, rng.random(num) < UNKNOWN
    new: dict[str, pa.Array] = {name: pa.array(words[name]) for name in ("clip_id", "video_id")}
    new |= {name: pa.array(words[name], mask=silent) for name in ("narration", "verb", "noun")}
    new["participant"] = pa.array(words["participant"], mask=nameless)
    new["dataset"] = pa.array(rng.choice(DATASETS, num, p=(0.6, 0.3, 0.1)).tolist())
    new["quality"] = _varied(rows.column("quality").combine_chunks(), rng)
    for name in CLUSTERED:
        field = schema.field(f"embedding_{name}")
        clustered = Vectors(num_rows, field.type.list_size)
        new[field.name] = vectors_to_arrow(clustered.rows(first, num, clustered.centres()), field)
    vectors = np.stack([texts(verb, noun) for verb, noun in zip(words["verb"], words["noun"], strict=True)])
    encoded = vectors_to_arrow(vectors, schema.field("embedding_text"))
    new["embedding_text"] = pc.if_else(pa.array(~silent), encoded, pa.scalar(None, encoded.type))
    columns = [new.get(field.name, rows.column(field.name)) for field in schema]
    (batch,) = pa.Table.from_arrays(columns, schema=schema).combine_chunks().to_batches()
    return batch


def _varied(quality: pa.StructArray, rng: np.random.Generator) -> pa.StructArray:
    """Every number times one of its own around 1, shares below 1; more of them unknown."""
    columns = []
    for name, column in zip(quality.type.names, quality.flatten(), strict=True):
        values = column.to_numpy(zero_copy_only=False).astype(np.float32)
        varied = values * rng.lognormal(0, 0.4, len(values)).astype(np.float32)
        if name.startswith(("hand_coverage", "hand_confidence", "metric_trust", "track_survival")):
            varied = np.minimum(varied, 1)
        columns.append(pa.array(varied, mask=~np.isfinite(values) | (rng.random(len(values)) < UNKNOWN)))
    return pa.StructArray.from_arrays(columns, names=quality.type.names)


def sentences(num: int, seed: int = 0) -> Sequence[str]:
    """Narrations to search for, each once; those of rare words find few clips."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(len(VERBS) * len(NOUNS))[:num]
    return [narration_of(VERBS[pair % len(VERBS)], NOUNS[pair // len(VERBS)]) for pair in pairs]

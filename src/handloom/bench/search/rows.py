"""Rows for `bench search`: clustered vectors beside words and bytes, in a table of `clips` with every column.

Vectors lie around centres, 50,000 rows at each, and centres around topics: an index cuts each cluster into some
fifty partitions, so neighbours of a query lie on both sides of their borders. The noise is strong in a few directions
and weak in many, as in embeddings. Words follow Zipf's law, as narrations do: a few verbs and nouns are in most.
Nothing is kept in memory: a row's values follow from its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.stage_columns import key_column
from handloom.stages.stage import embedding_field, owned
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment

NAME = "bench"
COLUMN = f"embedding_{NAME}"
STAGE = "bench"
RUN_KEY = "5ea2c45ea2c45ea2"
FRAGMENT_ROWS = 8192  # as fragments that a run has merged
ROWS_AT_A_CENTRE, CENTRES_AT_A_TOPIC = 50_000, 5
SPREAD = 1.0  # length of the noise beside a unit vector
STRONG_DIRECTIONS = 8  # from there on the noise falls
NUM_PEOPLE = 100
PERSON = "P07"
FILTER = f"participant = '{PERSON}'"  # keeps one row in a hundred
THUMBNAIL_BYTES = 1024
CLIPS_IN_A_VIDEO = 16
_VERBS = """
take put wash open close cut pour stir turn-on turn-off move dry peel mix pick-up put-down throw fold lift push pull
shake squeeze wipe rinse scoop spread press check hold insert remove fill empty scrape roll flip break sort hang tie
untie screw unscrew cover uncover walk look-at adjust crush grate slice
"""
_NOUNS = """
plate knife spoon fork bowl pan pot lid tap sponge cup glass bottle fridge drawer cupboard door bin board onion carrot
potato tomato garlic pepper egg milk water oil salt sugar flour rice pasta bread cheese butter meat fish chicken
lettuce cucumber mushroom lemon apple banana towel cloth napkin bag box jar can packet foil paper tray oven hob kettle
toaster microwave sink counter table chair shelf hand glove apron phone light scale timer grater peeler whisk ladle
tongs spatula sieve colander scissors mug coffee tea sauce soup dough cake dishwasher
"""
VERBS, NOUNS = _VERBS.split(), _NOUNS.split()


@dataclass(frozen=True)
class Vectors:
    """num_rows vectors of width `dim`, of unit norm, and queries like them that are no rows."""

    num_rows: int
    dim: int

    def centres(self) -> NDArray[np.float32]:
        """(C, dim)."""
        rng = np.random.default_rng(1)
        num = max(4, self.num_rows // ROWS_AT_A_CENTRE)
        topics = _unit(rng.standard_normal((max(2, num // CENTRES_AT_A_TOPIC), self.dim), dtype=np.float32))
        return _around(topics, num, rng)

    def rows(self, first: int, num: int, centres: NDArray[np.float32]) -> NDArray[np.float32]:
        """(num, dim): the vectors of the rows from `first` on."""
        return _around(centres, num, np.random.default_rng([2, first]))

    def queries(self, num: int, centres: NDArray[np.float32]) -> NDArray[np.float32]:
        """(num, dim)."""
        return _around(centres, num, np.random.default_rng(3))


def schema_of(dim: int) -> pa.Schema:
    """Schema of `clips` with the benchmark's embedding, as a stage of one's own writes it, in place of others."""
    field = embedding_field(NAME, dim, model="clustered", version="1")
    return clips_schema(1, {}).append(owned(field, STAGE, ())).append(pa.field(key_column(STAGE), pa.string()))


def clip_id_of(number: int) -> str:
    """The id of a row's clip."""
    start_ms = 1000 * (number % CLIPS_IN_A_VIDEO)
    return f"bench:v{number // CLIPS_IN_A_VIDEO}:{start_ms}-{start_ms + 1000}"


def append(db: Database, vectors: Vectors, first: int, num: int) -> Iterator[int]:
    """Add rows to `clips` in one commit; gives the number of rows that are written, after each fragment."""
    schema, centres = schema_of(vectors.dim), vectors.centres()
    starts = range(first, first + num, FRAGMENT_ROWS)
    sizes = {start: min(FRAGMENT_ROWS, first + num - start) for start in starts}
    yield from write(db, RUN_KEY, schema, (batch(schema, s, vectors.rows(s, n, centres)) for s, n in sizes.items()))


def write(db: Database, run_key: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    """Add the batches to `clips`, a fragment each, in one commit; gives the number of rows written, after each."""
    committer, records, written = Committer(db, run_key, schema), [], 0
    for rows in batches:
        records.append(write_fragment(db.uri, [rows], schema))
        written += rows.num_rows
        yield written
    committer.commit(records)


def words_of(first: int, num: int) -> dict[str, list[str]]:
    """Ids, videos, words and people of the rows from number `first` on, by column."""
    rng = np.random.default_rng([4, first])
    verbs, nouns = (_words(words, num, rng) for words in (VERBS, NOUNS))
    numbers = range(first, first + num)
    return {
        "clip_id": [clip_id_of(number) for number in numbers],
        "video_id": [f"v{number // CLIPS_IN_A_VIDEO}" for number in numbers],
        "narration": [narration_of(verb, noun) for verb, noun in zip(verbs, nouns, strict=True)],
        "verb": verbs,
        "noun": nouns,
        "participant": [f"P{person:02d}" for person in rng.integers(NUM_PEOPLE, size=num)],
    }


def narration_of(verb: str, noun: str) -> str:
    """What the person does, as in `pick up the cup`."""
    return f"{verb.replace('-', ' ')} the {noun}"


def batch(schema: pa.Schema, first: int, vectors: NDArray[np.float32]) -> pa.RecordBatch:
    """Rows from number `first` on with these vectors: every column of the schema, most of them null."""
    num = len(vectors)
    rng = np.random.default_rng([6, first])
    numbers = range(first, first + num)
    starts = [float(number % CLIPS_IN_A_VIDEO) for number in numbers]
    values = words_of(first, num) | {
        "dataset": ["bench"] * num,
        "video_uri": [f"/videos/v{number // CLIPS_IN_A_VIDEO}.mp4" for number in numbers],
        "start_s": starts,
        "end_s": [start + 1 for start in starts],
        "duration_s": rng.uniform(0.5, 8, num),
        "num_frames": [30] * num,
        "width": [1920] * num,
        "height": [1080] * num,
        "fps": [30.0] * num,
        "codec": ["h264"] * num,
        "decoder": ["decord"] * num,
        "frame_s": [[start] for start in starts],
        "hand_left": rng.random(num) < 0.5,
        "hand_right": rng.random(num) < 0.9,
        "thumbnail": [rng.bytes(THUMBNAIL_BYTES) for _ in numbers],
        "run_key": [RUN_KEY] * num,
        key_column(STAGE): [RUN_KEY] * num,
    }
    columns = []
    for field in schema:
        if field.name == COLUMN:
            columns.append(vectors_to_arrow(vectors, field))
        else:
            there = values.get(field.name)
            columns.append(pa.nulls(num, field.type) if there is None else pa.array(there, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def vectors_to_arrow(vectors: NDArray[np.float32], field: pa.Field) -> pa.FixedSizeListArray:
    """(num, dim) as a column of vectors."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=field.type)


def _words(words: Sequence[str], num: int, rng: np.random.Generator) -> list[str]:
    shares = 1 / np.arange(1, len(words) + 1)
    return [words[n] for n in rng.choice(len(words), num, p=shares / shares.sum())]


def _around(middles: NDArray[np.float32], num: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(num, D) unit vectors, each beside one of `middles`."""
    strength = 1 / (1 + np.arange(middles.shape[1]) / STRONG_DIRECTIONS)
    strength *= SPREAD / np.linalg.norm(strength)
    noise = rng.standard_normal((num, len(strength)), dtype=np.float32) * strength.astype(np.float32)
    return _unit(middles[rng.integers(len(middles), size=num)] + noise)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

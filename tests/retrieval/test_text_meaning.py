"""Text by meaning: synonyms are found, opposite actions stay apart, and without vectors words alone are used."""

import re

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.rows import make_clip, make_row
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.models.language.sentences import WEIGHTS, SentenceEncoder
from handloom.retrieval.words import action_of, least_cosine
from handloom.store.search.index import ensure_text_indexes

WORDS = [
    ("push the box", "push"),
    ("open the fridge", "open"),
    ("close the fridge", "close"),
    ("close the cupboard", "close"),
    ("closing a drawer", None),
    ("shut the door", "shut"),
    ("pour water into the kettle", "pour"),
    ("turn off the tap", "turn-off"),
    ("turn on the tap", "turn-on"),
    (None, None),
]


def make_db(path, version=WEIGHTS.digest, keys=None, said=None) -> Database:
    """said: by number, other words than those of the row that a vector is of."""
    db = Database.open(path, create=True)
    rows = [make_row(make_clip(n, narration=words, verb=verb)) for n, (words, verb) in enumerate(WORDS)]
    encoder = SentenceEncoder()
    spoken = [(said or {}).get(number, words) for number, (words, _) in enumerate(WORDS)]
    vectors = [None if words is None else encoder.encode([words])[0].tolist() for words in spoken]
    table = pa.Table.from_batches(rows)
    if "embedding_text" in table.schema.names:
        table = table.drop_columns(["embedding_text"])
    table = table if keys is None else with_keys(table, {"text": keys})
    column = pa.array(vectors, pa.list_(pa.float32(), encoder.dim))
    lance.write_dataset(
        with_own_column(table, "text", "embedding_text", column, version=version, handloom_reads="narration,verb,noun"),
        db.location.table_uri("clips"),
    )
    ensure_text_indexes(db)
    return db


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    return make_db(tmp_path_factory.mktemp("db"))


def narrations(hits):
    return [hit.narration for hit in hits]


def test_a_synonym_finds_what_no_word_does(db):
    assert narrations(db.search(text="shove the carton", k=1)) == ["push the box"]
    assert narrations(db.search(text="shove", k=1)) == ["push the box"]
    assert len(db.search(text="shove", meaning=False)) == 0
    hits = db.search(text="close the fridge", k=3)
    assert hits.scoring == "rrf"
    assert set(hits[0].parts) == {"words", "meaning"}
    assert hits[0].parts["meaning"].score == pytest.approx(1, abs=1e-4)  # the sentence's cosine, and the verb's
    assert len(db.search(text="fridge", where="verb = 'open'")) == 1


def test_a_text_about_something_else_finds_nothing_by_meaning(db):
    hits = db.search(text="the parliament debates a new law")
    assert (len(hits), hits.scoring) == (0, "bm25")
    assert re.search(r"nearest has a cosine of 0\.[01]\d, below 0\.32", hits.unused["meaning"])
    assert least_cosine(1) < least_cosine(30) == 0.36 < least_cosine(300) < least_cosine(10**6) == least_cosine(None)


def test_opposite_actions_stay_apart(db):
    """The encoder puts `open the fridge` right beside `close the fridge`, before every other closing."""
    closed = narrations(db.search(text="close the fridge", k=9))
    assert closed[0] == "close the fridge"
    assert closed.index("open the fridge") > max(closed.index(w) for w, v in WORDS if v in ("close", "shut"))
    taps = narrations(db.search(text="turning the tap off", k=9))
    assert taps[0] == "turn off the tap"
    assert taps[-1] == "turn on the tap"


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("shove the box", "shove"),
        ("the man is turning the tap on", "turn-on"),
        ("a person opened the fridge", "open"),
        ("C closes the door", "close"),
        ("the", None),
    ],
)
def test_the_action_of_a_text(text, action):
    assert action_of(text, {"open", "close", "turn-on", "turn", "push"}) == action


def test_an_action_is_found_by_one_of_its_kind(db):
    """A sentence's vector is mostly its things: the verbs are compared, too."""
    pushed = db.search(text="thrust", k=9)
    assert pushed[0].narration == "push the box"
    assert pushed[0].parts["meaning"].score > pushed[1].parts["meaning"].score + 0.02


def test_vectors_of_words_that_have_changed_since_are_not_compared(tmp_path):
    """An ingest that gives a row other words removes the key of the stage that has read the old ones."""
    changed = make_db(tmp_path, keys=["k"] * 4 + [None] + ["k"] * 5)
    hits = changed.search(text="shut a box", k=9)
    assert len(hits) == 8
    assert "closing a drawer" not in narrations(hits)
    there = make_clip(3).clip_id
    hits = changed.search(clip=there, by="text", k=9)
    assert "closing a drawer" not in narrations(hits)
    assert (hits.num_with, hits.num_without) == (8, 1)
    both = changed.search(clip=there, by=["text", "motion"], k=9)  # found by motion; its old words score nothing
    (hit,) = [hit for hit in both if hit.narration == "closing a drawer"]
    assert set(hit.parts) == {"motion"}


def test_a_clip_whose_words_have_changed_is_compared_by_those_of_today(tmp_path):
    """Row 4 says `closing a drawer`, and its stored vector is that of other words."""
    changed = make_db(tmp_path, keys=["k"] * 4 + [None] + ["k"] * 5, said={4: "push the box"})
    hits = changed.search(clip=make_clip(4).clip_id, by="text", k=9)
    own = SentenceEncoder().encode(["closing a drawer"])[0]
    expected = changed.search(vector=own, by="text", k=9)
    assert [(hit.clip_id, hit.score) for hit in hits] == [(hit.clip_id, hit.score) for hit in expected]
    assert hits[0].narration == "close the cupboard"


def test_vectors_of_other_weights_are_not_compared(tmp_path):
    other = make_db(tmp_path, version="another")
    hits = other.search(text="close the fridge")
    assert hits.scoring == "bm25"
    assert "made by weights another" in hits.unused["meaning"]
    assert np.isfinite(hits[0].score)

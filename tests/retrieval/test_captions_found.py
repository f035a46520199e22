"""Captions are found by a text, by words and by meaning, beside what was said of the clips."""

from __future__ import annotations

from dataclasses import replace

import lance
import pyarrow as pa
import pytest
from support.rows import make_clip, make_row

from handloom.api import Database
from handloom.cli import text
from handloom.models.language.words import caption_sentences
from handloom.pipelines.search import search_clips, why_nothing
from handloom.schemas.settings import Settings
from handloom.stages.own import compute_own
from handloom.stages.registry import stage_graph
from handloom.stages.stage import ClipInput
from handloom.store.search.index import ensure_text_indexes

CAPTIONED = [
    (None, "A person opens the fridge. They take out milk."),
    (None, "A hand closes the fridge door."),
    (None, "Someone pushes a carton across the table!"),
    ("push the box", None),
    ("wash the pan", "A pan is rinsed under the tap."),
    (None, None),
]
RULES = {"class": "handloom.stages.learned:RuleCaption"}


def declared(**stages):
    return stage_graph(Settings(stages=stages))


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    graph = declared(told=RULES)
    stage, captions = graph["told_text"], [caption for _, caption in CAPTIONED]
    stage.stage.load()
    clips = [make_clip(number, narration=narration) for number, (narration, _) in enumerate(CAPTIONED)]
    given = [ClipInput(clip, {"caption": caption}) for clip, caption in zip(clips, captions, strict=True)]
    vectors = [cells["embedding_caption"] for cells in compute_own(stage, given)]
    table = pa.Table.from_batches([make_row(clip) for clip in clips])
    (field,) = (field for field in graph["told"].fields if field.name == "caption")
    table = table.append_column(field, pa.array(captions, pa.string()))
    (field,) = stage.fields
    table = table.append_column(field, pa.concat_arrays([cell.cast(field.type) for cell in vectors]))
    if "embedding_text" in table.schema.names:
        table = table.drop_columns(["embedding_text"])
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    lance.write_dataset(table, db.location.table_uri("clips"))
    assert "caption_text" in ensure_text_indexes(db)
    return db


def place(hit) -> int:
    ids = [make_clip(number).clip_id for number in range(len(CAPTIONED))]
    return ids.index(hit.clip_id)


def test_words_of_captions_are_found_and_each_hit_says_where(db):
    hits = db.search(text="fridge", meaning=False)
    assert {place(hit) for hit in hits} == {0, 1}
    assert all(set(hit.parts) == {"caption.words"} for hit in hits)
    assert "[caption.words" in text.hit(hits[0])
    (hit,) = found = search_clips(db, text="carton", meaning=False)
    assert '"Someone pushes a carton across the table!"' in text.hit(hit)
    assert text.hits_json(found)["hits"][0]["captions"] == {"caption": "Someone pushes a carton across the table!"}
    assert '"a b ' in text.hit(replace(hit, more={"caption": "a\nb\x1b[2J" + " word" * 40}))
    assert "(an opposite action)" in text.hit(replace(hit, score=-1.0))
    hits = db.search(text="push", meaning=False)
    assert {place(hit): set(hit.parts) for hit in hits} == {2: {"caption.words"}, 3: {"words"}}
    (hit,) = db.search(text="pan", meaning=False)
    assert set(hit.parts) == {"words", "caption.words"}


def test_the_meaning_of_captions_is_compared_and_opposites_stay_apart(db):
    hits = db.search(text="shove the cardboard box", k=2)
    assert 2 in map(place, hits)
    assert "caption.meaning" in next(hit for hit in hits if place(hit) == 2).parts
    best, *_, last = db.search(text="close the fridge")
    assert (place(best), place(last), last.score < 0) == (1, 0, True)
    assert "nearest has a cosine" in db.search(text="the parliament debates a new law").unused["caption.meaning"]
    own = db.search(clip=make_clip(1).clip_id, by="caption", k=1)
    assert own[0].clip_id == make_clip(0).clip_id
    assert place(db.search(text="close the fridge", by="caption", k=1)[0]) == 1


def test_a_table_without_narrations_is_not_said_to_have_no_words(db):
    assert "has words" not in why_nothing(db, "violin", "narration IS NULL AND caption IS NOT NULL", "human")
    assert "has words" in why_nothing(db, "violin", "narration IS NULL AND caption IS NULL", "human")


def test_without_an_index_of_captions_the_search_says_so(tmp_path):
    clips = [make_clip(0, narration="push the box")]
    table = pa.Table.from_batches([make_row(clip) for clip in clips])
    db = Database.open(tmp_path / "db", create=True)
    lance.write_dataset(table, db.location.table_uri("clips"))
    ensure_text_indexes(db)
    there = db.table("clips")
    there.add_columns(pa.schema([pa.field("caption", pa.string(), metadata={"prompt": "x"})]))
    hits = db.search(text="box", meaning=False)
    assert [set(hit.parts) for hit in hits] == [{"words"}]
    assert "handloom index" in hits.unused["caption.words"]


def test_each_stage_of_captions_is_followed_by_one_of_their_meaning():
    graph = declared(caption=RULES, told=RULES | {"settings": {"prefix": "rule_"}})
    assert graph["caption_text"].columns == ("embedding_caption",)
    assert graph["told_text"].columns == ("embedding_rule_caption",)
    assert graph["told_text"].reads_stages == ("told",)
    assert not any(node.name.endswith("_text") for node in declared().nodes)


def test_the_sentences_of_a_caption():
    assert caption_sentences("0.20 s to 1.5 s, right hand: lift object 1. It stops!\nThen; nothing?") == [
        "right hand: lift object 1.", "It stops!", "Then;", "nothing?",
    ]  # fmt: skip
    assert caption_sentences(None) == caption_sentences(" . ") == []

"""Words that change after the first run reach rows, indexes and readers; nothing else changes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dying import Dying, Killed
from support.rows import RUN_KEY, digests, make_clip, make_row

from handloom.api import Database
from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.stage_columns import key_column
from handloom.stages.stage import owned
from handloom.store.clip_features import ClipFeatures, read_features, write_features
from handloom.store.clips.changed_labels import WORDS, WordsBrought, bring_words, words_behind
from handloom.store.clips.clip_list import add_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.search.index import build_indexes, compact

SCHEMA = clips_schema(4)


def commit(db, *parts):
    """A fragment of each part's clips."""
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write_fragment(db.uri, [make_row(clip) for clip in part], SCHEMA) for part in parts])
    return committer


def test_words_reach_rows_and_search(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    clips = [make_clip(n, narration="open drawer" if n % 2 else None) for n in range(5)]
    commit(db, clips[:2], clips[2:])
    build_indexes(db)
    keys = {clip.clip_id: RUN_KEY for clip in clips}
    features = ClipFeatures(tuple(keys), np.ones((5, 2), np.float16), np.ones((5, 1, 2), np.float16))
    write_features(db, "clips", keys, "e", features)
    before = digests(db.clips())

    told = [replace(clips[0], narration="take a cup", verb="take"), replace(clips[3], narration=None, split="val")]
    now = [told[0], clips[1], replace(clips[2], view="ego"), told[1], replace(clips[4], camera="{}"), make_clip(9)]
    add_clips(db, now)
    assert words_behind(db).clip_ids == [clip.clip_id for clip in told]
    assert words_behind(db, [told[1].clip_id]).words.to_pylist() == [
        {"clip_id": told[1].clip_id} | {name: getattr(told[1], name) for name in WORDS}
    ]
    assert bring_words(db) == WordsBrought(2, {})

    assert not words_behind(db).clip_ids
    after = {clip_id: digest for clip in told for clip_id, digest in digests(make_row(clip)).items()}
    assert digests(db.clips()) == before | after
    assert db.clips(["clip_id"]).column("clip_id").to_pylist() == [clip.clip_id for clip in clips]
    left = read_features(db, "clips", keys, "e", 1, (2, 2)).ids
    assert set(left) == {clips[1].clip_id, clips[2].clip_id, clips[4].clip_id}
    assert Committer(db, RUN_KEY, SCHEMA).done == set(keys)


def test_indexes_find_the_new_words_and_not_the_old(tmp_path):
    """Indexes from before, over some of several fragments; without another build, after one, and after compaction."""
    db = Database.open(tmp_path / "db", create=True)
    said = {"narration": "open the drawer", "verb": "open", "noun": "drawer", "participant": "P01", "split": "train"}
    clips = [make_clip(n, **said) for n in range(9)]
    add_clips(db, clips)
    commit(db, clips[:3], clips[3:6])
    build_indexes(db)
    commit(db, clips[6:])
    now = {"narration": "take a cup", "verb": "take", "noun": "cup", "participant": "P02", "split": "val"}
    taken = {0, 4, 7}
    add_clips(db, [replace(clips[n], **now) for n in taken])
    silent = {1, 8}
    add_clips(db, [replace(clips[n], narration=None, verb=None, noun=None) for n in silent])
    assert bring_words(db).num_rows == 5

    def found(where=None, text=None):
        if text is not None:
            return {hit.clip_id for hit in db.search(text=text, k=9, where=where)}
        return set(db.clips(["clip_id"], where).column("clip_id").to_pylist())

    def ids(numbers):
        return {clips[n].clip_id for n in numbers}

    for change in (lambda: None, lambda: build_indexes(db), lambda: compact(db)):
        change()
        assert found(text="cup") == found(text="take") == ids(taken)
        assert found(text="drawer") == ids(set(range(9)) - taken - silent)
        assert found("verb = 'take'", "cup") == ids(taken)
        assert found("verb = 'open'", "cup") == set()
        assert found("noun = 'cup'") == found("participant = 'P02'") == found("split = 'val'") == ids(taken)
        assert found("verb IS NULL") == ids(silent)


def test_a_stage_that_reads_words_is_needed_again_where_they_change(tmp_path):
    """Its key goes in the commit that brings the words; keys of other stages and rows stay, and so do the values."""
    db = Database.open(tmp_path / "db", create=True)
    clips = [make_clip(n, narration="old", verb="old") for n in range(4)]
    add_clips(db, clips)
    commit(db, clips)
    made = [
        owned(pa.field("caption", pa.int8()), "captions", ["narration", "video_uri"]),
        owned(pa.field("action", pa.int8()), "actions", ["narration", "verb"]),
        owned(pa.field("size", pa.int8()), "sizes", []),
        owned(pa.field("keyless", pa.int8()), "keyless", ["verb"]),
    ]
    keys = [key_column(stage) for stage in ("captions", "actions", "sizes")]
    db.table("clips").add_columns(pa.schema([*made, *(pa.field(name, pa.string()) for name in keys)]))
    db.table("clips").update({**{field.name: "1" for field in made}, **{name: "'k'" for name in keys}})
    add_clips(
        db, [replace(clips[1], narration="new"), replace(clips[2], verb="new"), replace(clips[3], participant="P01")]
    )
    assert bring_words(db) == WordsBrought(3, {"actions": 2, "captions": 1})
    rows = db.clips(["clip_id", "verb", *keys, "caption", "action"]).to_pylist()
    assert {row["clip_id"]: tuple(row[name] for name in keys) for row in rows} == {
        clips[0].clip_id: ("k", "k", "k"),
        clips[1].clip_id: (None, None, "k"),
        clips[2].clip_id: ("k", None, "k"),
        clips[3].clip_id: ("k", "k", "k"),
    }
    assert {(row["caption"], row["action"]) for row in rows} == {(1, 1)}


@settings(max_examples=8)
@given(opens=st.integers(0, 9))
def test_a_kill_between_the_list_and_the_rows_is_finished_by_the_next(tmp_path_factory, opens):
    """The list is new, the rows are old: whoever looks next, an ingest or a run, brings the words."""
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    clips = [make_clip(n, narration="old") for n in range(3)]
    add_clips(db, clips)
    commit(db, clips[:1], clips[1:])
    new = [replace(clip, narration="new") for clip in clips[:2]]
    with contextlib.suppress(Killed):
        dying = Dying(db.location, iter(range(opens)))
        add_clips(dying, new)
        bring_words(dying)
    add_clips(db, new)
    bring_words(db)
    words = {row["clip_id"]: row["narration"] for row in db.clips(["clip_id", "narration"]).to_pylist()}
    assert words == {clip.clip_id: clip.narration for clip in read_clips(db)}
    assert sorted(words.values()) == ["new", "new", "old"]


@dataclass(frozen=True)
class Meanwhile(Database):
    """Another process changes the list when the features of clips are removed: after it was read, before the rows are
    written."""

    others: list[Clip]

    def table(self, name, version=None):
        if name == "clip_features" and self.others:
            add_clips(Database(self.location), [self.others.pop()])
        return super().table(name, version)


def test_another_ingest_in_between_has_the_last_word(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    clip = make_clip(0)
    add_clips(db, [clip])
    commit(db, [clip])
    add_clips(db, [replace(clip, verb="first")])
    others = [replace(clip, verb="second")]
    assert bring_words(Meanwhile(db.location, others)).num_rows == 1
    assert (others, db.clips(["verb"]).column("verb").to_pylist()) == ([], ["second"])

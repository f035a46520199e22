"""Filters on a real table: members of `quality`, nulls, and the errors for unknown names."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.rows import make_clip, make_row
from support.stage_keys import with_keys, without_keys

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.store.clips.clip_list import add_clips

JITTER_MM = [2.0, 9.0, None, 5.0]
STAGE_KEYS = {"hands_2d": ["old", "new", "new", None], "Grip-2": ["a", "a", None, "b"]}


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    """Four clips, the hand of every second one seen; the third without a known jitter."""
    db = Database.open(tmp_path_factory.mktemp("filters"), create=True)
    add_clips(db, [make_clip(i) for i in range(4)])
    rows = pa.Table.from_batches([make_row(i, hands_seen=(i % 2 == 0, False)) for i in range(4)])
    quality = [row | {"hand_jitter_mm": JITTER_MM[i]} for i, row in enumerate(rows.column("quality").to_pylist())]
    place = rows.schema.get_field_index("quality")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(quality, rows.schema.field(place).type))
    lance.write_dataset(with_keys(rows, STAGE_KEYS), db.location.table_uri("clips"))
    return db


@pytest.mark.parametrize(
    ("where", "clips"),
    [
        ("quality.hand_jitter_mm < 8", [0, 3]),
        ("quality.hand_jitter_mm >= 8", [1]),
        ("NOT quality.hand_jitter_mm < 8", [1]),  # null is neither below nor not below
        ("quality.hand_jitter_mm IS NULL", [2]),
        ("quality.hand_jitter_mm < 8 OR quality.hand_jitter_mm IS NULL", [0, 2, 3]),
        ("quality.hand_jitter_mm < 8 AND hand_left AND world_scale = 'none'", [0]),
        ("coalesce(quality.hand_jitter_mm, 0) < 4", [0, 2]),
        ("stage_key('hands_2d') = 'new'", [1, 2]),
        ("stage_key('hands_2d') IS NULL OR Stage_Key( \"hands_2d\" ) = 'old'", [0, 3]),
        ("stage_key('Grip-2') = 'b' -- stage_key('x')", [3]),
        ("narration IS NULL AND codec <> 'stage_key(''x'')'", [0, 1, 2, 3]),  # text
        ("quality['hand_jitter_mm'] > 4 AND duration_s BETWEEN 0.5 AND 2", [1, 3]),
    ],
)
def test_filters_on_quality_and_nulls(db, where, clips):
    found = db.clips(["clip_id"], where).column("clip_id").to_pylist()
    assert found == [make_clip(i).clip_id for i in clips]
    assert db.count("clips", where) == len(clips)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("quality.hand_jiter_mm < 8", r"quality has no member 'hand_jiter_mm'; near: hand_jitter_mm"),
        ("stage_key('hand_2d') = 'x'", r"there is no stage 'hand_2d'; near: hands_2d"),
        ("stage_key(hands_2d) = 'x'", r"'stage_key\(hands_2d\)' does not name a stage in quotes"),
        ("stage_key() = 'x'", r"does not name a stage in quotes"),
        ("quality['blurr'] < 8", r"quality has no member 'blurr'; near: blur"),
        ("quality.BLUR < 8", r"quality has no member 'BLUR'; near: blur"),
        ("hand_jitter_mm < 8", r"there is no column 'hand_jitter_mm'; near: quality.hand_jitter_mm"),
        ("hand_left AND world_scal = 'metric'", r"there is no column 'world_scal'; near: world_scale"),
        ("world_scale = metric", r"there is no column 'metric'"),
        ("hand_left.x", r"a column of type Boolean, which has no members"),
        ("lower(naration) = 'x'", r"there is no column 'naration'; near: narration"),
        ("coalesce(qualty.blur, 0) < 1", r"there is no column 'qualty'; near: quality"),
        ("`World Scale` IS NULL", r"there is no column 'World Scale'; near: world_scale"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest(db, where, words):
    with pytest.raises(ConfigError, match=words):
        db.clips(["clip_id"], where)
    with pytest.raises(ConfigError, match=words):
        db.count("clips", where)
    with pytest.raises(ConfigError, match=words):
        db.search(vector=np.ones(512, np.float32), by="appearance", where=where)


@pytest.mark.parametrize(
    "where",
    [
        "hand_left < 3",
        "quality.blur < 'sharp'",
        "verb > 2",
        "quality.blur",
        "CAST(clip_id AS int) > 1",
        "count(*) > 1",
        "row_number() OVER () > 1",
    ],
)
def test_a_filter_of_the_wrong_type_is_refused_by_every_read(db, where):
    for read in (
        lambda: db.clips(["clip_id"], where),
        lambda: list(db.batches(["clip_id"], where)),
        lambda: db.count("clips", where),
    ):
        with pytest.raises(ConfigError, match="cannot be used") as caught:
            read()
        assert len(caught.value.problem) < 250
        assert "\n" not in caught.value.problem


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("verb = b'x'", "there is 'b' before a text in quotes"),
        ("hand_left AND verb=N'x'", "there is 'N' before"),
        ('r"verb" IS NULL', "there is 'r' before"),
        ("verb = '\udcff'", "no UTF-8 text"),
    ],
)
def test_literals_that_lance_cannot_read_are_refused(db, where, words):
    """On the first three Lance 14 panics, as on placeholders."""
    for read in (lambda: db.clips(["clip_id"], where), lambda: db.count("clips", where)):
        with pytest.raises(ConfigError, match=words):
            read()


def test_letters_before_quotes_that_are_no_prefix_are_kept(db):
    assert db.count("clips", "clip_id LIKE'%' AND dataset NOT IN('b''x', 'n') AND dataset<>'r'") == 4


@pytest.mark.parametrize("where", ["start_s = ?", "start_s = $1", "start_s = :x", "dataset = $$a$$"])
def test_a_placeholder_is_refused(db, where):
    """Lance 14 panics on them: a count raised a BaseException, a scan said `Task was aborted`."""
    with pytest.raises(ConfigError, match="is a placeholder, expected a value"):
        db.count("clip_list", where=where)
    assert db.count("clip_list", where="dataset <> '?$:x' AND start_s::int >= 0 -- :x?") == 4


def test_a_missing_file_is_not_reported_as_an_error_of_the_filter(tmp_path):
    db = Database.open(tmp_path, create=True)
    lance.write_dataset(pa.Table.from_batches([make_row(0)]), db.location.table_uri("clips"))
    for file in (tmp_path / "clips.lance" / "data").iterdir():
        file.unlink()
    for read in (lambda: db.clips(["clip_id"], "hand_left"), lambda: db.count("clips", "hand_left")):
        with pytest.raises(StoreError):
            read()


def test_the_hint_is_quotes_for_what_may_be_a_value(db):
    with pytest.raises(ConfigError, match="near: quality") as caught:
        db.count("clips", "qualty.blur < 1")
    assert caught.value.hint.startswith("docs/tables.md has every column")
    with pytest.raises(ConfigError) as caught:  # a value without its quotes, which is like a column
        db.count("clips", "narration = verbs")
    assert caught.value.hint.startswith("text stands in single quotes: 'verbs'")
    for where in ("verb = open", "zzz < 1"):  # nothing is near: no screen of 200 names
        with pytest.raises(ConfigError) as caught:
            db.count("clips", where)
        assert caught.value.hint.startswith("text stands in single quotes: '")
        assert len(caught.value.hint) < 200


@pytest.mark.parametrize(
    "where",
    [
        "narration = 'no_such AND (x.y < 1' OR narration LIKE '%it''s%'",
        "Hand_Left IS NOT TRUE -- and no_such",
        "CAST(duration_s AS int) IN (1, 2) AND lower(narration) LIKE 'a%'",
        "`quality`.`blur` < 9 AND frame_s[0] >= 0.5",
    ],
)
def test_text_and_functions_are_not_taken_for_columns(db, where):
    db.count("clips", where)


def test_a_table_without_stage_keys_says_so(db, tmp_path):
    other = Database.open(tmp_path, create=True)
    add_clips(other, [make_clip(0)])
    lance.write_dataset(without_keys(pa.Table.from_batches([make_row(0)])), other.location.table_uri("clips"))
    with pytest.raises(ConfigError, match="rows of `clips` have keys of stages, and this filter is on another table"):
        other.count("clip_list", "stage_key('hands_2d') IS NULL")
    with pytest.raises(ConfigError, match=r"the table has no keys of stages") as caught:
        other.clips(["clip_id"], "stage_key('hands_2d') = 'x'")
    assert "the next `handloom run` adds them" in str(caught.value)

"""Words of scripts without spaces are found, whole or in part; English is searched as before."""

from __future__ import annotations

import pytest
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.search.index import build_indexes
from handloom.store.search.unspaced import split_query

SAID = [
    "手を洗う", "トマトを切る", "包丁でトマトを切って皿に置く", "打开抽屉", "关上冰箱门", "洗手", "เปิดลิ้นชัก", "ล้างมือ",
    "손을 씻는다", "서랍을 여는 사람", "opening the drawers", "close the door", "ｶｯﾌﾟを取る", "か\u3099らすを拭く",
    "open the 冰箱", "k\u00fcche \u00f6ffnen", None,
]  # fmt: skip


@pytest.fixture(scope="module", params=["fresh", "indexed"])
def db(request, tmp_path_factory):
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    rows = [make_row(make_clip(number, narration=said, verb=None, noun=None)) for number, said in enumerate(SAID)]
    Committer(db, RUN_KEY, clips_schema(4)).commit([write_fragment(db.uri, rows, clips_schema(4))])
    if request.param == "indexed":
        build_indexes(db)
    return db


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("洗う", ["手を洗う"]),
        ("手", ["洗手", "手を洗う"]),
        ("トマトを切る", ["トマトを切る", "包丁でトマトを切って皿に置く"]),
        ("打开", ["打开抽屉"]),
        ("冰箱", ["open the 冰箱", "关上冰箱门"]),
        ("open 冰箱", ["open the 冰箱", "opening the drawers", "关上冰箱门"]),
        ("ลิ้นชัก", ["เปิดลิ้นชัก"]),
        ("มือ", ["ล้างมือ"]),
        ("서랍", ["서랍을 여는 사람"]),
        ("서라", []),  # in decomposed text it would begin 서랍
        ("씻", ["손을 씻는다"]),
        ("カップ", ["ｶｯﾌﾟを取る"]),
        ("がらす", ["か\u3099らすを拭く"]),
        ("猫", []),
        ("drawer", ["opening the drawers"]),
        ("Ku\u0308che", ["k\u00fcche \u00f6ffnen"]),
    ],
)
def test_words_are_found_in_text_without_spaces(db, query, expected):
    assert [hit.narration for hit in db.search(text=query)] == expected


def test_a_filter_and_the_number_of_hits_hold(db):
    hits = db.search(text="手", where="narration LIKE '手%'")
    assert [hit.narration for hit in hits] == ["手を洗う"]
    scores = [hit.score for hit in db.search(text="を")]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert [hit.clip_id for hit in db.search(text="を", k=2)] == [hit.clip_id for hit in db.search(text="を")[:2]]


@pytest.mark.parametrize(
    ("query", "words", "pieces"),
    [
        ("open the drawer", "open the drawer", ()),
        ("öffnen", "öffnen", ()),
        ("洗", "", ("洗",)),
        ("ＵＳＢケーブル", "USB", ("ケー", "ーブ", "ブル")),
        ("大・小", "・", ("大", "小")),
        ("!!", "!!", ()),
    ],
)
def test_a_query_is_split_between_the_index_and_the_pieces(query, words, pieces):
    assert split_query(query) == (words, pieces)

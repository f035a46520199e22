"""Clips and pieces are found by what moves in them, where hands are lost; older tables by what they have."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.movements import movement, moving_row, tracks_of
from support.rows import make_clip
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.models.embeddings.descriptors import NUM_FLOW
from handloom.retrieval.movement import courses, moments
from handloom.retrieval.movement.steps import HANDS, MOVING
from handloom.retrieval.query import NoPart
from handloom.schemas.clip import Clip
from handloom.schemas.tables.row import frames_from_arrow, frames_to_arrow, row_arrays
from handloom.stages.builtin.motion_steps import COLUMN, MotionSteps
from handloom.stages.stage import ClipInput
from handloom.store.search.index import ensure_text_indexes

NUM, COPY, SLOW, MIRRORED, STEPS = 9, 9, 10, 11, pa.list_(pa.list_(pa.float16(), NUM_FLOW))


def clip_of(number: int) -> Clip:
    start_s = float(10 * number)
    return make_clip(number, start_s=start_s, end_s=start_s + 6)


IDS = [clip_of(number).clip_id for number in range(12)]


def steps_of(rows: list[pa.RecordBatch]) -> pa.Array:
    clips = [ClipInput(clip_of(0), row_arrays(row)) for row in rows]
    cells = [cell[COLUMN] for cell in MotionSteps(COLUMN, MotionSteps.Settings()).compute(clips)]
    return pa.concat_arrays([frames_to_arrow(cell, STEPS) for cell in cells])


@pytest.fixture(scope="module")
def rows() -> list[pa.RecordBatch]:
    """Nine movements; movement 3 again without a hand that is found, at 0.8 of its speed, and in a mirror."""
    made = []
    for number in range(12):
        points, frame_s = movement(number if number < NUM else 3, 4.0, 0.8 if number == SLOW else 1.0)
        if number == MIRRORED:
            tracks = tracks_of(points, number)
            tracks.points_px[..., 0] = 639 - tracks.points_px[..., 0]
        else:
            tracks = tracks_of(points, number)
        found = 0.0 if number in (COPY, MIRRORED) else 0.5 if number == SLOW else 1.0
        made.append(moving_row(clip_of(number), points, frame_s, tracks, found))
    return made


@pytest.fixture(scope="module")
def db(rows, tmp_path_factory) -> Database:
    db = Database.open(tmp_path_factory.mktemp("moving"), create=True)
    table = with_keys(pa.Table.from_batches(rows), {COLUMN: ["1" * 16] * len(rows)})
    table = with_own_column(table, COLUMN, COLUMN, steps_of(rows))
    lance.write_dataset(table, db.location.table_uri("clips"), max_rows_per_file=5)
    ensure_text_indexes(db)
    return db


def test_a_piece_is_found_where_no_hand_is(db, monkeypatch):
    clip = clip_of(3)
    query = {"clip": IDS[3], "from_s": clip.start_s + 1, "to_s": clip.start_s + 3}
    hits = db.search(**query, k=12)
    assert {hit.clip_id for hit in hits[:2]} == {IDS[COPY], IDS[SLOW]}
    assert (hits.scoring, hits.exact, len(hits)) == ("moment", True, 11)
    by_id = {hit.clip_id: hit for hit in hits}
    copy, slow = by_id[IDS[COPY]], by_id[IDS[SLOW]]
    start_s = clip_of(COPY).start_s
    assert (copy.match_start_s, copy.match_end_s) == pytest.approx((start_s + 1, start_s + 3), abs=0.25)
    start_s = clip_of(SLOW).start_s
    assert (slow.match_start_s, slow.match_end_s) == pytest.approx((start_s + 1.25, start_s + 3.75), abs=0.4)
    mirrored = db.search(**query, mirror=True, k=3)
    assert {hit.clip_id for hit in mirrored} == {IDS[COPY], IDS[SLOW], IDS[MIRRORED]}
    monkeypatch.setattr(moments, "MOST", dict.fromkeys(moments.MOST, 4))
    few = db.search(**query, k=12)
    assert (len(few), few.exact) == (4, False)
    assert list(few)[:2] == list(hits)[:2]


def test_a_trajectory_chooses_its_candidates_by_what_moves(db, monkeypatch):
    points, frame_s = movement(6, 4.0)
    inside = (frame_s >= 1) & (frame_s <= 3)
    whole = db.search(trajectory=(points[inside], frame_s[inside]), k=3)
    monkeypatch.setattr(moments, "MOST", dict.fromkeys(moments.MOST, 4))
    found = db.search(trajectory=(points[inside], frame_s[inside]), k=3)
    assert whole[0].clip_id == found[0].clip_id == IDS[6]
    assert (whole.exact, found.exact) == (True, False)


def test_rows_without_steps_are_searched_by_hands(db, rows, tmp_path, caplog):
    old = Database.open(tmp_path, create=True)
    table = with_keys(pa.Table.from_batches(rows), {COLUMN: ["1" * 16] * 5 + [None] * 7})
    table = with_own_column(table, COLUMN, COLUMN, pa.concat_arrays([steps_of(rows[:5]), pa.nulls(7, STEPS)]))
    lance.write_dataset(table, old.location.table_uri("clips"))
    clip = clip_of(3)
    hits = old.search(clip=IDS[3], from_s=clip.start_s + 0.5, to_s=clip.start_s + 1.5, k=12)
    assert IDS[COPY] not in {hit.clip_id for hit in hits}
    assert hits[0].clip_id == IDS[SLOW]
    assert "5 clips without motion_steps: compared by the hands" in caplog.text
    some = old.search(clip=IDS[3], from_s=clip.start_s + 1, to_s=clip.start_s + 3, k=12, where=f"clip_id < '{IDS[5]}'")
    assert len(some) == 4


@pytest.mark.parametrize(("moving", "said"), [(True, "^nothing moves, and no hand"), (False, "^no hand is seen")])
def test_a_piece_in_which_nothing_moves_says_so_where_that_is_known(rows, moving, said):
    still = row_arrays(rows[COPY]) | {COLUMN: np.zeros((40, NUM_FLOW), np.float16)}
    with pytest.raises(NoPart, match=said):
        moments.Movement(still, "it", moving=moving)


def test_whole_clips_are_aligned_and_scored_as_they_are_ranked(db, rows, tmp_path):
    hits = db.search(clip=IDS[3], k=12)
    assert (hits.scoring, hits.exact, hits.num_with) == (courses.SCORING, True, 12)
    assert {hit.clip_id for hit in hits[:2]} == {IDS[COPY], IDS[SLOW]}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    mirrored = db.search(clip=IDS[3], k=3, mirror=True)
    other = db.search(clip=IDS[5], k=3)
    assert other[0].score < 0.9 < hits[0].score < 1, "nothing is like it"
    assert {hit.clip_id for hit in mirrored} == {IDS[COPY], IDS[SLOW], IDS[MIRRORED]}
    both = db.search(clip=IDS[3], text="no such words", k=12)
    assert {hit.clip_id: hit.parts["motion"].score for hit in both} == {hit.clip_id: hit.score for hit in hits}
    vector = row_arrays(rows[3])["embedding_motion"]
    assert db.search(vector=vector, by="motion", k=3).scoring == "cosine"

    old = Database.open(tmp_path, create=True)
    table = pa.Table.from_batches(rows)
    field = table.schema.field("embedding_motion")
    schema = table.schema.set(
        table.schema.get_field_index(field.name), field.with_metadata({**field.metadata, b"version": b"2"})
    )
    lance.write_dataset(table.cast(schema), old.location.table_uri("clips"))
    assert old.search(clip=IDS[3], k=3).scoring == "cosine"


@pytest.mark.parametrize("kind", [MOVING, HANDS])
def test_steps_of_a_batch_are_those_of_its_rows(rows, kind):
    """Also of a part of one, and with nulls."""
    some = [row for number, row in enumerate(rows) if number != COPY]
    table = pa.Table.from_batches(some).add_column(0, COLUMN, steps_of(some))
    null = pa.nulls(1, table.schema.field(kind.column).type)
    cells = [table.column(kind.column).combine_chunks()[n : n + 1] if n % 4 else null for n in range(len(some))]
    table = table.set_column(table.schema.get_field_index(kind.column), kind.column, pa.concat_arrays(cells))
    (batch,) = table.select(["frame_s", kind.column]).combine_chunks().to_batches()
    for start, length in ((0, len(some)), (3, 5), (2, 1)):
        found = dict(kind.each(batch.slice(start, length)))
        assert set(found) == {n - start for n in range(start, start + length) if n % 4}
        for index, steps in found.items():
            values = row_arrays(some[start + index])
            flow = frames_from_arrow(steps_of([some[start + index]])[0], (NUM_FLOW,))
            alone = kind.of(values | {COLUMN: flow}, False)
            np.testing.assert_array_equal(steps.values, alone.values)
            np.testing.assert_array_equal(steps.acts, alone.acts)
            assert steps.span_of(2, 7) == alone.span_of(2, 7)
            assert values["frame_s"][0] <= steps.span_of(0, 0)[0] <= steps.span_of(0, 5)[1] <= values["frame_s"][-1]


def test_on_the_command_line(db, cli):
    code, out, err = cli("search", "--db", db.uri, "--clip", IDS[3], "-k", 2)
    assert (code, len(out.splitlines())) == (0, 2)
    assert "what moves in the clips" in out + err

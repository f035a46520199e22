"""Other clips of an ingest's videos are found, and values of the list are kept."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import make_clip

from handloom.api import Database
from handloom.schemas.clip import make_clip_id
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.ingest_diff import keep_unsaid, other_cuts


def clip(dataset: str, video: str, start_s: int, length_s: int | None, **values):
    end_s = None if length_s is None else start_s + length_s
    clip_id = make_clip_id(dataset, video, start_s, end_s)
    values |= {"clip_id": clip_id, "dataset": dataset, "video_id": video, "start_s": float(start_s), "end_s": end_s}
    return make_clip(0, **values)


CUTS = st.lists(
    st.builds(clip, st.sampled_from("de"), st.sampled_from("xy"), st.integers(0, 8), st.none() | st.integers(1, 4)),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(listed=CUTS, new=CUTS)
def test_other_cuts_are_those_of_the_same_videos(tmp_path_factory, listed, new):
    db = Database.open_or_new(tmp_path_factory.mktemp("db") / "db")
    if listed:
        add_clips(db, listed)
    found = other_cuts(db, new)
    given_ids, there = {c.clip_id for c in new}, {c.clip_id: c for c in listed}
    videos = {(c.dataset, c.video_id) for c in new}
    others = [c for c in there.values() if c.clip_id not in given_ids and (c.dataset, c.video_id) in videos]
    assert sorted(found.clip_ids) == sorted(c.clip_id for c in others)
    end = lambda c: float("inf") if c.end_s is None else c.end_s
    shares = {
        (c.clip_id, o.clip_id)
        for c in new
        for o in others
        if (c.dataset, c.video_id) == (o.dataset, o.video_id)
        and c.clip_id not in there
        and o.end_s is not None
        and c.start_s < end(o)
        and o.start_s < end(c)
    }
    pairs = {(c.clip_id, cut.clip_id) for c, cut in found.overlapping}
    assert pairs <= shares
    assert {one for one, _ in pairs} == {one for one, _ in shares}


def test_values_that_are_not_given_stay(tmp_path):
    db = Database.open_or_new(tmp_path / "db")
    told = make_clip(0, narration="opens", verb="open", view="ego")
    assert keep_unsaid(db, [told], ["narration"]) == [told]
    add_clips(db, [told, make_clip(1)])
    again = [make_clip(0, verb="close"), make_clip(1, narration="new"), make_clip(2)]
    kept = keep_unsaid(db, again, ["narration", "verb", "view"])
    assert kept == [replace(again[0], narration="opens", view="ego"), *again[1:]]

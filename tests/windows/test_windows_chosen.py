"""Windows of the hits of a search: of these clips, this version, within the matching times."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.window_tables import clip_row, write_clips

from handloom.errors import ConfigError
from handloom.store.search.results import Hit, Hits

FIELDS = ["hand_keypoints_px", "hand_visible"]
LENGTHS = [12, 9, 15, 7]


@pytest.fixture
def db(tmp_path):
    return write_clips(tmp_path, [clip_row(n, num) for n, num in enumerate(LENGTHS)])


def hit(number, start_s=None, end_s=None):
    clip_id = f"d:v{number}:0-{LENGTHS[number] * 100}"
    base = Hit(clip_id, 1.0, "d", f"v{number}", "v.mp4", 0.0, 1.0, None, None, None)
    return replace(base, match_start_s=start_s, match_end_s=end_s)


def test_windows_of_hits_are_of_their_clips_and_version(db):
    hits = Hits((hit(2), hit(0)), db.version)
    found = db.windows(past=2, future=1, fields=FIELDS, clips=hits)
    assert (found.version, set(found.clip_ids)) == (db.version, {hit(0).clip_id, hit(2).clip_id})
    same = db.windows(past=2, future=1, fields=FIELDS, clips=[h.clip_id for h in hits], version=hits.version)
    assert [w["now_s"] for w in same] == [w["now_s"] for w in found]
    assert len(found) == 10 + 13
    narrowed = db.windows(past=2, future=1, fields=FIELDS, clips=hits, where="num_frames > 12")
    assert narrowed.clip_ids == [hit(2).clip_id]
    write_clips(Path(db.uri), [clip_row(7, 20)], mode="append")
    assert db.windows(fields=FIELDS, clips=hits).version == hits.version == db.version - 1


@pytest.mark.parametrize(
    ("rate_hz", "stride", "pad"), [(None, 1, False), (None, 3, False), (5.0, 1, False), (None, 2, True)]
)
def test_windows_within_matching_times_are_those_of_all_that_fit(db, rate_hz, stride, pad):
    spans = {0: (0.25, 0.95), 2: (0.1, 0.8)}
    hits = Hits((hit(1), *(hit(n, *span) for n, span in spans.items())), db.version)
    asked = {"past": 2, "future": 1, "fields": FIELDS, "rate_hz": rate_hz, "stride": stride, "pad": pad}
    found = db.windows(clips=hits, **asked)
    every = db.windows(clips=[h.clip_id for h in hits], **asked)
    step_s = 1 / (rate_hz or 10)

    def fits(window):
        number = int(window["clip_id"].split(":")[1][1:])
        if number not in spans:
            return True
        low, high = spans[number]
        before, after = (0, 0) if pad else (step_s, step_s)
        return low - 1e-3 <= window["now_s"] - before and window["now_s"] + after <= high + 1e-3

    expected = [(w["clip_id"], w["now_s"]) for w in every if fits(w)]
    assert [(w["clip_id"], w["now_s"]) for w in found] == expected
    assert 0 < len(found) < len(every)
    assert found.key != every.key


def test_a_part_of_the_hits_is_read_in_their_version(db):
    hits = Hits((hit(1), hit(0, 0.25, 0.95)), db.version, scoring="moment")
    assert (hits[1:].version, hits[1:].scoring, list(hits[1:])) == (db.version, "moment", [hits[1]])
    found = db.windows(past=2, future=1, fields=FIELDS, clips=hits[1:])
    assert set(found.clip_ids) == {hits[1].clip_id}


def test_what_cannot_be_chosen(db):
    for clips, words in (
        ([], "clips is empty"),
        (Hits((), db.version), "clips is empty"),
        ("d:v0:0-1200", "expected hits of a search"),
        ([3], "clips holds 3"),
        ([hit(0)], "clips holds Hit: expected hits"),
        ([hit(0).clip_id, "d:gone:0-1"], "1 of 2 clips have no row in version .* of clips: d:gone:0-1"),
        (Hits((hit(0), replace(hit(1), clip_id="d:gone:0-1")), db.version), "1 of 2 clips have no row"),
        (Hits((hit(0, 0.2, 0.3),), db.version), "matching times are shorter than a window of 3 steps"),
    ):
        with pytest.raises(ConfigError, match=words):
            db.windows(past=2, future=1, fields=FIELDS, clips=clips)

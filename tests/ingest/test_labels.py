"""`clips.csv` beside videos: its words reach every piece of a video, and a bad line costs a problem, never a video."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handloom.errors import StoreError
from handloom.ingest.folder import ingest_folder
from handloom.schemas.values import VideoInfo
from handloom.store.clip_list import add_clips, read_clips
from handloom.store.database import Database


def ingest(folder):
    return ingest_folder(
        str(folder),
        probe=lambda uri: VideoInfo(32, 32, 10.0, "h264", "yuv420p", 0, 0.0, 4.0, 40),
        clip_seconds=2.0,
    )


def make_folder(tmp_path, labels: str):
    (tmp_path / "kitchen").mkdir()
    for name in ("a.mp4", "kitchen/b c.MOV", "d.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "clips.csv").write_text(labels)
    return tmp_path


def test_words_reach_every_piece_of_their_video(tmp_path):
    lines = ["video,narration,verb,note", 'a.mp4,"open, then close",open,x', "./kitchen/b c.MOV,take the cup,,y"]
    result = ingest(make_folder(tmp_path, "\n".join(lines)))
    assert not result.problems
    assert [(c.video_id, c.narration, c.verb, c.noun) for c in result.clips] == [
        *[("a", "open, then close", "open", None)] * 2,
        *[("d", None, None, None)] * 2,
        *[("kitchen~b%20c", "take the cup", None, None)] * 2,
    ]
    counts = result.counts
    assert (counts["entries"], counts["videos"], counts["skipped_labels"], counts["labelled"]) == (4, 3, 1, 2)


def test_bad_lines_are_named_and_cost_no_video(tmp_path):
    lines = ["video,narration", "a.mp4", "gone.mp4,x", "d.mp4,first", "d.mp4,second"]
    result = ingest(make_folder(tmp_path, "\n".join(lines)))
    assert len(result.clips) == 6
    assert [line.split(":")[0] for line in result.problems] == [
        "clips.csv row 1 (line 2)", "clips.csv row 2 (line 3)", "clips.csv row 4 (line 5)",
    ]  # fmt: skip
    assert {c.narration for c in result.clips} == {None, "first"}


def test_a_file_of_another_meaning_is_left_alone(tmp_path):
    result = ingest(make_folder(tmp_path, "start,end\n1,2\n"))
    assert len(result.clips) == 6
    assert "start, end" in result.problems[0]


KUECHE, DECOMPOSED = "Küche", "Ku\u0308che"


def test_a_name_is_found_however_it_is_written(tmp_path):
    """macOS unpacks archives to decomposed names, lists come from elsewhere; cameras write `.MP4`."""
    for name in (f"{DECOMPOSED}.mp4", "HANDS.MP4", "Straße.mp4", f"{KUECHE} 2.mp4"):
        (tmp_path / name).write_bytes(b"x")
    lines = [f"{KUECHE}.mp4,o\u0308ffnen", "hands.mp4,wash", "STRASSE.mp4,cross", f"{DECOMPOSED} 2.MP4,cut"]
    (tmp_path / "Clips.CSV").write_text("\ufeff" + "\n".join(["Video,NARRATION", *lines]))
    (tmp_path / "hands.camera.json").write_text('{"camera_matrix": [9, 0, 4, 0, 9, 4, 0, 0, 1]}')
    result = ingest(tmp_path)
    assert result.problems == []
    assert {c.video_id: c.narration for c in result.clips} == {
        "HANDS": "wash",
        KUECHE: "\u00f6ffnen",
        f"{KUECHE}%202": "cut",
        "Straße": "cross",
    }
    assert (result.counts["labelled"], result.counts["cameras"]) == (4, 1)
    assert {c.video_uri for c in result.clips if c.video_id == KUECHE} == {str(tmp_path / f"{DECOMPOSED}.mp4")}


def test_of_two_files_that_differ_only_in_case_or_form_none_is_guessed(tmp_path):
    for name in ("a.mp4", "A.mp4", f"{KUECHE}.mp4", f"{DECOMPOSED}.mp4"):
        (tmp_path / name).write_bytes(b"x")
    lines = ["A.mp4,exact", "a.MP4,either", "KÜCHE.mp4,either", f"{DECOMPOSED}.mp4,exact", f"{KUECHE[:-1]}.mp4,none"]
    (tmp_path / "clips.csv").write_text("\n".join(["video,narration", *lines]))
    result = ingest(tmp_path)
    said = {c.video_uri.rpartition("/")[2]: c.narration for c in result.clips}
    assert said == {"a.mp4": None, "A.mp4": "exact", f"{KUECHE}.mp4": None, f"{DECOMPOSED}.mp4": "exact"}
    assert len({c.video_id for c in result.clips}) == 4
    assert result.counts["bad_labels"] == 3
    assert result.problems[0].endswith("video a.MP4 may be A.mp4 or a.mp4; rename one of them; not used")
    assert "(K<U+00FC>che.mp4)" in result.problems[1]
    assert "(Ku<U+0308>che.mp4)" in result.problems[1]
    assert "the nearest is" in result.problems[2]


def test_of_two_files_of_labels_one_is_read_and_the_other_named(tmp_path):
    make_folder(tmp_path, "video,narration\na.mp4,read")
    (tmp_path / "CLIPS.csv").write_text("video,narration\na.mp4,left alone\nd.mp4,left alone")
    result = ingest(tmp_path)
    assert {c.narration for c in result.clips} == {"read", None}
    assert (result.num_left_out, result.problems) == (1, ["CLIPS.csv: not used beside clips.csv; keep one of them"])
    counts = result.counts
    assert counts["entries"] == counts["videos"] + counts["skipped_labels"] == 5


def test_clips_of_an_older_list_keep_their_ids(tmp_path):
    """Before 0.4 a name kept the form in which its machine wrote it; the same clips are not added again."""
    (tmp_path / f"{DECOMPOSED}.mp4").write_bytes(b"x")
    clips = ingest(tmp_path).clips
    assert {c.video_id for c in clips} == {KUECHE}
    db = Database.open(tmp_path / "db", create=True)
    old = [replace(c, clip_id=c.clip_id.replace(KUECHE, DECOMPOSED), video_id=DECOMPOSED) for c in clips]
    add_clips(db, old)
    done = add_clips(db, [*clips, replace(clips[0], clip_id=f"folder:{KUECHE}:9-10")])
    assert (done.added, done.changed, done.already_there) == (1, 0, 2)
    with pytest.raises(StoreError, match="is not processed yet"):  # known, in either form
        db.row(clips[0].clip_id)
    assert [c.clip_id for c in read_clips(db)][:2] == [c.clip_id for c in old]

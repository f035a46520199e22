"""`clips.csv` beside videos: its words reach every piece of a video; a bad line is a problem and costs no video."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from handloom.api import Database
from handloom.errors import ClipError, ConfigError, StoreError
from handloom.ingest.human.folder import ingest_folder
from handloom.schemas.values import VideoInfo
from handloom.store.clips.clip_list import add_clips, read_clips


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
    lines = ["video,narration,verb,rating", 'a.mp4,"open, then close",open,x', "./kitchen/b c.MOV,take the cup,,y"]
    result = ingest(make_folder(tmp_path, "\n".join(lines)))
    assert result.problems == ["clips.csv: not read: the columns rating; read: video, narration, verb"]
    assert result.num_left_out == 0
    assert [(c.video_id, c.narration, c.verb, c.noun) for c in result.clips] == [
        *[("a", "open, then close", "open", None)] * 2,
        *[("d", None, None, None)] * 2,
        *[("kitchen~b%20c", "take the cup", None, None)] * 2,
    ]
    counts = result.counts
    assert (counts["entries"], counts["videos"], counts["label_files"], counts["labelled"]) == (4, 3, 1, 2)


def test_bad_lines_are_named_and_cost_no_video(tmp_path):
    lines = ["video,narration", "a.mp4", "gone.mp4,x", "d.mp4,first", "d.mp4,second"]
    result = ingest(make_folder(tmp_path, "\n".join(lines)))
    assert len(result.clips) == 6
    assert [line.split(":")[0] for line in result.problems] == [
        "clips.csv row 1 (line 2)", "clips.csv row 2 (line 3)", "clips.csv row 4 (line 5)",
    ]  # fmt: skip
    assert {c.narration for c in result.clips} == {None, "first"}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("left,right", "has the columns left, right: expected `video` and any of start_s, end_s, narration"),
        ("video", "has the columns video: expected"),
        ("video,start,end", "the column 'start' is not read: did you mean start_s"),
        ("video,start_s,stop_time", "the column 'stop_time' is not read: did you mean end_s"),
        ("video,start_s,duration", "'duration' is not read: did you mean end_s"),
        ("video,naration", "'naration' is not read: did you mean narration"),
        ("video,narration,license", "'license' is not read: did you mean licence"),
        ("Video Name,narration", "'Video Name' is not read|has the columns"),
        ("video,narration,verb,verb", "has the column verb twice"),
        ("video,narration,verb,Verb", "has the column verb twice: 'verb' and 'Verb'"),
        ("left,\x1b[31mright", r"has the columns left, <U\+001B>\[31mright: expected"),
    ],
)
def test_a_header_that_is_not_understood_ends_the_ingest(tmp_path, header, says):
    """Otherwise the columns that are not read would look as if they were."""
    with pytest.raises(ConfigError, match=says):
        ingest(make_folder(tmp_path, f"{header}\n1,2,3,4\n"))


def test_an_empty_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"clips\.csv is empty, expected a header and rows") as caught:
        ingest(make_folder(tmp_path, "\n"))
    assert caught.value.hint == "write it, or move it away to go without words"


def test_lines_with_times_are_clips_and_the_rest_is_cut(tmp_path):
    lines = [
        "video,start_s,end_s,narration,verb,view,licence",
        "a.mp4,0.5,1.5,open,open,ego,",
        "a.mp4,1.5,,close,,,",
        "a.mp4,,,both,move,exo,CC0",
        "kitchen/b c.MOV,,0.75,reach,,EXO,",
    ]
    result = ingest(make_folder(tmp_path, "\n".join(lines)))
    assert (result.problems, result.counts["labelled"], result.counts["actions"]) == ([], 2, 3)
    assert [(c.clip_id, c.narration, c.verb, c.view, c.licence) for c in result.clips] == [
        ("folder:a:500-1500", "open", "open", "ego", "CC0"),
        ("folder:a:1500-4000", "close", "move", "exo", "CC0"),
        ("folder:d:0-2000", None, None, None, None),
        ("folder:d:2000-4000", None, None, None, None),
        ("folder:kitchen~b%20c:0-750", "reach", None, "exo", None),
    ]


def test_lines_that_disagree_about_the_same_times_are_named(tmp_path):
    """Narrations are joined; a clip has one view."""
    lines = [
        "video,start_s,end_s,verb,view,licence",
        "a.mp4,0.5,1.5,open,,CC0",
        "a.mp4,0.5,1.5,lift,ego,",
        "a.mp4,0.5,1.5,lift,exo,CC0",
    ]
    result = ingest(make_folder(tmp_path, "\n".join(lines)))
    clip = next(c for c in result.clips if c.video_id == "a")
    assert (clip.verb, clip.view, clip.licence) == ("open; lift", "ego", "CC0")
    said = "view 'exo', but clips.csv row 2 (line 3) has 'ego' for the same times (a.mp4); that one counts"
    assert f"clips.csv row 3 (line 4): {said}" in result.problems
    assert sum("for the same times" in problem for problem in result.problems) == 1


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ("3,3", "end_s 3 is not after start_s 3"),
        ("3,1", "end_s 1 is not after start_s 3"),
        ("00:01,00:02", "start_s '00:01', expected seconds"),
        ("one,2", "start_s 'one', expected seconds"),
        ("nan,2", "start_s 'nan', expected seconds"),
        ('"1,000","2,000"', r"start_s '1,000' may be 1\.000 or 1000 seconds, expected one of these"),
        ("1,9", r"end_s 9.0 is after the video's end, 4.000 s \(a.mp4\)"),
        ("1000,2000", "start_s 1000.0 is after the video's end, 4.000 s"),
        ("-1,2", "start_s -1.0 is before the video's start, 0 s"),
    ],
)
def test_bad_times_are_named_by_line(tmp_path, times, says):
    """The video is not cut into pieces instead: its clips are the usable lines."""
    folder = make_folder(tmp_path, f"video,start_s,end_s,verb\na.mp4,{times},x\nd.mp4,1,2,y\n")
    result = ingest(folder)
    assert {c.clip_id: c.verb for c in result.clips if c.dataset and c.video_id in "ad"} == {"folder:d:1000-2000": "y"}
    problem, left_out = result.problems
    assert problem.startswith("clips.csv row 1 (line 2): ")
    assert re.search(says, problem)
    assert left_out.startswith("a.mp4: none of its lines with times can be used: it is left out; clips that the list")
    assert (result.num_left_out, result.counts["labelled"]) == (1, 1)
    (folder / "clips.csv").write_text(f"video,start_s,end_s\na.mp4,{times}\n")
    with pytest.raises(ConfigError, match=rf"no line of the labels .* can be used; the first: .*{says}"):
        ingest(folder)


def test_times_are_on_the_clock_of_the_container(tmp_path):
    (tmp_path / "a.ts").write_bytes(b"x")
    (tmp_path / "clips.csv").write_text("video,start_s,end_s\na.ts,0,1\na.ts,1,5.7\na.ts,2.5,3\n")
    info = VideoInfo(32, 32, 10.0, "h264", "yuv420p", 0, 1.4, 5.4, 40)
    result = ingest_folder(str(tmp_path), probe=lambda uri: info)
    assert [(c.start_s, c.end_s) for c in result.clips] == [(1.4, 5.4), (2.5, 3.0)]  # a little outside: cut off
    assert "start_s 0.0 is before the video's start, 1.4 s; times are on the container's clock" in result.problems[0]
    assert "a.ts: 1 of its 2 actions begin before others end: clips.csv row 3" in result.problems[1]


def test_actions_of_a_video_that_cannot_be_read_are_kept(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "clips.csv").write_text("video,start_s,end_s\na.mp4,1,2\na.mp4,2,\n")

    def probe(uri):
        raise ClipError(uri, "probe", "video_unreadable", "no video")

    assert [c.clip_id for c in ingest_folder(str(tmp_path), probe=probe).clips] == [
        "folder:a:1000-2000",
        "folder:a:2000-end",
    ]


TABLE = [["video", "start_s", "end_s", "narration"], ["a.mp4", "0.5", "1.25", "öffnen, schließen"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize(
    ("between", "point", "end"), [(",", ".", "\n"), (";", ",", "\r\n"), ("\t", ",", "\r"), (",", ",", "\n")]
)
def test_every_csv_dialect_gives_the_same_clips(tmp_path, encoding, between, point, end):
    """Decimal commas appear between semicolons or tabs, or in quotes."""
    text = io.StringIO()
    rows = [[cell.replace(".", point) if cell[0].isdigit() else cell for cell in row] for row in TABLE]
    csv.writer(text, delimiter=between, lineterminator=end).writerows(rows)
    folder = make_folder(tmp_path, "")
    (folder / "clips.csv").write_bytes(text.getvalue().encode(encoding))
    result = ingest(folder)
    assert result.problems == []
    assert [(c.start_s, c.end_s, c.narration) for c in result.clips if c.video_id == "a"] == [(0.5, 1.25, TABLE[1][3])]


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_empty_cells_of_spreadsheets_are_skipped(tmp_path, between):
    """Spreadsheets write formatted or emptied cells as columns without a name and rows of empty cells."""
    lines = ["video,,narration,,", "a.mp4,,opens,,", ",,,,", ' , ,"",, ', "d.mp4,,closes,,", ",,,,"]
    folder = make_folder(tmp_path, "\n".join(lines).replace(",", between))
    result = ingest(folder)
    assert result.problems == []
    assert [c.narration for c in result.clips if c.video_id in "ad"] == ["opens", "opens", "closes", "closes"]


KUECHE, DECOMPOSED = "Küche", "Ku\u0308che"


def test_a_name_is_found_however_it_is_written(tmp_path):
    """macOS unpacks archives to decomposed names, lists come from elsewhere; cameras write `.MP4`."""
    for name in (f"{DECOMPOSED}.mp4", "HANDS.MP4", "Straße.mp4", f"{KUECHE} 2.mp4"):
        (tmp_path / name).write_bytes(b"x")
    lines = [f"{KUECHE}.mp4,o\u0308ffnen", "hands.mp4,wash", "STRASSE.mp4,cross", f"{DECOMPOSED} 2.MP4,cut"]
    (tmp_path / "Clips.CSV").write_text("\ufeff" + "\n".join(["Video,NARRATION", *lines]))
    (tmp_path / "hands.camera.json").write_text('{"camera_matrix": [20, 0, 15.5, 0, 20, 15.5, 0, 0, 1]}')
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


def test_of_two_files_that_differ_only_in_case_or_form_neither_is_taken(tmp_path):
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
    assert counts["entries"] == counts["videos"] + counts["label_files"] == 5


def test_clips_of_an_older_list_keep_their_ids(tmp_path):
    """Before 0.4 names were not normalised; the same clips are not added a second time."""
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

"""EPIC-KITCHENS: every row is a clip, a count or a named problem."""

import csv
import io
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handloom.errors import ConfigError
from handloom.ingest.human.epic import ingest_epic, split_of

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)


def row(number=0, video="P01_11", start="00:00:01.50", stop="00:00:03.00", narration="take plate", verb="take"):
    return (
        f"{video}_{number},{video[:3]},{video},,{start},{stop},1,113,{narration},{verb},0,plate,2,"
        "\"['plate', 'cup']\",\"[2, 3]\""
    )


def write(folder: Path, lines: list[str], name: str = "EPIC_100_validation.csv") -> str:
    (folder / name).write_text("\n".join([HEADER, *lines]) + "\n")
    return str(folder / name)


@pytest.fixture
def videos(tmp_path) -> Path:
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


def adds_up(counts: dict[str, int]) -> bool:
    skipped = sum(n for name, n in counts.items() if name.startswith("skipped_"))
    return counts["entries"] == counts["clips"] + counts["merged"] + counts["bad"] + skipped


def test_a_row_becomes_a_clip(tmp_path, videos):
    result = ingest_epic(write(tmp_path, [row(start="01:02:03.45", stop="01:02:05.00")]), str(videos))
    (clip,) = result.clips
    assert clip.clip_id == "epic:P01_11:3723450-3725000"
    assert (clip.start_s, clip.end_s) == (3723.45, 3725.0)  # from the timestamps, not the frame numbers
    assert (clip.narration, clip.verb, clip.noun, clip.participant) == ("take plate", "take", "plate", "P01")
    assert (clip.split, clip.licence, clip.view) == ("validation", "CC-BY-NC-4.0", "ego")
    assert clip.video_uri == str(videos / "P01/videos/P01_11.MP4")
    assert result.counts["videos_missing"] == result.counts["clips_missing_video"] == 1


@pytest.mark.parametrize(
    "layout",
    ["P01/videos/P01_11.MP4", "P01_11.MP4", "P01_11.mkv", "P01/p01_11.mp4", "EPIC-KITCHENS/P01/videos/P01_11.mp4"],
)
def test_videos_are_found_in_both_layouts(tmp_path, videos, layout):
    (videos / layout).parent.mkdir(parents=True, exist_ok=True)
    (videos / layout).touch()
    result = ingest_epic(write(tmp_path, [row()]), str(videos))
    assert result.clips[0].video_uri == str(videos / layout)
    assert result.counts["videos_missing"] == 0


def test_of_two_videos_that_differ_in_case_the_official_one_is_taken_or_none(tmp_path, videos):
    for name in ("P01_11.mkv", "p01_11.mkv", "p02_01.mkv", "p02_01.MKV", "P03_01.MP4", "P03_01.mp4"):
        (videos / name).touch()
    lines = [row(), row(video="P02_01"), row(video="P03_01")]
    result = ingest_epic(write(tmp_path, lines), str(videos))
    (problem,) = result.problems
    assert "video P02_01 may be p02_01.MKV or p02_01.mkv" in problem
    found = [clip.video_uri.rpartition("/")[2] for clip in result.clips]
    assert (found[0], found[2], result.counts["videos_missing"]) == ("P01_11.mkv", "P03_01.MP4", 1)


def test_a_missing_video_is_expected_beside_the_others(tmp_path, videos):
    (videos / "P01_11.mp4").touch()
    result = ingest_epic(write(tmp_path, [row(), row(video="P02_01")]), str(videos))
    assert result.clips[1].video_uri == str(videos / "P02_01.mp4")
    assert len(ingest_epic(write(tmp_path, [row(), row(video="P02_01")]), str(videos), only_present=True).clips) == 1


def test_folders_of_frames_are_not_walked(tmp_path, videos):
    (videos / "P01" / "rgb_frames" / "P01_11").mkdir(parents=True)
    (videos / "P01" / "rgb_frames" / "P01_11" / "P01_11.mp4").touch()
    assert ingest_epic(write(tmp_path, [row()]), str(videos)).counts["videos_missing"] == 1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row(start="00:01.5"), "column start_timestamp: '00:01.5', expected HH:mm:ss.SS"),
        (row(stop=""), "column stop_timestamp: '', expected"),
        (row(start="00:00:61.00"), "column start_timestamp"),
        (row(video=""), "column narration_id|column video_id"),
        (row().replace("P01_11_0", ""), "column narration_id: ''"),
        (row(video="../11"), "column narration_id|column video_id"),
        ("P01_11_0,P01,P01_11", "3 cells, expected 15: column narration_timestamp and what follows is missing"),
        (row() + ",extra", "16 cells, expected 15"),
        (row(narration='"take plate'), "cells, expected 15"),  # a quote that never closes
        (row(narration="caf\udce9"), "neither UTF-8 nor UTF-16"),
    ],
)
def test_a_bad_row_is_named_and_the_others_kept(tmp_path, videos, bad, says):
    path = tmp_path / "EPIC_100_train.csv"
    lines = [HEADER, row(0), "", bad, row(2, start="00:00:00.00")]
    path.write_bytes("\r\n".join(lines).encode(errors="surrogateescape"))
    result = ingest_epic(str(path), str(videos))
    assert [clip.start_s for clip in result.clips] == [0.0, 1.5]
    (problem,) = result.problems
    assert problem.startswith("EPIC_100_train.csv row 2 (line 4): ")
    assert re.search(says, problem)
    assert result.counts["entries"] == 3
    assert adds_up(result.counts)


@pytest.mark.parametrize(("stop", "what"), [("00:00:01.50", "zero-length"), ("00:00:00.10", "reversed")])
def test_a_reversed_or_empty_range_is_kept_and_named(tmp_path, videos, stop, what):
    result = ingest_epic(write(tmp_path, [row(stop=stop), row(1, start="00:00:02.00")]), str(videos))
    assert len(result.clips) == 2
    assert f"row 1 (line 2): column stop_timestamp: {what} range" in result.problems[0]
    assert adds_up(result.counts)


def test_two_narrations_of_one_range_are_one_clip_with_both(tmp_path, videos):
    lines = [row(0), row(1, narration="lift plate", verb="lift"), row(2)]
    result = ingest_epic(write(tmp_path, lines), str(videos))
    (clip,) = result.clips
    assert (clip.narration, clip.verb, clip.noun) == ("take plate; lift plate", "take; lift", "plate")
    assert result.counts["merged"] == 2
    assert adds_up(result.counts)


def test_missing_columns_are_named(tmp_path, videos):
    path = tmp_path / "labels.csv"
    path.write_text("narration_id,participant_id,video_id,start,narration\n")
    with pytest.raises(
        ConfigError, match=r"labels\.csv lacks the columns start_timestamp, stop_timestamp, verb, noun; it"
    ):
        ingest_epic(str(path), str(videos))
    path.write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        ingest_epic(str(path), str(videos))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        ingest_epic(str(tmp_path / "none.csv"), str(videos))
    with pytest.raises(ConfigError, match="does not exist, expected a folder"):
        ingest_epic(write(tmp_path, [row()]), str(tmp_path / "none"))


def test_the_test_set_has_no_labels(tmp_path, videos):
    path = tmp_path / "EPIC_100_test_timestamps.csv"
    columns = HEADER.split(",")[:8]
    path.write_text(",".join(columns) + "\n" + ",".join(row().split(",")[:8]) + "\n")
    (clip,) = ingest_epic(str(path), str(videos)).clips
    assert (clip.narration, clip.verb, clip.noun, clip.split) == (None, None, None, "test")


def test_participants_can_be_chosen(tmp_path, videos):
    path = write(tmp_path, [row(), row(video="P02_01")])
    result = ingest_epic(path, str(videos), participants=["P02"], split="mine", dataset="kitchens")
    assert [(c.clip_id, c.split) for c in result.clips] == [("kitchens:P02_01:1500-3000", "mine")]
    assert result.counts["skipped_participant"] == 1
    assert adds_up(result.counts)
    with pytest.raises(ConfigError, match="no row is of participant P07, expected some of P01, P02"):
        ingest_epic(path, str(videos), participants=["P07"])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("a/EPIC_100_train.csv", "train"),
        ("EPIC_100_validation.csv", "validation"),
        ("EPIC_100_test_timestamps.csv", "test"),
        ("test/labels.csv", None),
        ("constrained.csv", None),
        ("train_and_test.csv", None),
    ],
)
def test_the_split_is_read_from_the_name(name, split):
    assert split_of(name) == split


SAVED = {
    "UTF-8 with a mark": (",", "utf-8-sig", "\n"),
    "UTF-16": (",", "utf-16", "\r\n"),
    "UTF-16 without a mark": (",", "utf-16-le", "\n"),
    "UTF-16 big end first": ("\t", "utf-16-be", "\n"),
    "old line ends": (",", "utf-8", "\r"),
    "semicolons": (";", "utf-8", "\r\n"),
    "Excel's first line": (";", "utf-8-sig", "\n"),
}


@pytest.mark.parametrize("name", SAVED)
def test_files_that_spreadsheets_saved_are_read_alike(tmp_path, videos, name):
    delimiter, encoding, end = SAVED[name]
    second = row(1, start="@", stop="00:01:02.00", narration='"put, then@close"')
    cells = [[cell.replace("@", "00:01:00,25" if cell == "@" else "\n") for cell in line]
             for line in csv.reader([HEADER, row(narration="tomar café"), second])]  # fmt: skip
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(cells)
    path = tmp_path / "EPIC_100_train.csv"
    first = "sep=;\n" if name.startswith("Excel") else ""
    path.write_bytes((first + text.getvalue()).replace("\n", end).encode(encoding))
    result = ingest_epic(str(path), str(videos))
    assert result.problems == []
    assert [(c.start_s, c.narration, c.verb) for c in result.clips] == [
        (1.5, "tomar café", "take"),
        (60.25, "put, then close", "take"),
    ]


@pytest.mark.parametrize("start", ["00:00.1", "0.00013", "1.2E-5", "12:00:01 AM"])
def test_a_file_without_a_usable_row_is_an_error(tmp_path, videos, start):
    """Times as spreadsheets rewrite them; and files without any row."""
    path = write(tmp_path, [row(0, start=start), row(1, start=start)])
    with pytest.raises(ConfigError, match=r"nothing of annotation file .*: bad 2; the first: .* row 1 .*spreadsheet"):
        ingest_epic(path, str(videos))
    good = write(tmp_path, [row()], "EPIC_100_train.csv")
    with pytest.raises(ConfigError, match=r"nothing of .*validation.csv"):  # each file has to give something
        ingest_epic([good, path], str(videos))
    with pytest.raises(ConfigError, match="it holds no entry"):
        ingest_epic(write(tmp_path, []), str(videos))
    assert ingest_epic(write(tmp_path, [row(), row(1, start=start)]), str(videos)).num_left_out == 1


cells = st.sampled_from(["00:00:01.00", "00:00:02.50", "00:00:02.50", "x", "", "00:00:00.00"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["P01_11", "P02_01", ""]), cells, cells), max_size=12), st.randoms())
def test_rows_add_up_and_their_order_does_not_matter(tmp_path, values, random):
    videos = tmp_path / "videos"
    videos.mkdir(exist_ok=True)
    lines = [row(99), *(row(i, *value) for i, value in enumerate(values))]  # one that can be used
    result = ingest_epic(write(tmp_path, lines), str(videos))
    assert result.counts["entries"] == len(lines)
    assert adds_up(result.counts)
    assert len({clip.clip_id for clip in result.clips}) == len(result.clips)
    random.shuffle(lines)
    assert ingest_epic(write(tmp_path, lines), str(videos)).clips == result.clips


def test_files_of_epic_kitchens_55_have_other_columns(tmp_path, videos):
    """`uid` in place of `narration_id`, no time of the narration, and the split in the name."""
    header = (
        "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,stop_frame,verb,verb_class,"
        "noun,noun_class,all_nouns,all_noun_classes"
    )
    lines = [
        "0,P01,P01_01,open door,00:00:00.14,00:00:03.37,8,202,open,2,door,8,['door'],[8]",
        "1,P01,P01_01,take both,00:00:04.37,00:00:06.17,262,370,take,0,cup,13,\"['cup', 'plate']\",\"[13, 2]\"",
        "2,P31,P31_14,open door,00:00:00.14,00:00:03.37,8,202,open,2,door,8,['door'],[8]",
    ]
    path = tmp_path / "EPIC_train_action_labels.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    result = ingest_epic(str(path), str(videos))
    assert [clip.clip_id for clip in result.clips] == [
        "epic:P01_01:140-3370",
        "epic:P01_01:4370-6170",
        "epic:P31_14:140-3370",
    ]
    assert (result.problems, Counter(clip.split for clip in result.clips)) == ([], {"train": 3})
    assert (result.clips[1].narration, result.clips[1].noun) == ("take both", "cup")

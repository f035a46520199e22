"""`clips.csv` beside videos: its words reach every piece of a video, and a bad line costs a problem, never a video."""

from __future__ import annotations

from handloom.ingest.folder import ingest_folder
from handloom.schemas.values import VideoInfo


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
        "clips.csv row 1 (line 2)", "clips.csv row 4 (line 5)", "clips.csv",
    ]  # fmt: skip
    assert {c.narration for c in result.clips} == {None, "first"}


def test_a_file_of_another_meaning_is_left_alone(tmp_path):
    result = ingest(make_folder(tmp_path, "start,end\n1,2\n"))
    assert len(result.clips) == 6
    assert "start, end" in result.problems[0]

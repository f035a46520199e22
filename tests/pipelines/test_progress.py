"""What a run prints while it works, and at its end."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace

import pytest

from handloom.cli import text
from handloom.pipelines.run.progress import ProgressLine, announce
from handloom.pipelines.run.run import RunSummary
from handloom.pipelines.train.progress import announce as announce_training
from handloom.pipelines.train.progress import text_of
from handloom.pipelines.train.train import TrainSummary, train_text
from handloom.store.runs.runs import RunProgress
from handloom.workers.ledger import Progress

NOTHING = Progress(0, 0, 0, {})
STEPS = [(second, min(second, 10) + max(0, second - 10) // 10) for second in range(131)]


def summary(**values) -> RunSummary:
    fields = {
        "run_id": "r", "run_key": "k", "exit": "rejects", "num_clips": 0, "num_rejects": 4, "num_frames": 0,
        "wall_s": 2.0, "reasons": {"video_missing": 4}, "num_pending": 3, "version": 1,
    }  # fmt: skip
    return RunSummary(**(fields | values))


def test_a_short_run_says_what_it_is_doing():
    """Starting Ray, loading models, working on clips, committing: a line at each change, within seconds."""
    answers = [NOTHING, Progress(0, 0, 0, {7: "d:a:0-1", 8: "d:b:0-1", 9: "d:c:0-1"})]
    out = io.StringIO()
    announce(6, None, quiet=False, out=out)
    began = time.monotonic()
    with ProgressLine(6, lambda: answers[min(int(2 * (time.monotonic() - began)), 1)], out) as line:
        while out.getvalue().count("\n") < 2 and time.monotonic() - began < 30:
            time.sleep(0.02)
        later = Progress(2, 1, 60, {7: "d:c:0-1"})
        assert line.text(later).startswith("3 of 6 clips done (1 rejected), ")
        assert "frames/s, about " in line.text(later)
        assert line.text(later).endswith("s left, working on d:c:0-1")
        assert line.text(Progress(5, 1, 90, {})).endswith("the last rows are committed")
    said = out.getvalue().splitlines()[:2]  # a slow machine may show more
    assert said == [
        "0 of 6 clips done: starting Ray",
        "0 of 6 clips done, working on d:a:0-1, d:b:0-1 and 1 more",
    ]
    line._working_from = time.monotonic() - 2.0
    assert re.search(r"done, 2 clips/s, about", line.text(Progress(4, 0, 0, {}))), "of columns nothing is decoded"
    waiting = ProgressLine(6, lambda: NOTHING, io.StringIO()).text(NOTHING)
    assert waiting.startswith("0 of 6 clips done, workers start and load their models")


def test_what_was_done_before_the_first_look_gives_no_rate():
    """Columns from columns take milliseconds: eight of 21 rows were done at "8.1e+05 clips/s, about 0 s left"."""
    out = io.StringIO()
    with ProgressLine(21, lambda: Progress(7, 1, 0, {9: "d:a:0-1"}), out, num_rows=21) as line:
        while not out.getvalue():
            time.sleep(0.02)
        assert out.getvalue() == "8 of 21 rows done (1 rejected), working on d:a:0-1\n"
        line._working_from = time.monotonic() - 2.0
        assert re.search(r", 3 clips/s, about ", line.text(Progress(13, 1, 0, {})))


def test_rows_that_get_columns_are_told_from_new_clips():
    out = io.StringIO()
    announce(7, None, quiet=False, rows={"frames": 5, "caption": 5}, num_rows=5, out=out)
    announce(3, None, quiet=False, rows={"caption": 1}, num_rows=1, out=out)
    announce(5, None, quiet=False, rows={"frames": 5}, num_rows=5, out=out)
    assert out.getvalue().splitlines() == [
        "2 new clips, and 5 rows that get columns of these stages: frames 5, caption 5",
        "0 of 7 clips done: starting Ray",
        "2 new clips, and 1 row that gets columns of these stages: caption 1",
        "0 of 3 clips done: starting Ray",
        "0 new clips, and 5 rows that get columns of these stages: frames 5",
        "0 of 5 rows done: starting Ray",
    ]
    line = ProgressLine(5, lambda: NOTHING, io.StringIO(), num_rows=5)
    assert line.text(Progress(5, 0, 0, {})).startswith("5 of 5 rows done")
    done = summary(exit="done", num_updates=5, stages={"frames": 5, "caption": 5}, stages_again={"frames": 5})
    assert text.run(done, "db").splitlines()[1] == (
        "5 rows got new columns; missing before: caption 5; outdated before: frames 5"
    )


def test_quiet_prints_nothing_and_tells_the_record():
    out, told = io.StringIO(), []
    announce(6, None, quiet=True, out=out)
    with ProgressLine(6, lambda: Progress(1, 1, 30, {}), out, quiet=True, tell=told.append):
        while not told:
            time.sleep(0.02)
    assert out.getvalue() == ""
    assert (told[0].rows, told[0].rejects, told[0].frames, told[0].clips_per_s) == (1, 1, 30, None)


def test_the_record_has_the_rates_of_the_last_minute():
    """Ten clips in the first ten seconds, then one every ten seconds: 0.1 clips/s at last, whatever was before."""
    line = ProgressLine(100, lambda: NOTHING, io.StringIO())
    assert line.record(Progress(0, 0, 0, {}, stages={"load": (2, 3.0)})).stages == {"load": (2, 3.0)}
    line._working_from, line._first = time.monotonic() - 100, NOTHING
    told = [line.record(Progress(done, 0, 30 * done, {}), now=float(second)) for second, done in STEPS]
    assert [(one.clips_per_s, one.frames_per_s) for one in told[:1]] == [(None, None)], "nothing has ended"
    assert told[10].clips_per_s == pytest.approx(1.0)
    assert (told[-1].clips_per_s, told[-1].frames_per_s) == (pytest.approx(0.1, abs=0.005), pytest.approx(3, abs=0.15))
    assert told[-1].left_s == pytest.approx(100 * 78 / 22, rel=0.01), "at the mean rate since the beginning"
    still = line.record(Progress(22, 0, 660, {}), now=300.0)
    assert still.clips_per_s == pytest.approx(0.0, abs=0.02)
    assert RunProgress.from_json(told[-1].to_json()) == replace(told[-1], stages={})
    assert RunProgress.from_json('{"total": 4, "later": 1}') == RunProgress(4)


@pytest.mark.parametrize(
    ("values", "goes_on"),
    [({}, False), ({"num_clips": 2}, True), ({"exit": "interrupted"}, True), ({"reasons": {"damaged": 4}}, True)],
)
def test_a_run_that_found_no_video_says_what_to_do(values, goes_on):
    said = text.run(summary(**values), "my-db")
    assert said.endswith("go on with: handloom run --db my-db") == goes_on
    assert ("--retry-rejects --reason video_missing" in said) == ("reasons" not in values)
    assert ("no video was there" in said) == (values.get("num_clips", 0) == 0 and "reasons" not in values)


def test_a_run_that_decodes_nothing_gives_no_rate_of_frames():
    said = text.run(summary(exit="done", num_rejects=0, reasons={}, stages={"mine": 4}, num_updates=4), "my-db")
    assert said.startswith("0 clips, 0 rejects in 2.0 s\n4 rows got new columns")
    assert text.run(summary(), "my-db").startswith("0 clips, 4 rejects, 0 frames in 2.0 s (0.0 frames/s)")


def test_a_job_says_at_once_what_it_trains_on(capsys):
    announce_training("arm4r", ["scratch"], None, quiet=False)
    announce_training("arm4r", ["scratch"], None, quiet=True)
    assert capsys.readouterr().err == "arm4r: training scratch: starting Ray\n"
    line = {"kind": "begins", "step": 0, "table": "clips", "train_windows": 40, "train_rows": 8}
    said = text_of(line | {"held_out_windows": 10, "held_out_rows": 2}, "arm4r/scratch")
    assert said == "arm4r/scratch trains on 40 windows of 8 clips; held out: 10 windows of 2 clips"


def test_a_job_that_holds_nothing_out_says_why_before_it_trains():
    why = "no video is held out: all windows are of one video"
    line = {"kind": "held_out", "step": 0, "epoch": 0, "windows": 0, "numbers": {}, "why_none": why}
    assert text_of(line, "arm4r/scratch") == f"arm4r/scratch nothing is held out: {why}"
    assert text_of(line | {"epoch": 1}, "arm4r/scratch") == "", "it is said once"
    variants = {"scratch": {"step": 2, "epoch": 1, "train_s": 3.0, "numbers": {}, "why_none": why}}
    said = train_text(TrainSummary("arm4r", "done", "runs/a", variants, "runs/a/report.html", 0))
    assert said.startswith(f"arm4r/scratch: 2 steps, 1 epoch, 3.0 s; held out: nothing: {why}")

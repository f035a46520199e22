"""`bench extract` on small clips: what it measures, what it leaves out, and how it ends when it is interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.process import descendants, start

from handloom.bench.catalogue import run_benchmark, table
from handloom.bench.extract.clips import repeat, same_second, seconds_of
from handloom.bench.extract.measure import FULL, EndToEnd, _Found, early_and_late, goals_of
from handloom.bench.extract.plain import Failed, measure
from handloom.bench.images import Images
from handloom.bench.report import describe
from handloom.bench.watch import Watch
from handloom.schemas.clip import Clip
from handloom.video.container.packets import read_packet_index
from handloom.workers.ledger import Finished


def clip(number: int, seconds: float) -> Clip:
    return Clip(f"d:v{number}:0-1", "d", f"v{number}", f"v{number}.mp4", 0.0, seconds)


def test_a_round_is_bounded_by_clips_and_by_seconds():
    clips = [clip(i, 2.0 + i) for i in range(3)]
    many = repeat(clips, FULL.clips, FULL.round_s)
    assert len(many) == FULL.clips
    assert len({one.clip_id for one in many}) == len(many)
    few = repeat(clips, FULL.clips, 12.0)
    assert [one.video_id for one in few] == ["v0", "v1", "v2", "v0"]
    assert [one.video_id for one in repeat([clip(0, 900.0)], 20, 80.0)] == ["v0", "v0"]  # two cores have work
    assert {seconds_of(one) for one in same_second(clips, 5)} == {1.0}


def spent(frames: int, wall_s: float) -> EndToEnd:
    ended = [Finished(True, 10, float(i), i + 0.5) for i in range(112)]
    return EndToEnd(frames, wall_s, 4.0, 2 * wall_s, ended, [])


def test_goals_and_table_of_what_was_measured():
    found, watch = _Found("videos of a folder"), Watch(print)
    found.clips = [clip(0, 4.0)] * 2
    rates = (
        {"end_to_end": 40.0, "ceiling": 50.0, "plain_script": 20.0},
        {"end_to_end": 50.0, "ceiling": 50.0, "plain_script": 50.0},
    )
    for rate in rates:
        numbers = {kind: {"frames_per_s": value, "cpu_ms_per_frame": 40.0} for kind, value in rate.items()}
        numbers["end_to_end"]["frames_per_s_with_start"] = 30.0
        found.rounds.append(numbers)
    found.twice, found.many = spent(400, 10.0), early_and_late(spent(1120, 10.0))
    report = describe("extract", found.results(), goals_of(found), watch)
    assert [goal["value"] for goal in report["goals"]] == [0.9, 1.5, round(40 / 45, 4), 1.0]
    told = table(report)
    assert "| `handloom run`, from the first clip to the last commit | 45.0 | 40.0 |" in told
    assert "| the same, with the start of Ray and of the models | 30.0 | - |" in told
    assert "0.90 of the ceiling's frames, 1.50 of the plain script's, 0.89 of its rate" in told
    assert "not a whole measurement" not in told


def test_a_table_of_nothing_has_dashes():
    watch = Watch(print, quick=True)
    found = _Found("rendered scenes")
    told = table(describe("extract", found.results(), goals_of(found), watch))
    assert "plain script: decord, `mp.solutions.hands`, OpenCV LK, one process a core | - | - |" in told
    assert "quick: not a whole measurement" in told


@pytest.mark.parametrize("kind", ["ceiling", "plain_script"])
def test_a_video_that_cannot_be_read_ends_no_process(kind, clips, tmp_path: Path):
    """A crashed child left the benchmark waiting forever."""
    bad = tmp_path / "letter.mp4"
    bad.write_text("Dear reader\n" * 500)
    counted: list[int] = []
    asked = [replace(clips[0], clip_id="bad", video_uri=str(bad)), replace(clips[0], end_s=clips[0].start_s + 0.4)]
    took, failed = measure(kind, asked, 1, counted.append)
    assert [one.clip_id for one in failed] == ["bad"]
    assert isinstance(failed[0], Failed)
    assert failed[0].problem
    assert took.num_frames == 4
    assert counted == [1, 2]


def test_where_decord_fails_the_ceiling_reads_with_pyav(rendered: Path):
    path = str(rendered / "video0.mp4")
    index = read_packet_index(path)
    good = Images(path, index, np.arange(3), (320, 240))
    assert good.decoder == "decord"
    other = replace(index, times_s=index.times_s * 1.1)  # as decord has them is not as the container has
    assert Images(path, other, np.arange(3), (320, 240)).decoder == "pyav"


@pytest.fixture
def folder(rendered: Path, tmp_path: Path) -> Path:
    """Two good videos, and a truncated one that opens but cannot be decoded."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("video0.mp4", "video1.mp4"):
        shutil.copy(rendered / name, videos)
    sound = (rendered / "video2.mp4").read_bytes()
    (videos / "short.mp4").write_bytes(sound[: len(sound) // 2])
    return videos


@pytest.mark.slow
def test_an_interrupted_benchmark_prints_what_it_has(folder: Path, tmp_path: Path, ray_address):
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.endswith(", ceiling"):
            os.kill(os.getpid(), signal.SIGTERM)

    report = run_benchmark("extract", folder, tmp_path / "kept", say, quick=True)
    assert (report["quick"], report["interrupted"]) == (True, True)
    assert report["results"]["rounds"] == []
    assert report["results"]["unfinished_round"]["end_to_end"]["frames"] > 0
    assert {goal["met"] for goal in report["goals"]} == {None}
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["extract.interrupted.json"]
    assert "round 1" in said[2]


@pytest.mark.slow
def test_the_command_is_interrupted_while_ray_works(folder: Path):
    """Ray killed the driver without a message when it was polled during shutdown."""
    process = start("bench", "extract", "--quick", "--videos", folder)

    def ray_works() -> bool:
        names = [Path(f"/proc/{pid}/cmdline") for pid in descendants(process.pid)]
        return any(b"ray::Ledger" in name.read_bytes() for name in names if name.exists())

    until = time.monotonic() + 240
    while not ray_works() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=240)
    report = json.loads(out)
    assert (process.returncode, report["interrupted"], report["results"]["rounds"]) == (130, True, []), err


@pytest.mark.slow
def test_a_quick_benchmark(folder: Path, ray_address):
    report = run_benchmark("extract", folder, None, print, quick=True)
    assert (report["quick"], report["interrupted"]) == (True, False)
    found = report["results"]
    assert 1 <= len(found["rounds"]) <= 2
    assert found["twice_the_clips"] is None
    assert [goal["met"] for goal in report["goals"]][2:] == [None, None]
    assert all(found["rounds"][0][kind]["frames_per_s"] > 0 for kind in ("end_to_end", "ceiling", "plain_script"))

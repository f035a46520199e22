"""Metrics of real clips' rows: from a database older than some columns, and from videos."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from handloom.api import Database
from handloom.bench.accuracy.measure import report_of
from handloom.bench.accuracy.published import compared
from handloom.bench.accuracy.published import markdown as published_markdown
from handloom.bench.accuracy.table import markdown
from handloom.bench.catalogue import run_benchmark
from handloom.bench.footage.clips import FootageClip, begin, measured, processed
from handloom.bench.footage.measure import databases_in, footage_clips, goals_of, read_held, results_of
from handloom.bench.metrics.footage import Loss, Survival
from handloom.bench.truth.spatracker import published_tracks, read_published
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.schemas.clip import Clip


def row(name: str, lost_from: int | None = None, flags: int = 0) -> dict:
    """20 frames of one image, with 1296 points that are all lost from one frame on."""
    x, y = np.meshgrid(np.linspace(12, 307, 36), np.linspace(12, 227, 36))
    px = np.tile(np.stack([x, y], axis=-1).reshape(1, -1, 2), (20, 1, 1)).astype(np.float32)
    visible = np.ones(px.shape[:2], bool)
    if lost_from is not None:
        visible[lost_from:] = False
    image = np.random.default_rng(0).integers(0, 255, (120, 160), np.uint8)
    return {
        "clip_id": f"set:{name}:0-2000", "video_id": name, "start_s": 0.0, "width": 320, "height": 240,
        "frame_s": np.arange(20) / 10, "hand_visible": np.zeros((20, 2), bool),
        "hand_keypoints_px": np.full((20, 2, 21, 2), np.nan, np.float32), "track_kind": np.zeros(1296, np.int8),
        "track_points_px": px, "track_visible": visible, "camera_source": "assumed", "camera_path_reason": "static",
        "world_from_camera": np.tile(np.eye(4), (20, 1, 1)), "world_scale": "metric",
        "frame_flags": np.full(20, flags, np.int32),
        "frame_jpeg": [cv2.imencode(".jpg", image)[1].tobytes()] * 20,
    }  # fmt: skip


def test_a_collapse_is_found_and_whether_it_was_flagged():
    kept, lost, flagged = (measured(row("a", *args), None) for args in ((), (8,), (8, 1 << 17)))
    assert (kept.survival.share, kept.collapsed, kept.windows) == (1.0, False, (4, 4))
    assert (lost.survival.share, lost.collapsed, lost.loss_flagged) == (0.0, True, False)
    assert lost.loss.frame == 8
    assert flagged.loss_flagged
    assert measured(row("a", 8, 1 << 18), None).loss.share == 0  # a cut


def test_a_row_of_an_older_version_lacks_columns():
    old = {name: value for name, value in row("a").items() if name not in ("frame_flags", "frame_jpeg")}
    found = measured(old, None)
    assert (found.survival, found.loss, found.has_path) == (None, None, True)
    assert found.windows == (4, 4)


@pytest.fixture(scope="module")
def clips() -> list[FootageClip]:
    return [
        FootageClip("b", "b", 100, "assumed", False, "none", "too_short", windows=(0, 0), visible_at_end=0.5),
        FootageClip("a", "a", 100, "given", True, "metric", None, 1.0, Survival(90, 10, 5), Loss(0.1, 3, 0), False,
                    (9, 10), 0.9, {"hands": 20.0}),
        FootageClip("a@10", "a", 50, "given", False, "none", "high_error", 0.0, Survival(10, 40, 0), Loss(0.5, 3, 0),
                    False, (0, 10), 0.2, {"hands": 50.0}),
        FootageClip("c", "c", reject="damaged"),
    ]  # fmt: skip


def test_clips_are_pooled_tuned_and_held_out_apart(clips: list[FootageClip]):
    results = results_of(clips, frozenset({"a"}))
    everything, held = results["all"], results["held_out"]
    assert (everything["clips"], everything["rejected"], held["clips"], results["tuned"]["clips"]) == (4, 1, 2, 2)
    assert everything["path_share"] == 0.5  # the short one is not asked for
    assert everything["posed_frames"] == 100 / 250
    assert everything["kept_at_end"] == 100 / 150
    assert everything["kept_at_end_mean"] == pytest.approx(0.55)
    assert everything["dense_windows"] == 0.45
    assert (everything["collapsed"], everything["collapsed_unflagged"]) == (1, 1)
    assert everything["cpu_ms_per_frame"] == pytest.approx({"hands": 30.0, "all": 30.0})
    assert [clip["name"] for clip in results["clips"]] == ["a", "a@10", "b", "c"]
    goals = {goal["name"]: goal for goal in goals_of(results)}
    assert goals["real clips: with a camera path"]["value"] == 0.5
    assert goals["held-out clips: CPU time"]["met"]


def test_the_report_and_its_tables(clips: list[FootageClip]):
    report = report_of([], Watch(print), {"footage": results_of(clips, frozenset())})
    json.loads(json.dumps(report, allow_nan=False))
    text = markdown(report["results"])
    assert "| clips, rejected | 4 / 1 |" in text
    assert "| a@10 | 50 | none, high_error | 0.20 | 0.50 | 0.00 |" in text
    assert "| c | 0 | damaged | - | - | - |" in text
    assert "nan" not in text


def test_names_that_were_held_out(tmp_path: Path):
    (tmp_path / "held.txt").write_text("one.mp4\n\ntwo\n")
    assert read_held(tmp_path / "held.txt") == {"one", "two"}
    (tmp_path / "held.txt").write_text("\n")
    with pytest.raises(ConfigError, match="names no video"):
        read_held(tmp_path / "held.txt")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_held(tmp_path / "nothing.txt")


def test_a_database_is_not_followed_backwards(tmp_path: Path):
    Database.open(tmp_path / "db", create=True)
    watch = Watch(print)
    assert list(footage_clips(tmp_path / "db", None, watch)) == []
    assert databases_in(tmp_path / "db") == databases_in(tmp_path) == [tmp_path / "db"]
    assert databases_in(tmp_path / "nothing") == []
    with pytest.raises(ConfigError, match="is a database"):
        list(footage_clips(tmp_path / "db", None, watch, backwards=True))


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of an image that moves left by 2 px per frame."""
    import av

    grain = np.random.default_rng(2).normal(size=(200, 320))
    image = np.clip(128 + 500 * cv2.GaussianBlur(grain, (0, 0), 2), 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("drift") / "drift.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=15)
        stream.width, stream.height, stream.bit_rate = 240, 180, 8_000_000
        for t in range(15):
            shown = np.repeat(image[:180, 2 * t : 240 + 2 * t, None], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), "rgb24")))
        container.mux(stream.encode())
    return path


def test_a_video_is_measured_followed_backwards_and_compared_with_published_tracks(drifting: Path, tmp_path: Path):
    begin(backwards=True)
    found = processed(Clip("set:drift:0-1000", "set", "drift", str(drifting), 0.0, 1.0), tmp_path)
    assert found.num_frames == 15
    assert found.cpu_ms["tracks"] > 0
    assert found.survival.share > 0.9
    assert found.backwards["within_4_px"] > 0.9
    assert found.backwards["compared"] > 0.5
    assert (tmp_path / "drift.png").exists()
    x, y = np.meshgrid(np.linspace(0, 239, 48), np.linspace(0, 179, 36))
    theirs = np.tile(np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=-1), (15, 1, 1))
    theirs[..., 0] -= 2 * np.arange(15)[:, None]
    scores = compared(drifting, theirs)
    assert scores["within_4_px"] > 0.9
    assert scores["points"] > 50
    assert "| drift | " in published_markdown({"clips": [{"clip": "drift", **scores}]})


def test_published_tracks_are_paired_by_name_and_checked(tmp_path: Path):
    (tmp_path / "one.mp4").touch()
    (tmp_path / "gt").mkdir()
    for name in ("one", "two"):
        np.save(tmp_path / "gt" / f"{name}_tracks.npy", np.zeros((3, 4, 3)))
    assert published_tracks(tmp_path) == [(tmp_path / "one.mp4", tmp_path / "gt" / "one_tracks.npy")]
    assert read_published(tmp_path / "gt" / "one_tracks.npy").shape == (3, 4, 3)
    np.save(tmp_path / "flat_tracks.npy", np.zeros((3, 4)))
    with pytest.raises(ConfigError, match=r"float64 of \(3, 4\)"):
        read_published(tmp_path / "flat_tracks.npy")
    (tmp_path / "empty_tracks.npy").touch()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_published(tmp_path / "empty_tracks.npy")


def test_flags_of_other_benchmarks_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="takes no --footage"):
        run_benchmark("extract", None, None, print, footage=tmp_path)
    with pytest.raises(ConfigError, match="are for --footage"):
        run_benchmark("accuracy", None, None, print, sheets=tmp_path)

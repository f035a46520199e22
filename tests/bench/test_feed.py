"""`bench feed`: every reader delivers the same windows, and the report has every goal."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("webdataset")

from support.feed_tables import feed_db

from handloom.bench.catalogue import run_benchmark
from handloom.bench.feed import lerobot, measure, webdataset
from handloom.bench.feed.data import HANDS, TRACKS, FeedData, prepare
from handloom.bench.feed.recipes import loader_waits
from handloom.bench.watch import Watch
from handloom.errors import ConfigError

FRAMES, CLIPS = 24, 5
SMALL = ["batch_size=4", "epochs=2", "held_out_share=0.5"]
MIN_PSNR_DB = 30.0
# webdataset leaves the shards it has read open
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def _close_shards() -> Iterator[None]:
    """While the warnings about them are off."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> FeedData:
    folder = tmp_path_factory.mktemp("feed")
    return prepare(feed_db(folder / "db", CLIPS, FRAMES), CLIPS, folder, lambda _: None)


def ours(data: FeedData, kind: measure.Kind) -> dict[tuple[str, int], dict]:
    windows = measure.open_windows(data, kind)
    places = [windows.plan.locate(np.array([i])) for i in range(len(windows))]
    return {(windows.clip_ids[int(c[0])], int(n[0])): windows[i] for i, (c, n) in enumerate(places)}


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("kind", measure.KINDS, ids=lambda kind: kind.name)
def test_all_readers_deliver_the_same_windows(data, kind):
    expected = ours(data, kind)
    starts = range(FRAMES - kind.num_steps + 1)
    assert len(expected) == CLIPS * len(starts)
    order = [(clip, first) for clip in range(CLIPS) for first in starts]
    rows = lerobot.in_order(measure.lerobot_windows(data, kind, order))
    shards = webdataset.in_order(data.shards[kind.shards], measure.cut_windows(kind))
    for (clip, first), theirs, cut in zip(order, rows, shards, strict=True):
        sample = expected[data.clip_ids[clip], first]
        for name in kind.names:
            assert np.array_equal(sample[name], theirs[name], equal_nan=sample[name].dtype.kind == "f"), name
            assert np.array_equal(sample[name], cut[name], equal_nan=sample[name].dtype.kind == "f"), name
        if kind.images:
            assert np.array_equal(sample["images"], cut["images"])
            assert psnr_db(sample["images"], theirs["images"]) > MIN_PSNR_DB
            other = np.roll(theirs["images"], 1, axis=0)  # the bound tells a frame from its neighbour
            assert psnr_db(sample["images"], other) < MIN_PSNR_DB


def test_the_images_and_points_are_not_all_alike(data):
    kinds = {kind.name: ours(data, kind) for kind in measure.KINDS}
    first, second = list(kinds["arvrm"].values())[:2]
    assert not np.array_equal(first["images"], second["images"])
    points = list(kinds["arm4r"].values())
    assert len({window[TRACKS[0]].tobytes() for window in points}) == len(points)
    assert np.isnan(first[HANDS[1]]).any()


def test_order_of_is_the_loaders_order(data):
    kind = measure.KINDS[0]
    windows = measure.open_windows(data, kind)
    loader = windows.loader(measure.BATCH, drop_last=False)
    handed = [
        (id_, round(now * data.hz)) for b in loader for id_, now in zip(b["clip_id"], b["now_s"].tolist(), strict=True)
    ]
    order = [(windows.clip_ids[clip], first + kind.past - 1) for clip, first in measure.order_of(windows)]
    assert [id_ for id_, _ in handed] == [id_ for id_, _ in order]
    assert [now for _, now in handed] == pytest.approx([now for _, now in order])


def test_every_reader_reads_all_windows_and_all_bytes(data):
    for kind in measure.KINDS:
        num = CLIPS * (FRAMES - kind.num_steps + 1)
        found = {name: reader(0) for name, reader in measure.make_readers(data, kind, [0], batch=5).items()}
        reads = [read for name, read in found.items() if name.endswith("workers")]
        assert len(reads) == 3
        assert {read.num_windows for read in reads} == {num}  # five clips: batches of five leave nothing over
        assert len({read.num_bytes for read in reads}) == 1
        assert all(read.seconds > 0 for read in found.values())


def test_the_report_has_every_goal(data):
    results: dict[str, dict] = {kind.name: {} for kind in measure.KINDS}
    for kind in measure.KINDS:
        measure.measure(data, kind, 2, Watch(lambda _: None), results[kind.name], [0])
    results["recipes"] = {"arm4r": {"loader_wait_share": 0.01}, "arvrm": {"loader_wait_share": 0.2}}
    goals = measure.goals_of(results, [0])
    assert [goal["goal"] for goal in goals] == [0.8, 3.0, 1.0, 1.0, 0.05, 0.05]
    assert [goal["met"] for goal in goals[-2:]] == [True, False]
    assert results["arvrm"]["readers"]["lance_take_and_decode"]["windows_per_s"] > 0


def test_a_database_without_tracks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no clip at an even rate"):
        prepare(feed_db(tmp_path / "db", 2, FRAMES, depth=False), 2, tmp_path, lambda _: None)


def test_the_wait_of_a_recipe_is_measured(tmp_path):
    """With the tests' own recipe; the real ones are measured by the benchmark."""
    name = "support.tiny_recipe:RECIPE"
    found: dict[str, dict] = {}
    loader_waits(feed_db(tmp_path / "db", 6, FRAMES), lambda _: None, found, 120, [name], SMALL)
    told = found[name]
    assert 0 <= told["loader_wait_share"] <= 1
    assert told["steps"] > 5
    assert 0 < told["loader_wait_s"] < told["step_s"]


def test_too_few_clips_for_a_recipe_lose_nothing_else(tmp_path):
    name, said, found = "support.tiny_recipe:RECIPE", [], {}
    few = ["batch_size=5000", "epochs=2", "held_out_share=0.5"]
    loader_waits(feed_db(tmp_path / "db", 6, FRAMES), said.append, found, 120, [name], few)
    assert "but one step takes 5000" in found[name]["not_measured"]
    assert "not measured" in said[-1]
    goals = {goal["name"]: goal["met"] for goal in measure.goals_of({"recipes": {"arm4r": found[name]}})}
    assert goals["loader wait of arm4r"] is None


def test_the_command_refuses_feeds_options_for_others(tmp_path):
    with pytest.raises(ConfigError, match="takes no --db"):
        run_benchmark("extract", None, None, print, db=str(tmp_path))
    with pytest.raises(ConfigError, match="feed"):
        run_benchmark("fed", None, None, print)

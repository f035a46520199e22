"""`bench retrieval`: its scenes do not overlap, and its scores are right on rankings that are known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from handloom.bench.catalogue import run_benchmark
from handloom.bench.retrieval.actions import MIRRORED, scores_of
from handloom.bench.retrieval.copies import COPIES, write_copy
from handloom.bench.retrieval.data import copies_of
from handloom.bench.retrieval.duplicates import pairs_of
from handloom.bench.retrieval.flow import flow_histogram
from handloom.bench.retrieval.measure import bench_retrieval, goals_of
from handloom.bench.retrieval.moments import chance, moment_scores, piece_of
from handloom.bench.retrieval.scenes import CLOSE, KINDS, LONG, PIECE, QUERY, SEARCHED, Size, quick, scenes_of
from handloom.bench.retrieval.scores import average_precision, interval, overlap
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.store.search.results import Hit
from handloom.video.write import write_video

CLIPS = scenes_of(Size())


def of_role(*roles: str) -> list:
    return [one for one in CLIPS if one.role in roles]


def test_queries_share_no_scene_person_or_camera_with_what_is_searched():
    assert len({one.name for one in CLIPS}) == len(CLIPS)
    assert len({one.spec.seed for one in CLIPS}) == len(CLIPS)
    known, asked = of_role(SEARCHED, LONG), of_role(QUERY, PIECE)
    for name in ("table", "skin", "hand_scale", "fov_deg"):
        assert not {getattr(one.spec, name) for one in known} & {getattr(one.spec, name) for one in asked}, name
    assert not {one.person for one in known} & {one.person for one in asked}
    for role, num in ((SEARCHED, Size().searched), (QUERY, Size().queries)):
        assert Counter(one.kind for one in of_role(role)) == dict.fromkeys(KINDS, num)
        hands = Counter((one.kind, one.spec.main_hand) for one in of_role(role))
        assert set(hands.values()) == {num // 2}


def test_scenes_are_the_same_again_and_actions_lie_in_their_videos():
    assert scenes_of(Size()) == CLIPS
    for one in CLIPS:
        assert one.actions
        for (_, start_s, end_s), (_, later_s, _) in zip(one.actions, [*one.actions[1:], ("", 99.0, 0.0)], strict=True):
            assert 0 <= start_s < end_s <= min(later_s, one.length_s + 1e-6), one.name
        _, start_s, end_s = piece_of(one)
        assert 0.9 < end_s - start_s <= 2.0 + 1e-9
    closing = next(one for one in CLIPS if one.kind == CLOSE)
    assert [beat.name for beat in closing.spec.beats if beat.start_s > closing.start_s] == ["reach", "close"]
    assert closing.spec.fps * closing.start_s == pytest.approx(round(closing.spec.fps * closing.start_s))


def test_average_precision_by_hand():
    assert average_precision([True, False, True], 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([True] * 10, 12) == 1
    assert average_precision([False] * 10, 12) == 0
    assert average_precision([True], 5) == pytest.approx(1 / 5)
    assert np.isnan(average_precision([False], 0))


def test_intervals_hold_the_mean_and_shrink():
    rng = np.random.default_rng(0)
    few, many = (interval(list(rng.random(num))) for num in (10, 1000))
    for told in (few, many):
        assert told["low"] < told["mean"] < told["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]
    assert interval([]) == {"mean": None, "low": None, "high": None, "num": 0}
    assert overlap((0, 2), (1, 3)) == pytest.approx(1 / 3)
    assert overlap((0, 1), (2, 3)) == 0


def test_what_is_found_in_place_of_a_kind():
    kinds = {f"{kind}{n}": kind for kind in ("push", "wave") for n in range(3)}
    told = scores_of([("push", ["push", "push", "push", "wave"]), ("wave", ["push", "wave"])], kinds)
    assert told["by_kind"] == {"push": 1.0, "wave": round(0.5 / 3, 4)}
    assert told["first"]["mean"] == 0.5
    assert told["instead"] == {"push": {"wave": 0.1}, "wave": {"push": 0.1}}


def hit(clip_id: str, start_s: float, end_s: float) -> Hit:
    return Hit(clip_id, 1.0, "", "", "", 0.0, 9.0, None, None, None, match_start_s=start_s, match_end_s=end_s)


def test_a_match_must_lie_in_the_action():
    spans = {"a": [("push", 1.0, 3.0), ("wave", 5.0, 8.0)], "b": [("wave", 0.0, 2.0)]}
    hits = [hit("a", 4.9, 6.9), hit("b", 0.0, 2.0), hit("a", 2.5, 4.5)]
    told = moment_scores([("wave", hits), ("push", hits), ("push", None)], spans)
    assert (told["recall_at_1"]["mean"], told["recall_at_10"]["mean"]) == (pytest.approx(1 / 3, abs=1e-3),) * 2
    assert told["iou_median"] == pytest.approx(1.9 / 3.1, abs=1e-3)
    assert (told["by_action"], told["without_hands"]) == ({"wave": 1.0, "push": 0.0}, 1)
    assert 0.1 < chance(["wave"] * 10, spans) < 0.9


def test_pairs_of_groups():
    groups = {"a": "a", "copy": "a", "other": "other", "b": "b", "c": "b", "without": None}
    told = pairs_of(groups, {"copy": "a", "other": "a"}, {"a": "push", "b": "push", "c": "push"})
    assert (told["precision"], told["recall"]) == (0.5, round(1 / 3, 4))
    assert told["different_clips_grouped"] == [["b", "c"]]
    assert told["of_one_action"] == 1


def test_copies_differ_from_their_video_as_they_say(tmp_path):
    rng, video = np.random.default_rng(0), tmp_path / "one.mp4"
    image = np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), 16, 0), 16, 1)
    frames = [np.roll(image, 8 * t, axis=1) for t in range(9)]
    write_video(video, frames, np.arange(9) / 10)
    sizes = {}
    for how in COPIES:
        write_copy(video, tmp_path / "copy.mp4", how)
        sizes[how] = (tmp_path / "copy.mp4").stat().st_size
    assert len(set(sizes.values())) == len(COPIES)
    assert sizes["re-encoded"] < sizes["mirrored"]
    assert sizes["cut by a third"] < sizes["mirrored"]
    asked, turned = flow_histogram(video), flow_histogram(_copied(video, tmp_path, "mirrored"))
    assert asked[MIRRORED] @ turned > 0.99 > asked @ turned
    copied = copies_of(CLIPS, 8)
    assert Counter(one.of.kind for one in copied) == dict.fromkeys(KINDS[:8], len(COPIES))


def _copied(video, folder, how):
    write_copy(video, folder / "copy.mp4", how)
    return folder / "copy.mp4"


def test_goals_of_nothing_are_not_met():
    assert {one["met"] for one in goals_of({})} == {None}


def test_what_it_does_not_take(tmp_path):
    with pytest.raises(ConfigError, match="takes no --clips"):
        run_benchmark("retrieval", None, None, print, num_clips=3)
    with pytest.raises(ConfigError, match="takes no --data"):
        run_benchmark("look", None, None, print, data=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--data .*file is no folder that can be written"):
        run_benchmark("retrieval", None, None, print, data=tmp_path / "file")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_report(tmp_path):
    report = bench_retrieval(tmp_path, Watch(print, quick=True))
    results, num = report["results"], len(scenes_of(quick(Size())))
    assert (results["clips"], results["copies"], results["new_clips"]) == (num, len(COPIES), num + len(COPIES))
    assert results["actions"]["motion"]["mean"] > results["actions"]["chance"]["mean"]
    assert results["exact"]["windows"]["outside"] == 0
    assert results["exact"]["arvrm"]["largest_difference"] < 0.01
    again = bench_retrieval(tmp_path, Watch(print, quick=True))["results"]
    assert again["new_clips"] == 0
    for name in ("actions", "moments", "words", "duplicates"):
        assert again[name] == results[name], name

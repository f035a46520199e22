"""`bench segments`: what its scores mean, one rendered clip through the whole of it, and annotated actions."""

import math

import numpy as np
import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_own_column

from handloom.api import Database
from handloom.bench.catalogue import run_benchmark
from handloom.bench.segments.annotated import annotated_results
from handloom.bench.segments.measure import goals_of, pooled
from handloom.bench.segments.scores import (
    Span,
    boundary_counts,
    contact_counts,
    matched_times,
    pose_errors,
    recall_by_duration,
    segment_counts,
    speed_minima,
    uniform,
)
from handloom.errors import ConfigError
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.segments import SEGMENT
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.synth.script.demo import sequence_specs
from handloom.synth.stage import build_stage

TRUE = [Span(0.5, 1.2, "right"), Span(1.2, 3.0, "right"), Span(2.0, 2.5, "left")]


def test_boundaries_that_two_actions_share_count_once_and_match_once():
    assert boundary_counts(TRUE, TRUE).scores()["f1"] == 1
    assert boundary_counts(TRUE, TRUE).true == 3 + 2
    late = [Span(span.start_s + 0.19, span.end_s + 0.19, span.hand) for span in TRUE]
    assert boundary_counts(TRUE, late).matched == 5
    other_hand = [Span(span.start_s, span.end_s, "left") for span in TRUE[:2]]
    assert boundary_counts(TRUE[:2], other_hand).matched == 0
    assert matched_times([1.0], [0.9, 1.0, 1.1], 0.2) == 1
    assert math.isnan(boundary_counts([], []).scores()["f1"])


def test_segments_match_by_overlap_hand_and_length():
    moved = [Span(0.6, 1.3, "right"), Span(1.3, 2.1, "right")]
    assert segment_counts(TRUE, moved, 0.5).matched == 1, "the second covers half of its action less a bit"
    assert segment_counts(TRUE, moved, 0.4).matched == 2
    by_length = recall_by_duration(TRUE, moved)
    assert (by_length["under_1_s"].matched, by_length["under_1_s"].true) == (1, 2)
    assert by_length["1_to_2_s"].true == 1
    frames = contact_counts(TRUE, TRUE[:1], np.arange(0, 4, 0.1))
    assert frames.scores()["precision"] == 1
    assert frames.scores()["recall"] < 0.5


def test_poses_are_compared_from_the_first_known_frame_on():
    true = np.tile(np.eye(4), (5, 1, 1))
    true[:, 0, 3] = np.arange(5) * 0.1
    found = true.copy()
    found[:, :3, 3] += [0, 0, 0.5]  # another origin is no error
    found[3, 2, 3] += 0.02
    found[0] = np.nan
    away, turned = pose_errors(found, true)
    np.testing.assert_allclose(away, [np.nan, 0, 0, 0.02, 0], atol=1e-9)
    np.testing.assert_allclose(turned[1:], 0, atol=1e-5)


def test_simple_rules():
    at = np.arange(45) / 15
    speed = np.abs(np.sin(np.pi * at))  # a minimum each second
    spans = speed_minima(speed, at, "left")
    assert [round(span.end_s, 1) for span in spans] == [1.0, 2.0, 2.9]
    assert [round(span.start_s, 2) for span in uniform(0.0, 3.0, "left", 1.0)] == [0.0, 1.0, 2.0]
    assert speed_minima(np.full(3, np.nan), at[:3], "left") == []


def test_sequences_are_the_same_for_a_seed_and_their_truth_fits():
    first, again = (sequence_specs(3, 4, turns=2) for _ in range(2))
    assert first == again != sequence_specs(3, 5, turns=2)
    for spec in first:
        truth = build_stage(spec).truth
        assert all(a.end_s <= b.start_s + 1e-6 for a, b in zip(truth.actions, truth.actions[1:], strict=False))
        assert truth.actions[-1].end_s <= truth.frame_s[-1] + 1 / spec.fps
        for one in truth.contacts:
            pose = truth.world_from_object[:, one.object]
            moves = np.r_[False, np.linalg.norm(np.diff(pose[:, :3].reshape(len(pose), -1), axis=0), axis=1) > 1e-4]
            mine = [c for c in truth.contacts if c.object == one.object]
            held = np.any([(truth.frame_s > c.start_s) & (truth.frame_s <= c.end_s + 0.07) for c in mine], axis=0)
            assert not (moves & ~held).any(), "a thing moves in contact only"


def test_one_rendered_clip(tmp_path):
    from handloom.bench.segments.clip import SequenceScorer
    from handloom.schemas.settings import Settings

    spec = sequence_specs(1, 3, turns=1, width=320, height=240)[0]
    settings = Settings(**{"tracks": {"grid": 16, "extra": 32}})
    score = SequenceScorer(settings).score("one", spec, tmp_path)
    results = pooled([score])
    assert results["clips"] == 1
    assert results["handloom"]["boundary"]["true"] >= 3
    assert results["handloom"]["boundary"]["found"] >= 2, "hands were found and cut"
    assert set(results) >= {"handloom", "speed_minima", "uniform"}
    names = [goal["name"] for goal in goals_of({"rendered": results})]
    assert names[:3] == ["boundary_f1", "recall_under_1_s", "contact_f1"]


def test_annotated_actions_inside_a_row(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    whole = make_clip(0, start_s=0.0, end_s=9.0, clip_id="test:v0:0-9000", narration=None)
    parts = [make_clip(n, end_s=n + 2.0, clip_id=f"test:v0:{n}", narration="cut") for n in (1, 3, 5)]
    add_clips(db, [whole, *parts])
    cell = dict.fromkeys(field.name for field in SEGMENT)
    found = [cell | {"start_s": s, "end_s": s + 2.0, "hand": "left"} for s in (1.1, 3.1, 7.0)]
    row = pa.Table.from_batches([make_row(whole)])
    row = with_own_column(row, "segments", "segments", pa.array([found], pa.list_(SEGMENT)))
    schema = row.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, row.to_batches(), schema)])
    results = annotated_results(db)
    assert (results["rows"], results["actions"]) == (1, 3)
    assert results["handloom"]["segment_iou_0.5"]["recall"] == pytest.approx(2 / 3)
    assert results["handloom"]["boundary"]["true"] == 4, "1, 3, 5 and 7 s"
    empty = Database.open(tmp_path / "empty", create=True)
    assert annotated_results(empty)["rows"] == 0


def test_what_it_does_not_take(tmp_path):
    with pytest.raises(ConfigError, match="takes no --videos"):
        run_benchmark("segments", tmp_path, None, print)

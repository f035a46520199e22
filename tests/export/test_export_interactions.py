"""Interactions as control episodes: what scripted hands do, in a frame of its own, whatever the world's axes are."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.skill_tables import segment_table

from handloom.api import Database
from handloom.bench.loop.people import interactions_in
from handloom.bench.segments.exact import exact_scene
from handloom.errors import ConfigError
from handloom.export.lerobot.interactions import (
    CARRY,
    COLUMNS,
    ENVIRONMENT,
    GAP_S,
    REACH,
    STATE,
    episodes_of,
    interactions_of,
)
from handloom.geometry.interactions.segments import find_segments
from handloom.pipelines.export.interactions import (
    CLIPS,
    HANDS,
    METRES,
    NO_CARRY,
    NO_REACH,
    NOTHING,
    REASONS,
    SEGMENTS,
    SHORT,
    counted_episodes,
    interactions,
)
from handloom.pipelines.ingest.robots import lerobot
from handloom.schemas.values import LEFT, RIGHT
from handloom.stages.builtin.segments import segment_cell
from handloom.store.episodes import read_episodes
from handloom.synth.script.demo import turn_specs
from handloom.train.parts.robot_state import form_of

HZ = 20.0


def scene(number: int = 0):
    """A scripted placing: its row as the table has it, and its truth."""
    spec = turn_specs("lift-place", number + 1, 11)[number]
    made, truth = exact_scene(spec)
    cells = [segment_cell(one) for one in find_segments(made, 0.02, 0.1).segments]
    row = {"clip_id": "c", "dataset": "d", "video_id": "v", "licence": "mit", "narration": "place it", "noun": "cup"}
    row |= {"frame_s": truth.frame_s, "world_scale": "metric", "segments": cells}
    return row | {
        "hand_keypoints_world_m": truth.keypoints_world_m,
        "world_from_camera": truth.world_from_camera,
    }, truth


@pytest.fixture(scope="module")
def placing():
    return scene()


def table_of(row, folder, segments=None):
    """A table of clips that are like the row but for these segments; the row's own by default."""
    num = len(row["frame_s"])
    columns = {name: row[name].reshape(num, -1).tolist() for name in ("hand_keypoints_world_m", "world_from_camera")}
    columns |= {"world_scale": "metric", "frame_s": row["frame_s"].tolist()}
    return segment_table(folder, segments or {"place it/0": row["segments"]}, num, columns)[0]


def by_kind(found):
    return {one.source["kind"]: one for interaction in found for one in episodes_of(interaction, HZ)}


def test_a_placing_is_a_reach_and_a_carry_near_the_truth(placing):
    row, truth = placing
    found, exact = by_kind(interactions_of(row)), by_kind(interactions_in(truth, "c"))
    assert set(found) == set(exact) == {REACH, CARRY}
    reach, carry = found[REACH], found[CARRY]
    assert (reach.task, carry.task) == ("reach for the cup", "place it")
    np.testing.assert_allclose(reach.values[STATE][-1, :3], reach.values[ENVIRONMENT][-1, 3:], atol=1e-6)
    assert np.isnan(reach.values[ENVIRONMENT][:, :3]).all()
    np.testing.assert_allclose(carry.values[ENVIRONMENT][-1, :3], carry.values[ENVIRONMENT][-1, 3:], atol=1e-6)
    np.testing.assert_allclose(carry.values[ENVIRONMENT][0, :3], 0, atol=1e-6)
    for kind in (REACH, CARRY):
        ends = [one[kind].values[ENVIRONMENT][-1, 3:] for one in (found, exact)]
        np.testing.assert_allclose(*ends, atol=0.03)
        begins = [one[kind].values[STATE][0, 1] for one in (found, exact)]
        assert max(begins) < 0, "the hand comes from where the camera is"
    opens = carry.values[STATE][:, 7]
    assert 0 <= opens.min() < opens.max() <= 1


def test_the_worlds_axes_and_the_hand_do_not_matter(placing):
    """A world that is turned and moved gives the same episodes; so does the mirror image, by the other hand."""
    one = interactions_of(placing[0])[0]
    turn, shift = Rotation.from_rotvec([0.4, -1.1, 2.0]).as_matrix(), np.array([3.0, -2.0, 0.5])
    poses = one.poses.copy()
    poses[:, :3, :3], poses[:, :3, 3] = turn @ one.poses[:, :3, :3], one.poses[:, :3, 3] @ turn.T + shift
    moved = replace(
        one, keypoints_m=one.keypoints_m @ turn.T + shift, thing_m=one.thing_m @ turn.T + shift, poses=poses,
        axes=one.axes @ turn.T,
    )  # fmt: skip
    mirror = np.diag([-1.0, 1.0, 1.0])
    poses = one.poses.copy()
    poses[:, :3, :3], poses[:, :3, 3] = mirror @ one.poses[:, :3, :3] @ mirror, one.poses[:, :3, 3] @ mirror
    mirrored = replace(
        one, keypoints_m=one.keypoints_m @ mirror, thing_m=one.thing_m @ mirror, poses=poses,
        axes=mirror @ one.axes @ mirror, hand=LEFT + RIGHT - one.hand,
    )  # fmt: skip
    for other in (moved, mirrored):
        for a, b in zip(episodes_of(one, HZ), episodes_of(other, HZ), strict=True):
            assert a.num_steps == b.num_steps
            for name in a.values:
                np.testing.assert_allclose(a.values[name], b.values[name], atol=1e-4)


def test_unknown_frames_stay_unknown_and_short_gaps_are_bridged(placing):
    one = interactions_of(placing[0])[0]
    whole = next(episodes_of(one, HZ)).values[STATE]
    points = one.keypoints_m.copy()
    middle = len(whole) // 2
    at = int(np.searchsorted(one.frame_s, one.frame_s[0] + middle / HZ))
    points[at] = np.nan
    bridged = next(episodes_of(replace(one, keypoints_m=points), HZ)).values[STATE]
    assert np.isfinite(bridged).all()
    np.testing.assert_allclose(bridged[:, :3], whole[:, :3], atol=0.02)
    points[at - 2 : at + 2] = np.nan
    lost = next(episodes_of(replace(one, keypoints_m=points), HZ)).values[STATE]
    assert 0 < np.isnan(lost[:, 0]).sum() <= int((4 / 15 + GAP_S) * HZ)
    assert np.isfinite(lost[0]).all()


def test_without_metres_segments_or_a_known_place_there_is_nothing(placing):
    row = placing[0]
    assert interactions_of(row | {"world_scale": "arbitrary"}) == []
    assert interactions_of(row | {"segments": None}) == []
    unseen = [one | {"trajectory": np.full((len(one["trajectory"]), 16), np.nan).tolist()} for one in row["segments"]]
    assert interactions_of(row | {"segments": unseen}) == []


def test_a_database_becomes_a_dataset_that_robots_recipes_read(placing, tmp_path):
    row = placing[0]
    db = table_of(row, tmp_path / "clips")
    out = str(tmp_path / "dataset")
    found = interactions(db, out)
    assert (found.num_clips, found.left_out) == (1, {})
    robots = Database.open(tmp_path / "robots", create=True)
    lerobot(robots, out, dataset="people", state=(STATE, ENVIRONMENT))
    read = read_episodes(robots)
    assert read["robot_type"].to_pylist() == ["human_hand"] * 2
    assert form_of(read["state_names"][0].as_py(), things="places").width == 16
    exact = [one for interaction in interactions_of(row) for one in episodes_of(interaction, HZ)]
    for state, one in zip(read["state"].to_pylist(), exact, strict=True):
        wanted = np.concatenate([one.values[STATE], one.values[ENVIRONMENT]], axis=1)
        np.testing.assert_allclose(np.array(state, np.float32), wanted, atol=1e-3)
    ways = interactions(db, str(tmp_path / "ways"), kinds=(REACH,))
    assert ways.dataset.num_frames == sum(one.num_steps for one in exact if one.source["kind"] == REACH)
    with pytest.raises(ConfigError, match="--hz 0"):
        interactions(db, out, hz=0.0)


def test_every_clip_is_counted_and_the_reason_is_told(placing, tmp_path):
    row = placing[0]
    num = len(row["frame_s"])
    flat = {name: row[name].reshape(num, -1).tolist() for name in ("hand_keypoints_world_m", "world_from_camera")}
    whole = {"world_scale": "metric", "frame_s": row["frame_s"].tolist(), **flat}
    cases = {
        CLIPS: (row["segments"], whole),
        METRES: (row["segments"], whole | {"world_scale": "arbitrary"}),
        HANDS: (row["segments"], whole | {"hand_keypoints_world_m": None}),
        SEGMENTS: (None, whole),
        NOTHING: ([], whole),
    }
    every, counts = [], Counter()
    for number, (why, (segments, columns)) in enumerate(cases.items()):
        db, _ = segment_table(tmp_path / str(number), {"place it/0": segments}, num, columns)
        every += list(db.batches(list(COLUMNS)))
        if why != CLIPS:
            with pytest.raises(ConfigError, match=f"no episode to export at 20 Hz: 1 clip: {why}\nhint") as caught:
                interactions(db, str(tmp_path / "none"))
            assert caught.value.hint == REASONS[why]
    unseen = {"hand_keypoints_world_m": np.full_like(flat["hand_keypoints_world_m"], np.nan).tolist()}
    lost, _ = segment_table(tmp_path / "unseen", {"place it/0": None}, num, whole | unseen)
    with pytest.raises(ConfigError, match=f"1 clip: {HANDS}"):
        interactions(lost, str(tmp_path / "none"))
    assert len(list(counted_episodes(every, HZ, counts))) == 2
    assert counts == dict.fromkeys(cases, 1)
    slow = Counter()
    with pytest.raises(ConfigError, match=r"at 0\.5 Hz: 1 clip: no world.*; 1 clip: too few steps"):
        list(counted_episodes(every, 0.5, slow))
    assert slow[SHORT] == 1
    assert slow.total() == len(cases)


@pytest.mark.parametrize(("kind", "why"), [(REACH, NO_REACH), (CARRY, NO_CARRY)])
def test_the_reason_is_that_of_the_kind(placing, tmp_path, kind, why):
    counts = Counter()
    with pytest.raises(ConfigError, match=f"at 0.5 Hz: 1 clip: {why}\nhint: give a higher --hz.*leave out --kind"):
        list(counted_episodes(table_of(placing[0], tmp_path).batches(list(COLUMNS)), 0.5, counts, (kind,)))
    assert counts == {why: 1}
    assert ("4 cm" in why) is (kind == CARRY)


def test_the_card_is_of_the_clips_that_gave_episodes(placing, tmp_path):
    row = placing[0]
    db = table_of(row, tmp_path / "db", {"place it/0": row["segments"], "wave/0": [], "wave/1": []})
    found = interactions(db, str(tmp_path / "out"))
    assert (found.num_clips, found.left_out, found.dataset.num_episodes) == (1, {NOTHING: 2}, 2)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"\n2 episodes of 1 clip, {len(row['frame_s'])} frames, 1.0 s of video, from 1 dataset.\n" in card
    assert "| test | 1 | unknown |" in card
    assert "| hand_coverage | 1 |" in card
    assert f"- 2 clips gave no episode: {NOTHING}.\n" in card
    assert re.findall(r"^\| (\w+) \| (?:`.*`|not computed) \| (\d+) \|$", card, re.M) == [("segments", "1")]

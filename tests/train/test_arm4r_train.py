"""ARM4R from a table to a report, stage by stage, and the tables it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from support.track_tables import robot_db, room_db, room_row

import handloom.train.arm4r as package
from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder
from handloom.schemas.training import TrainSettings
from handloom.train.arm4r.recipe import RECIPE
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.loop import train

SMALL = tomllib.loads((Path(package.__file__).parent / "small.toml").read_text())
TINY = SMALL | {"layers": 1, "grid_points": 4, "head_hidden": 32, "warmup_epochs": 0.2, "num_examples": 2}
POSE = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
JOINTS = ["pan.pos", "lift.pos", "elbow.pos", "gripper.pos"]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Fourteen clips; two of them without depth, one too short, one without poses."""
    rows = [room_row(n) for n in range(11)]
    rows += [
        room_row(11, depth=False),
        room_row(12, depth=False),
        room_row(13, num_frames=12),
        room_row(14, world=False),
    ]
    return room_db(tmp_path_factory.mktemp("rooms"), rows)


@pytest.fixture(scope="module")
def robots(tmp_path_factory):
    return robot_db(tmp_path_factory.mktemp("robots"), POSE)


def settings(**values) -> Arm4rSettings:
    return Arm4rSettings(**(TINY | values))


def numbers(outcome) -> dict:
    return [line for line in outcome.history if line["kind"] == "held_out"][-1]["numbers"]


def test_what_cannot_be_used_is_left_out_and_counted(rooms):
    data = RECIPE.data(rooms, settings())
    counts = data.facts["counts"]
    assert (counts["rows"], counts["without_depth"]) == (15, 2)
    assert counts["train"]["too_short"] == counts["held_out"]["too_short"] == 1  # of the whole table
    used = set(data.train.clip_ids) | set(data.held_out.clip_ids)
    assert len(used) == 12
    assert not set(data.train.clip_ids) & set(data.held_out.clip_ids)
    assert len(RECIPE.data(rooms, settings(depth="none")).train) > len(data.train)
    world = RECIPE.data(rooms, settings(frame="world"))
    assert world.facts["counts"]["without_world"] == 1


def test_scales_are_those_of_the_training_windows(rooms):
    data = RECIPE.data(rooms, settings())
    points = np.stack([data.train[index]["points"] for index in range(len(data.train))])
    np.testing.assert_allclose(data.facts["proprio_mean"], np.nanmean(points, axis=(0, 1)).ravel(), rtol=1e-4)
    delta = np.diff(points, axis=1)
    np.testing.assert_allclose(data.facts["action_std"][:3], np.nanstd(delta, axis=(0, 1, 2)), rtol=1e-4)
    assert "action_std" not in RECIPE.data(rooms, settings(standardise=False)).facts


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"where": "dataset = 'nobody'"}, "passes none of 15"),
        ({"where": "video_id = 'v11'"}, "none of the 1 clips has a depth"),
        ({"where": "video_id = 'v14'", "frame": "world"}, "needs camera poses in metres, and none of the 1 clips"),
        ({"grid_points": 36}, "grid_points is 36, which does not divide the grid of this table: 16 grid points"),
        ({"context": 40}, "the longest of"),
        ({"rate_hz": 20.0}, "rate_hz is 20, and the frames come at 15 Hz"),
        ({"stage": "control"}, "no robot episodes"),
        ({"stage": "robot_points"}, "trains on clips of robots, and all 15 clips of .* are of people"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused(rooms, values, words):
    for ask in (RECIPE.data, *(() if "grid_points" in values else (RECIPE.check,))):  # the grid is told by a window
        with pytest.raises(ConfigError, match=words) as caught:
            ask(rooms, settings(**values))
        assert caught.value.hint


@pytest.mark.parametrize("stage", ["human", "robot_points"])
def test_a_database_without_clips_and_a_version_that_is_gone_are_refused_before_a_job_begins(rooms, tmp_path, stage):
    with pytest.raises(ConfigError, match="there are no clips to train on"):
        RECIPE.check(Database.open(tmp_path / "db", create=True), settings(stage=stage))
    with pytest.raises(StoreError, match="9999"):
        RECIPE.check(rooms, settings(stage=stage, version=9999))


def test_a_table_of_an_older_version_is_refused_with_the_columns_it_lacks(tmp_path):
    db = room_db(tmp_path, [room_row(0).drop_columns(["world_unit_m", "track_depth_source"])])
    with pytest.raises(ConfigError, match="no column track_depth_source, world_unit_m") as caught:
        RECIPE.data(db, settings())
    assert "extract" in caught.value.hint


def test_stage_one_learns_and_the_next_stages_start_from_its_weights(rooms, robots, tmp_path):
    first = train(RECIPE, rooms, settings(epochs=4, batch_size=8, stride=1), Folder.parse(tmp_path / "human"))
    found = numbers(first)
    assert found["l1"] < 0.9 * min(found["zero_motion"], found["constant_velocity"])
    assert 0 < found["unknown_inputs"] < 0.2
    report = RECIPE.report(first.network, first.data, settings())
    assert len(report["examples"]) == 2
    for example in report["examples"]:
        true, predicted = example.true_px, example.predicted_px
        assert example.frame.shape == (16, 24, 3)
        assert true.shape == predicted.shape == (17, 16, 2)
        assert np.isnan(predicted[:7]).all()
        np.testing.assert_array_equal(predicted[7], true[7])
        assert np.nanmedian(np.linalg.norm(predicted[8] - true[8], axis=-1)) < 0.5
        assert -8 < np.nanmin(true) < np.nanmax(true) < 32
        assert "free-running" in example.title
    assert {name.split(", ")[2] for name in report["numbers"]} == {
        "network (px)", "zero motion (px)", "constant velocity (px)",
    }  # fmt: skip
    assert any(note.startswith("Left out: 2 clips without depth") for note in report["notes"])

    of_robot = {"stage": "robot_points", "where": "video_id IS NOT NULL"}  # without episodes `where` chooses the clips
    second = settings(**of_robot, init=first.checkpoint, max_steps=1, stride=1, lr=1e-9)
    kept = train(RECIPE, rooms, second, Folder.parse(tmp_path / "robot"))
    assert numbers(kept)["l1"] == pytest.approx(found["l1"], rel=1e-3)

    control = settings(stage="control", init=first.checkpoint, max_steps=1, skip="none", lr=1e-9)
    third = train(RECIPE, robots, control, Folder.parse(tmp_path / "control"))
    weight = "transformer.blocks.0.qkv.weight"
    assert torch.allclose(third.network.state_dict()[weight], first.network.state_dict()[weight], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "unit"), [({"points": "selected", "num_selected": 12}, "px"), ({"frame": "world"}, "m")]
)
def test_our_variants_train_and_report(rooms, tmp_path, values, unit):
    outcome = train(RECIPE, rooms, settings(max_steps=3, **values), Folder.parse(tmp_path))
    report = RECIPE.report(outcome.network, outcome.data, settings(**values))
    assert all(name.endswith(f"({unit})") and value >= 0 for name, value in report["numbers"].items())
    assert len(report["examples"]) == 2
    assert any(note.startswith("Ours") for note in report["notes"])
    if unit == "m":  # resting points have constant coordinates: only the moving point has an error
        assert numbers(outcome)["zero_motion"] < 1e-6
        assert np.nanstd(report["examples"][0].true_px[:, :16], axis=0).max() < 1e-3


def test_control_learns_poses_and_reports_each_number(robots, tmp_path):
    control = settings(stage="control", epochs=4, lr=3e-3, skip="none", num_pred_steps=4, stride=2, context=8)
    outcome = train(RECIPE, robots, control, Folder.parse(tmp_path))
    assert outcome.data.facts["has_pose"]
    assert outcome.data.facts["target"] == "action"
    found = numbers(outcome)
    assert found["l1"] < found["zero_motion"]
    (table, rows, columns) = RECIPE.report(outcome.network, outcome.data, control)["figures"][
        "held-out error by number"
    ]
    assert table.shape == (10, 3)
    assert rows[0] == "x"
    assert columns[1] == "zero motion"
    assert np.isfinite(table).all()


def test_joint_states_are_used_unchanged_and_two_cameras_are_pooled(tmp_path):
    db = robot_db(tmp_path, JOINTS, num=6, num_frames=20)
    values = {"image_encoder": "small", "image_size": 16, "num_cameras": 2, "skip": "none", "max_steps": 1}
    control = settings(stage="control", num_pred_steps=2, context=4, **values)
    data = RECIPE.data(db, control)
    assert data.facts["proprio_dim"] == 4
    assert data.facts["cameras"] == ["front", "wrist"]
    sample = data.train[0]
    assert sample["images"].shape == (4, 2, 16, 16, 3)
    assert not np.array_equal(sample["images"][:, 0], sample["images"][:, 1])
    notes = train(RECIPE, db, control, Folder.parse(tmp_path / "out"))
    assert any("hold no pose" in note for note in RECIPE.report(notes.network, notes.data, control)["notes"])


@pytest.mark.parametrize(
    ("values", "actions", "words"),
    [
        ({"image_encoder": "small", "image_size": 16, "cameras": ("top",)}, None, "'top' is no camera of r:0"),
        ({"control_target": "action"}, ["a", "b", "c", "d"], "another form than the states"),
        ({"where": "dataset = 'x'"}, None, "passes no robot episode"),
    ],
)
def test_episodes_that_cannot_be_trained_on_are_refused(tmp_path, values, actions, words):
    db = robot_db(tmp_path, JOINTS, num=2, actions=actions)
    with pytest.raises(ConfigError, match=words) as caught:
        RECIPE.data(db, settings(stage="control", skip="none", **values))
    assert caught.value.hint


def test_every_settings_file_can_be_loaded():
    for size in RECIPE.sizes:
        values = tomllib.loads((Path(package.__file__).parent / f"{size}.toml").read_text())
        values.pop("resources", None)
        found = Arm4rSettings(**values)
        assert (found.stage == "control") == size.endswith(("control", "sim", "people"))
        if size.startswith("full"):
            assert found.transformer() == (768, 12, 12)
            assert (found.skip, found.standardise, found.point_dropout) == ("none", False, 0)


def test_the_page_has_every_setting_with_its_default_and_meaning():
    page = (Path(__file__).parents[2] / "docs" / "arm4r.md").read_text()
    for name in Arm4rSettings.model_fields.keys() - TrainSettings.model_fields.keys():
        field = Arm4rSettings.model_fields[name]
        default = "automatic" if field.default is None else f"`{json.dumps(field.default)}`"
        assert f"| `{name}` | {default} | {' '.join(field.description.split())} |" in page


def test_every_predicted_step_has_a_scale_of_its_own(robots):
    data = RECIPE.data(robots, settings(stage="control", skip="none"))
    targets = np.stack([data.train[index]["target"] for index in range(len(data.train))])
    expected = np.nanstd(targets, axis=(0, 1))
    assert expected.shape == (16, 10)
    std = np.reshape(data.facts["target_std"], (16, 10))
    assert (std[15, :3] > 5 * std[0, :3]).all()
    np.testing.assert_allclose(std, expected, rtol=0.05)  # facts are of 512 windows at most
    net = RECIPE.network(settings(stage="control", skip="none"), data.facts)
    np.testing.assert_allclose(net.action_decoder.std, std, rtol=1e-6)
    np.testing.assert_allclose(net.action_encoder.std, std[0], rtol=1e-6)

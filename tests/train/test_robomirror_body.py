"""RoboMirror's motion with the body: rows to numbers and back, in a mirror, in a turned world, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch
from support.hand_tables import hand_db, hand_row
from support.track_tables import MATRIX
from support.training import kept

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.geometry.bodies import MIRROR, NUM_BODY_KEYPOINTS, hips_in_camera
from handloom.geometry.camera.intrinsics import project
from handloom.io.addresses import local_path
from handloom.io.folder import Folder
from handloom.schemas.values import Camera
from handloom.stages.learned import Body
from handloom.train import checkpoint as checkpoints
from handloom.train.loop import train
from handloom.train.registry import open_network
from handloom.train.robomirror.commands import CommandMaker
from handloom.train.robomirror.data.motion import (
    BODY,
    HANDS_AND_HEAD,
    HIPS,
    MOTION_DIM,
    MotionLayout,
    bodies_of,
    mirrored,
    motion_of,
    points_of,
)
from handloom.train.robomirror.data.windows import body_of, motion_windows
from handloom.train.robomirror.latents import VaeLatents
from handloom.train.robomirror.network.errors import hand_sums, motion_sums
from handloom.train.robomirror.network.motion_vae import MotionStream, MotionVae
from handloom.train.robomirror.recipe import RECIPE
from handloom.train.robomirror.reporting import notes_of
from handloom.train.robomirror.settings import RobomirrorSettings

WITH = MotionLayout(body=True)
SIZES = {"vae_width": 16, "latent": 8, "steps": 12, "batch_size": 8, "num_examples": 1, "epochs": 2, "stride": 4}
SIZES |= {"held_out_share": 0.4, "warmup_epochs": 0.2}
PLAIN = {"motion_mean": [0.1] * WITH.dim, "motion_scale": [0.5] * WITH.dim, "motion_components": []}


def settings(**values) -> RobomirrorSettings:
    return RobomirrorSettings(**(SIZES | {"body": True} | values))


def some_body(num: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The middle of the hips (T, 3) of somebody who sways about 2 m away, and keypoints from there."""
    rng = np.random.default_rng(seed)
    hip_m = rng.uniform(-0.6, 0.6, (NUM_BODY_KEYPOINTS, 3)) * [0.5, 1, 0.3]
    hip_m = hip_m + 0.05 * np.sin(np.arange(num)[:, None, None] / 3 + rng.uniform(0, 6, (1, NUM_BODY_KEYPOINTS, 3)))
    hips = np.array([0.1, 0.2, 2.0]) + 0.1 * np.sin(np.arange(num)[:, None] / 4 + rng.uniform(0, 6, 3))
    return hips, hip_m


def some_motion(num: int = 24, poses: np.ndarray | None = None) -> torch.Tensor:
    points = np.random.default_rng(1).normal(0, 0.05, (num, 2, 21, 3)) + np.array([0, 0, 0.5])
    poses = np.tile(np.eye(4), (num, 1, 1)) if poses is None else poses
    return torch.from_numpy(motion_of(points, poses, 1.0, some_body(num)))


def test_the_place_of_a_body_is_where_its_keypoints_were_seen():
    hips, hip_m = some_body()
    points = hips[:, None] + hip_m
    xy = points[..., :2] / points[..., 2:]
    np.testing.assert_allclose(hips_in_camera(xy, hip_m), hips, atol=1e-9)
    np.testing.assert_allclose(hips_in_camera(xy, hip_m / 2), hips / 2, atol=1e-9)
    xy[3, 5:], xy[4, 6:], hip_m[5, 6:] = np.nan, np.nan, np.nan
    found = hips_in_camera(xy, hip_m)
    assert np.isnan(found[3]).all(), "five keypoints"
    np.testing.assert_allclose(found[4:6], hips[4:6], atol=1e-9)
    behind = (hips - [0, 0, 4])[:, None] + hip_m
    assert np.isnan(hips_in_camera(behind[..., :2] / behind[..., 2:], hip_m)).all()
    assert np.isnan(hips_in_camera(np.zeros_like(xy), hip_m)).all(), "all in one place"
    assert hips_in_camera(xy[:0], hip_m[:0]).shape == (0, 3)


def test_motion_gives_back_the_body_and_hands_are_as_without_it():
    hips, hip_m = some_body()
    hips[3], hip_m[5, 7:9] = np.nan, np.nan
    points, poses = np.full((24, 2, 21, 3), 0.1), np.tile(np.eye(4), (24, 1, 1))
    motion = torch.from_numpy(motion_of(points, poses, 1.0, (hips, hip_m)))
    assert motion.shape == (24, WITH.dim)
    for found, true in zip(bodies_of(motion), (hips, hip_m), strict=True):
        np.testing.assert_allclose(found, true, atol=1e-6)
    np.testing.assert_allclose(points_of(motion)[:, 42:], hips[:, None] + hip_m, atol=1e-6)
    without = motion_of(points, poses, 1.0)
    np.testing.assert_array_equal(motion[:, :MOTION_DIM], without)
    assert points_of(torch.from_numpy(without)).shape == (24, 42, 3)
    numbers = np.concatenate([np.arange(WITH.dim)[part] for part in WITH.parts])
    assert sorted(numbers) == list(range(WITH.dim))
    numbers = np.concatenate([np.arange(WITH.dim)[part] for parts in WITH.groups.values() for part in parts])
    assert sorted(numbers) == list(range(WITH.dim))


def test_a_turned_world_changes_nothing_and_a_mirror_exchanges_sides():
    hips, hip_m = some_body()
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = turn, (3, 4, 5)
    poses = np.tile(np.eye(4), (24, 1, 1))
    poses[:, 0, 3] = np.arange(24) / 30
    torch.testing.assert_close(
        some_motion(24, world @ poses), some_motion(24, poses), atol=1e-5, rtol=0, equal_nan=True
    )
    points, sides = np.full((24, 2, 21, 3), np.nan), [-1, 1, 1]
    motion = torch.from_numpy(motion_of(points, poses, 1.0, (hips, hip_m)))
    there = motion_of(points, poses, 1.0, (hips * sides, hip_m[:, MIRROR] * sides))
    np.testing.assert_allclose(mirrored(motion)[:, MOTION_DIM:], there[:, MOTION_DIM:], atol=1e-6)
    torch.testing.assert_close(mirrored(mirrored(motion)), motion, equal_nan=True)


def test_errors_of_the_body_are_distances_from_the_hips():
    hips, hip_m = some_body()
    points, poses = np.full((24, 2, 21, 3), np.nan), np.tile(np.eye(4), (24, 1, 1))
    hip_m[4, 2] = np.nan
    true = torch.from_numpy(motion_of(points, poses, 1.0, (hips, hip_m)))[None]
    moved = (hips + np.array([0, 0, 0.02]), hip_m + np.array([0.003, 0, 0.004]))
    other = torch.from_numpy(motion_of(points, poses, 1.0, moved))[None]
    both = {name: float(s / n) for name, (s, n) in motion_sums(other, true, {"same": true}).items() if n}
    assert {"error_body", "error_hips", "zero_motion_body", "constant_velocity_body", "same_body"} <= both.keys()
    assert both["error_body"] == pytest.approx(5, rel=1e-3)
    assert both["error_hips"] == pytest.approx(20, rel=1e-3)
    assert both["same_body"] == 0
    assert motion_sums(other, true, {})["error_body"][1] == 23 * 33 - 1
    assert hand_sums({"error": other}, true)["error_body"][1] == 24 * 33 - 1
    assert "error" not in both, "no hand was known"


def test_nothing_is_learned_from_keypoints_that_are_unknown():
    torch.manual_seed(0)
    vae = MotionVae(settings(mirror=0.0), PLAIN).train()
    motion = some_motion(12)[None].repeat(2, 1, 1)
    motion[0, 3, BODY.start : BODY.start + 3] = torch.nan
    motion[1, :, HIPS.start :] = torch.nan
    out = vae({"motion": motion, "valid": torch.ones(2, 12, dtype=torch.bool)})
    (slope,) = torch.autograd.grad(out["loss"], out["prediction"])
    assert ((slope == 0) == motion.isnan()).all()
    assert out["prediction"].isfinite().all()


@torch.no_grad()
def test_latents_with_a_body_come_frame_by_frame():
    torch.manual_seed(0)
    vae = MotionVae(settings(), PLAIN).eval()
    for weight in vae.parameters():
        weight.data.normal_(0, 0.2)
    motion, stream = some_motion(), MotionStream(vae)
    latents = vae.encode(motion)
    torch.testing.assert_close(torch.stack([stream.encode(frame) for frame in motion]), latents)
    torch.testing.assert_close(torch.stack([stream.decode(one) for one in latents]), vae.decode(latents))
    hidden = motion.clone()
    hidden[:, HIPS.start :] = torch.nan
    assert not torch.allclose(vae.encode(hidden), latents)


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    """Ten clips: the hands of eight are those of the body in view, one shows another person's, one none at all."""
    db = hand_db(tmp_path_factory.mktemp("bodies"), [hand_row(n, 24) for n in range(10)], [])
    ids = db.read("clips", ["clip_id"]).column(0).to_pylist()
    people = ["actor"] * 8 + ["other", None]
    rows = []
    for number, (clip_id, person) in enumerate(zip(ids, people, strict=True)):
        hips, hip_m = some_body(24, number)
        seen = np.full((24, NUM_BODY_KEYPOINTS), 0.9, np.float32)
        seen[:, 25:] = 0.1  # knees and below are guessed
        hip_m[7, 4] = np.nan
        pixels = project(hips[:, None] + hip_m, Camera(MATRIX, "given"))
        flat = (pixels.reshape(24, -1), hip_m.reshape(24, -1), seen)
        none = person is None
        rows.append((clip_id, person, *(None if none else list(values.astype(np.float32)) for values in flat)))
    ids, people, *columns = zip(*rows, strict=True)
    stage = {field.name: field for field in Body("body", Body.Settings()).fields()}
    fields = [stage[name] for name in ("body_keypoints_px", "body_keypoints_hip_m", "body_keypoint_visibility")]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)]
    schema = pa.schema([pa.field("clip_id", pa.string()), stage["body_person"], *fields])
    table = pa.Table.from_arrays([pa.array(ids), pa.array(people, pa.string()), *arrays], schema=schema)
    lance.dataset(db.location.table_uri("clips")).merge(table, "clip_id")
    return db


def test_rows_become_the_bodies_they_hold(db):
    ids = db.read("clips", ["clip_id"]).column(0).to_pylist()
    windows = motion_windows(db, settings(), db.version, None)
    for index in range(len(windows)):
        sample = windows[index]
        number = ids.index(sample["clip_id"])
        hips, points = bodies_of(torch.from_numpy(sample["motion"]))
        if number > 7:
            assert hips.isnan().all()
            assert points.isnan().all()
            continue
        first = round((sample["now_s"] - windows_start(db, number)) * 15)
        true_hips, true_points = (values[first : first + 12] for values in some_body(24, number))
        np.testing.assert_allclose(hips, true_hips, atol=1e-4)
        assert points[:, 25:].isnan().all(), "guessed"
        known = points[:, :25].isfinite().all(-1)
        np.testing.assert_allclose(points[:, :25][known], true_points[:, :25][known], atol=1e-6)
        assert (~known).sum() == (first <= 7 < first + 12)
    row = {"frame_s": range(24), "body_person": "actor", "camera_matrix": None}
    row |= {"body_keypoint_visibility": np.ones((24, 33)), "body_keypoints_hip_m": np.ones((24, 99))}
    hips, points = body_of(row | {"body_keypoints_px": np.ones((24, 66))})
    assert np.isnan(hips).all(), "no camera"
    assert np.isfinite(points).all()


def windows_start(db: Database, number: int) -> float:
    return db.read("clips", ["start_s"]).column(0).to_pylist()[number]


def test_from_a_table_with_bodies_to_a_report_and_back(db, tmp_path):
    outcome = train(RECIPE, db, settings(), Folder.parse(tmp_path))
    first, *_, last = [line["numbers"] for line in outcome.history if line["kind"] == "held_out"]
    assert last["loss"] < first["loss"]
    assert {"error", "error_body", "error_hips", "principal_components_body", "zero_motion_body"} <= last.keys()
    assert outcome.data.facts["counts"]["with_body"] == 8
    report = RECIPE.report(outcome.network, outcome.data, settings())
    assert any(note.startswith("8 clips show the body") for note in report["notes"])
    assert "of hands, head and body" in report["notes"][0]
    example = report["examples"][0]
    assert example.true_px.shape == example.predicted_px.shape == (12, 75, 2)
    vae, found = open_network(str(tmp_path))
    assert vae.layout == WITH
    motion = torch.from_numpy(outcome.data.held_out[0]["motion"])
    torch.testing.assert_close(vae.encode(motion), outcome.network.encode(motion))
    commands = CommandMaker(str(tmp_path), 2).of_clips(db, "", None)
    assert len(commands) == 10
    points, poses = np.full((12, 2, 21, 3), 0.1), np.tile(np.eye(4), (12, 1, 1))
    alone = np.pad(motion_of(points, poses, 1.0), ((0, 0), (0, WITH.dim - MOTION_DIM)), constant_values=np.nan)
    expected = vae.standardised(vae.encode(torch.from_numpy(alone)))
    np.testing.assert_allclose(VaeLatents(str(tmp_path)).encode(points, poses), expected.detach(), atol=1e-6)
    for other, problem in (
        ({"body": False}, r"hands, head and body \(249 .* here of hands and head \(147"),
        ({}, None),
    ):
        asked = settings(init=str(tmp_path), **other)
        network = RECIPE.network(asked, RECIPE.data(db, asked).facts)
        if problem is None:
            assert RECIPE.load_init(network, found.network, asked, found.facts) == []
            continue
        for refuse in (
            lambda one=asked, into=network: RECIPE.load_init(into, found.network, one, found.facts),
            lambda one=asked: RECIPE.check(db, one),
        ):
            with pytest.raises(ConfigError, match=problem) as caught:
                refuse()
            assert "body=true" in caught.value.hint


def test_checkpoints_from_before_there_were_bodies_are_of_hands_and_head(tmp_path):
    """Their settings do not name `body`: they open, their jobs go on, and a motion with a body is refused."""
    old = settings(body=False)
    facts = {name: (np.array(value)[..., :MOTION_DIM]).tolist() for name, value in PLAIN.items()}
    vae = MotionVae(old, facts)
    place = Folder.parse(kept(tmp_path, vae, old, facts))
    there, uri = checkpoints.find_start(place.uri, {}, "robomirror")
    values = {key: value for key, value in there.settings.items() if key != "body"}
    content = asdict(there) | {"settings": values, "settings_key": old.settings_key()}
    folder = Folder.parse(uri)
    folder.write(checkpoints.FACTS, json.dumps(content).encode())
    network, found = open_network(place.uri)
    assert "body" not in found.facts.settings
    assert network.layout == HANDS_AND_HEAD
    checkpoints.check_fits(found.facts, uri, "robomirror", old, found.facts.workers)
    with pytest.raises(ConfigError, match="body is"):
        checkpoints.check_fits(found.facts, uri, "robomirror", settings(), found.facts.workers)
    with pytest.raises(ConfigError, match=r"of hands and head \(147 .* here of hands, head and body \(249"):
        RECIPE.load_init(MotionVae(settings(), PLAIN), found.network, settings(), found.facts)


def test_tables_without_bodies_are_refused(db, tmp_path):
    plain = hand_db(tmp_path, [hand_row(n, 24) for n in range(2)], [])
    with pytest.raises(ConfigError, match="has no column body_keypoints_px") as caught:
        RECIPE.check(plain, settings())
    assert "handloom.stages.learned:Body" in caught.value.hint
    RECIPE.check(plain, settings(body=False))
    ids = db.read("clips", ["clip_id"]).column(0).to_pylist()
    with pytest.raises(ConfigError, match="none of the 1 clips with hands shows their body"):
        RECIPE.check(db, settings(where=f"clip_id = '{ids[9]}'"))
    with pytest.raises(ConfigError, match="none of the 1 clips with hands shows their body") as caught:
        RECIPE.check(db, settings(where=f"clip_id = '{ids[8]}'"))
    assert "the stage of bodies was run" in caught.value.hint
    trained = RECIPE.data(db, settings()).train.clip_ids
    others = [one for one in ids if one not in set(trained)]
    shown = next(one for one in others if ids.index(one) < 8)
    few = ", ".join(f"'{one}'" for one in (shown, *ids[8:]))
    with pytest.raises(ConfigError, match="the 1 clip to train on does not show it: the 1 clip that does is"):
        [RECIPE.check(db, settings(where=f"clip_id IN ({few})", seed=seed)) for seed in range(10)]


def test_bodies_without_a_keypoint_that_counts_are_none(db, caplog, tmp_path):
    """All keypoints of some are unknown, of others guessed. Trained on with `body`, they taught nothing of it."""
    sides = RECIPE.data(db, settings())
    trained, held_out = (set(windows.clip_ids) for windows in (sides.train, sides.held_out))
    ids = db.read("clips", ["clip_id"]).column(0).to_pylist()
    assert sides.facts["counts"]["held_out_with_body"] == len(held_out & set(ids[:8])) > 0
    RECIPE.check(db, settings())
    assert "not show the body" not in caplog.text

    other = Database.open(shutil.copytree(local_path(db.uri), tmp_path / "db"))
    blind(other, sorted(held_out))
    RECIPE.check(other, settings())
    assert caplog.text.count("held-out clips do not show the body: `error_body` and `error_hips` are unknown") == 1
    data = RECIPE.data(other, settings())
    assert data.facts["counts"]["with_body"] == len(trained & set(ids[:8]))
    assert any("not show the body" in note for note in notes_of(data, settings()))
    blind(other, ids)
    with pytest.raises(ConfigError, match=r"in the 8 clips with body_person = 'actor' no keypoint has") as caught:
        RECIPE.check(other, settings())
    assert "the stage of bodies was run" in caught.value.hint


def blind(db: Database, clips: list[str]) -> None:
    """Make the bodies' keypoints of these clips unknown in every other one, and guessed in the rest."""
    table = lance.dataset(db.location.table_uri("clips"))
    rows = table.to_table(["clip_id", "body_keypoint_visibility", "body_keypoints_hip_m"]).to_pylist()
    rows = [row for row in rows if row["clip_id"] in clips and row["body_keypoints_hip_m"] is not None]
    for number, row in enumerate(rows):
        if number % 2:
            row["body_keypoints_hip_m"] = [[np.nan] * 99] * 24
        else:
            row["body_keypoint_visibility"] = [[0.4] * 33] * 24
    names = rows[0].keys()
    schema = pa.schema([table.schema.field(name) for name in names])
    table.merge_insert("clip_id").when_matched_update_all().execute(pa.Table.from_pylist(rows, schema=schema))


def test_a_start_that_is_not_there_is_refused_before_anything_is_computed(db, tmp_path):
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        RECIPE.check(db, settings(init=str(tmp_path)))
    with pytest.raises(ConfigError, match="`init` names none"):
        RECIPE.check(db, settings(stage="understand"))

"""RoboMirror's motion: 147 numbers a frame and back, mirrored, and a causal latent of them from a table to a report."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from support.hand_tables import hand_db, hand_row

import handloom.train.robomirror as package
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.train.loop import train
from handloom.train.registry import open_network
from handloom.train.robomirror.data.motion import (
    HEAD,
    MOTION_DIM,
    head_steps_of,
    keypoints_of,
    mirrored,
    motion_of,
    wrists_of,
)
from handloom.train.robomirror.network.errors import motion_sums
from handloom.train.robomirror.network.motion_vae import MotionStream, MotionVae
from handloom.train.robomirror.recipe import RECIPE
from handloom.train.robomirror.settings import RobomirrorSettings

SMALL = tomllib.loads((Path(package.__file__).parent / "small.toml").read_text())
SIZES = {"vae_width": 16, "latent": 8, "steps": 12, "batch_size": 8, "num_examples": 2, "warmup_epochs": 0.2}
PLAIN = {"motion_mean": [0.0] * MOTION_DIM, "motion_scale": [1.0] * MOTION_DIM}
PLAIN |= {"motion_components": np.eye(MOTION_DIM).tolist()}


def settings(**values) -> RobomirrorSettings:
    return RobomirrorSettings(**(SMALL | SIZES | values))


def some_motion(num: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints of two moving hands (T, 2, 21, 3), the left one not seen in three frames, and the head's poses."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 0.05, (1, 2, 21, 3)) + rng.normal(0, 0.01, (num, 2, 21, 3)) + [0, 0, 0.5]
    points[4:7, 0] = np.nan
    turns, _ = np.linalg.qr(rng.normal(size=(num, 3, 3)))
    turns[:, :, 2] *= np.linalg.det(turns)[:, None]
    poses = np.tile(np.eye(4), (num, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = turns, rng.normal(size=(num, 3))
    return points, poses


def test_motion_gives_back_hands_and_the_path_of_the_head():
    points, poses = some_motion()
    motion = torch.from_numpy(motion_of(points, poses, 0.5))
    np.testing.assert_allclose(keypoints_of(motion), points, atol=1e-6)
    wrists = wrists_of(motion)
    np.testing.assert_allclose(wrists[..., :3, 3], points[:, :, 0], atol=1e-6)
    found = wrists[7:, :, :3, :3]
    np.testing.assert_allclose(found @ found.transpose(-1, -2), np.broadcast_to(np.eye(3), found.shape), atol=1e-5)
    np.testing.assert_allclose(torch.linalg.det(found), 1, atol=1e-5)
    path = [np.eye(4)]
    for step in head_steps_of(motion)[1:].numpy():
        path.append(path[-1] @ step)
    poses[:, :3, 3] *= 0.5
    np.testing.assert_allclose(np.stack(path), np.linalg.inv(poses[0]) @ poses, atol=1e-4)
    assert motion[4:7, :69].isnan().all()
    assert motion[0, HEAD:].isnan().all()
    assert motion[1:, HEAD:].isfinite().all()
    unknown = motion_of(points, poses, None)
    assert np.isnan(unknown[:, HEAD : HEAD + 3]).all()
    assert np.isfinite(unknown[1:, HEAD + 3 :]).all()


def test_a_mirrored_motion_is_the_motion_of_mirrored_points():
    """Also of the head's path: what a mirror shows of hands and head, extracted, is the mirrored motion."""
    points, poses = some_motion()
    sides = np.diag([-1.0, 1.0, 1.0, 1.0])
    there = motion_of((points * [-1, 1, 1])[:, ::-1], sides @ poses @ sides, 1.0)
    motion = torch.from_numpy(motion_of(points, poses, 1.0))
    np.testing.assert_allclose(mirrored(motion), there, atol=1e-5)
    np.testing.assert_allclose(mirrored(mirrored(motion)), motion)


def test_errors_are_distances_of_points():
    points, poses = some_motion()
    moved = points + np.array([0.003, 0, 0.004])
    true, other = (torch.from_numpy(motion_of(p, poses, 1.0))[None] for p in (points, moved))
    sums = {name: (pair[0] / pair[1]).item() for name, pair in motion_sums(other, true, {"same": true}).items()}
    assert sums["same"] == sums["same_wrist"] == 0
    assert sums["error"] == pytest.approx(5, rel=1e-3)
    assert sums["error_wrist"] == pytest.approx(5, rel=1e-3)
    assert sums["error_turn"] == pytest.approx(0, abs=0.1)
    apart = 1000 * np.linalg.norm(np.diff(points[:, 1], axis=0), axis=-1)
    last = points[[3, *range(7, 19)], 0]  # a hand that was away is compared with where it was last seen
    apart_left = (
        1000 * np.linalg.norm(points[1:4, 0] - points[:3, 0], axis=-1),
        1000 * np.linalg.norm(points[7:, 0] - last, axis=-1),
    )
    assert sums["zero_motion"] == pytest.approx(np.concatenate([apart, *apart_left]).mean(), rel=1e-3)


def random_vae() -> MotionVae:
    torch.manual_seed(0)
    vae = MotionVae(settings(), PLAIN).eval()
    for weight in vae.parameters():
        weight.data.normal_(0, 0.2)
    return vae


@torch.no_grad()
def test_latents_do_not_look_ahead_and_come_frame_by_frame():
    vae = random_vae()
    motion = torch.from_numpy(motion_of(*some_motion(40), 1.0))
    latents = vae.encode(motion)
    assert latents.shape == (40, 8)
    assert latents.isfinite().all()
    torch.testing.assert_close(vae.encode(motion[:25]), latents[:25])
    assert vae.reach == 14
    torch.testing.assert_close(vae.encode(motion[25:])[14:], latents[39:])
    rebuilt = vae.decode(latents)
    torch.testing.assert_close(vae.decode(latents[:25]), rebuilt[:25])
    stream = MotionStream(vae)
    torch.testing.assert_close(torch.stack([stream.encode(frame) for frame in motion]), latents)
    torch.testing.assert_close(torch.stack([stream.decode(latent) for latent in latents]), rebuilt)
    torch.testing.assert_close(vae.restored(vae.standardised(latents)), latents)


def test_nothing_is_learned_from_what_is_unknown():
    vae = random_vae().train()
    vae.settings = settings(mirror=0.0)
    motion = torch.from_numpy(motion_of(*some_motion(12), 1.0))[None].repeat(2, 1, 1)
    motion[1, :, :69] = torch.nan
    batch = {"motion": motion, "valid": torch.ones(2, 12, dtype=torch.bool)}
    out = vae(batch)
    (slope,) = torch.autograd.grad(out["loss"], out["prediction"], retain_graph=True)
    assert (slope[motion.isnan()] == 0).all()
    assert (slope[motion.isfinite()] != 0).all()
    out["loss"].backward()
    assert all(weight.grad.isfinite().all() for weight in vae.parameters())
    empty = vae({"motion": torch.full_like(motion, torch.nan), "valid": batch["valid"]})
    assert empty["sums"]["loss"][1] == 0
    assert empty["loss"].isfinite()


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """Twelve clips, of which one shows no hands."""
    return hand_db(
        tmp_path_factory.mktemp("hands"), [*(hand_row(n, 24) for n in range(11)), hand_row(11, hands=False)], []
    )


def test_from_a_table_to_a_report_and_back_from_its_checkpoint(db, tmp_path):
    outcome = train(RECIPE, db, settings(epochs=3), Folder.parse(tmp_path))
    first, *_, last = [line["numbers"] for line in outcome.history if line["kind"] == "held_out"]
    assert last["loss"] < first["loss"]
    assert {"error", "error_wrist", "zero_motion", "constant_velocity_wrist", "error_turn"} <= last.keys()
    counts = outcome.data.facts["counts"]
    assert (counts["rows"], counts["without_hands"]) == (12, 1)
    report = RECIPE.report(outcome.network, outcome.data, settings())
    assert report["numbers"] == {}
    assert first["principal_components"] == last["principal_components"] > 0
    assert first["error"] == pytest.approx(first["principal_components"], rel=1e-4), "a new one is the components"
    assert len(report["examples"]) == 2
    for example in report["examples"]:
        assert example.true_px.shape == example.predicted_px.shape == (12, 42, 2)
        assert (np.isnan(example.predicted_px) == np.isnan(example.true_px)).all()
        assert np.isfinite(example.true_px).any()
    vae, checkpoint = open_network(str(tmp_path))
    assert checkpoint.facts.settings["rate_hz"] == 15
    motion = torch.from_numpy(outcome.data.held_out[0]["motion"])
    torch.testing.assert_close(vae.encode(motion), outcome.network.encode(motion))
    with pytest.raises(ConfigError, match=r"(?s)latent is|to_latent is \(8, 147\) there"):
        RECIPE.load_init(RECIPE.network(settings(latent=4), outcome.data.facts), checkpoint.network, settings(latent=4))


def test_tables_that_cannot_be_used_are_refused(db):
    with pytest.raises(ConfigError, match="no hand was seen"):
        RECIPE.data(db, settings(where="NOT hand_left AND NOT hand_right"))
    with pytest.raises(ConfigError, match="rate_hz is 60"):
        RECIPE.data(db, settings(rate_hz=60))

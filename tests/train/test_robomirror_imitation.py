"""What a student is told, and the student: latents outside of training, denoised actions, reservoir of samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from support.training import kept

from handloom.errors import ConfigError, HandloomError
from handloom.train.robomirror.data.motion import MOTION_DIM
from handloom.train.robomirror.imitation import Actor, FitSettings, Imitator
from handloom.train.robomirror.latents import LinearLatents, UnderstoodLatents, VaeLatents, latents_from, numbers_of
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.network.student import Student, StudentSettings, kept_signal
from handloom.train.robomirror.network.understanding import Reconstruction
from handloom.train.robomirror.settings import RobomirrorSettings

SETTINGS = {"vae_width": 16, "latent": 8, "steps": 12, "dim": 16, "heads": 2, "layers": 1, "intent_steps": 3}
PLAIN = {"motion_mean": [0.1] * MOTION_DIM, "motion_scale": [0.5] * MOTION_DIM, "motion_components": []}
SEEN = {"intent_dim": 5, "intent_mean": [0.0] * 5, "intent_components": np.eye(5).tolist()}
SEEN |= {"intent_source": "image embedding (x)"}


def clip(num: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints of two hands, of which the left one is unknown in places, and a camera that turns."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2, 21, 3)) * 0.1 + np.cumsum(rng.normal(size=(num, 2, 1, 3)) * 0.01, axis=0)
    points[5:9, 0] = np.nan
    poses = np.tile(np.eye(4), (num, 1, 1))
    angle = np.linspace(0, 0.3, num)
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(angle)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(angle), -np.sin(angle)
    return points, poses


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[str, str, str]:
    """Checkpoints of an auto-encoder, of understanding that makes its latents, and of another auto-encoder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs")
    motion, understand = RobomirrorSettings(**SETTINGS), RobomirrorSettings(**SETTINGS, stage="understand")
    vae, other = MotionVae(motion, PLAIN), MotionVae(motion, PLAIN)
    for network in (vae, other):
        torch.nn.init.normal_(network.to_latent, std=0.1)
    facts = {**PLAIN, **SEEN}
    network = Reconstruction(understand, facts)
    network.vae.load_state_dict(vae.state_dict())
    torch.nn.init.normal_(network.denoiser.last.weight)
    return (
        kept(folder / "vae", vae, motion, PLAIN),
        kept(folder / "understand", network, understand, facts),
        kept(folder / "other", other, motion, PLAIN),
    )


def test_latents_of_a_checkpoint_are_the_networks(trained):
    latents = VaeLatents(trained[0])
    found = latents.encode(*clip())
    assert found.shape == (20, 8)
    assert np.isfinite(found).all()
    points, poses = clip()
    assert latents.encode(points[:12], poses[:12]) == pytest.approx(found[:12], abs=1e-5), "nothing looks ahead"
    again = latents_from(json.loads(json.dumps(latents.facts())))
    assert again.encode(*clip()) == pytest.approx(found)
    with pytest.raises(ConfigError, match="are 8 numbers at 15 Hz, not 9"):
        latents_from(latents.facts() | {"width": 9})
    with pytest.raises(ConfigError, match="checkpoint of robomirror"):
        VaeLatents(trained[1])


def test_a_turn_without_a_place_is_known(trained):
    """Where the unit of poses is unknown their places are NaN, and the head's turns still count."""
    points, poses = clip()
    unscaled = poses.copy()
    unscaled[:, :3, 3] = np.nan
    numbers = numbers_of(points, unscaled)
    assert np.isnan(numbers[:, 138:141]).all()
    assert numbers[1:, 141:] == pytest.approx(numbers_of(points, poses)[1:, 141:])


def test_what_is_understood_is_made_of_windows_that_overlap(trained):
    latents = VaeLatents(trained[0])
    understood = UnderstoodLatents(trained[1], latents)
    rng = np.random.default_rng(0)
    intent, intent_s = rng.normal(size=(7, 5)).astype(np.float32), np.linspace(0, 1.9, 7)
    found = understood.encode("a", intent, intent_s, 30)
    assert found.shape == (30, 8)
    assert np.isfinite(found).all()
    assert found[:6] == pytest.approx(understood.encode("a", intent, intent_s, 12)[:6], abs=1e-5)
    assert understood.encode("a", intent, intent_s, 7).shape == (7, 8), "shorter than a window"
    mean = UnderstoodLatents(trained[1], latents, samples=3).encode("a", intent, intent_s, 30)
    assert np.abs(mean - found).max() > 0
    assert mean.std() < found.std(), "noise is averaged"
    changed = intent.copy()
    changed[-1] += 3
    other = understood.encode("a", changed, intent_s, 30)
    assert other[:18] == pytest.approx(found[:18], abs=1e-5), "only the last window is given the last vector"
    change = np.abs(other - found)[18:].max(axis=1)
    assert change[0] < 0.2 * change.max(), "windows pass over into each other"
    with pytest.raises(ConfigError, match=r"of another auto-encoder.*\n.*--motion"):
        UnderstoodLatents(trained[1], VaeLatents(trained[2]))
    with pytest.raises(ConfigError, match="the student knows linear latents"):
        UnderstoodLatents(trained[1], LinearLatents.fitted([numbers_of(*clip())]))
    with pytest.raises(ConfigError, match="stage understand"):
        UnderstoodLatents(trained[0], latents)
    with pytest.raises(ConfigError, match=r"has 4 numbers.*\n.*5 of image embedding"):
        understood.encode("a", intent[:, :4], intent_s, 12)


def test_linear_latents_need_no_network():
    motions = [numbers_of(*clip(seed=seed)) for seed in range(3)]
    latents = LinearLatents.fitted(motions)
    found = latents.encode(*clip())
    assert found.shape == (20, 64)
    assert np.isfinite(found).all()
    again = latents_from(json.loads(json.dumps(latents.facts())))
    assert again.encode(*clip()) == pytest.approx(found)
    with pytest.raises(ConfigError, match="no motion has a frame"):
        LinearLatents.fitted([np.full((4, MOTION_DIM), np.nan, np.float32)])


def test_the_schedule_falls_from_signal_to_noise():
    signal = kept_signal(100)
    assert (signal.diff() < 0).all()
    assert signal[0] > 0.99
    assert signal[-1] < 0.01


def test_a_new_student_does_the_mean_action():
    """All that is added to it starts at zero."""
    network = Student(StudentSettings(width=16, blocks=2), 3, 4, 2)
    network.set_scales(torch.randn(50, 4), torch.randn(50, 2) + torch.tensor([1.0, 2.0]))
    actions = Actor(network)(np.zeros((3, 3), np.float32), np.zeros((3, 4), np.float32))
    assert actions == pytest.approx(np.tile(network.action_mean.numpy(), (3, 1)))


def test_a_student_learns_what_it_is_told():
    """Actions are a function of latent and observation; it comes nearer to it than the mean action, and the same
    student says the same for a row alone and among others."""
    rng = np.random.default_rng(0)
    latents, observed = (rng.normal(size=(3000, width)).astype(np.float32) for width in (3, 4))
    actions = (latents @ rng.normal(size=(3, 2)) + 0.5 * observed[:, :2]).astype(np.float32)
    imitator = Imitator(StudentSettings(width=64, blocks=2), FitSettings(lr=2e-3, batch_size=128), (3, 4, 2), 200, 0)
    imitator.add(latents[:2500], observed[:2500], actions[:2500])
    imitator.fit(200)
    actor = Actor(imitator.network)
    found = actor(latents[2500:], observed[2500:])
    error = np.square(found - actions[2500:]).mean()
    assert error < 0.2 * actions.var(axis=0).mean()
    assert actor(latents[2500:2501], observed[2500:2501]) == pytest.approx(found[:1], abs=1e-5)


def test_samples_are_kept_with_the_same_chance():
    imitator = Imitator(StudentSettings(width=8, blocks=1), FitSettings(most_samples=200), (1, 1, 1), 1, 0)
    for start in range(0, 1000, 250):
        numbers = np.arange(start, start + 250, dtype=np.float32)[:, None]
        imitator.add(numbers, numbers, numbers)
    assert imitator.num_samples == 200
    latents, observed, _ = imitator._samples
    assert (latents == observed).all(), "rows stay together"
    assert np.histogram(latents, 4, (0, 1000))[0].min() > 25


def test_a_loss_that_is_not_finite_ends_the_training():
    imitator = Imitator(StudentSettings(width=8, blocks=1), FitSettings(), (1, 1, 1), 2, 0)
    values = np.ones((4, 1), np.float32)
    imitator.add(values, values, values * np.float32(np.inf))
    with pytest.raises(HandloomError, match=r"loss is nan.*\n.*lower fit.lr"):
        imitator.fit(2)

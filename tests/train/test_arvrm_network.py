"""AR-VRM's parts: keypoints in image space, baselines, causality, the map, frozen weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from handloom.errors import ConfigError
from handloom.train.arvrm.data.hand_sample import goals_of, image_space
from handloom.train.arvrm.network.goals import places_of
from handloom.train.arvrm.network.network import HandNetwork, augmented
from handloom.train.arvrm.network.robot_network import AnalogicalMap, RobotNetwork
from handloom.train.arvrm.recipe import RECIPE
from handloom.train.arvrm.reporting import keypoint_names, map_figures, map_text, roll_out
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.baselines import error_sums, mean_square, past_of
from handloom.train.parts.gpt import Gpt
from handloom.train.parts.pooling import PerceiverResampler

FACTS = {"keypoint_mean": [0.5, 0.5, 0.0], "keypoint_std": [0.2, 0.2, 0.05], "keypoint_step_std": [0.05, 0.05, 0.01]}
ROBOT = {"state_mean": [0.1] * 5, "state_std": [0.5] * 5, "state_step_std": [0.1] * 5, "gripper": [2]}
TINY = {
    "dim": 32,
    "layers": 2,
    "heads": 4,
    "dropout": 0.0,
    "latents": 2,
    "resampler_depth": 1,
    "resampler_heads": 2,
    "resampler_head_dim": 8,
    "keypoint_dim": 8,
    "keypoint_layers": 1,
    "steps": 6,
    "image_encoder": "small",
    "image_size": 32,
    "image_width": 16,
    "text_encoder": "small",
    "topk": 3,
}


def settings(**values) -> ArvrmSettings:
    return ArvrmSettings(**(TINY | values))


def batch(size: int = 3, steps: int = 6, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(0, 1, (size, steps, 2, 21, 3)).astype(np.float32)
    keypoints[:, :2, 0] = np.nan
    keypoints[0, 3] = np.nan
    return {
        "clip_id": [str(i) for i in range(size)],
        "text": ["cut", None, "left hand"][:size],
        "size": torch.tensor([[400.0, 300.0]] * size),
        "keypoints": torch.from_numpy(keypoints),
        "goals": torch.from_numpy(keypoints[:, -1:, :, 0] - keypoints[:, :, :, 0]),
        "images": torch.from_numpy(rng.integers(0, 255, (size, steps, 32, 32, 3), dtype=np.uint8)),
        "images_valid": torch.ones(size, steps, dtype=torch.bool),
    }


def robot_batch(size: int = 3, steps: int = 6, topk: int = 3) -> dict:
    human, rng = batch(size, steps), np.random.default_rng(1)
    state = rng.normal(size=(size, steps, 5)).astype(np.float32)
    state[0, 2, 1] = np.nan
    retrieved = torch.from_numpy(rng.uniform(0, 1, (size, topk, steps, 2, 21, 3)).astype(np.float32))
    out = {"episode_id": human["clip_id"], "text": human["text"], "state": torch.from_numpy(state)}
    out |= {"retrieved": retrieved, "progress": torch.linspace(0, 1, size, dtype=torch.float64)}
    out |= {name: human[name] for name in ("images", "images_valid")}
    return out | {f"replay_{name}": value for name, value in human.items() if name != "clip_id"}


def network(kind=HandNetwork, facts=FACTS | ROBOT, **values):
    torch.manual_seed(0)
    return kind(settings(**values), facts)


def test_image_space_is_places_over_the_image_and_depth_from_the_wrist():
    rng = np.random.default_rng(0)
    px, cam = rng.uniform(0, 300, (4, 2, 21, 2)), rng.uniform(0.3, 1, (4, 2, 21, 3))
    visible = np.array([[True, True], [True, False], [False, False], [True, True]])
    cam[3, 0] = np.nan
    found = image_space(px.astype(np.float32), cam.astype(np.float32), visible, (400, 300))
    assert found.shape == (4, 2, 21, 3)
    one = [px[0, 1, 5, 0] / 400, px[0, 1, 5, 1] / 300, cam[0, 1, 5, 2] - cam[0, 1, 0, 2]]
    np.testing.assert_allclose(found[0, 1, 5], one, rtol=1e-5)
    assert (found[visible][..., 0, 2][:3] == 0).all()
    np.testing.assert_array_equal(np.isfinite(found[..., :2]).all((2, 3)), visible)
    assert np.isfinite(found[3, 0, :, :2]).all()
    assert np.isnan(found[3, 0, :, 2]).all()


def test_a_goal_is_where_the_wrist_is_later_as_a_robots_axes_have_it():
    rng = np.random.default_rng(0)
    px, cam = rng.uniform(0, 300, (5, 2, 21, 2)), rng.uniform(0.3, 1, (5, 2, 21, 3))
    visible = np.ones((5, 2), bool)
    visible[1, 0] = visible[4, 1] = False
    found = goals_of(px, cam, visible, (400, 300))
    right, down = (px[4, 0, 0] - px[0, 0, 0]) / [400, 300]
    np.testing.assert_allclose(found[0, 0], [right, cam[4, 0, 0, 2] - cam[0, 0, 0, 2], -down], rtol=1e-5)
    assert (found[4, 0] == 0).all()
    assert np.isnan(found[:, 1]).all(), "it was not seen at the end"
    np.testing.assert_array_equal(np.isfinite(found[:, 0]).all(1), visible[:, 0])
    assert places_of(["a.x", "a.y", "a.z", "a.q0", "b.x", "b.y", "goal.x", "goal.y", "goal.z"]) == [
        [0, 1, 2],
        [6, 7, 8],
    ]


def test_baselines_start_from_the_last_known_values():
    nan = torch.nan
    values = torch.tensor([[nan, 1.0, nan, 2.0, 4.0, nan, nan]])
    past = past_of(values)
    torch.testing.assert_close(past.zero_motion, torch.tensor([[nan, 1, 1, 2, 4, 4, 4]]), equal_nan=True)
    # known at steps 1 and 3: half a unit a step
    torch.testing.assert_close(past.constant_velocity, torch.tensor([[nan, 1, 1, 2.5, 6, 8, 10]]), equal_nan=True)


def test_errors_are_over_the_same_known_elements():
    nan = torch.nan
    true = torch.tensor([[nan, 2.0, 3.0, nan, 5.0]])
    sums = error_sums(torch.zeros(1, 4), true[:, 1:], past_of(true[:, :-1]), torch.full((1, 4), 10.0))
    assert {tuple(pair.shape) for pair in sums.values()} == {(2,)}
    assert {float(pair[1]) for pair in sums.values()} == {2.0}  # steps 3 and 5; step 1 has no earlier value
    assert sums["error"].tolist() == [9 + 25, 2]
    assert sums["zero_motion_l1"].tolist() == [1 + 2, 2]
    assert sums["constant_velocity_px"].tolist() == [10 * (1 + 0), 2]
    loss, counted = mean_square(torch.zeros(1, 4), true[:, 1:])
    assert counted.tolist() == [4 + 9 + 25, 3]
    assert loss == pytest.approx(38 / 3)
    assert mean_square(torch.zeros(1, 2), torch.full((1, 2), nan))[0] == 0


@pytest.mark.parametrize("residual", [False, True])
def test_a_prediction_depends_only_on_earlier_steps(residual):
    net = network(residual=residual, motion=residual, standardise=residual, goal_s=float(residual)).eval()
    one, other = batch(), batch()
    for name in ("keypoints", "images", "goals"):
        other[name] = other[name].clone()
        other[name][:, 4:] = 0
    with torch.no_grad():
        before, after = (net.predict_keypoints(b)[0] for b in (one, other))
    assert before.shape == (3, 5, 2, 21, 3)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4] - after[:, 4]).abs().max() > 1e-6
    other["text"] = ["wave"] * 3
    with torch.no_grad():
        assert (net.predict_keypoints(other)[0][:, 0] - after[:, 0]).abs().max() > 1e-7


def test_unknown_hands_and_images_are_masked():
    net = network(motion=True, residual=True, standardise=True, goal_s=1.0).eval()
    given = batch()
    out = net(given)
    assert torch.isfinite(out["prediction"]).all()
    out["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert out["sums"]["missing_hands"].tolist() == [2 * 3 + 2, 36]
    black = dict(given, images=given["images"].clone(), images_valid=given["images_valid"].clone())
    black["images_valid"][:, 2] = False
    one = net(black)["prediction"]
    black["images"][:, 2] = 77
    torch.testing.assert_close(net(black)["prediction"], one)
    nothing = dict(given, keypoints=torch.full_like(given["keypoints"], torch.nan))
    assert net(nothing)["loss"] == 0


def test_a_roll_out_does_not_depend_on_the_steps_that_it_predicts():
    net = network(residual=True, standardise=True, motion=True, goal_s=1.0).eval()
    one, other = batch(), batch()
    for name in ("keypoints", "images", "goals"):
        other[name] = other[name].clone()
        other[name][:, 3:] = 0
    with torch.no_grad():
        found, same = roll_out(net, one, 3), roll_out(net, other, 3)
        next_step = net.predict_keypoints(one)[0][:, 2]
    torch.testing.assert_close(found, same, equal_nan=True, rtol=0, atol=0)
    assert found[:, :2].isnan().all()
    torch.testing.assert_close(found[:, 2], one["keypoints"][:, 2], equal_nan=True)
    assert found[:, 3:].isfinite().all()
    torch.testing.assert_close(found[:, 3], next_step)
    one["keypoints"][:, :3, 0] = torch.nan
    assert roll_out(net, one, 3)[:, 3:, 0].isnan().all()  # a hand that is never visible


def test_mirroring_twice_changes_nothing():
    torch.manual_seed(0)
    given = batch()
    once = augmented(given, settings(mirror=1.0))
    assert once["text"] == ["cut", None, "right hand"]
    torch.testing.assert_close(
        once["keypoints"][:, :, 1, :, 0], 1 - 1 / 400 - given["keypoints"][:, :, 0, :, 0], equal_nan=True
    )
    twice = augmented(once, settings(mirror=1.0))
    for name in ("keypoints", "goals"):
        torch.testing.assert_close(twice[name], given[name], equal_nan=True)
    torch.testing.assert_close(once["goals"][:, :, 1, 0], -given["goals"][:, :, 0, 0], equal_nan=True)
    assert torch.equal(twice["images"], given["images"])
    assert twice["text"] == given["text"]
    moved = augmented(given, settings(jitter=0.1))["keypoints"] - given["keypoints"]
    assert moved[..., 2].nan_to_num().abs().max() == 0
    assert moved[1, :, 1, :, 0].std() < 1e-6


def test_a_small_network_learns_a_batch():
    net = network(residual=True, standardise=True, motion=True)
    given, losses = batch(), []
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        out = net(given)
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_map_is_the_papers_formula():
    torch.manual_seed(0)
    part = AnalogicalMap(settings(alpha=0.3), (4, 1))
    with torch.no_grad():
        part.m.copy_(torch.randn(2, 42))
    keypoints, own = torch.randn(2, 3, 42, 8), torch.randn(2, 2, 32)
    found = part(keypoints, own)
    assert found.shape == (2, 3, 5)
    mixed = 0.7 * part.lift(part.m @ keypoints[1, 2]) + 0.3 * own[1]
    expected = torch.cat([part.out[0](mixed[0]), part.out[1](mixed[1])])
    torch.testing.assert_close(found[1, 2], expected)
    assert len(keypoint_names()) == 42
    m = np.zeros((2, 42))
    m[0, 0], m[1, 25] = 5, 5
    assert map_text(m, 1) == "arm: left wrist 5.000; gripper: right thumb 4 5.000"
    (values, rows, columns), (moved, _, _) = map_figures(m).values()
    assert (rows[0], rows[3], columns[4], values[3, 4]) == ("arm, left hand", "gripper, right hand", "thumb 4", 5)
    np.testing.assert_allclose(moved, values - 1 / 42)


def test_frozen_weights_keep_their_bytes_and_the_transformer_is_trained():
    net = network(RobotNetwork, init="somewhere", replay=1.0, residual=True, standardise=True)
    frozen = {n: v.clone() for n, v in net.state_dict().items() if n.startswith(("keypoint_encoder", "keypoint_head"))}
    assert len(frozen) > 20
    before = {name: value.clone() for name, value in net.named_parameters()}
    assert not any(name.startswith(("keypoint_encoder", "keypoint_head")) for name in before)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for _ in range(2):
        out = net(robot_batch())
        out["loss"].backward()
        optimizer.step()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in frozen.items())
    moved = {name for name, value in net.named_parameters() if not torch.equal(before[name], value)}
    assert {"map.m", "backbone.gpt.blocks.0.qkv.weight", "hand_place", "state_head.outer.weight"} <= moved
    assert network(RobotNetwork, replay=1.0).keypoint_head.mlp.outer.weight.requires_grad  # without init


def test_robot_states_keep_their_order_and_baselines_are_in_deviations():
    net = network(RobotNetwork, retrieval=False, residual=True, standardise=True).eval()
    with torch.no_grad():
        net.state_head.outer.weight.zero_()
        net.state_head.outer.bias.copy_(torch.tensor([0.0, 1.0, 3.0, 4.0, 2.0]))  # arm 0, 1, 3, 4, then gripper 2
        given = robot_batch()
        out = net(given)
    step = (out["prediction"] - past_of(given["state"][:, :-1]).last)[1, 0] / 0.1
    torch.testing.assert_close(step, torch.arange(5.0), rtol=1e-4, atol=1e-4)
    true, last = given["state"][1:, 1:] / 0.5, given["state"][1:, :-1] / 0.5
    alone = net({name: value[1:] for name, value in given.items()})
    assert float(alone["sums"]["zero_motion"][0]) == pytest.approx(float((true - last).square().sum()), rel=1e-4)
    assert "analogy" not in out["sums"]


def test_stage_two_starts_from_stage_one_and_refuses_what_does_not_fit():
    first = network(motion=True, goal_s=1.0)
    weights = {name: value + 1 for name, value in first.state_dict().items()}
    second = network(RobotNetwork, init="x", motion=True, goal_s=1.0)
    kept = RECIPE.load_init(second, weights, settings(stage="finetune"))
    assert not [name for name in kept if name.startswith(("backbone.", "keypoint_", "goals."))]
    assert {"map.m", "state_place"} <= set(kept)
    for name, value in weights.items():
        assert torch.equal(second.state_dict()[name], value), name
    again = network(RobotNetwork, init="x", motion=True, goal_s=1.0)
    RECIPE.load_init(again, second.state_dict(), settings(stage="finetune"))
    with pytest.raises(ConfigError, match=r"backbone\.gpt\.blocks\.1.*is not in it"):
        RECIPE.load_init(second, {n: v for n, v in weights.items() if "blocks.1" not in n}, settings(stage="finetune"))
    with pytest.raises(ConfigError, match=r"there and .* here"):
        RECIPE.load_init(network(RobotNetwork, init="x"), weights, settings(stage="finetune"))  # without motion
    with pytest.raises(ConfigError, match="of stage finetune"):
        RECIPE.load_init(first, second.state_dict(), settings(stage="pretrain"))


def test_stage_two_goes_on_from_its_own_only_with_the_same_things():
    told = {"things": ["object0.x", "goal.x"], "things_mean": [0.0] * 2, "things_std": [1.0] * 2}
    net = network(RobotNetwork, FACTS | ROBOT | told, stage="finetune", things=True, retrieval=False)
    start = SimpleNamespace(facts=told)
    assert RECIPE.load_init(net, net.state_dict(), net.settings, start) == []
    with pytest.raises(ConfigError, match=r"`init` was told of goal\.x, object0\.x; the states here have object0\.x"):
        RECIPE.load_init(
            net, net.state_dict(), net.settings, SimpleNamespace(facts={"things": ["goal.x", "object0.x"]})
        )


def test_transformers_are_causal_and_latents_replace_patches():
    torch.manual_seed(0)
    gpt = Gpt(16, 2, 4).eval()
    tokens = torch.randn(2, 7, 16)
    changed = tokens.clone()
    changed[:, 4:] = torch.randn(2, 3, 16)
    torch.testing.assert_close(gpt(tokens)[:, :4], gpt(changed)[:, :4])
    assert (gpt(tokens)[:, 4:] - gpt(changed)[:, 4:]).abs().amax(-1).min() > 0.1
    resampler = PerceiverResampler(16, num_latents=3, depth=2, heads=2, head_dim=8)
    patches = torch.randn(2, 9, 16)
    found = resampler(patches)
    assert found.shape == (2, 3, 16)
    torch.testing.assert_close(resampler(patches.flip(1)), found, rtol=1e-4, atol=1e-5)  # a set of patches

"""ARM4R's network: what a prediction depends on, masked errors, and weights from one stage to the next."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from handloom.errors import ConfigError
from handloom.train.arm4r.network.batches import Targets
from handloom.train.arm4r.network.network import Arm4rNetwork
from handloom.train.arm4r.network.skip import DeltaSkip
from handloom.train.arm4r.network.turning import changed, spread
from handloom.train.arm4r.recipe import RECIPE
from handloom.train.arm4r.reporting import constant_velocity, one_step, roll_out
from handloom.train.arm4r.settings import Arm4rSettings

SMALL = {
    "model": "tiny",
    "layers": 1,
    "grid_points": 3,
    "context": 8,
    "image_encoder": "none",
    "text_encoder": "small",
    "num_cameras": 1,
    "augment": False,
}
POINTS = {"proprio_dim": 27, "action_dim": 27}
ROBOT = {"proprio_dim": 10, "action_dim": 10}


def network(facts=POINTS, seed: int = 0, **values) -> Arm4rNetwork:
    torch.manual_seed(seed)
    return Arm4rNetwork(Arm4rSettings(**(SMALL | values)), facts).eval()


def tracks(seed: int = 0, size: int = 2, context: int = 8, num: int = 9) -> dict:
    """Points that drift; some are hidden for a while, some have no depth, one clip has no points at its end."""
    rng = torch.Generator().manual_seed(seed)
    start = torch.rand(size, 1, num, 3, generator=rng)
    points = start + 0.01 * torch.randn(size, context + 1, num, 3, generator=rng).cumsum(1)
    points[torch.rand(points.shape[:3], generator=rng) < 0.2] = torch.nan
    points[..., 2][torch.rand(points.shape[:3], generator=rng) < 0.2] = torch.nan
    points[-1, -2:] = torch.nan
    return {"points": points, "text": ["open the jar", "pour"][:size], "clip_id": ["a", "b"][:size]}


def predicted(net: Arm4rNetwork, batch: dict) -> torch.Tensor:
    with torch.no_grad():
        return net.predict(batch, net.targets(batch))


@pytest.mark.parametrize("values", [{}, {"skip": "neighbours"}, {"image_encoder": "small", "image_size": 32}])
def test_nothing_later_and_not_the_own_action_is_seen(values):
    net = network(**values)
    torch.nn.init.normal_(net.action_decoder.mlp.outer.weight)
    if net.skip is not None:
        torch.nn.init.normal_(net.skip.gate.weight)
    batch = tracks()
    batch["points"] = torch.nan_to_num(batch["points"])
    if "image_encoder" in values:
        batch["images"] = torch.randint(0, 255, (2, 8, 1, 20, 24, 3), dtype=torch.uint8)
    before = predicted(net, batch)
    at = 4  # the place after step 4: step 4's own action, and the state of step 5
    changed = {name: value.clone() if torch.is_tensor(value) else value for name, value in batch.items()}
    changed["points"][:, at + 1 :] += 1.0
    if "images" in batch:
        changed["images"][:, at + 1 :] = 0
    apart = (predicted(net, changed) - before).abs().amax(dim=(0, 2, 3))
    assert apart[: at + 1].max() == 0
    assert apart[at + 1 :].min() > 0
    if "images" in batch:  # predictions depend on images
        changed = {**batch, "images": 255 - batch["images"]}
        assert (predicted(net, changed) - before).abs().max() > 0


def test_words_and_states_reach_every_step():
    net = network()
    torch.nn.init.normal_(net.action_decoder.mlp.outer.weight)
    batch = tracks()
    other = {**batch, "text": ["close the drawer", "pour"]}
    apart = (predicted(net, other) - predicted(net, batch)).abs().amax(dim=(2, 3))
    assert apart[0].min() > 0
    assert apart[1].max() == 0


def test_the_loss_is_the_mean_absolute_error_of_what_is_known():
    net, batch = network(), tracks()
    out = net(batch)
    prediction = out["prediction"].detach()
    total, count, unknown = 0.0, 0, 0
    for b in range(2):
        for t in range(8):
            for n in range(9):
                for c in range(3):
                    now, after = float(batch["points"][b, t, n, c]), float(batch["points"][b, t + 1, n, c])
                    unknown += math.isnan(now)
                    if not math.isnan(now + after):
                        total += abs(float(prediction[b, t, 0, 3 * n + c]) - (after - now))
                        count += 1
    assert out["loss"].item() == pytest.approx(total / count, rel=1e-5)
    assert out["sums"]["loss"].tolist() == pytest.approx([total, count], rel=1e-5)
    assert out["sums"]["unknown_inputs"].tolist() == [unknown, 2 * 8 * 27]


def test_unknown_targets_have_no_influence_and_unknown_inputs_are_one_value():
    """NaN is masked: it gives no gradient and no NaN."""
    net, batch = network(standardise=True), tracks()
    net.train()
    out = net(batch)
    out["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    nothing = {**batch, "points": torch.full_like(batch["points"], torch.nan)}
    out = net(nothing)
    assert out["loss"].item() == 0
    assert out["sums"]["loss"].tolist() == [0, 0]
    assert out["sums"]["l1"].tolist() == [0, 0]


def test_baselines_are_measured_on_the_same_elements():
    net, batch = network(), tracks()
    steps = 0.01 * torch.arange(9.0)[None, :, None, None]
    batch["points"] = torch.where(batch["points"].isfinite(), steps.expand_as(batch["points"]), torch.nan)
    batch["moves"] = torch.zeros(2, 8, 9, dtype=torch.bool)
    batch["moves"][:, :, 2] = True
    sums = {name: pair.tolist() for name, pair in net(batch)["sums"].items()}
    for part in ("", "_uv", "_z", "_moving"):
        counts = {sums[f"{name}{part}"][1] for name in ("l1", "zero_motion", "constant_velocity")}
        assert len(counts) == 1, part
        assert counts.pop() > 0
        assert sums[f"constant_velocity{part}"][0] == pytest.approx(0, abs=1e-5)
        assert sums[f"zero_motion{part}"][0] / sums[f"zero_motion{part}"][1] == pytest.approx(0.01, rel=1e-4)
    assert sums["l1_uv"][1] + sums["l1_z"][1] == sums["l1"][1] < sums["loss"][1]


def test_the_skip_path_mixes_the_last_deltas_and_begins_as_constant_velocity():
    skip = DeltaSkip(4, 3, neighbours=False)
    action = torch.randn(2, 5, 6)
    place = torch.randn(2, 5, 6)
    tokens = torch.randn(2, 5, 4)
    assert torch.allclose(skip(tokens, place, action)[:, 1:], action[:, :-1])
    assert (skip(tokens, place, action)[:, 0] == 0).all()
    with torch.no_grad():
        skip.base[0] = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.0, 0.1], [0.0, 0.0, 0.0]])
    out = skip(tokens, place, action)
    assert torch.allclose(out[:, 3, 4], 2 * action[:, 2, 4])
    assert torch.allclose(out[:, 3, 5], 3 * action[:, 2, 5] + action[:, 1, 5])
    action[:, 2] = torch.nan
    assert torch.isfinite(skip(tokens, place, action)).all()


def test_neighbours_are_those_nearby_whose_motion_is_known():
    skip = DeltaSkip(4, 1, neighbours=True)
    with torch.no_grad():
        skip.base.zero_()
        skip.base[1] = 0.1  # the nearest reach alone
    place = torch.tensor([0.0, 0, 1, 0.05, 0, 2, 5, 0, 1]).expand(1, 2, 9)
    action = torch.tensor([1.0, 1, 1, 3, 3, torch.nan, 50, 50, 50]).expand(1, 2, 9)
    out = skip(torch.zeros(1, 2, 4), place, action)[0, 1].unflatten(0, (3, 3))
    near = math.exp(-(0.05**2) / (2 * 0.1**2))
    assert out[0, 0].item() == pytest.approx((1 + 3 * near) / (1 + near))
    assert out[0, 2].item() == pytest.approx(1.0)
    assert out[2].tolist() == pytest.approx([50, 50, 50])
    with torch.no_grad():
        skip.base.zero_()
        skip.base[3] = 0.1  # all points alike
    out = skip(torch.zeros(1, 2, 4), place, action)[0, 1].unflatten(0, (3, 3))
    assert out[:, 0].tolist() == pytest.approx([18, 18, 18])
    assert out[:, 2].tolist() == pytest.approx([25.5, 25.5, 25.5])


def test_standardising_changes_the_networks_units_and_not_the_numbers_units():
    facts = POINTS | {"proprio_mean": [0.5] * 27, "proprio_std": [0.3] * 27, "action_std": [0.01] * 27}
    plain, scaled = network(), network(facts, standardise=True)
    assert scaled(tracks())["sums"]["zero_motion"].tolist() == plain(tracks())["sums"]["zero_motion"].tolist()
    assert torch.allclose(predicted(scaled, tracks()).abs().mean(), torch.tensor(0.01), atol=0.01)


def test_hidden_points_are_hidden_from_the_network_and_stay_targets():
    net, batch = network(point_dropout=0.9), tracks()
    seen = net._augmented(net.targets(batch))[0]
    assert torch.equal(seen.isnan(), batch["points"][:, :-1].flatten(2).isnan())
    net.train()
    torch.manual_seed(1)
    proprio, action = net._augmented(net.targets(batch))
    hidden = proprio.unflatten(-1, (9, 3)).isnan().all(dim=(1, 3))
    assert 0 < hidden.sum() < 18
    assert action.unflatten(-1, (9, 3)).isnan().all(dim=(1, 3))[hidden].all()
    assert net(batch)["sums"]["loss"][1] == net.eval()(batch)["sums"]["loss"][1]


def test_roll_outs_begin_with_the_truth_and_go_on_from_themselves():
    net, batch = network(skip="deltas"), tracks()
    batch["points"] = torch.nan_to_num(batch["points"])
    torch.nn.init.normal_(net.action_decoder.mlp.outer.weight, std=0.01)
    free = roll_out(net, batch, 5)
    assert torch.equal(free[:, :5], batch["points"][:, :5])
    later = {**batch, "points": batch["points"].clone()}
    later["points"][:, 5:] = 7.0
    assert torch.equal(roll_out(net, later, 5), free)
    assert torch.allclose(one_step(net, batch)[:, 5], free[:, 5], atol=1e-6)
    assert torch.allclose(one_step(net, {**batch, "points": free})[:, 6:], free[:, 6:], atol=1e-5)
    hidden = {**batch, "points": batch["points"].clone()}
    hidden["points"][:, 4, 3] = torch.nan
    assert roll_out(net, hidden, 5)[:, 5:, 3].isnan().all()
    line = torch.arange(9.0)[None, :, None, None].expand(1, 9, 2, 3)
    assert torch.equal(constant_velocity(line, 4), line)


def episodes(size: int = 2, dim: int = 10, ahead: int = 16) -> dict:
    rng = torch.Generator().manual_seed(0)
    state = torch.randn(size, 8, dim, generator=rng)
    target = 0.1 * torch.randn(size, 8, ahead, dim, generator=rng)
    target[-1, :, 3:] = torch.nan
    return {"state": state, "target": target, "text": ["stack", "stack"][:size]}


def test_control_predicts_sixteen_steps_of_ten_numbers():
    net = network(ROBOT, stage="control")
    out = net(episodes())
    assert out["prediction"].shape == (2, 8, 16, 10)
    assert out["sums"]["loss"][1] == 8 * 10 * (16 + 3)
    noisy = net.train()._augmented(net.targets(episodes()))[0] - episodes()["state"]
    assert 0.003 < noisy.std() < 0.008


TOLD = {"proprio_dim": 16, "action_dim": 10, "things_told": [f"{a}.{b}" for a in ("object0", "goal") for b in "xyz"]}


def told_episodes() -> dict:
    batch = episodes()
    rng = torch.Generator().manual_seed(4)
    places = torch.randn(*batch["state"].shape[:2], 6, generator=rng)
    places[0, :, :3] = torch.nan
    return batch | {"state": torch.cat([batch["state"], places], dim=-1)}


@pytest.mark.parametrize(("how", "most"), [(True, 1.0), ("all", 1.0), (True, 3.0), (False, 3.0)])
def test_changed_samples_are_changed_as_a_whole(how, most):
    """Lengths keep their ratios, the gripper stays, and so does where a hand goes as seen on its way to the goal."""
    net = network(TOLD, stage="control", things="places")
    before = net.targets(told_episodes())
    after = changed(before, net.things, how, most)
    factor = (after.proprio[:, 0, 13:].norm(dim=-1) / before.proprio[:, 0, 13:].norm(dim=-1)).view(-1, 1, 1)
    assert (factor <= most + 1e-5).all()
    assert (factor >= 1 / most - 1e-5).all()
    assert torch.allclose(factor, torch.ones(()), atol=1e-5) == (most == 1.0)
    for name in ("proprio", "action"):
        old, new = getattr(before, name), getattr(after, name)
        assert torch.equal(old.isnan(), new.isnan()), "what is unknown stays unknown"
        torch.testing.assert_close(new[..., 9], old[..., 9], equal_nan=True)
        torch.testing.assert_close(new[..., :3].norm(dim=-1), (factor * old[..., :3]).norm(dim=-1))
        torch.testing.assert_close(new[..., 3:6].norm(dim=-1), old[..., 3:6].norm(dim=-1))
    along = [(t.proprio[:, :, None, 13:16] * t.delta[..., :3]).sum(-1) for t in (before, after)]
    torch.testing.assert_close(along[1], factor**2 * along[0])
    if how is True:
        torch.testing.assert_close(after.proprio[..., [15]], factor * before.proprio[..., [15]])
    assert torch.allclose(after.proprio[..., 13:] / factor, before.proprio[..., 13:]) != bool(how)


@pytest.mark.parametrize("how", [True, "all"])
def test_scales_are_those_of_changed_samples(how):
    rng = torch.Generator().manual_seed(7)
    values = torch.randn(40, 1, 16, generator=rng) * torch.arange(1, 17) + 1
    found = np.concatenate(spread(values.numpy(), TOLD["things_told"], how, 3.0)).reshape(-1, 16)
    many = SimpleNamespace(proprio=values.repeat(500, 1, 1))
    targets = Targets(many.proprio, *[many.proprio[..., :10]] * 4, {}, 0, torch.zeros(()))
    drawn = changed(targets, TOLD["things_told"], how, 3.0).proprio.numpy().reshape(-1, 16)
    np.testing.assert_allclose(found.mean(0)[[0, 1, 10, 11]], 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), drawn.std(0), rtol=0.06)


def test_without_the_hands_pose_places_and_rotations_tell_nothing():
    net = network(TOLD, stage="control", things="places", hand_pose=False)
    torch.nn.init.normal_(net.action_decoder.mlp.outer.weight)
    batch = told_episodes()
    elsewhere = batch | {"state": torch.cat([batch["state"][..., :9] + 1, batch["state"][..., 9:]], dim=-1)}
    assert torch.equal(predicted(net, batch), predicted(net, elsewhere))
    other = batch | {"state": batch["state"] + 0.1 * (torch.arange(16) == 14)}
    assert not torch.equal(predicted(net, batch), predicted(net, other))


def test_a_balanced_loss_counts_deviations():
    facts = ROBOT | {"proprio_mean": [0.0] * 10, "proprio_std": [1.0] * 10, "action_std": [1.0] * 10}
    facts |= {"target_std": torch.rand(160, generator=torch.Generator().manual_seed(2)).add(0.1).tolist()}
    net = network(facts, stage="control", standardise=True, balanced_loss=True)
    out, targets = net(episodes()), net.targets(episodes())
    wrong = ((out["prediction"] - targets.delta).abs() / torch.tensor(facts["target_std"]).view(16, 10))[targets.known]
    torch.testing.assert_close(out["loss"], wrong.mean())
    assert out["sums"]["loss"][0] == network(facts, stage="control", standardise=True)(episodes())["sums"]["loss"][0]
    with pytest.raises(ValidationError, match="balanced_loss is true and standardise is false"):
        Arm4rSettings(balanced_loss=True)
    with pytest.raises(ValidationError, match="turned is true and things is true, expected things = 'places'"):
        Arm4rSettings(turned=True, things=True)


def test_settings_that_leave_the_network_without_places_are_refused():
    with pytest.raises(ValidationError, match=r"things_hidden is \['object0'\] and things is false"):
        Arm4rSettings(stage="control", things_hidden=("object0",))
    with pytest.raises(ValidationError, match="hand_pose is false: of each state the gripper alone"):
        Arm4rSettings(stage="control", image_encoder="none", hand_pose=False)


OF_NUMBERS = {"proprio_encoder", "action_encoder", "action_decoder"}


@pytest.mark.parametrize(
    ("values", "new"), [({}, OF_NUMBERS | {"pools"}), ({"image_encoder": "small", "image_size": 32}, OF_NUMBERS)]
)
def test_control_takes_over_all_but_what_knows_of_points(values, new):
    """With images the pools have learned to see."""
    source, net = network(seed=1, **values), network(ROBOT, stage="control", **values)
    own = {name: value.clone() for name, value in net.state_dict().items()}
    kept = RECIPE.load_init(net, source.state_dict(), net.settings)
    assert {name.split(".")[0] for name in kept} == new
    for name, value in net.state_dict().items():
        assert torch.equal(value, own[name] if name in kept else source.state_dict()[name]), name
    with_skip = network(seed=1, skip="deltas", **values)
    assert RECIPE.load_init(net, with_skip.state_dict(), net.settings) == kept


@pytest.mark.parametrize("init", [False, True])
def test_tokens_are_as_long_as_asked_also_after_points(init):
    """Whatever the transformer, which is not another one; nor are the weights that are drawn after it."""
    net, plain = (network(ROBOT, stage="control", token_length=length) for length in (40.0, 0.0))
    if init:
        RECIPE.load_init(net, network(seed=1).state_dict(), net.settings)
    seen = []
    net.transformer.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    rng = torch.Generator().manual_seed(5)
    proprio, action = (torch.randn(64, 8, 10, generator=rng) for _ in range(2))
    with torch.no_grad():
        net.predict({"text": ["pour"] * 64}, SimpleNamespace(proprio=proprio, action=action))
    lengths = seen[0].norm(dim=-1).unflatten(1, (-1, 3)).mean((0, 1))
    torch.testing.assert_close(lengths[1:], torch.full((2,), 40.0), rtol=0.05, atol=0)
    scaled = {"pools.0.out.weight", "pools.0.out.bias", "action_encoder.inner.outer.weight"}
    scaled |= {"action_encoder.inner.outer.bias"}
    other = {name for name, value in net.state_dict().items() if not torch.equal(value, plain.state_dict()[name])}
    assert scaled <= other
    assert init or scaled == other
    for values in ({}, {"stage": "control", "image_encoder": "small"}):
        with pytest.raises(ValidationError, match="token_length is 40 with stage"):
            Arm4rSettings(token_length=40.0, **values)


def test_stage_two_takes_over_everything_and_control_goes_on_from_control():
    net = network(stage="robot_points")
    assert RECIPE.load_init(net, network(seed=1).state_dict(), net.settings) == []
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), network(seed=1).parameters(), strict=True))
    control = network(ROBOT, stage="control")
    assert RECIPE.load_init(control, network(ROBOT, seed=1, stage="control").state_dict(), control.settings) == []


def facts_of(net: Arm4rNetwork, facts: dict) -> SimpleNamespace:
    return SimpleNamespace(settings=net.settings.model_dump(mode="json"), facts=facts)


def test_weights_of_numbers_that_mean_other_things_are_refused():
    told = {"stage": "control", "things": "places"}
    names = TOLD["things_told"]
    net, before = network(TOLD, **told), network(TOLD, seed=1, **told)
    weights, own = before.state_dict(), {name: value.clone() for name, value in net.state_dict().items()}
    for given in ([*names[3:], *names[:3]], ["object1" + one[7:] for one in names[:3]] + names[3:]):
        start = facts_of(before, TOLD | {"things_told": given})
        with pytest.raises(ConfigError, match=f"`init` was told of {given[0]}, .*here have object0.x"):
            RECIPE.load_init(net, weights, net.settings, start)
    for values, words in (
        ({"hand_pose": False}, "hand_pose is False there and True here"),
        ({"things_hidden": ("object0",)}, r"things_hidden is \['object0'\] there and \[\] here"),
    ):
        start = facts_of(network(TOLD, **told, **values), TOLD)
        with pytest.raises(ConfigError, match=words):
            RECIPE.load_init(net, weights, net.settings, start)
    assert all(torch.equal(value, own[name]) for name, value in net.state_dict().items())
    assert RECIPE.load_init(net, weights, net.settings, facts_of(before, TOLD)) == []
    fewer = network(ROBOT, seed=1, stage="control")  # another state: what reads it is new, and may mean other things
    kept = RECIPE.load_init(net, fewer.state_dict(), net.settings, facts_of(fewer, ROBOT))
    assert "proprio_encoder" in {name.split(".")[0] for name in kept}


def test_a_state_as_wide_as_the_points_is_none_of_them():
    points = network(ROBOT, seed=1, num_pred_steps=1)
    net = network(ROBOT, stage="control", num_pred_steps=1)
    kept = RECIPE.load_init(net, points.state_dict(), net.settings, facts_of(points, {}))
    assert {name.split(".")[0] for name in kept} == OF_NUMBERS | {"pools"}


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ({"model": "vit-s"}, {}, r"is \(384.* there and \(192.* here"),
        ({"layers": 2}, {}, r"transformer\.blocks\.1\..* has no place here"),
        ({"skip": "deltas"}, {}, r"skip\..* has no place here"),
        ({}, {"skip": "deltas"}, r"skip\..* is not in it"),
        (
            {"facts": POINTS | {"proprio_dim": 48, "action_dim": 48}},
            {},
            r"decoder.*\(48,\) there and \(27,\) here",
        ),
        ({"facts": ROBOT, "stage": "control"}, {}, "action_decoder"),
        ({"model": "vit-s"}, {"facts": ROBOT, "stage": "control"}, r"is \(384"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_taken(source, target, words):
    net = network(**target)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConfigError, match=words) as caught:
        RECIPE.load_init(net, network(seed=1, **source).state_dict(), net.settings)
    assert "grid_points" in caught.value.hint
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_variants_are_what_the_report_compares():
    fresh = Arm4rSettings(**SMALL)
    assert RECIPE.variants(fresh) == {"scratch": fresh}
    started = Arm4rSettings(**SMALL, init="there")
    assert {name: s.init for name, s in RECIPE.variants(started).items()} == {"pre-trained": "there", "scratch": ""}
    skipping = Arm4rSettings(**SMALL, skip="neighbours")
    assert [s.skip for s in RECIPE.variants(skipping).values()] == ["neighbours", "none"]


def test_settings_that_contradict_themselves_are_refused():
    with pytest.raises(ValidationError, match="num_pred_steps is 4, expected 1"):
        Arm4rSettings(num_pred_steps=4)
    with pytest.raises(ValidationError, match="num_cameras is 5, expected a divisor of 768"):
        Arm4rSettings(num_cameras=5)
    assert Arm4rSettings(stage="control").predicted_steps() == 16

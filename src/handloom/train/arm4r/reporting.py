"""The recipe's part of a report of `arm4r`: examples, roll-outs, errors of control and notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handloom.geometry.tracks.arm4r_scale import PER_PX
from handloom.schemas.training import Example
from handloom.train.arm4r.data.points import PointData
from handloom.train.arm4r.data.shown import frame_pixels
from handloom.train.arm4r.network.network import Arm4rNetwork
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.table_checks import evenly, slower_note
from handloom.train.recipe import RecipeData

MEASURED_WINDOWS = 64
COMPARED = ("network", "zero motion", "constant velocity")


@torch.no_grad()
def roll_out(network: Arm4rNetwork, batch: Mapping[str, Any], given: int) -> Tensor:
    """(B, T + 1, N, 3) places, stages 1 and 2: the first `given` steps are true, each later one is predicted from the
    predictions before it. Images of later steps are the last given one.

    A point that is not known at the last given step stays NaN.
    """
    network.eval()
    points = batch["points"].float().clone()
    points[:, given:] = torch.nan
    batch = {**batch, "points": points}
    if "images" in batch:
        images = batch["images"].clone()
        images[:, given:] = images[:, given - 1 : given]
        batch["images"] = images
    for step in range(given - 1, points.shape[1] - 1):
        change = network.predict(batch, network.targets(batch))[:, step, 0]
        points[:, step + 1] = points[:, step] + change.float().unflatten(-1, (-1, 3))
    return points


@torch.no_grad()
def one_step(network: Arm4rNetwork, batch: Mapping[str, Any]) -> Tensor:
    """(B, T + 1, N, 3) places: each step predicted from the true steps before it; the first is the true one."""
    network.eval()
    points = batch["points"].float()
    change = network.predict(batch, network.targets(batch))[:, :, 0].float().unflatten(-1, (-1, 3))
    return torch.cat([points[:, :1], points[:, :-1] + change], dim=1)


def constant_velocity(points: Tensor, given: int) -> Tensor:
    """(B, T + 1, N, 3) places: the first `given` steps, then constant velocity from the last two of them."""
    last, before = points[:, given - 1], points[:, given - 2]
    ahead = torch.arange(1, points.shape[1] - given + 1, device=points.device)[:, None, None]
    return torch.cat([points[:, :given], last[:, None] + ahead * (last - before)[:, None]], dim=1)


def notes_of(settings: Arm4rSettings, facts: Mapping[str, Any]) -> list[str]:
    """One sentence for each choice of the run, the paper's choices first."""
    width, layers, heads = settings.transformer()
    notes = [
        f"The paper's: three tokens a step (instruction, state, action), {settings.context} steps, a causal "
        f"transformer ({width} wide, {layers} layers, {heads} heads), read at the state token, masked L1 on deltas to "
        "the current state.",
        *_inputs(settings),
    ]
    notes += _control(settings, facts) if settings.stage == "control" else _points(settings, facts)
    if settings.standardise:
        notes.append(
            "Ours: inputs and outputs are scaled by the training windows' mean and deviation; losses and errors are in "
            "the paper's units."
        )
    return notes


def _inputs(settings: Arm4rSettings) -> list[str]:
    images = {
        "hub": f"The images' encoder is {settings.image_model}, frozen (the paper's: CrossMAE ViT-B/16).",
        "small": "Ours: a small image encoder, trained with the model, replaces the frozen CrossMAE ViT.",
        "none": "Ours: the network uses no images.",
    }
    words = {
        "hub": f"The text encoder is {settings.text_model}, frozen (the paper's: OpenCLIP ViT-B-32).",
        "small": "Ours: a small text encoder, trained with the model, replaces CLIP's.",
    }
    return [images[settings.image_encoder], words[settings.text_encoder]]


def _points(settings: Arm4rSettings, facts: Mapping[str, Any]) -> list[str]:
    rate = "the table's own rate" if settings.rate_hz is None else f"{settings.rate_hz:g} Hz"
    notes = [f"Steps come at {rate}; ARM4R's come at 20 Hz."]
    if settings.points == "selected":
        notes.append(f"Ours: {settings.num_selected} points on hands and on things that move near them, not the grid.")
    elif settings.grid_points != 36:
        side = settings.grid_points
        notes.append(f"Ours: a regular sub-grid of {side} x {side} points, not 36 x 36.")
    if settings.frame == "world":
        notes.append(
            "Ours: points are in metres in the camera frame of the window's first step, which removes the camera's "
            "motion; these numbers do not compare with those of the camera frame."
        )
    if settings.skip != "none":
        around = " and of the mean deltas around it" if settings.skip == "neighbours" else ""
        notes.append(
            f"Ours: a learned mixture of every point's last {settings.skip_steps} deltas{around} is added to what the "
            "network predicts."
        )
    if settings.point_dropout:
        notes.append(
            f"Ours: while training, up to {settings.point_dropout:.0%} of a sample's points are hidden from the "
            "network."
        )
    counts = facts.get("counts", {})
    left_out = [
        f"{number} clips {name.replace('_', ' ')}"
        for name, number in counts.items()
        if name.startswith("without") and number
    ]
    if left_out:
        notes.append(f"Left out: {', '.join(left_out)}.")
    notes += slower_note(counts)
    notes.append(
        "Unknown places (hidden points, points without depth) are masked number by number and enter the network as 0; "
        "`unknown_inputs` is their share. The paper's tracker gives a guess for them instead."
    )
    return notes


def _told(settings: Arm4rSettings, facts: Mapping[str, Any]) -> list[str]:
    """What tells the task, where words alone do not."""
    if settings.command == "none":
        return ["Ours: nothing tells the network its task."]
    if not settings.is_told_by_motion():
        return []
    command = facts["command"]
    clips = {split: sum(len(one[split]) for one in command["clips"].values()) for split in ("train", "held_out")}
    made = "their hands" if command["stage"] == "motion" else "their images alone"
    beside = "beside the words" if settings.command == "both" else "not words"
    return [
        f"Ours: clips of people tell the task, {beside}: RoboMirror's latents of {made}, {clips['train']} clips in "
        f"training and {clips['held_out']} others in evaluation."
    ]


def _control(settings: Arm4rSettings, facts: Mapping[str, Any]) -> list[str]:
    if facts.get("has_pose"):
        turned = {"XYZ": "about moving axes", "xyz": "about fixed axes"}[facts["euler"]]
        form = f"State: xyz, two columns of the rotation, gripper (the paper's ten); Euler angles turn {turned}."
    else:
        form = (
            f"Ours: these robots' states hold no pose, so that their own {facts['proprio_dim']} numbers replace the "
            "paper's ten."
        )
    target = "the recorded actions" if facts.get("target") == "action" else "the states that follow"
    return [
        form,
        *_told(settings, facts),
        f"Targets are {target}, {settings.predicted_steps()} steps ahead, each minus the state of the step that "
        "predicts; whether gripper and rotation are deltas in the paper, too, is not known.",
        f"Whole episodes are held out. States have noise of {settings.proprio_noise:g} while training.",
    ]


def report_of(network: Arm4rNetwork, data: RecipeData, settings: Arm4rSettings) -> dict[str, Any]:
    """`examples`, `notes`, `numbers` and, in stage 3, `figures`; see `Recipe.report`."""
    out: dict[str, Any] = {"notes": notes_of(settings, data.facts), "examples": [], "numbers": {}, "figures": {}}
    if not len(data.held_out):
        return out
    if isinstance(data, PointData):
        out["numbers"] = roll_out_numbers(network, data, settings)
        out["examples"] = examples_of(network, data, settings)
    else:
        out["figures"] = {"held-out error by number": control_errors(network, data, settings)}
    return out


def roll_out_numbers(network: Arm4rNetwork, data: RecipeData, settings: Arm4rSettings) -> dict[str, float]:
    """Mean distance from the true place after the last step of free-running roll-outs over held-out windows, in pixels
    at 912 x 512 (`frame` camera) or metres (world): network, zero motion and constant velocity over the same points."""
    given = settings.context // 2
    unit = "m" if settings.frame == "world" else "px"
    sums, count = dict.fromkeys(COMPARED, 0.0), 0
    for batch in measured_batches(network, data):
        true = batch["points"].float()
        still = true[:, given - 1 : given].expand_as(true)
        guesses = (roll_out(network, batch, given), still, constant_velocity(true, given))
        distances = [_distance(guess[:, -1], true[:, -1], unit) for guess in guesses]
        known = torch.stack(distances).isfinite().all(0)
        count += int(known.sum())
        sums = {n: sums[n] + float(distance[known].sum()) for n, distance in zip(COMPARED, distances, strict=True)}
    steps = settings.context + 1 - given
    return {f"roll-out, {steps} steps, {name} ({unit})": sums[name] / count for name in COMPARED if count}


def examples_of(network: Arm4rNetwork, data: PointData, settings: Arm4rSettings) -> list[Example]:
    """Roll-outs over held-out windows, evenly chosen."""
    given = settings.context // 2
    out: list[Example] = []
    if data.shown is None:
        return out
    for index in evenly(len(data.shown), settings.num_examples):
        sample = data.shown[index]
        batch = collated([sample], network)
        free = roll_out(network, batch, given)[0].cpu().numpy()
        forced = one_step(network, batch)[0].cpu().numpy()
        true = np.asarray(sample["points"], np.float32)
        px = {name: frame_pixels(p, sample, settings.frame) for name, p in (("true", true), ("free", free))}
        size_px = _median_distance(frame_pixels(forced, sample, settings.frame), px["true"])
        px["free"][: given - 1] = np.nan
        seen = "" if sample["has_frame"] else "; no image is stored"
        title = (
            f"free-running: steps 1 to {given} are given, the {len(true) - given} after them are predicted from "
            f"predictions; teacher-forced one-step error {size_px:.2f} px (median){seen}"
        )
        out.append(Example(sample["clip_id"], float(sample["now_s"]), sample["frame"], px["true"], px["free"], title))
    return out


@torch.no_grad()
def control_errors(
    network: Arm4rNetwork, data: RecipeData, settings: Arm4rSettings
) -> tuple[np.ndarray, Sequence[str], Sequence[str]]:
    """(D, 3) mean absolute error of the first predicted step for every number of the state, in its own unit, with the
    labels of its rows and columns; NaN where no target is known."""
    network.eval()
    total, count = np.zeros((len(COMPARED), data.facts["action_dim"])), np.zeros(data.facts["action_dim"])
    for batch in measured_batches(network, data):
        targets = network.targets(batch)
        known = (targets.known & targets.velocity.isfinite())[:, :, 0]
        guesses = (network.predict(batch, targets), torch.zeros_like(targets.delta), targets.velocity)
        for row, guess in enumerate(guesses):
            wrong = torch.where(known, (guess - targets.delta).abs()[:, :, 0].float(), 0.0)
            total[row] += wrong.sum((0, 1)).cpu().numpy()
        count += known.sum((0, 1)).cpu().numpy()
    names = data.facts["state_names"] or [f"state {i}" for i in range(data.facts["action_dim"])]
    with np.errstate(invalid="ignore"):
        return (total / np.where(count > 0, count, np.nan)).T, list(names), list(COMPARED)


def measured_batches(network: Arm4rNetwork, data: RecipeData) -> Iterator[dict[str, Any]]:
    """The held-out windows that the report measures, in batches of 16."""
    picked = evenly(len(data.held_out), MEASURED_WINDOWS)
    for start in range(0, len(picked), 16):
        yield collated([data.held_out[index] for index in picked[start : start + 16]], network)


def collated(samples: Sequence[Mapping[str, Any]], network: Arm4rNetwork) -> dict[str, Any]:
    """A batch of samples on the network's device: arrays stacked, the rest as lists."""
    device = next(network.parameters()).device
    out: dict[str, Any] = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        is_array = isinstance(values[0], np.ndarray) and name != "frame"
        out[name] = torch.from_numpy(np.stack(values)).to(device) if is_array else values
    return out


def _distance(found: Tensor, true: Tensor, unit: str) -> Tensor:
    """(B, N) distances in pixels of 912 x 512 or in metres."""
    if unit == "m":
        return (found - true).norm(dim=-1)
    return (found - true)[..., :2].norm(dim=-1) / PER_PX


def _median_distance(found: np.ndarray, true: np.ndarray) -> float:
    """In pixels, over all steps but the first; NaN where nothing is known."""
    distance = np.linalg.norm(found - true, axis=-1)[1:]
    known = np.isfinite(distance)
    return float(np.median(distance[known])) if known.any() else float("nan")

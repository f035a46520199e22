"""The sentences of the report that say what is the paper's and what is ours in this run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.rates import slower_note


def notes_of(settings: Arm4rSettings, facts: Mapping[str, Any]) -> list[str]:
    """One sentence for each choice, the paper's first."""
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
    pictures = {
        "hub": f"The pictures' encoder is {settings.image_model}, frozen (the paper's: CrossMAE ViT-B/16).",
        "small": "Ours: a small picture encoder, trained with the model, takes the place of the frozen CrossMAE ViT.",
        "none": "Ours: the network sees no pictures.",
    }
    words = {
        "hub": f"The text encoder is {settings.text_model}, frozen (the paper's: OpenCLIP ViT-B-32).",
        "small": "Ours: a small text encoder, trained with the model, takes the place of CLIP's.",
    }
    return [pictures[settings.image_encoder], words[settings.text_encoder]]


def _points(settings: Arm4rSettings, facts: Mapping[str, Any]) -> list[str]:
    rate = "the table's own rate" if settings.rate_hz is None else f"{settings.rate_hz:g} Hz"
    notes = [f"Steps come at {rate}; ARM4R's own at 20 Hz."]
    if settings.points == "selected":
        notes.append(f"Ours: {settings.num_selected} points on hands and on what moves near them, not the grid.")
    elif settings.grid_points != 36:
        side = settings.grid_points
        notes.append(f"Ours: a regular sub-grid of {side} x {side} points, not 36 x 36.")
    if settings.frame == "world":
        notes.append(
            "Ours: points are in metres in the camera frame of the window's first step, so that the camera's own "
            "motion is taken out; these numbers do not compare with those of the camera frame."
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
        "`unknown_inputs` is their share. The paper's tracker guesses on instead."
    )
    return notes


def _control(settings: Arm4rSettings, facts: Mapping[str, Any]) -> list[str]:
    if facts.get("has_pose"):
        turned = {"XYZ": "about moving axes", "xyz": "about fixed axes"}[facts["euler"]]
        form = f"State: xyz, two columns of the rotation, gripper (the paper's ten); Euler angles turn {turned}."
    else:
        form = (
            f"Ours: these robots' states hold no pose, so that their own {facts['proprio_dim']} numbers take the place "
            "of the paper's ten."
        )
    target = "the recorded actions" if facts.get("target") == "action" else "the states that follow"
    return [
        form,
        f"Targets are {target}, {settings.predicted_steps()} steps ahead, each minus the state of the step that "
        "predicts; that gripper and rotation are deltas too is UNVERIFIED in the paper.",
        f"Held out are whole episodes. Noise of {settings.proprio_noise:g} on the states while training.",
    ]

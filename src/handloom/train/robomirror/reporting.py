"""The recipe's part of a report of `robomirror`: examples, numbers beside simple baselines, and notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handloom.schemas.training import Example
from handloom.train.parts.table_checks import evenly, slower_note
from handloom.train.recipe import RecipeData
from handloom.train.robomirror.data.motion import keypoints_of
from handloom.train.robomirror.data.shown import hands_px, shown_windows
from handloom.train.robomirror.network.errors import motion_sums
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.settings import RobomirrorSettings
from handloom.train.step import to_device
from handloom.windows.api import Windows
from handloom.windows.loading.collate import collate

BATCH = 64


def report_of(network: MotionVae, data: RecipeData, settings: RobomirrorSettings) -> dict[str, Any]:
    """`examples`, `notes`, `numbers`; see `Recipe.report`."""
    out: dict[str, Any] = {"notes": notes_of(data.facts, settings), "examples": [], "numbers": {}}
    if len(data.held_out):
        out["numbers"] = component_numbers(network, data, settings)
        out["examples"] = examples_of(network, data, settings)
    return out


def component_numbers(network: MotionVae, data: RecipeData, settings: RobomirrorSettings) -> dict[str, float]:
    """Errors (mm) of as many principal components of one frame as the latent has numbers, found on training windows."""
    basis = torch.tensor(data.facts["motion_components"])[: settings.latent]
    found: dict[str, Tensor] = {}
    for batch in batches_of(data.held_out):
        motion = batch["motion"]
        values = torch.nan_to_num((motion - network.mean.cpu()) / network.scale.cpu())
        rebuilt = network.mean.cpu() + network.scale.cpu() * (values @ basis.T @ basis)
        for name, pair in motion_sums(rebuilt, motion).items():
            found[name] = found.get(name, torch.zeros(2, dtype=torch.float64)) + pair
    return {
        f"{name}, {settings.latent} principal components": float(found[name][0] / found[name][1])
        for name in ("error", "error_wrist")
        if found[name][1]
    }


def batches_of(windows: Windows) -> Iterator[dict[str, Any]]:
    """All windows in order, on the CPU."""
    for start in range(0, len(windows), BATCH):
        yield collate([windows[index] for index in range(start, min(start + BATCH, len(windows)))])


@torch.no_grad()
def examples_of(network: MotionVae, data: RecipeData, settings: RobomirrorSettings) -> list[Example]:
    """Held-out windows and what the decoder makes of their latents."""
    network.eval()
    device = next(network.parameters()).device
    shown = shown_windows(data.held_out.db, settings, data.version, "held_out")
    out = []
    for index in evenly(len(shown), settings.num_examples):
        sample = shown[index]
        motion = to_device(torch.from_numpy(sample["motion"]), device)
        rebuilt = network.decode(network.encode(motion)).cpu()
        true, guess = (keypoints_of(one).numpy() for one in (torch.from_numpy(sample["motion"]), rebuilt))
        guess = np.where(np.isfinite(true), guess, np.nan)
        at_s = float(sample["now_s"]) + (settings.steps // 2) / settings.rate_hz
        words = f"{sample['text']}. " if sample["text"] else ""
        title = (
            f"{words}Rebuilt from its latents: {mean_mm(guess, true):.1f} mm from the truth (mean of the keypoints)."
        )
        out.append(
            Example(sample["clip_id"], at_s, sample["frame"], hands_px(true, sample), hands_px(guess, sample), title)
        )
    return out


def mean_mm(guess: NDArray, true: NDArray) -> float:
    """Mean distance of known keypoints in mm; NaN where none is known."""
    apart = 1000 * np.linalg.norm(guess - true, axis=-1)
    known = np.isfinite(apart)
    return float(apart[known].mean()) if known.any() else float("nan")


def notes_of(facts: Mapping[str, Any], settings: RobomirrorSettings) -> list[str]:
    """Sentences about what is the paper's and what is ours in this run."""
    counts = facts.get("counts", {})
    return [
        "The paper's: a motion variational auto-encoder whose latents are what a policy is told. Its sizes are not "
        "known; 64 numbers a frame are its sister RoboGhost's.",
        "Ours: the motion is that of hands and head, not of a body; convolutions that do not look ahead; missing hands "
        "are masked, and nothing is learned from them.",
        "`error`: mean distance of the hands' 21 keypoints, `error_wrist` of the wrists (mm), over those that were "
        "known before, too; `zero_motion` and `constant_velocity` guess the same ones from the frames before, without "
        "the frame itself.",
        f"{counts.get('without_hands', 0)} clips without hands were left out.",
        *slower_note(counts),
    ]

"""What the report of `arvrm` shows besides the curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from handloom.schemas.training import Example
from handloom.store.windows.collate import collate
from handloom.train.arvrm.keypoints import NUM_POINTS
from handloom.train.arvrm.robot_network import COMPONENTS
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.recipe import RecipeData
from handloom.train.step import to_device

FINGERS = ("thumb", "index", "middle", "ring", "little")


def report_of(network: Any, data: RecipeData, settings: ArvrmSettings) -> dict[str, Any]:
    """`examples`, `notes`, `figures`, `numbers`; see `Recipe.report`."""
    out: dict[str, Any] = {"notes": notes_of(network, data.facts, settings), "examples": [], "figures": {}}
    out["numbers"] = {}
    if settings.stage == "finetune":
        if network.map is not None:
            figure = network.map.m.detach().cpu().numpy()
            out["figures"]["map"] = (figure, list(COMPONENTS), keypoint_names())
            out["numbers"]["mean similarity of retrieved clips"] = data.facts["counts"]["mean_similarity"]
    elif len(data.held_out):
        out["examples"] = examples_of(network, data, settings)
    return out


def keypoint_names() -> list[str]:
    """The 42 columns of the map: `left wrist`, `left thumb 1` (base) to `right little 4` (tip)."""
    one = ["wrist", *(f"{finger} {number}" for finger in FINGERS for number in range(1, 5))]
    return [f"{hand} {name}" for hand in ("left", "right") for name in one]


def map_text(m: np.ndarray, top: int = 5) -> str:
    """The map in words: each component's keypoints of largest weight, after a softmax over its row."""
    lines = []
    for name, row in zip(COMPONENTS, m, strict=True):
        share = np.exp(row - row.max())
        share /= share.sum()
        best = np.argsort(-share, kind="stable")[:top]
        lines.append(f"{name}: " + ", ".join(f"{keypoint_names()[k]} {share[k]:.3f}" for k in best))
    return "; ".join(lines)


@torch.no_grad()
def examples_of(network: Any, data: RecipeData, settings: ArvrmSettings) -> list[Example]:
    """Next keypoints over held-out windows, every step predicted from the true ones before it."""
    network.eval()
    device = next(network.parameters()).device
    num = min(settings.num_examples, len(data.held_out))
    out = []
    for index in np.unique(np.linspace(0, len(data.held_out) - 1, num).astype(int)):
        sample = data.held_out[int(index)]
        batch = to_device(collate([sample]), device)
        predicted, _ = network.predict(batch)
        size = np.asarray(sample["size"], np.float32)
        true = sample["keypoints"][1:, ..., :2].reshape(-1, NUM_POINTS, 2)
        found = predicted[0, ..., :2].float().cpu().numpy().reshape(-1, NUM_POINTS, 2)
        found = np.where(np.isfinite(true), found, np.nan)
        frame, scale = _frame(sample, size)
        places = (true * scale, found * scale)
        title = sample["text"] or ""
        out.append(Example(sample["clip_id"], float(sample["now_s"]), frame, *places, title))
    return out


def _frame(sample: Mapping[str, Any], size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last step's picture in the source's proportions, and the scale of normalised places; grey without one."""
    width, height = 384, max(1, round(384 * float(size[1] / size[0])))
    scale = np.array([width, height], np.float32)
    if "images" not in sample or not sample["images_valid"].any():
        return np.full((height, width, 3), 96, np.uint8), scale
    picture = sample["images"][np.flatnonzero(sample["images_valid"])[-1]]
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    larger = torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)
    return larger[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy(), scale


def notes_of(network: Any, facts: Mapping[str, Any], settings: ArvrmSettings) -> list[str]:
    """Sentences that say what is the paper's and what is ours in this run."""
    counts = facts.get("counts", {})
    notes = [
        "The paper's: next-step regression by mean squared error, a causal GPT-2 over words, pictures and keypoints, "
        "keypoints as image-space x, y with root-relative depth.",
        f"Ours: {settings.steps} steps at {settings.rate_hz:.3g} per second (the paper's rate is not known); places of "
        "tokens told by step and kind.",
        network.backbone.words.note,
    ]
    notes.append("No pictures were used." if network.backbone.eyes is None else network.backbone.eyes.encoder.note)
    for name, text in {
        "residual": "the head predicts the difference to the last known value",
        "standardise": "inputs and outputs scaled by the training windows' spread",
        "motion": "keypoint tokens also hold motion and place relative to the wrist",
        "mirror": f"a share of {settings.mirror:g} of the training samples mirrored",
        "jitter": f"training keypoints shifted by {settings.jitter:g} of the picture",
    }.items():
        if getattr(settings, name):
            notes.append(f"Ours ({name}): {text}.")
    if settings.stage == "pretrain":
        share = f"{counts.get('without_hands', 0)} clips without hands were left out"
        notes.append(f"{share}; {counts.get('without_text', 0)} clips have no text.")
        return notes
    notes.append("Errors of the state are in deviations of each number over the training windows (ours).")
    notes.append(
        "The keypoint encoder and head are frozen, as in the paper."
        if settings.init
        else "Without `init` nothing is pre-trained, so the keypoint encoder and head are trained along (ours)."
    )
    if network.map is not None:
        notes.append(
            f"Ours: alpha {settings.alpha:g}, beta {settings.beta:g}, replay {settings.replay:g} (the paper's are not "
            f"known); {settings.topk} of {counts.get('human_clips')} human clips per episode."
        )
        notes.append(f"Largest weights of the map: {map_text(network.map.m.detach().cpu().numpy())}.")
    return notes

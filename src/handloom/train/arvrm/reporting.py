"""The recipe's part of a report of `arvrm`: examples, the learned map, numbers and notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handloom.api import Database
from handloom.schemas.hand_topology import KEYPOINT_NAMES
from handloom.schemas.training import Example
from handloom.store.search.arvrm import VERSION
from handloom.train.arvrm.data.hands import hand_windows
from handloom.train.arvrm.network.keypoints import NUM_POINTS
from handloom.train.arvrm.network.robot_network import COMPONENTS
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.baselines import past_of
from handloom.train.parts.table_checks import evenly, slower_note
from handloom.train.recipe import RecipeData
from handloom.train.step import to_device
from handloom.windows.loading.collate import collate

NAMES = tuple(name.replace("_", " ") for name in KEYPOINT_NAMES)
HANDS = ("left", "right")


def report_of(network: Any, data: RecipeData, settings: ArvrmSettings) -> dict[str, Any]:
    """`examples`, `notes`, `figures`, `numbers`, `data`; see `Recipe.report`."""
    out: dict[str, Any] = {"notes": notes_of(network, data.facts, settings), "examples": [], "figures": {}}
    out |= {"numbers": {}, "data": {}}
    if settings.stage == "finetune":
        if network.map is not None:
            out["data"] = retrieved_from(data.facts["counts"], settings)
            out["figures"] = map_figures(network.map.m.detach().cpu().numpy())
            out["numbers"]["mean similarity of retrieved clips"] = data.facts["counts"]["mean_similarity"]
    elif len(data.held_out):
        out["examples"] = examples_of(network, data, settings)
    return out


def retrieved_from(counts: Mapping[str, Any], settings: ArvrmSettings) -> dict[str, Any]:
    """Which clips stage 2 was given, from which version of the table, and how they were chosen."""
    by_chance = f"at random, seed {settings.seed}"
    way = by_chance if settings.retrieve == "random" else f"by AR-VRM's sum of cosines, version {VERSION}"
    told = {"chosen": way, "version of clips": counts["human_version"], "human clips": counts["human_clips"]}
    told |= {"clips given": counts["retrieved_clips"], "clips per episode": settings.topk}
    return told | {"encoders' key": counts.get("features_key")}


def keypoint_names() -> list[str]:
    """The 42 columns of the map: `left wrist`, `left thumb 1` (base) to `right little 4` (tip)."""
    return [f"{hand} {name}" for hand in HANDS for name in NAMES]


def map_figures(m: NDArray) -> dict[str, tuple[NDArray, list[str], list[str]]]:
    """The map (2, 42) as two tables with a row for each component and hand: the weights, and how they have changed."""
    rows = [f"{component}, {hand} hand" for component in COMPONENTS for hand in HANDS]
    tables = {"map": m, "change of the map from its start (1/42)": m - 1 / NUM_POINTS}
    return {title: (values.reshape(len(rows), -1), rows, list(NAMES)) for title, values in tables.items()}


def map_text(m: NDArray, top: int = 5) -> str:
    """The map in words: each component's keypoints of largest weight."""
    names = keypoint_names()
    lines = []
    for component, row in zip(COMPONENTS, m, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        lines.append(f"{component}: " + ", ".join(f"{names[k]} {row[k]:.3f}" for k in best))
    return "; ".join(lines)


@torch.no_grad()
def examples_of(network: Any, data: RecipeData, settings: ArvrmSettings) -> list[Example]:
    """Held-out windows, predicted freely from their middle on, over the image of that step."""
    network.eval()
    device = next(network.parameters()).device
    given = settings.steps // 2
    db = data.held_out.db
    assert isinstance(db, Database)
    sized = hand_windows(db, settings, data.version, "held_out", image_size=None)
    out = []
    for index in evenly(len(data.held_out), settings.num_examples):
        sample = data.held_out[index]
        batch = to_device(collate([sample]), device)
        found = roll_out(network, batch, given)
        true = sample["keypoints"][..., :2].reshape(-1, NUM_POINTS, 2)
        frame = _frame(sized[index], given - 1)
        size = np.array([frame.shape[1], frame.shape[0]], np.float32)
        # 0 is the centre of the first pixel, in the source and in the frame.
        shift = 0.5 * size / sample["size"] - 0.5
        predicted = found[0, ..., :2].cpu().numpy().reshape(-1, NUM_POINTS, 2)
        shown = np.where(np.arange(len(true))[:, None, None] >= given - 1, true, np.nan)
        true_px, found_px = ((values * size + shift).astype(np.float32) for values in (shown, predicted))
        title = " ".join([f"{sample['text']}." if sample["text"] else "", *_distances(found, batch, given)])
        now_s = float(sample["now_s"]) + (given - 1) / settings.rate_hz
        out.append(Example(sample["clip_id"], now_s, frame, true_px, found_px, title.strip()))
    return out


def roll_out(network: Any, batch: Mapping[str, Any], given: int) -> Tensor:
    """(B, T, 2, 21, 3) keypoints: the last of the `given` true steps, then predictions from predictions; NaN before it.

    Later images are the last given one. A keypoint that is not known in the given steps stays unknown.
    """
    keypoints = batch["keypoints"].clone()
    known = past_of(keypoints[:, :given]).last[:, -1].isfinite()
    keypoints[:, given:] = torch.nan
    batch = dict(batch)
    if "goals" in batch:
        batch["goals"] = batch["goals"].clone()
    for name in ("images", "images_valid"):
        if name in batch:
            batch[name] = batch[name].clone()
            batch[name][:, given:] = batch[name][:, given - 1 : given]
    for step in range(given, keypoints.shape[1]):
        predicted, _ = network.predict_keypoints(batch | {"keypoints": keypoints})
        keypoints[:, step] = torch.where(known, predicted[:, step - 1].to(keypoints), torch.nan)
        if "goals" in batch:  # the wrist's place in metres is not predicted
            moved = (keypoints[:, step] - keypoints[:, given - 1])[:, :, 0]
            batch["goals"][:, step] = batch["goals"][:, given - 1]
            batch["goals"][:, step, :, 0] -= moved[..., 0]
            batch["goals"][:, step, :, 2] += moved[..., 1]
    keypoints[:, : given - 1] = torch.nan
    return keypoints


def _distances(found: Tensor, batch: Mapping[str, Any], given: int) -> list[str]:
    """A sentence with the mean distance from the truth at the last step, in pixels of the source, and the baselines';
    none where nothing can be compared."""
    true = batch["keypoints"]
    past = past_of(true[:, :given])
    last, velocity = past.last[:, -1], torch.nan_to_num(past.velocity[:, -1])
    num = true.shape[1] - given
    guesses = {
        "off": found[:, -1],
        "with no motion": last,
        "at constant velocity": last + velocity * (past.age[:, -1] + num),
    }
    size = batch["size"][:, None, None]
    distances = {name: ((guess - true[:, -1])[..., :2] * size).norm(dim=-1) for name, guess in guesses.items()}
    known = torch.stack(list(distances.values())).isfinite().all(0)
    if not known.any():
        return []
    off, *others = (f"{values[known].mean():.0f} px {name}" for name, values in distances.items())
    return [f"After {num} predicted steps {off} ({', '.join(others)})."]


def _frame(sample: Mapping[str, Any], step: int) -> NDArray[np.uint8]:
    """The stored image of a step; grey, in the source's proportions, where there is none."""
    if "images" in sample and sample["images_valid"][step]:
        return sample["images"][step]
    width, height = (int(number) for number in sample["size"])
    return np.full((max(1, round(384 * height / width)), 384, 3), 96, np.uint8)


def notes_of(network: Any, facts: Mapping[str, Any], settings: ArvrmSettings) -> list[str]:
    """Sentences about what is the paper's and what is ours in this run."""
    counts = facts.get("counts", {})
    notes = [
        "The paper's: next-step regression by mean squared error, a causal GPT-2 over words, images and keypoints, "
        "keypoints as image-space x, y with root-relative depth.",
        f"Ours: {settings.steps} steps at {settings.rate_hz:.3g} per second (the paper's rate is not known); a token's "
        "position is the sum of a vector of its step and one of its kind.",
        network.backbone.words.note,
    ]
    notes.append("No images were used." if network.backbone.eyes is None else network.backbone.eyes.encoder.note)
    for name, text in {
        "residual": "the head predicts the difference from the last known value",
        "standardise": "inputs and outputs are scaled by the training windows' mean and deviation",
        "motion": "keypoint tokens also hold motion and position relative to the wrist",
        "mirror": f"a share of {settings.mirror:g} of the training samples is mirrored",
        "goal_s": f"the network is told where each wrist is {settings.goal_s:g} s after a sample's last step",
        "jitter": f"training keypoints are shifted by {settings.jitter:g} of the image",
    }.items():
        if getattr(settings, name):
            notes.append(f"Ours ({name}): {text}.")
    if settings.stage == "pretrain":
        share = f"{counts.get('without_hands', 0)} clips without hands were left out"
        notes.append(f"{share}; {counts.get('without_text', 0)} clips have no text.")
        notes += slower_note(counts)
        return notes
    notes.append("Errors of the state are in deviations of each number over the training windows (ours).")
    notes.append(
        "With `init`, the keypoint encoder and head are frozen, as in the paper."
        if settings.init
        else "Without `init` nothing is pre-trained, so the keypoint encoder and head are trained, too (ours)."
    )
    if network.map is not None:
        notes.append(
            f"Ours: alpha {settings.alpha:g}, beta {settings.beta:g}, replay {settings.replay:g} (the paper's are not "
            f"known); {settings.topk} of {counts.get('human_clips')} human clips per episode."
        )
        m = network.map.m.detach().cpu().numpy()
        which = "" if settings.init else ", without `init`"
        notes.append(f"Largest weights of the map{which} (all started at {1 / NUM_POINTS:.3f}): {map_text(m)}.")
        if counts.get("clips_of_robots"):
            notes.append(f"{counts['clips_of_robots']} clips with hands are the robots' own and were not retrieved.")
        if not settings.init and "small" in (settings.text_encoder, settings.image_encoder):
            notes.append("Without `init`, untrained small encoders chose the clips.")
    return notes

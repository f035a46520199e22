"""The recipe's part of a report of `robomirror`: examples, numbers beside simple baselines, and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handloom.plural import plural
from handloom.schemas.training import Example
from handloom.train.parts.table_checks import evenly, slower_note
from handloom.train.recipe import RecipeData
from handloom.train.robomirror.data.motion import MotionLayout, keypoints_of, points_of
from handloom.train.robomirror.data.shown import in_pixels, shown_windows
from handloom.train.robomirror.data.windows import held_out_without_body
from handloom.train.robomirror.measures import frechet_distance, recall_at
from handloom.train.robomirror.network.errors import hand_sums, jerk_sums
from handloom.train.robomirror.network.understanding import Understanding, vectors_of
from handloom.train.robomirror.settings import RobomirrorSettings
from handloom.train.step import to_device
from handloom.windows.api import Windows
from handloom.windows.loading.collate import collate

BATCH = 64
MEASURED_WINDOWS = 2048
"""At most so many windows of a split are measured."""
NUM_SAMPLES = 8
"""Samples of a window whose mean is measured, too."""
Rebuild = Callable[[dict[str, Any]], Tensor]
"""A batch to motions (B, T, D)."""


def report_of(network: nn.Module, data: RecipeData, settings: RobomirrorSettings) -> dict[str, Any]:
    """`examples`, `notes`, `numbers`, `data`; see `Recipe.report`."""
    out: dict[str, Any] = {"notes": notes_of(data, settings), "examples": [], "numbers": {}, "data": {}}
    network.eval()
    if isinstance(network, Understanding):
        out["data"] = {
            "intent": data.facts["intent_source"],
            "clips without intent": data.facts["counts"]["without_intent"],
        }
    if not len(data.held_out):
        return out
    if isinstance(network, Understanding):
        out["numbers"] = understood_numbers(network, data, settings)
        understood: Understanding = network
        rebuild: Rebuild = lambda batch: understood.motion(understood.understood(batch))
        how = "Understood from the intent alone"
    else:
        vae: Any = network
        rebuild = lambda batch: vae.decode(vae.encode(batch["motion"]))
        how = "Rebuilt from its latents"
    out["examples"] = examples_of(network, rebuild, how, data, settings)
    return out


@torch.no_grad()
def understood_numbers(network: Understanding, data: RecipeData, settings: RobomirrorSettings) -> dict[str, float]:
    """Over held-out windows: errors (mm) of other ways to read the same network, the wrists' jerk (m/s3), the Fréchet
    distance of the latents from the true ones, and recall of motions and intents from each other, of one window of each
    clip."""
    device = next(network.parameters()).device
    library = _library(network, data.train, device)
    sums: dict[str, Tensor] = {}
    jerks: dict[str, Tensor] = {}
    latents: dict[str, list[Tensor]] = {"true": [], "found": [], "mean": []}
    kept, clips = [], []
    for batch in batches_of(data.held_out, device):
        true, valid = network.latents(batch["motion"]), batch["valid"]
        first, mean, ways = _ways(network, batch, settings)
        nearest = library["motion"][(vectors_of(mean, valid) @ library["vectors"].T).argmax(-1)]
        guesses = {name: network.motion(found) for name, found in ways.items()}
        guesses |= {"nearest training motion": nearest, "auto-encoder": network.motion(true)}
        add(sums, hand_sums(guesses, batch["motion"]))
        shown = {"understood": network.motion(first), "auto-encoder": guesses["auto-encoder"]}
        add(jerks, jerk_sums(shown, batch["motion"], settings.rate_hz))
        for name, values in {"true": true, "found": first, "mean": mean}.items():
            latents[name].append(values)
        kept.append(valid)
        clips += batch["clip_id"]
    errors = means(sums)
    ways_of = (*ways, "nearest training motion", "auto-encoder")
    out: dict[str, float | None] = {f"error, {name}": errors[name] for name in ways_of}
    out |= {f"jerk of the wrists, {name} (m/s3)": value for name, value in means(jerks).items()}
    stacked = {name: torch.cat(values) for name, values in latents.items()}
    valid = torch.cat(kept)
    out |= _frechet_numbers(stacked, valid)
    if len(tasks_of(data.held_out)) != 1:
        out |= _retrieval_numbers(stacked, valid, clips)
    return {name: value for name, value in out.items() if value is not None}


def _ways(
    network: Understanding, batch: Mapping[str, Any], settings: RobomirrorSettings
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The latents as reported, their mean over samples, and those of other ways to sample, by name."""
    first = network.understood(batch)
    if settings.understand_by == "alignment":
        return first, first, {}
    samples = [first, *(network.understood(batch, number) for number in range(1, NUM_SAMPLES))]
    mean = torch.stack(samples).mean(0)
    ways = {f"mean of {NUM_SAMPLES} samples": mean}
    ways |= {plural(steps, "sampling step"): network.understood(batch, steps=steps) for steps in (1, 2, 10)}
    return first, mean, ways


def _frechet_numbers(latents: Mapping[str, Tensor], valid: Tensor) -> dict[str, float | None]:
    frames = {name: values[valid].double().cpu().numpy() for name, values in latents.items()}
    steps_valid = valid[:, 1:] & valid[:, :-1]
    steps = {name: values.diff(dim=1)[steps_valid].double().cpu().numpy() for name, values in latents.items()}
    return {
        "Fréchet distance of latents": frechet_distance(frames["found"], frames["true"]),
        "Fréchet distance of latents' steps": frechet_distance(steps["found"], steps["true"]),
    }


def _retrieval_numbers(latents: Mapping[str, Tensor], valid: Tensor, clips: list[str]) -> dict[str, float]:
    """Of the middle window of each clip."""
    places: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        places.setdefault(clip, []).append(place)
    middle = [found[len(found) // 2] for found in places.values()]
    found, true = (vectors_of(latents[name][middle], valid[middle]) for name in ("mean", "true"))
    similarity = (found @ true.T).double().cpu().numpy()
    out: dict[str, float] = {"clips in the retrieval": len(middle)}
    for k in (k for k in (1, 5) if k < len(middle)):
        out[f"R@{k}, motion from intent"] = recall_at(similarity, k)
        out[f"R@{k}, intent from motion"] = recall_at(similarity.T, k)
        out[f"R@{k} by chance"] = k / len(middle)
    return out


def _library(network: Understanding, windows: Windows, device: torch.device) -> dict[str, Tensor]:
    """Motions of training windows and their vectors."""
    motion, vectors = [], []
    for batch in batches_of(windows, device):
        motion.append(network.motion(network.latents(batch["motion"])))
        vectors.append(vectors_of(network.latents(batch["motion"]), batch["valid"]))
    return {"motion": torch.cat(motion), "vectors": torch.cat(vectors)}


def add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    """Add pairs of (sum, count) to those of before."""
    for name, pair in more.items():
        sums[name] = sums[name] + pair.cpu() if name in sums else pair.cpu()


def means(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Without those that have no element."""
    return {name: float(total / count) for name, (total, count) in sums.items() if count}


def batches_of(windows: Windows, device: torch.device) -> Iterator[dict[str, Any]]:
    """Windows in order, evenly chosen if there are more than `MEASURED_WINDOWS`."""
    picked = evenly(len(windows), MEASURED_WINDOWS)
    for start in range(0, len(picked), BATCH):
        yield to_device(collate([windows[index] for index in picked[start : start + BATCH]]), device)


@torch.no_grad()
def examples_of(
    network: nn.Module, rebuild: Rebuild, how: str, data: RecipeData, settings: RobomirrorSettings
) -> list[Example]:
    """Held-out windows with the keypoints of their motions and of those that `rebuild` makes."""
    device = next(network.parameters()).device
    shown = shown_windows(data.held_out)
    mean = keypoints_of(torch.tensor(data.facts["motion_mean"], dtype=torch.float32)).numpy()
    out = []
    for index in evenly(len(shown), settings.num_examples):
        sample = shown[index]
        found = rebuild(to_device(collate([sample]), device))[0].cpu()
        motions = (torch.from_numpy(sample["motion"]), found)
        true, guess = (keypoints_of(one).numpy() for one in motions)
        at_s = float(sample["now_s"]) + (settings.steps // 2) / settings.rate_hz
        words = f"{sample['text']}. " if sample["text"] else ""
        title = f"{words}{how}: {mean_mm(guess, true):.1f} mm from the truth (mean of the keypoints; the mean of all "
        title += f"training motions: {mean_mm(mean, true):.0f} mm)."
        true_px, guess_px = (in_pixels(points_of(one).numpy(), sample) for one in motions)
        guess_px = np.where(np.isfinite(true_px), guess_px, np.float32(np.nan))
        out.append(Example(sample["clip_id"], at_s, sample["frame"], true_px, guess_px, title))
    return out


def mean_mm(guess: NDArray, true: NDArray) -> float:
    """Mean distance of known keypoints in mm; NaN where none is known."""
    apart = 1000 * np.linalg.norm(guess - true, axis=-1)
    known = np.isfinite(apart)
    return float(apart[known].mean()) if known.any() else float("nan")


def notes_of(data: RecipeData, settings: RobomirrorSettings) -> list[str]:
    """Sentences about what is the paper's and what is ours in this run."""
    counts = data.facts.get("counts", {})
    parts = str(MotionLayout(settings.body))
    notes = [
        f"Ours: the motion is that of {parts}; what is not seen is masked, and nothing is learned from it.",
        *(_motion_notes() if settings.stage == "motion" else _understand_notes(data, settings)),
        f"{counts.get('without_hands', 0)} clips without hands were left out.",
        *(_body_notes(counts) if settings.body else []),
        *slower_note(counts),
    ]
    if settings.held_out_by == "participant":
        notes.append("Held out are all videos of some participants.")
    return notes


def _body_notes(counts: Mapping[str, Any]) -> list[str]:
    which = plural(counts["with_body"], "clip shows the body that its", "clips show the body that their")
    return [
        f"{which} hands are of; in the others it is unknown. `error_body` is the mean distance of the body's 33 "
        "keypoints from the hips, `error_hips` that of the hips' place (mm of a person of MediaPipe's usual size).",
        *held_out_without_body(counts),
    ]


def _motion_notes() -> list[str]:
    return [
        "The paper's: a motion variational auto-encoder whose latents are what a policy is told. Its sizes are not "
        "known; 64 numbers a frame are its sister RoboGhost's. Convolutions that do not look ahead are ours.",
        "`error`: mean distance of the hands' 21 keypoints, `error_wrist` of the wrists (mm), over those that were "
        "known before, too; `zero_motion` and `constant_velocity` guess the same ones from the frames before, without "
        "the frame itself. `principal_components` are as many of one frame as the latent has numbers, where the "
        "auto-encoder starts: to be nearer than these is what training has gained.",
    ]


def _understand_notes(data: RecipeData, settings: RobomirrorSettings) -> list[str]:
    source = data.facts["intent_source"]
    other = "" if source.startswith("vlm:") else " The paper's is a vision-language model's."
    notes = [
        f"The intent is `{settings.intent}`: {source}; {settings.intent_steps} vectors nearest in time.{other}",
        "Poses are used for training alone. `error` is the mean distance of the 21 keypoints in the frame of the head "
        "(mm), `mean_motion` that of the mean of all training motions.",
    ]
    if settings.understand_by == "reconstruction":
        name = {"flow": "flow matching", "ddpm": "denoising diffusion"}[settings.process]
        notes += [
            f"The paper's: a diffusion transformer makes the latents. Ours: {name}, {settings.sampling_steps} sampling "
            "steps, noise that depends on window and seed alone.",
            f"`mean of {NUM_SAMPLES} samples` comes near the mean of all motions that fit; one sample is one of them, "
            "and lies farther from the truth.",
        ]
    else:
        notes.append(
            f"The baseline that the paper argues against: an adaptor of {settings.adaptor_layers} layers trained by "
            "InfoNCE, as RoboPerform's. Decoded are the aligned latents, brought to the length of training latents; "
            "`nearest training motion` is of the training window whose latents are nearest to them by cosine."
        )
    tasks, known = tasks_of(data.held_out), tasks_of(data.train)
    if len(tasks) == 1:
        notes.append(
            f"All held-out clips are of one task ({tasks.pop()}): retrieval cannot be judged, and is not reported."
        )
    elif not tasks and len(data.held_out):
        notes.append("No held-out clip has words: whether retrieval tells tasks apart is not known.")
    if len(known) == 1:
        notes.append(f"All clips to train on are of one task ({known.pop()}): what others look like is not learned.")
    return notes


def tasks_of(windows: Windows) -> set[str]:
    """The tasks of the windows' clips: the narration, else verb and noun; clips without words are left out."""
    ids = set(windows.clip_ids)
    rows = windows.db.read("clips", ["clip_id", "narration", "verb", "noun"], None, windows.version).to_pylist()
    words = (
        row["narration"] or " ".join(filter(None, (row["verb"], row["noun"]))) for row in rows if row["clip_id"] in ids
    )
    return {task for task in words if task}

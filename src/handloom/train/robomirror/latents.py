"""Latents of motions outside of training: of a trained auto-encoder, or of principal components where none is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.train.registry import open_network
from handloom.train.robomirror.data.motion import BODY_DIM, HANDS_AND_HEAD, motion_of
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.network.understanding import Understanding
from handloom.windows.loading.collate import collate

Floats = NDArray[np.float32]

LINEAR_WIDTH = 64
"""As wide as RoboGhost's latent."""
LINEAR_HZ = 15.0
WEIGHTS = {"wrist": 3.0, "wrist_turn": 2.0, "shape": 0.5, "head": 0.5, "head_turn": 0.5}
"""Of the kinds of numbers among the linear components: 120 numbers of fingers would crowd out 18 of wrists."""
STEP_WEIGHT = 3.0
"""Of a step since the frame before; steps are small beside the numbers themselves."""


def numbers_of(keypoints_cam_m: NDArray, world_from_camera: NDArray) -> Floats:
    """(T, 147) motion (`data.motion`) of keypoints (T, 2, 21, 3) and poses (T, 4, 4), metres; NaN where unknown.

    Poses of known rotation whose places are NaN give the head's turns alone.
    """
    has_places = bool(np.isfinite(world_from_camera[:, :3, 3]).any())
    poses = np.array(world_from_camera, np.float64)
    if not has_places:
        poses[:, :3, 3] = 0.0
    return motion_of(keypoints_cam_m, poses, 1.0 if has_places else None)


class VaeLatents:
    """The latents of a checkpoint of `handloom train robomirror`, in deviations of those of its training.

    Where that was trained with the body, the body is unknown here.

    Raises:
        ConfigError: there is no checkpoint at `uri`, or one of another recipe.
    """

    def __init__(self, uri: str) -> None:
        network, found = open_network(uri)
        if not isinstance(network, MotionVae):
            problem = f"{uri} is a checkpoint of {found.facts.recipe} {found.facts.stage}".rstrip()
            raise ConfigError(problem, "give one of `handloom train robomirror`, stage motion")
        self._network, self.name, self.uri = network, "vae", found.uri
        self.rate_hz, self.width = float(network.settings.rate_hz), int(network.settings.latent)

    @torch.inference_mode()
    def encode(self, keypoints_cam_m: NDArray, world_from_camera: NDArray) -> Floats:
        """(T, width) of a motion at `rate_hz`."""
        motion = torch.from_numpy(numbers_of(keypoints_cam_m, world_from_camera))
        if self._network.layout.body:
            motion = torch.nn.functional.pad(motion, (0, BODY_DIM), value=torch.nan)
        return self._network.standardised(self._network.encode(motion)).numpy()

    def is_of(self, vae: MotionVae) -> bool:
        """Whether an auto-encoder makes the same latents, with the same deviations."""
        own, other = self._network.state_dict(), vae.state_dict()
        same = own.keys() == other.keys()
        return same and all(torch.equal(value, other[name]) for name, value in own.items())

    def facts(self) -> dict[str, Any]:
        """What a student's checkpoint holds of it."""
        return {"kind": self.name, "uri": self.uri, "rate_hz": self.rate_hz, "width": self.width}


class LinearLatents:
    """The first 64 principal components of a frame's motion and of its step since the frame before: no training.

    Unknown numbers count as their mean, beside what is known. Numbers of one kind have one scale
    (`MotionLayout.groups`), and `WEIGHTS`.

    Args:
        facts: that `fitted` or `facts` gave.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        arrays = (np.array(facts[name], np.float32) for name in ("mean", "scale", "components", "deviation"))
        self._mean, self._scale, self._components, self._deviation = arrays
        self._facts, self.name, self.rate_hz = facts, "linear", float(facts["rate_hz"])
        self.width = len(self._components)

    @classmethod
    def fitted(cls, motions: Sequence[Floats], rate_hz: float = LINEAR_HZ) -> LinearLatents:
        """From the numbers (T, 147) of motions. Raises ConfigError where nothing in them is known."""
        frames = np.concatenate(motions).astype(np.float64)
        known = np.isfinite(frames)
        if not known.any():
            raise ConfigError("no motion has a frame in which a hand is known", "give other motions")
        mean = np.where(known, frames, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        scale = np.ones(frames.shape[1])
        for name, slices in HANDS_AND_HEAD.groups.items():
            for part in slices:
                apart = (frames - mean)[:, part]
                spread = float(np.sqrt(np.nanmean(apart**2))) if np.isfinite(apart).any() else 1.0
                scale[part] = max(spread, 1e-6) / WEIGHTS[name]
        values = np.concatenate([_with_steps(one, mean, scale) for one in motions])
        components = np.linalg.eigh(values.T @ values)[1].T[::-1][:LINEAR_WIDTH]
        deviation = np.sqrt(((values @ components.T) ** 2).mean(axis=0))
        deviation = np.where(deviation > 1e-6, deviation, 1.0)
        arrays = {"mean": mean, "scale": scale, "components": components, "deviation": deviation}
        named = {name: np.round(array, 6).tolist() for name, array in arrays.items()}
        return cls({"kind": "linear", "rate_hz": rate_hz, "width": LINEAR_WIDTH} | named)

    def encode(self, keypoints_cam_m: NDArray, world_from_camera: NDArray) -> Floats:
        """(T, 64) of a motion at `rate_hz`."""
        numbers = numbers_of(keypoints_cam_m, world_from_camera)
        values = _with_steps(numbers, self._mean, self._scale)
        return (values @ self._components.T / self._deviation).astype(np.float32)

    def facts(self) -> dict[str, Any]:
        """What a student's checkpoint holds of it: all that is needed to encode again."""
        return self._facts


class UnderstoodLatents:
    """Latents of a motion from what a model sees in the clip: a checkpoint of stage `understand`. No pose is read.

    of: those that a student was trained with; None: whatever the checkpoint's auto-encoder makes. samples: whose mean
        it is; one is one of the motions that fit.

    Raises:
        ConfigError: there is no such checkpoint; or one that makes the latents of another auto-encoder than `of`.
    """

    def __init__(self, uri: str, of: Latents | None, samples: int = 1) -> None:
        network, found = open_network(uri)
        if not isinstance(network, Understanding):
            problem = f"{uri} is a checkpoint of {found.facts.recipe} {found.facts.stage}".rstrip()
            raise ConfigError(problem, "give one of `handloom train robomirror`, stage understand")
        if of is not None and (not isinstance(of, VaeLatents) or not of.is_of(network.vae)):
            told = "linear latents" if isinstance(of, LinearLatents) else f"latents of {of.uri}"
            hint = "train the student with --motion and the checkpoint that was the `init` of stage understand"
            raise ConfigError(f"{found.uri} makes latents of another auto-encoder, and the student knows {told}", hint)
        self._network, self.uri, self._settings, self._samples = network, found.uri, network.settings, samples
        self.rate_hz, self.source = float(network.settings.rate_hz), str(found.facts.facts.get("intent_source", ""))
        self.dim, self.column = int(found.facts.facts["intent_dim"]), network.settings.intent

    @torch.inference_mode()
    def encode(self, name: str, intent: NDArray, intent_s: NDArray, num_frames: int) -> Floats:
        """(num_frames, width) latents, of windows as in training that overlap by half and pass over into each other.

        Args:
            name: seeds the noise. intent: (L, D). intent_s: (L,) seconds since the first frame.

        Raises ConfigError: the intent has another width.
        """
        if intent.shape[1] != self.dim:
            hint = f"it was trained on {self.dim} of {self.source}"
            raise ConfigError(f"the intent of {name} has {intent.shape[1]} numbers, for {self.uri}", hint)
        steps = self._settings.steps
        last = max(num_frames - steps, 0)
        starts = [*range(0, last, max(steps // 2, 1)), last]
        windows = [self._window(name, intent, intent_s, start, min(steps, num_frames)) for start in starts]
        batch = collate(windows)
        found = torch.stack([self._network.understood(batch, number) for number in range(self._samples)]).mean(0)
        total, weights = torch.zeros(last + steps, found.shape[-1]), torch.zeros(last + steps, 1)
        weight = (torch.arange(steps) + 0.5).minimum(steps - 0.5 - torch.arange(steps))[:, None]
        for start, one in zip(starts, found, strict=True):
            total[start : start + steps] += weight * one
            weights[start : start + steps] += weight
        return (total / weights)[:num_frames].numpy()

    def _window(self, name: str, intent: NDArray, intent_s: NDArray, start: int, num_frames: int) -> dict[str, Any]:
        """A sample as the recipe's, without a motion."""
        steps, most = self._settings.steps, self._settings.intent_steps
        middle_s = (start + (num_frames - 1) / 2) / self.rate_hz
        near = np.sort(np.argsort(np.abs(intent_s - middle_s), kind="stable")[:most])
        vectors, times = np.zeros((most, self.dim), np.float32), np.zeros(most, np.float32)
        vectors[: len(near)], times[: len(near)] = intent[near], intent_s[near] - start / self.rate_hz
        return {
            "clip_id": name,
            "now_s": start / self.rate_hz,
            "motion": np.zeros((steps, self._network.vae.layout.dim), np.float32),  # for its shape alone
            "valid": np.arange(steps) < num_frames,
            "intent": vectors,
            "intent_s": times,
            "intent_valid": np.arange(most) < len(near),
        }


Latents = VaeLatents | LinearLatents


def latents_from(facts: dict[str, Any], uri: str | None = None) -> Latents:
    """The latents that a student was trained with. uri: of the auto-encoder, where it has moved.

    Raises ConfigError where its checkpoint is not there, or another one is given.
    """
    if facts["kind"] == "linear":
        if uri is not None:
            raise ConfigError(f"the student knows linear latents, not those of {uri}", "leave --motion out")
        return LinearLatents(facts)
    found = VaeLatents(uri or facts["uri"])
    if (found.rate_hz, found.width) != (facts["rate_hz"], facts["width"]):
        told = f"{found.width} numbers at {found.rate_hz:g} Hz, not {facts['width']} at {facts['rate_hz']:g}"
        raise ConfigError(f"the latents of {found.uri} are {told}", f"give the checkpoint {facts['uri']}")
    return found


def _with_steps(frames: NDArray, mean: NDArray, scale: NDArray) -> NDArray:
    """(T, 147 + 4 + 147): numbers in their scales, which parts are known, and steps since the frame before."""
    apart = (np.asarray(frames, np.float64) - mean) / scale
    steps = STEP_WEIGHT * np.diff(apart, axis=0, prepend=apart[:1])
    known = np.stack([np.isfinite(frames[:, part]).all(axis=1) for part in HANDS_AND_HEAD.parts], axis=1)
    return np.concatenate([np.nan_to_num(apart), known, np.nan_to_num(steps)], axis=1)

"""Latents of motions outside of training: of a trained auto-encoder, or of principal components where none is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.train.registry import open_network
from handloom.train.robomirror.data.motion import PARTS, motion_of
from handloom.train.robomirror.network.motion_vae import MotionVae

Floats = NDArray[np.float32]

LINEAR_WIDTH = 64
"""As wide as RoboGhost's latent."""
LINEAR_HZ = 15.0


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
        return self._network.standardised(self._network.encode(motion)).numpy()

    def facts(self) -> dict[str, Any]:
        """What a student's checkpoint holds of it."""
        return {"kind": self.name, "uri": self.uri, "rate_hz": self.rate_hz, "width": self.width}


class LinearLatents:
    """The first 64 principal components of frames, unknown numbers at their mean, beside what is known: no training.

    Args:
        facts: that `fitted` or `facts` gave.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self._mean, self._scale = (np.array(facts[name], np.float32) for name in ("mean", "scale"))
        self._components = np.array(facts["components"], np.float32)
        self._deviation = np.array(facts["deviation"], np.float32)
        self._facts, self.name, self.rate_hz = facts, "linear", float(facts["rate_hz"])
        self.width = len(self._components)

    @classmethod
    def fitted(cls, motions: Sequence[Floats], rate_hz: float = LINEAR_HZ) -> LinearLatents:
        """From the numbers (T, 147) of motions. Raises ConfigError where nothing in them is known."""
        frames = np.concatenate(motions).astype(np.float64)
        known = np.isfinite(frames)
        if not known.any():
            raise ConfigError("no motion has a frame in which a hand is known", "give other motions")
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, frames, 0).sum(axis=0) / count
        spread = np.sqrt(np.where(known, (frames - mean) ** 2, 0).sum(axis=0) / count)
        scale = np.where(spread > 1e-6, spread, 1.0)
        values = _with_flags(frames, mean, scale)
        components = np.linalg.eigh(values.T @ values)[1].T[::-1][:LINEAR_WIDTH]
        deviation = np.sqrt(((values @ components.T) ** 2).mean(axis=0))
        deviation = np.where(deviation > 1e-6, deviation, 1.0)
        arrays = {"mean": mean, "scale": scale, "components": components, "deviation": deviation}
        named = {name: np.round(array, 6).tolist() for name, array in arrays.items()}
        return cls({"kind": "linear", "rate_hz": rate_hz, "width": LINEAR_WIDTH} | named)

    def encode(self, keypoints_cam_m: NDArray, world_from_camera: NDArray) -> Floats:
        """(T, 64) of a motion at `rate_hz`."""
        numbers = numbers_of(keypoints_cam_m, world_from_camera)
        values = _with_flags(numbers, self._mean, self._scale)
        return (values @ self._components.T / self._deviation).astype(np.float32)

    def facts(self) -> dict[str, Any]:
        """What a student's checkpoint holds of it: all that is needed to encode again."""
        return self._facts


Latents = VaeLatents | LinearLatents


def latents_from(facts: dict[str, Any], uri: str | None = None) -> Latents:
    """The latents that a student was trained with. uri: of the auto-encoder, where it has moved.

    Raises ConfigError where its checkpoint is not there, or another one is given.
    """
    if facts["kind"] == "linear":
        return LinearLatents(facts)
    found = VaeLatents(uri or facts["uri"])
    if (found.rate_hz, found.width) != (facts["rate_hz"], facts["width"]):
        told = f"{found.width} numbers at {found.rate_hz:g} Hz, not {facts['width']} at {facts['rate_hz']:g}"
        raise ConfigError(f"the latents of {found.uri} are {told}", f"give the checkpoint {facts['uri']}")
    return found


def _with_flags(frames: NDArray, mean: NDArray, scale: NDArray) -> NDArray:
    """(T, 147 + 4) in deviations, and for each part whether it is known."""
    known = np.stack([np.isfinite(frames[:, part]).all(axis=1) for part in PARTS], axis=1)
    return np.concatenate([np.where(np.isfinite(frames), (frames - mean) / scale, 0.0), known], axis=1)

"""Clips as commands of another policy: the motion latents of a whole clip, pooled over time (ours, docs/robomirror.md).

A policy that is told what to do by such a command needs no words. The latents are those of the clip's hands (a
checkpoint of stage `motion`), or made from what a model sees in its images (stage `understand`): no pose is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.store.embodiment import HUMAN, narrowed
from handloom.store.filters import both
from handloom.train.parts.hand_clips import WITH_HANDS
from handloom.train.registry import open_network
from handloom.train.robomirror.data.windows import MotionSample, motion_windows
from handloom.train.robomirror.latents import UnderstoodLatents
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.network.understanding import Understanding

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

Floats = NDArray[np.float32]
WHOLE = 2**30
"""Steps between windows: only the first one of each clip is cut, and it holds all of it."""


class CommandMaker:
    """Makes commands of clips with one checkpoint of `handloom train robomirror`, of either stage.

    key: names the auto-encoder whose latents they are; commands of one key can be exchanged, whichever stage made them.
    width: numbers of a latent. rate_hz: latents a second.

    Args:
        uri: the checkpoint. parts: into so many equal parts of its time a clip is divided; a command holds the mean
            latent of each.

    Raises:
        ConfigError: there is no checkpoint at `uri`, or one of another recipe.
    """

    def __init__(self, uri: str, parts: int) -> None:
        network, found = open_network(uri)
        if not isinstance(network, MotionVae | Understanding):
            problem = f"{uri} is a checkpoint of {found.facts.recipe} {found.facts.stage}".rstrip()
            raise ConfigError(problem, "give one of `handloom train robomirror`, of either stage")
        self.uri, self.parts, self.settings = found.uri, parts, network.settings
        self.stage, self.rate_hz, self.width = self.settings.stage, self.settings.rate_hz, self.settings.latent
        self._vae = network if isinstance(network, MotionVae) else network.vae
        self._understood = None if isinstance(network, MotionVae) else UnderstoodLatents(found.uri, None)
        self.key = key_of(self._vae)

    def of_clips(self, db: Database, where: str, split: str | None, version: int | None = None) -> dict[str, Floats]:
        """By clip id, (parts * width,) float32, of the clips of people that pass the filter; the order is the table's.

        A clip is left out that shows no hand (stage `motion`), or that has no intent (`understand`).

        Args:
            split: `train` or `held_out`: the videos that this checkpoint was trained on, or never; None: all.

        Raises:
            ConfigError: the filter is wrong; a clip is shorter than `parts` steps, or of another rate; its intent is of
                another encoder.
        """
        found = self._windows(db, where, split, version)
        if found is None:
            return {}
        return {sample["clip_id"]: self._pooled(sample) for sample in (found[n] for n in range(len(found)))}

    def num_clips(self, db: Database, where: str, split: str | None, version: int | None = None) -> int:
        """Number of clips that `of_clips` would give, without latents. Raises ConfigError: the filter is wrong."""
        return len(self._windows(db, where, split, version) or ())

    def _windows(self, db: Database, where: str, split: str | None, version: int | None) -> Windows | None:
        """One window for each whole clip; None: no clip passes."""
        column = "" if self._understood is None else self.settings.intent
        if column and column not in db.existing_table("clips", version or db.version).schema.names:
            hint = "compute it (docs/robomirror.md), or give a checkpoint of stage motion"
            raise ConfigError(f"the table of {db.uri} has no column {column}, of which {self.uri} makes latents", hint)
        among = f"{column} IS NOT NULL" if column else WITH_HANDS
        asked = narrowed(db, where or None, HUMAN)
        longest = db.read("clips", ["start_s", "end_s"], both(asked, among), version)
        if not longest.num_rows:
            return None
        spans = np.asarray(longest["end_s"]) - np.asarray(longest["start_s"])
        changed: dict[str, Any] = {"future": int(spans.max() * self.rate_hz) + 1, "pad": True, "stride": WHOLE}
        if column:
            changed |= {"fields": (column, f"{column}_s"), "optional": (), "transform": _Seen(column)}
        else:
            changed |= {"transform": _Moved(MotionSample(self._vae.layout))}
        settings = self.settings.model_copy(update={"where": asked or ""})
        return motion_windows(db, settings, version, split, among, **changed)

    @torch.inference_mode()
    def _pooled(self, sample: Mapping[str, Any]) -> Floats:
        """(parts * width,) of a sample of `_Moved` or `_Seen`."""
        name = sample["clip_id"]
        if self._understood is None:
            latents = self._vae.standardised(self._vae.encode(torch.from_numpy(sample["motion"]))).numpy()
        else:
            latents = self._understood.encode(name, sample["intent"], sample["intent_s"], sample["num_frames"])
        if len(latents) < self.parts:
            problem = f"the clip {name} has {len(latents)} steps at {self.rate_hz:g} Hz, too few for {self.parts} parts"
            raise ConfigError(problem, "leave it out, or ask for fewer parts")
        return np.concatenate([part.mean(axis=0) for part in np.array_split(latents, self.parts)])


def key_of(vae: MotionVae) -> str:
    """A hash of an auto-encoder's weights: latents of two with the same key mean the same."""
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode() + np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Moved:
    """A whole clip's motion, (T, D), without what follows its end."""

    sample: MotionSample

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        found = self.sample(sample)
        return found | {"motion": found["motion"][found["valid"]]}


@dataclass(frozen=True)
class _Seen:
    """A whole clip's intent, (L, d), and seconds of it since the first frame. No hand and no pose is read."""

    column: str

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        times = np.asarray(sample[f"{self.column}_s"], np.float64) - sample["frame_s"][sample["valid"]][0]
        return {
            "clip_id": sample["clip_id"],
            "intent": np.asarray(sample[self.column], np.float32),
            "intent_s": times,
            "num_frames": int(sample["valid"].sum()),
        }

"""A window of a robot episode as a sample: states, images, the task, and the clips retrieved for the episode."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import StoreError
from handloom.train.arvrm.data.hand_sample import KEYPOINTS, images_of
from handloom.train.arvrm.data.human_library import Replay
from handloom.train.parts.robot_state import StateForm


@dataclass
class Retrieved:
    """The retrieved clips. places: {episode_id: (J,) indices into `ids`}. ids: of N clips. keypoints: (N, T, 2, 21, 3),
    T frames spread over each clip. replay: None without replay."""

    places: Mapping[str, NDArray[np.int64]]
    ids: tuple[str, ...]
    keypoints: NDArray[np.float32]
    replay: Replay | None = None


@dataclass
class RobotSample:
    """The transform of robot windows.

    A sample has `episode_id`, `now_s`, `text`, `state` (T, S); with an `image_size` also `images` and `images_valid`;
    with a `form` the state has the robot's own numbers alone, and `things` (T, E) the others, places as seen from the
    hand; with retrieval `retrieved` (J, T, 2, 21, 3) keypoints and `progress`, the share of the episode that has passed
    at the last step; with replay `replay_keypoints`, `replay_text`, `replay_size`, `replay_images` and
    `replay_images_valid`.
    """

    camera: str = ""
    phases: int = 1
    image_size: int = 0
    retrieved: Retrieved | None = None
    form: StateForm | None = None

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        if sample["state"] is None:
            raise StoreError(f"the episode {sample['episode_id']} has no states", "ingest it again with --state KEY")
        state = np.asarray(sample["state"][:: self.phases], np.float32)
        out = {"episode_id": sample["episode_id"], "now_s": sample["now_s"], "text": sample["task"], "state": state}
        if self.form is not None:
            out |= {"state": state[:, self.form.own], "things": self.form.told(state).astype(np.float32)}
        if self.image_size:
            out |= images_of(sample, image_name(self.camera), self.phases, self.image_size)
        if self.retrieved is not None:
            out |= self._beside(self.retrieved, sample, len(state))
        return out

    def _beside(self, retrieved: Retrieved, sample: Mapping[str, Any], num_steps: int) -> dict[str, Any]:
        places = retrieved.places[sample["episode_id"]]
        length_s = max((sample["num_frames"] - 1) / sample["fps"], 1e-6)
        times = sample["frame_s"][np.isfinite(sample["frame_s"])]
        passed = float(times[-1]) / length_s if len(times) else 1.0
        out = {"retrieved": retrieved.keypoints[places], "progress": min(max(passed, 0.0), 1.0)}
        if retrieved.replay is not None:
            number = zlib.crc32(f"{sample['episode_id']} {sample['now_s']:.6f}".encode())
            found = retrieved.replay.sample([retrieved.ids[p] for p in places], number)
            out |= _replayed(found, num_steps, self.image_size, retrieved.replay.has_goals)
        return out


def image_name(camera: str) -> str:
    """The field of a robot window that holds the images of `camera`, of the first one if it is empty."""
    return f"images:{camera}" if camera else "images"


def _replayed(found: Mapping[str, Any] | None, num_steps: int, size: int, has_goals: bool) -> dict[str, Any]:
    """A human sample under `replay_` names; one with unknown keypoints and no images for None."""
    if found is None:
        found = {"keypoints": np.full((num_steps, *KEYPOINTS), np.nan, np.float32), "text": None}
        found |= {"size": np.ones(2, np.float32)}
        if has_goals:
            found["goals"] = np.full((num_steps, KEYPOINTS[0], 3), np.nan, np.float32)
        if size:
            images = np.zeros((num_steps, size, size, 3), np.uint8)
            found |= {"images": images, "images_valid": np.zeros(num_steps, bool)}
    kept = ("keypoints", "text", "size", "images", "images_valid", "goals")
    return {f"replay_{name}": found[name] for name in kept if name in found}

"""A window of a robot's episode as a sample of ARM4R's stage 3: states, targets, images and the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.train.arm4r.data.track_sample import images
from handloom.train.parts.robot_state import POSE_NAMES, StateForm


@dataclass(frozen=True)
class ControlSample:
    """The windows' transform of stage 3; runs in loader workers.

    context: steps. num_pred_steps: P; the window has context + P steps. form: of the state; None leaves it as it is.
    target: `action` or `next_state`. cameras: fields of the windows that hold the images.
    """

    context: int
    num_pred_steps: int
    form: StateForm | None
    target: str
    cameras: tuple[str, ...]

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """`state` (context, D + things), `target` (context, P, D) float32, NaN where unknown; D is 10 for a pose.
        `target` is the action k steps later, minus the state of its own step; NaN after the episode's end, which is the
        only use of the paper's eos flag. `images` (context, cameras, h, w, 3) uint8.

        Raises StoreError where an image is missing.
        """
        convert = (lambda values: np.asarray(values, np.float64)) if self.form is None else self.form.convert
        valid = np.asarray(sample["valid"])[:, None]
        state = np.where(valid, convert(sample["state"]), np.nan)
        num = state.shape[1] if self.form is None else len(POSE_NAMES)
        wanted = np.where(valid, convert(sample["action"]), np.nan) if self.target == "action" else state[1:, :num]
        out = {
            "clip_id": sample["episode_id"],
            "now_s": sample["now_s"],
            "text": sample.get("task") or "",
            "state": state[: self.context].astype(np.float32),
            "target": self._ahead(state[:, :num], wanted).astype(np.float32),
        }
        if self.cameras:
            seen = [images(sample, self.context, name) for name in self.cameras]
            out["images"] = np.concatenate(seen, axis=1)
        return out

    def _ahead(self, state: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        """(context, P, D) of `wanted` (at least context + P - 1, D)."""
        steps = np.arange(self.context)[:, None] + np.arange(self.num_pred_steps)
        return wanted[steps] - state[: self.context, None]

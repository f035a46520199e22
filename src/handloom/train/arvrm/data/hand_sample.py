"""A window of a human clip as a sample: keypoints in image space, images, narration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS

FIELDS = ("hands", "width", "height", "narration")
KEYPOINTS = (NUM_HANDS, NUM_KEYPOINTS, 3)


def image_space(keypoints_px: NDArray, keypoints_cam_m: NDArray, visible: NDArray, size: tuple) -> NDArray[np.float32]:
    """(T, 2, 21, 3): x over the image's width, y over its height, depth in metres relative to the hand's wrist.

    2.5-D as in InterHand, the source of the paper's "3D coordinates in image space". NaN where a hand was not seen;
    only the depth is NaN where the hand has no position in metres.

    Args:
        keypoints_px: (T, 2, 21, 2) pixels of the source.
        keypoints_cam_m: (T, 2, 21, 3) metres in the camera frame.
        visible: (T, 2) bool.
        size: width and height of the source, pixels.
    """
    depth = keypoints_cam_m[..., 2:] - keypoints_cam_m[..., :1, 2:]
    places = np.concatenate([keypoints_px / np.array(size, np.float32), depth], axis=-1)
    return np.where(visible[..., None, None], places, np.nan).astype(np.float32)


def goals_of(keypoints_px: NDArray, keypoints_cam_m: NDArray, visible: NDArray, size: tuple) -> NDArray[np.float32]:
    """(T, 2, 3): where each wrist is in the last of the T frames, from where it is in each of them.

    To the right over the image's width, away in metres, up over the image's height: in the order of a robot's x, y, z.
    NaN where the hand was not seen in one of both. See `image_space`.
    """
    places = np.concatenate([keypoints_px[:, :, 0] / np.array(size, np.float32), keypoints_cam_m[:, :, 0, 2:]], -1)
    places = np.where(visible[..., None], places, np.nan)
    away = places[-1] - places
    return np.stack([away[..., 0], away[..., 2], -away[..., 1]], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class HandSample:
    """The transform of human windows: it takes every `phases`-th step of a window.

    A sample has `clip_id`, `now_s`, `text`, `size` (2,) float32 width and height, `keypoints` (T, 2, 21, 3), and with
    an `image_size` also `images` (T, h, w, 3) uint8 and `images_valid` (T,). With `steps` these are the first T steps
    of a longer window, of which the rest tells the `goals` (T, 2, 3).
    """

    phases: int = 1
    image_size: int = 0
    steps: int | None = None

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        size = (sample["width"], sample["height"])
        names = ("hand_keypoints_px", "hand_keypoints_cam_m", "hand_visible")
        px, cam_m, visible = (sample[name] for name in names)
        shown = slice(None, None, self.phases)
        parts = (px[shown][: self.steps], cam_m[shown][: self.steps], visible[shown][: self.steps])
        out = {"clip_id": sample["clip_id"], "now_s": sample["now_s"], "text": sample["narration"]}
        out |= {"size": np.array(size, np.float32), "keypoints": image_space(parts[0], parts[1], parts[2], size)}
        if self.image_size:
            found = images_of(sample, "images", self.phases, self.image_size)
            out |= {name: values[: self.steps] for name, values in found.items()}
        if self.steps is not None:
            out["goals"] = goals_of(px, cam_m, visible, size)[:: self.phases][: self.steps]
        return out


def images_of(sample: Mapping[str, Any], name: str, phases: int, size: int) -> dict[str, NDArray]:
    """`images` (T, size, size, 3) and `images_valid` (T,) of every `phases`-th step; missing images are black."""
    valid = np.asarray(sample[f"{name}_valid"])[::phases]
    images = sample[name]
    if images is None:
        return {"images": np.zeros((len(valid), size, size, 3), np.uint8), "images_valid": np.zeros(len(valid), bool)}
    return {"images": np.ascontiguousarray(images[::phases]), "images_valid": valid}

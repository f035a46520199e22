"""A small dataset in CALVIN's layout, written here after its description; every image carries its own number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.numbered_video import numbered_image

WINDOWS = (((100, 108), "open the drawer", "open_drawer"), ((104, 112), "push the block", "push_red_block"))


def state_of(frame: int) -> np.ndarray:
    return np.arange(15) / 10 + frame


def frame_arrays(frame: int) -> dict[str, np.ndarray]:
    """What one npz file holds: images, depths, actions, states, in CALVIN's types."""
    relative = np.r_[np.sin(frame + np.arange(6.0)), 1.0 if frame % 2 else -1.0]
    return {
        "rgb_static": numbered_image(frame, 128, 96),
        "rgb_gripper": numbered_image(frame + 1000, 84, 84),
        "rgb_tactile": np.zeros((16, 12, 6), np.uint8),
        "depth_static": np.ones((96, 128), np.float32),
        "actions": np.r_[state_of(frame)[:6], relative[6]],
        "rel_actions": relative,
        "robot_obs": state_of(frame),
        "scene_obs": np.zeros(24),
    }


def language(windows: Sequence[Any] = WINDOWS) -> dict[str, Any]:
    spans, texts, tasks = zip(*windows, strict=True) if windows else ((), (), ())
    emb = np.zeros((len(texts), 1, 384), np.float32)
    return {
        "language": {"ann": list(texts), "task": list(tasks), "emb": emb},
        "info": {"episodes": [], "indx": [tuple(span) for span in spans]},
    }


def make_calvin(
    root: Path, first: int = 100, end: int = 116, windows: Sequence[Any] = WINDOWS, splits=("training",)
) -> Path:
    for split in splits:
        folder = root / split
        (folder / "lang_annotations").mkdir(parents=True)
        for frame in range(first, end):
            np.savez_compressed(folder / f"episode_{frame:07d}.npz", **frame_arrays(frame))
        np.save(folder / "ep_start_end_ids.npy", np.array([[first, end - 1]]))
        np.save(folder / "lang_annotations" / "auto_lang_ann.npy", language(windows))
    return root


def edit_frame(root: Path, frame: int, split: str = "training", **arrays: np.ndarray | None) -> None:
    """Other arrays in one frame's file; None removes one."""
    values = {**frame_arrays(frame), **arrays}
    path = root / split / f"episode_{frame:07d}.npz"
    np.savez_compressed(path, **{key: value for key, value in values.items() if value is not None})

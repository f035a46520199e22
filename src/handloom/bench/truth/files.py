"""The files below a folder, without folders of images, of which ARCTIC has millions."""

from __future__ import annotations

import os
from pathlib import Path

IMAGES = {"images", "cropped_images", "frames"}
BESIDE_IMAGES = {"raw_seqs", "headset_trajectory.csv"}  # what marks the folder of a recording


def files_below(folder: Path | str) -> list[Path]:
    """Files below a folder, sorted; links to folders are followed unless they form a loop."""
    out, seen = [], set()
    for at, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if BESIDE_IMAGES & {*folders, *files}:
            folders[:] = [name for name in folders if name not in IMAGES]
        out += [Path(at, name) for name in files]
    return sorted(out)

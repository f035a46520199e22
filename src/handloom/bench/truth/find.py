"""Where the clips of a folder are: one walk, which leaves out folders of pictures, of which ARCTIC has millions."""

from __future__ import annotations

import os
from pathlib import Path

PICTURES = {"images", "cropped_images", "frames"}
BESIDE_PICTURES = {"raw_seqs", "headset_trajectory.csv"}  # what a recording keeps beside them


def files_below(folder: Path | str) -> list[Path]:
    """Files below a folder, sorted, links to folders followed as far as they lead no way back."""
    out, seen = [], set()
    for at, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if BESIDE_PICTURES & {*folders, *files}:
            folders[:] = [name for name in folders if name not in PICTURES]
        out += [Path(at, name) for name in files]
    return sorted(out)

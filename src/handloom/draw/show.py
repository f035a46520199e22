"""The files of `handloom show`: a contact sheet (.png), a video with overlay (.mp4), or a Rerun recording (.rrd)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.draw.frame import draw_frame
from handloom.draw.frames import Frames, match_frames, other_video
from handloom.draw.recording import write_recording
from handloom.draw.sheet import write_contact_sheet
from handloom.errors import ConfigError
from handloom.io.atomic import atomic_file
from handloom.video.write import write_video

SUFFIXES = (".png", ".mp4", ".rrd")


def check_suffix(path: str | Path) -> str:
    """The suffix of `path`, one of `SUFFIXES`: call it before decoding. Raises ConfigError on any other."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        said = f"ends in {suffix!r}" if suffix else "has no suffix"
        raise ConfigError(
            f"cannot write {str(path)!r}: the name {said}, expected .png (contact sheet), .mp4 (video) or .rrd (Rerun)",
            "name the output file NAME.png, NAME.mp4 or NAME.rrd",
        )
    return suffix


def write_show(frames: Frames, row: dict[str, Any], path: str | Path) -> None:
    """A contact sheet, an overlay video or a recording, by the suffix of `path`.

    frames: (frame_s, (h, w, 3) RGB) of the row's frames, in order of time: decoded from its video, or
    `frames_from_row(row)`. row: what `handloom.schemas.tables.row.row_arrays` gives.

    Raises:
        ConfigError: another suffix, or the frames are not the row's.
        StoreError: the file cannot be written.
    """
    writers = {".png": write_contact_sheet, ".mp4": write_overlay_video, ".rrd": write_recording}
    writers[check_suffix(path)](frames, row, path)


def write_overlay_video(frames: Frames, row: dict[str, Any], path: str | Path) -> None:
    """An H.264 MP4 of all of the row's frames with their overlay, at the clip's own times less that of the first frame.

    Holds a few frames at a time. Raises ConfigError if the frames are not the row's or the file cannot be written.
    """
    times_s = np.asarray(row["frame_s"], np.float64)
    if not len(times_s):
        raise other_video(row, 0)
    with atomic_file(path) as draft:
        write_video(draft, _drawn(frames, row), times_s - times_s[0])


def _drawn(frames: Frames, row: dict[str, Any]) -> Iterator[NDArray[np.uint8]]:
    """Every frame of the row, drawn, with even sides. Raises ConfigError where one is missing."""
    num_drawn = 0
    for index, image in match_frames(frames, row):
        if index == num_drawn:
            yield _even(draw_frame(image, row, index))
            num_drawn += 1
    if num_drawn != len(row["frame_s"]):
        raise other_video(row, num_drawn)


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with even sides, as 4:2:0 video needs: an odd side is extended by its last pixels."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else image

"""Frames to draw on: matched to a row by their times, or the stored frames of the row itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError

TIME_TOLERANCE_S = 0.002  # a container's clock may be stored as milliseconds

Frames = Iterable[tuple[float, NDArray[np.uint8]]]  # (frame_s, (h, w, 3) RGB), in order of time


def frames_from_row(row: dict[str, Any]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """(frame_s, RGB) of every stored frame, for a clip whose video no longer exists.

    Raises ConfigError at once if the row has no frames (`frame_jpeg` is null), StoreError if one cannot be decoded.
    """
    if row.get("frame_jpeg") is None:
        raise ConfigError(
            f"clip {row['clip_id']} has no stored frames (frame_jpeg is null)",
            "give access to its video, or extract it with --set frames.store=true",
        )
    return _decode_jpegs(row)


def match_frames(frames: Frames, row: dict[str, Any]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(index in the row, image) of the row's frames, found by their time; other frames are skipped."""
    frame_s = np.asarray(row["frame_s"])
    for time_s, image in frames:
        index = int(np.argmin(np.abs(frame_s - time_s))) if len(frame_s) else -1
        if index >= 0 and abs(frame_s[index] - time_s) <= TIME_TOLERANCE_S:
            yield index, image


def other_video(row: dict[str, Any], num_found: int) -> ConfigError:
    """The error for frames that are not the row's."""
    return ConfigError(
        f"found {num_found} of the {len(row['frame_s'])} frames of clip {row['clip_id']} by their times",
        "the video has changed since it was processed; draw on the stored frames instead",
    )


def _decode_jpegs(row: dict[str, Any]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    for index, (time_s, data) in enumerate(zip(row["frame_s"], row["frame_jpeg"], strict=True)):
        image = cv2.imdecode(np.frombuffer(data or b"\0", np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise StoreError(f"stored frame {index} of clip {row['clip_id']} is no JPEG ({len(data or b'')} bytes)")
        yield float(time_s), np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

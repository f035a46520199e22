"""An exception as a short text, for errors that cost one clip."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import PurePath

import cv2

MAX_PLACES, MAX_WORDS, MAX_CAUSES = 16, 500, 3


def trace_of(error: BaseException) -> str:
    """The exception and its stack, innermost call first, in at most a few dozen lines.

    TypeError: 'NoneType' object is not subscriptable
      at handloom/models/tracks/lucas_kanade.py:33 in track
      at handloom/stages/builtin/tracks.py:48 in run
    """
    parts: list[str] = []
    now: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if now is None:
            break
        parts += ["from " * bool(parts) + _words(now), *_places(now)]
        now = now.__cause__ or (None if now.__suppress_context__ else now.__context__)
    return "\n".join(parts)


def place_of(trace: str) -> str:
    """The exception's class and innermost call of a trace: the same for all occurrences of a bug."""
    first, _, rest = trace.partition("\n")
    place = next((line for line in rest.splitlines() if line.startswith("  at ")), "")
    return first.partition(":")[0] + place


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python, OpenCV or torch, on a GPU, ran out of memory."""
    if type(error).__name__ == "OutOfMemoryError" and type(error).__module__ == "torch":  # which may not be installed
        return True
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem)


def _words(error: BaseException) -> str:
    words = "".join(traceback.TracebackException.from_exception(error, limit=0).format_exception_only()).strip()
    return words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + " ..."


def _places(error: BaseException) -> list[str]:
    found = [f"  at {_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in _stack(error)]
    left_out = len(found) - MAX_PLACES
    return found[:MAX_PLACES] + ([f"  ... {left_out} more"] if left_out > 0 else [])


def _stack(error: BaseException) -> Iterator[traceback.FrameSummary]:
    return reversed(traceback.extract_tb(error.__traceback__))


def _short(filename: str) -> str:
    """The file without the folders of this machine: `handloom/models/tracks/lucas_kanade.py`."""
    parts = PurePath(filename).parts
    for folder in ("site-packages", "src"):
        if folder in parts:
            return "/".join(parts[len(parts) - parts[::-1].index(folder) :])
    return "/".join(parts[-2:])

"""JSON of unknown origin: its size is checked before it is parsed, as Python objects take 10 to 30 times its bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """The largest JSON that is read. max_values: number of values, lists and objects included; None: no limit."""

    max_bytes: int
    max_values: int | None = None


CAMERA = Bounds(48 << 20, 4_000_000)
"""An hour of poses at 30 Hz, each number written with 17 digits, has 39 MB and 2.2 million values."""
DESCRIPTION = Bounds(16 << 20, 1_000_000)
"""A dataset's description of itself: a few kB."""
ANNOTATIONS = Bounds(4 << 30)
"""Annotations of a whole dataset in one file: Ego4D's narrations have half a GB."""


def parse(text: bytes | str, bounds: Bounds) -> Any:
    """The content as Python objects; NaN and Infinity are allowed.

    Raises:
        ValueError: it is larger than `bounds`, nested too deeply, holds an integer of thousands of digits, or is not
            JSON (then json.JSONDecodeError, or UnicodeDecodeError for bytes).
    """
    check_size(len(text), bounds)
    if bounds.max_values is not None:
        num_values = (
            sum(map(text.count, (b",", b"[", b"{")))
            if isinstance(text, bytes)
            else sum(map(text.count, (",", "[", "{")))
        )
        if num_values > bounds.max_values:
            raise ValueError(f"it holds {num_values} values, expected at most {bounds.max_values}")
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None
    except ValueError as error:  # Python refuses integers of more than 4300 digits
        raise ValueError(f"it holds a number that cannot be read: {str(error).split(';')[0]}") from None


def check_size(num_bytes: int, bounds: Bounds) -> None:
    """Raise ValueError for more bytes than `bounds` allow."""
    if num_bytes > bounds.max_bytes:
        raise ValueError(f"it is larger than {bounds.max_bytes >> 20} MiB, the most that is read of such a file")

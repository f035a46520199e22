"""Clips decoded once, for tests that look at the same frames many times; and arrays at chosen addresses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.video.decode.decoder import DecodedClip, DecodeLimits, Decoder, Header
from handloom.video.fetch.video_source import VideoSource

LINE_BYTES = 64  # a cache line, and the widest register


@dataclass(frozen=True)
class HeldFrames:
    """A decoded clip for `Extractor.row` that can be read many times."""

    clip: Clip
    header: Header
    frames: tuple[NDArray[np.uint8], ...]
    offset: int | None = None

    def chunks(self, begin: Callable[[], object]) -> Iterator[NDArray[np.uint8]]:
        begin()
        yield from self.frames if self.offset is None else moved(self.frames, self.offset)


def chunks_of(item: DecodedClip) -> list[NDArray[np.uint8]]:
    """All of the clip's chunks, of one decoder."""
    chunks: list[NDArray[np.uint8]] = []
    for chunk in item.chunks(chunks.clear):
        chunks.append(chunk)
    return chunks


def decoded(clips: Iterable[Clip]) -> list[HeldFrames]:
    """The clips' frames, all of them in memory."""
    video = Settings().video
    source = VideoSource()
    decoder = Decoder(video.sample_hz, video.short_side_px, DecodeLimits(), source)
    try:
        items = decoder.stream(list(clips))
        return [HeldFrames(item.clip, item.header, tuple(chunk.copy() for chunk in chunks_of(item))) for item in items]
    finally:
        decoder.close()


def moved(value: Any, offset: int) -> Any:
    """The same value with every array in it copied to an address `offset` bytes behind a multiple of 64."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        room = np.empty(value.nbytes + 2 * LINE_BYTES, np.uint8)
        start = (
            (max(offset, value.itemsize) - room.ctypes.data) % LINE_BYTES if offset else -room.ctypes.data % LINE_BYTES
        )
        there = room[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
        there[...] = value
        return there
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{name: moved(getattr(value, name), offset) for name in names})
    if isinstance(value, tuple | list):
        return type(value)(moved(item, offset) for item in value)
    if isinstance(value, dict):
        return {name: moved(item, offset) for name, item in value.items()}
    return value


def content(value: Any) -> Any:
    """The value with arrays as their bytes, so that `==` compares bits."""
    if isinstance(value, np.ndarray | np.generic):
        return (str(value.dtype), value.shape, np.ascontiguousarray(value).tobytes())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: content(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [content(item) for item in value]
    if isinstance(value, dict):
        return {name: content(item) for name, item in value.items()}
    return repr(value) if isinstance(value, float) else value

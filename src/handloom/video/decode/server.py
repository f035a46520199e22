"""Serves requests for clips in a decoding process: a `header`, the frames in chunks, an `end`; or an `error`.

The last video stays open: its next clip is read on from the current position.
"""

from __future__ import annotations

import traceback
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo
from handloom.video.container.containers import NotAVideoError
from handloom.video.container.packets import PacketIndex, read_packet_index
from handloom.video.decode.readers import (
    AvReader,
    DecodeFailedError,
    DecordReader,
    FrameReader,
    ImageSizeError,
    decord_stays_small,
    suits_decord,
)
from handloom.video.decode.wire import ChildEnd, Request
from handloom.video.fetch.partial_file import NotRangedError, Ranged
from handloom.video.grid import MIN_SIDE_PX, clip_range, sample_frames, working_size

DAMAGED_HINT = "if the file was damaged on the way, fetch it again; shorter clips lose less of a damaged video"

MAX_UNTIMED = 0.1  # share of a clip's frames that may be left out because they have no time
UNTIMED_HINT = (
    "give every frame a time: `ffmpeg -fflags +genpts -i IN -fps_mode cfr -c:v libx264 -crf 16 OUT.mp4`, "
    "and check the annotated times against the new file"
)


class Server:
    """Serves requests one at a time, until the socket closes."""

    def __init__(self, pipe: ChildEnd) -> None:
        self._pipe = pipe
        self._path: str | None = None
        self._ranged: Ranged | None = None
        self._index: PacketIndex | None = None
        self._readers: dict[str, FrameReader] = {}

    def serve(self) -> None:
        while True:
            try:
                request = self._pipe.recv()
            except EOFError:
                return
            try:
                self._serve(request)
            except ClipError as error:
                self._pipe.send(("error", error))
            except NotRangedError:
                self._pipe.send(("not_ranged",))
                self._close()
            except MemoryError:
                self._pipe.send(("error", _memory_error(request.clip)))
                self._close()
            except BrokenPipeError:
                return
            except BaseException:  # noqa: BLE001 - a bug: it costs this clip, and its trace is sent
                self._pipe.send(("bug", traceback.format_exc()))
                return

    def _serve(self, request: Request) -> None:
        clip, index = request.clip, self._open(request)
        if request.probe_only:
            self._pipe.send(("header", index.info))
            return
        info = index.info
        _check_side(clip, info.width, info.height)
        start_s, end_s = clip_range(clip, info)
        if index.cut_at_s is not None and end_s > index.cut_at_s:
            cut = f"{index.cut_at_s:.3f} s of {info.end_s:.3f} s"
            problem = f"the file is cut short at {cut}, the clip ends at {end_s:.3f} s"
            raise ClipError(clip.clip_id, "decode", "damaged", problem, DAMAGED_HINT)
        _check_times(clip, index, start_s, end_s)
        indices = sample_frames(index.times_s, start_s, end_s, request.sample_hz)
        self._send_frames(request, index, indices)

    def _send_frames(self, request: Request, index: PacketIndex, indices: NDArray[np.intp]) -> None:
        """By decord where it suits the file; else by PyAV, which also sends all frames again once decord has failed."""
        info = index.info
        size = working_size(info.width, info.height, request.short_side_px)
        names = ["decord", "pyav"] if suits_decord(index) and decord_stays_small(index, size) else ["pyav"]
        if request.avoid_decord or request.ranged:  # also where all parts are there: a row must not depend on that
            names = ["pyav"]
        sent = 0
        for name in names:
            sent = 0
            try:
                reader = self._reader(name, index, size)
                if isinstance(reader, AvReader):
                    info = _of_clip(request.clip, info, reader.shown_size(int(indices[0])))
                    size = working_size(info.width, info.height, request.short_side_px)
                self._pipe.send(("header", info, name, index.times_s[indices], size))
                if request.max_bytes is not None and len(indices) * size[0] * size[1] * 3 > request.max_bytes:
                    break
                for frames in reader.read(indices, size):
                    self._pipe.send(("chunk", frames.shape))
                    self._pipe.send_bytes(memoryview(np.ascontiguousarray(frames).data).cast("B"))
                    sent += len(frames)
            except DecodeFailedError as error:
                # The next clip of the video tries decord again: its row must not depend on the clips before it.
                self._readers.pop(name, None)
                failure = error
                continue
            except ImageSizeError as error:
                raise _size_error(request.clip, error) from error
            except NotAVideoError as error:  # the file has changed since its packets were read
                raise _no_video(request.clip, error) from error
            break
        else:
            raise _decode_error(request.clip, f"decoded {sent} of {len(indices)} frames: {failure.problem}")
        self._pipe.send(("end",))

    def _open(self, request: Request) -> PacketIndex:
        if request.path != self._path or request.ranged != (self._ranged is not None) or self._index is None:
            self._close()
            self._ranged = Ranged(request.path, self._pipe.need) if request.ranged else None
            try:
                self._index = read_packet_index(self._ranged or request.path)
            except NotAVideoError as error:
                raise _no_video(request.clip, error) from error
            self._path = request.path
        return self._index

    def _reader(self, name: str, index: PacketIndex, size: tuple[int, int]) -> FrameReader:
        reader = self._readers.get(name)
        if reader is None or (isinstance(reader, DecordReader) and reader.size != size):
            path = self._path or ""
            reader = DecordReader(path, index, size) if name == "decord" else AvReader(self._ranged or path, index)
            self._readers[name] = reader
        return reader

    def _close(self) -> None:
        self._path, self._index = None, None
        self._readers.clear()
        if self._ranged is not None:
            self._ranged.close()
            self._ranged = None


def _check_side(clip: Clip, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise ClipError(
            clip.clip_id,
            "decode",
            "too_small",
            f"the image is {width} x {height} px, expected at least {MIN_SIDE_PX} on a side",
            "drop the clip: no hand can be seen in it",
        )


def _check_times(clip: Clip, index: PacketIndex, start_s: float, end_s: float) -> None:
    """Raise ClipError where too many of the clip's frames have no time, and are left out."""
    untimed, timed = (int(((t >= start_s) & (t < end_s)).sum()) for t in (index.untimed_s, index.times_s))
    if untimed > MAX_UNTIMED * (untimed + timed):
        share = f"{untimed} of the clip's {untimed + timed} frames"
        problem = f"{share} have no time in the file, and no constant frame rate to compute it from"
        raise ClipError(clip.clip_id, "decode", "damaged", problem, UNTIMED_HINT)


def _of_clip(clip: Clip, info: VideoInfo, size: tuple[int, int]) -> VideoInfo:
    """The video's facts, with the size of the clip's images where it differs from that of the video's first one."""
    if size == (info.width, info.height):
        return info
    _check_side(clip, *size)
    notes = (*(word for word in info.notes if word != "size_changes"), "size_changes")
    return replace(info, width=size[0], height=size[1], notes=notes)


def _no_video(clip: Clip, error: NotAVideoError) -> ClipError:
    hint = "check that the file is a whole video; drop it from the clip list if it is not"
    return ClipError(clip.clip_id, "decode", error.reason, error.problem, hint)


def _size_error(clip: Clip, error: ImageSizeError) -> ClipError:
    (width, height), after = error.before, error.after
    problem = f"the image changes from {width} x {height} to {after[0]} x {after[1]} px at {error.at_s:.3f} s"
    hint = "end the clip at that time, or begin it there: clips of one size are processed"
    return ClipError(clip.clip_id, "decode", "size_changes", problem, hint)


def _decode_error(clip: Clip, problem: str) -> ClipError:
    if "allocate" in problem.lower():
        return _memory_error(clip)
    return ClipError(clip.clip_id, "decode", "damaged", problem, DAMAGED_HINT)


def _memory_error(clip: Clip) -> ClipError:
    return ClipError(
        clip.clip_id,
        "decode",
        "decode_memory",
        "decoding needs more memory than resources.decode_memory_mb allows",
        "raise resources.decode_memory_mb for very large images, and run with --retry-rejects",
    )

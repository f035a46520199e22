"""Frames of one local video by index: decord first, PyAV for what decord cannot read. Runs in the decode child."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import av
import cv2
import decord
import numpy as np
from numpy.typing import NDArray

from handloom.video.packets import PacketIndex, open_container, video_streams

CHUNK_FRAMES = 16
MAX_DECORD_BYTES = 512 << 20
# What decord turns into RGB as libav's own scaler does; deeper or denser formats go to PyAV.
DECORD_PIX_FMTS = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "nv12"})


class DecodeFailedError(Exception):
    """A decoder could not deliver a frame that the container announces."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Reader(Protocol):
    """Frames of one open video."""

    name: str

    def read(self, indices: NDArray[np.intp], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """Chunks (n, h, w, 3) RGB of the frames at `indices` (ascending), shrunk to size = (width, height)."""
        ...


class DecordReader:
    """decord, reading forwards where it can: frames it stands before are reached without seeking back."""

    name = "decord"

    def __init__(self, path: str, index: PacketIndex, size: tuple[int, int]) -> None:
        self.size = size
        try:
            self._video = decord.VideoReader(path, ctx=decord.cpu(0), width=size[0], height=size[1], num_threads=1)
            stamps = self._video.get_frame_timestamp(np.arange(len(self._video)))[:, 0]
        except (decord.DECORDError, RuntimeError) as error:
            raise DecodeFailedError(_short(error)) from error
        # decord's own count and clock must agree with the container's, or its indices mean other frames.
        if len(stamps) != len(index.times_s):
            raise DecodeFailedError(f"decord counts {len(stamps)} frames, the container {len(index.times_s)}")
        offset_s = stamps - index.times_s
        if np.abs(offset_s - offset_s[0]).max() > 0.002:
            raise DecodeFailedError("decord's timestamps are not the container's")

    def read(self, indices: NDArray[np.intp], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        for at in range(0, len(indices), CHUNK_FRAMES):
            wanted = indices[at : at + CHUNK_FRAMES]
            try:
                frames = self._video.get_batch(wanted).asnumpy()
            except (decord.DECORDError, RuntimeError, StopIteration, IndexError) as error:
                raise DecodeFailedError(_short(error)) from error
            if frames.shape != (len(wanted), size[1], size[0], 3):
                raise DecodeFailedError(f"decord returned shape {frames.shape}")
            yield frames


def suits_decord(index: PacketIndex) -> bool:
    """Whether decord can be trusted with this file: plain 8-bit, upright, whole, nothing hidden by an edit list.

    decord counts frames from a key frame in file order. Where frames stored after a key frame are shown before it
    (open GOP, x265's default) its numbers are off after a seek: 8 of 18 reads around the key frames of a 60 fps HEVC
    clip gave a frame two later; H.264 with `open-gop=1` alike.
    """
    info = index.info
    return (
        info.pix_fmt in DECORD_PIX_FMTS
        and info.rotation == 0
        and index.hidden_packets == 0
        and index.cut_at_s is None
        and not index.open_gop
        and min(info.width, info.height) >= 16
    )


def decord_stays_small(index: PacketIndex, size: tuple[int, int]) -> bool:
    """Whether decord may hold every frame of the video, at working size, in memory: it comes to that.

    While it waits for a frame decord queues packets as fast as it can read them, and a thread of its own decodes them
    all, however slowly the frames are taken: a child that fed slow models grew to its limit of 1.5 GiB on an hour of
    video, died, and went on with PyAV, so that memory and the decoder of a row hung on timing.
    """
    return len(index.times_s) * size[0] * size[1] * 3 <= MAX_DECORD_BYTES


class AvReader:
    """PyAV: finds frames by their timestamps, applies rotation tags, reports damaged frames instead of hiding them."""

    name = "pyav"

    def __init__(self, path: str, index: PacketIndex) -> None:
        self._index = index
        self._container = open_container(path)
        self._stream = video_streams(self._container)[0]
        self._stream.thread_type = "NONE"
        self._frames: Iterator[av.VideoFrame] | None = None
        self._next_pts: int | None = None  # presentation time that the decoder stands before; None: unknown

    def read(self, indices: NDArray[np.intp], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        for at in range(0, len(indices), CHUNK_FRAMES):
            wanted = self._index.pts[indices[at : at + CHUNK_FRAMES]]
            yield np.stack([self._frame_at(int(pts), size) for pts in wanted])

    def _frame_at(self, pts: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        self._go_before(pts)
        try:
            for frame in self._frames or ():
                stamp = self._stamp(frame)
                self._next_pts = stamp + 1
                if stamp >= pts:
                    break
            else:
                raise DecodeFailedError(f"the stream ends before the frame at {pts * self._index.time_base:.3f} s")
        except (av.FFmpegError, OSError) as error:
            self._frames = None
            raise DecodeFailedError(f"libav failed at {pts * self._index.time_base:.3f} s: {_short(error)}") from error
        if stamp != pts or frame.is_corrupt:
            what = "is damaged" if stamp == pts else "is missing"
            raise DecodeFailedError(f"the frame at {pts * self._index.time_base:.3f} s {what}")
        return _to_rgb(frame, size, self._index.info.rotation)

    def _stamp(self, frame: av.VideoFrame) -> int:
        stamp = frame.dts if self._index.trust_dts or frame.pts is None else frame.pts
        if stamp is not None:
            return stamp
        # Frames flushed at the end of a stream carry no decoding time: they follow the frame before.
        following = np.searchsorted(self._index.pts, self._next_pts or 0)
        return int(self._index.pts[min(following, len(self._index.pts) - 1)])

    def _go_before(self, pts: int) -> None:
        """Stand before `pts`: read on if that crosses no key frame to come, seek otherwise."""
        keys = self._index.key_pts
        at = np.searchsorted(keys, pts, side="right") - 1
        key_pts = int(keys[at]) if at >= 0 else int(self._index.pts[0])
        if self._frames is not None and self._next_pts is not None and key_pts <= self._next_pts <= pts:
            return
        try:
            self._container.seek(key_pts, stream=self._stream, backward=True)
        except (av.FFmpegError, OSError) as error:
            raise DecodeFailedError(f"cannot seek to {pts * self._index.time_base:.3f} s: {_short(error)}") from error
        self._frames = self._container.decode(self._stream)


def _to_rgb(frame: av.VideoFrame, size: tuple[int, int], rotation: int) -> NDArray[np.uint8]:
    width, height = size if rotation % 180 == 0 else size[::-1]
    # Bilinear is what decord's filter graph uses: 0 to 0.4 grey levels apart on real clips, bicubic 0.1 to 2.8.
    rgb = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
    if rotation:
        turns = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)
        rgb = cv2.rotate(rgb, turns[rotation // 90 - 1])
    return rgb


def _short(error: Exception) -> str:
    """The telling line of a library's error, without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__

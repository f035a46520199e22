"""Frames of one video by index: decord first, PyAV for what decord cannot read. Runs in a decoding process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import av
import cv2
import decord
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from handloom.schemas.values import VideoInfo
from handloom.video.container.containers import open_container
from handloom.video.container.frame_stamps import NONE
from handloom.video.container.packets import PacketIndex, shown_size
from handloom.video.fetch.partial_file import Ranged

CHUNK_FRAMES = 16
MAX_DECORD_BYTES = 512 << 20
# What decord turns into RGB as libav's own scaler does; deeper or denser formats go to PyAV.
DECORD_PIX_FMTS = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "nv12"})
# Where tests/video/test_matrix.py finds decord right, and its bundled libav of 2018 knows the codec.
DECORD_CONTAINERS = frozenset({"mov", "matroska"})
DECORD_CODECS = frozenset({"h264", "hevc", "vp9", "mpeg4"})
NOT_FOR_DECORD = frozenset({"several_streams", "start_left_out", "clock_restarts", "size_changes"})
# In these formats libav's seeks by time end behind the key frame; its seeks by file position are exact.
SEEKS_BY_POSITION = frozenset({"mpegts", "mpeg"})
SEEK_BACK = 8  # key frames before the one that a seek overshot
MAX_REORDERED = 16  # frames: the most that H.264 and H.265 hold back


class DecodeFailedError(Exception):
    """A decoder could not deliver a frame that the container announces."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class FrameReader(Protocol):
    """Frames of one open video."""

    name: str

    def read(self, indices: NDArray[np.intp], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """Chunks (n, h, w, 3) RGB of the frames at `indices` (ascending), shrunk to size = (width, height)."""
        ...


class DecordReader:
    """decord. Frames ahead of its position are read on to, without a seek."""

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
    """Whether decord reads this file correctly: plain 8-bit, upright, whole, no frame hidden by an edit list.

    decord counts frames from a key frame in file order. Where frames stored after a key frame are shown before it
    (open GOP, x265's default) its numbers are off after a seek: 8 of 18 reads around the key frames of a 60 fps HEVC
    clip gave a frame two later; H.264 with `open-gop=1` alike. In transport streams its seeks land behind the first key
    frame, and every image is one GOP late. Of several streams it takes the one with the highest bit rate.
    """
    info = index.info
    return (
        index.container in DECORD_CONTAINERS
        and info.codec in DECORD_CODECS
        and info.pix_fmt in DECORD_PIX_FMTS
        and info.rotation == 0
        and not info.mirrored
        and not NOT_FOR_DECORD & set(info.notes)
        and not index.hides_packets
        and not index.varies
        and index.cut_at_s is None
        and not index.open_gop
        and min(info.width, info.height) >= 16
    )


def decord_stays_small(index: PacketIndex, size: tuple[int, int]) -> bool:
    """Whether all frames of the video, at working size, fit into `MAX_DECORD_BYTES`: decord may hold them all.

    While it waits for a frame decord queues packets as fast as it can read them, and a thread of its own decodes them
    all, however slowly the frames are taken. Measured: a process that fed slow models grew to its limit of 1.5 GiB on
    an hour of video, crashed, and went on with PyAV, so that memory and the decoder of a row depended on timing.
    """
    return len(index.times_s) * size[0] * size[1] * 3 <= MAX_DECORD_BYTES


class ImageSizeError(Exception):
    """The image's size changes inside a clip. at_s: time of the first frame of the other size (width, height)."""

    def __init__(self, before: tuple[int, int], after: tuple[int, int], at_s: float) -> None:
        super().__init__(before, after, at_s)
        self.before, self.after, self.at_s = before, after, at_s


class AvReader:
    """PyAV: finds frames by the packets that hold them, applies mirroring and rotation, reports damaged frames.

    Every packet is given its number in the file before it is decoded, and its frame carries that number: neither
    times that occur twice nor seeks that end elsewhere can put an image at the wrong time.
    """

    name = "pyav"

    def __init__(self, media: str | Ranged, index: PacketIndex) -> None:
        self._media, self._index = media, index
        self._container = self._opened()
        self._scaler = VideoReformatter()  # kept: to set one up for each frame takes 0.3 ms, to reuse it 0.03
        self._frames: Iterator[tuple[int, av.VideoFrame]] | None = None
        self._next = 0  # index of the frame that `_frames` yields next
        self._held: tuple[int, av.VideoFrame] | None = None
        self._size, self._same_since = (0, 0), 0  # of the last frame, and the frame since which it has not changed

    def shown_size(self, first: int) -> tuple[int, int]:
        """(width, height) of the frame `first` as players show it; decodes that frame."""
        return self._size_of(self._frame(first))

    def read(self, indices: NDArray[np.intp], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """As `FrameReader.read`. Raises ImageSizeError where the stored size changes, and DecodeFailedError."""
        before: tuple[int, int] | None = None
        for at in range(0, len(indices), CHUNK_FRAMES):
            images = []
            for wanted in indices[at : at + CHUNK_FRAMES].tolist():
                frame = self._frame(wanted)
                after = self._size_of(frame)
                if before is not None and after != before:
                    raise ImageSizeError(before, after, float(self._index.times_s[self._same_since]))
                before = after
                images.append(_to_rgb(self._scaler, frame, size, self._index.info))
            yield np.stack(images)

    def _time(self, at: int) -> str:
        return f"{self._index.times_s[at]:.3f} s"

    def _size_of(self, frame: av.VideoFrame) -> tuple[int, int]:
        info = self._index.info
        return shown_size((frame.width, frame.height), info.pixel_aspect, info.rotation)

    def _frame(self, wanted: int) -> av.VideoFrame:
        if self._held is not None and self._held[0] == wanted:
            return self._held[1]
        try:
            frame = self._sought(wanted)
        except (av.FFmpegError, OSError) as error:
            self._frames = None
            raise DecodeFailedError(f"libav failed at {self._time(wanted)}: {_short(error)}") from error
        self._held = (wanted, frame)
        return frame

    def _sought(self, wanted: int) -> av.VideoFrame:
        """The frame `wanted`: read on from the current position if no key frame is passed, else from a key frame.

        Where the frame is not whole from its key frame, the key frame before is tried: some are points of recovery
        only (frames after them may refer to frames before).
        """
        key = self._key_before(wanted)
        if self._frames is not None and self._frame_of_key(key) <= self._next <= wanted:
            frame, problem = self._wait_for(wanted)
            if frame is not None:
                return frame
        for start in dict.fromkeys((key, max(key - 1, 0))):
            self._frames = self._decoded_from(start)
            frame, problem = self._wait_for(wanted)
            if frame is not None:
                return frame
        self._frames = None
        raise DecodeFailedError(problem)

    def _wait_for(self, wanted: int) -> tuple[av.VideoFrame | None, str]:
        for at, frame in self._frames or ():
            self._next = at + 1
            if (frame.width, frame.height) != self._size:
                self._size, self._same_since = (frame.width, frame.height), at
            if at == wanted:
                problem = f"the frame at {self._time(wanted)} is damaged"
                return (None, problem) if frame.is_corrupt else (frame, "")
            if at > wanted:
                return None, f"the frame at {self._time(wanted)} is missing"
        return None, f"the stream ends before the frame at {self._time(wanted)}"

    def _key_before(self, wanted: int) -> int:
        """The key frame (index into `keys`) at which decoding must begin to reach the frame `wanted`."""
        keys = self._index.keys.number
        if self._index.counted:  # see _counted: the next key frame must come out before `wanted`
            return max(int(np.searchsorted(keys, wanted - MAX_REORDERED, side="right")) - 2, 0)
        at = int(np.searchsorted(keys, self._index.packet_of[wanted], side="right")) - 1
        while at > 0 and not 0 <= self._index.frame_of[keys[at]] <= wanted:
            at -= 1
        return max(at, 0)

    def _frame_of_key(self, key: int) -> int:
        keys = self._index.keys.number
        return int(self._index.frame_of[keys[key]]) if len(keys) else 0

    def _decoded_from(self, key: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(index, frame) in the order in which they are shown, from a key frame on."""
        number = self._number_of(key)
        decoded = self._decoded(number, self._located(key))
        if self._index.counted:
            yield from self._counted(number, decoded)
            return
        for packet, frame in decoded:
            at = int(self._index.frame_of[packet])
            if at >= 0:
                yield at, frame

    def _decoded(self, number: int, packets: Iterator[av.Packet]) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number of its packet, frame); a packet that cannot be decoded is skipped, and its frame is missing."""
        for packet in packets:
            if packet.size:
                number = self._resumed(number, packet)
                if number >= len(self._index.frame_of):
                    return
                packet.pts, packet.dts = number, None
                number += 1
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                continue
            yield from ((frame.pts, frame) for frame in frames if frame.pts is not None)

    def _resumed(self, number: int, packet: av.Packet) -> int:
        """The packet's number: a key frame has its own, also where libav splits a damaged stream in another way now."""
        key, keys = self._key_number(packet), self._index.keys
        at = int(np.searchsorted(keys.number, number))
        is_expected = at < len(keys.number) and keys.number[at] == number and keys.stamp[at] == keys.stamp[key]
        return number if key < 0 or is_expected else self._number_of(key)

    def _counted(self, number: int, decoded) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames by their place in the decoder's order of output.

        That place is known at the file's start, and at a key frame: the number of packets before it, plus those after
        it whose frames came out earlier. Frames before the first such key frame are skipped.
        """
        keys = self._index.keys.number
        known = not len(keys) or number == keys[0]
        at, after = number, keys[keys > number]
        later = np.zeros(len(after), int)
        for packet, frame in decoded:
            if known:
                yield at, frame
                at += 1
            elif len(after) and packet == after[0]:
                known, at = True, int(packet + later[0])
                yield at, frame
                at += 1
            elif len(after):
                later[0] += packet > after[0]

    def _located(self, key: int) -> Iterator[av.Packet]:
        """The packets from a key frame on. Where no seek finds it, the file is read from its start up to it."""
        for target in (key, key - 1, key - SEEK_BACK):
            if target <= 0:
                break
            try:
                self._seek(target)
                packets = self._container.demux(self._stream)
                for packet in packets:
                    found = self._key_number(packet)
                    if found == key:
                        return itertools.chain([packet], packets)
                    if found > key or not packet.size:
                        break
            except av.FFmpegError:
                break
        self._container.close()
        self._container = self._opened()
        return itertools.islice(self._container.demux(self._stream), self._number_of(key), None)

    def _number_of(self, key: int) -> int:
        keys = self._index.keys.number
        return int(keys[key]) if len(keys) else 0

    def _key_number(self, packet: av.Packet) -> int:
        """The key frame (index into `keys`) that the packet is; -1 for none, or one whose time is unknown."""
        if not packet.is_keyframe or not packet.size:
            return -1
        stamp = packet.dts if self._index.container == "avi" or packet.pts is None else packet.pts
        keys = self._index.keys
        same = np.flatnonzero(keys.stamp == stamp) if stamp is not None else ()
        if not len(same):
            return -1
        # Joined files have the same times in every part: the nearest position in the file is the right one.
        return int(same[np.argmin(np.abs(keys.pos[same] - (packet.pos or 0)))])

    def _seek(self, key: int) -> None:
        keys = self._index.keys
        if self._index.container in SEEKS_BY_POSITION:
            self._container.seek(int(keys.pos[key]), unsupported_byte_offset=True)
            return
        stamp = keys.stamp[key] if self._index.container == "matroska" or keys.dts[key] == NONE else keys.dts[key]
        self._container.seek(int(stamp), stream=self._stream, backward=True)

    def _opened(self) -> av.container.InputContainer:
        container = open_container(self._media if isinstance(self._media, str) else self._media.open())
        self._stream = container.streams[self._index.info.stream]
        self._stream.codec_context.thread_type = "NONE"
        return container


def _to_rgb(
    scaler: VideoReformatter, frame: av.VideoFrame, size: tuple[int, int], info: VideoInfo
) -> NDArray[np.uint8]:
    width, height = size if info.rotation % 180 == 0 else size[::-1]
    # Bilinear is what decord's filter graph uses: 0 to 0.4 grey levels apart on real clips, bicubic 0.1 to 2.8.
    rgb: NDArray[Any] = scaler.reformat(frame, width, height, format="rgb24", interpolation="BILINEAR").to_ndarray()
    if info.mirrored:
        rgb = rgb[:, ::-1]
    if info.rotation:
        turns = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)
        rgb = cv2.rotate(np.ascontiguousarray(rgb), turns[info.rotation // 90 - 1])
    return rgb


def _short(error: Exception) -> str:
    """The first line of a library's error, without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__

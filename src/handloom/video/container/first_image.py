"""Facts of a stream that only decoding shows: its rotation, and which of the first frames can be decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import av
from av.sidedata.sidedata import Type

FIELD_PACKETS = 48  # decoded to find out whether an interlaced stream stores each field in its own packet
MAX_DELAY = 17  # packets: frames of H.264 and H.265 come out at most this late
NEARLY_SQUARE = 0.005  # scalers write 640:639 after they round a width to 426: the pixels are square
MAX_PACKETS = 300  # decoded where the first key frame does not come out of the decoder
ASKEW = 0.02  # share of a display matrix that is not a quarter turn


@dataclass(frozen=True)
class Orientation:
    """How players show a stored image: mirrored left to right (`mirrored`), then turned `rotation` degrees clockwise.

    askew: the file asks for an oblique angle; `rotation` is the nearest quarter turn.
    """

    rotation: int = 0
    mirrored: bool = False
    askew: bool = False


UPRIGHT = Orientation()


class FirstImage:
    """Decodes from a stream's first key frame until that frame comes out; further where fields or times are in doubt.

    is_piece: the format is one in which packets may have no time of their own.

    frame: the first whole image; None until it comes out. start: number of the packet at which decoding began; None
    before the first key frame. seen: numbers of the packets whose frames came out whole. is_done: no more is needed.
    """

    def __init__(self, is_piece: bool = False) -> None:
        self._is_piece, self._has_untimed = is_piece, False
        self.frame: av.VideoFrame | None = None
        self.start: int | None = None
        self.seen: set[int] = set()
        self.is_done = False
        self._last = 0

    def feed(self, packet: av.Packet, number: int) -> None:
        """Decode the next packet in file order; the empty packet at the end flushes the decoder."""
        if self.start is None:
            if not packet.is_keyframe or not packet.size:
                return
            self.start = number
        if packet.size:
            self._has_untimed |= packet.pts is None
            packet.pts, packet.dts = number, None  # each frame then carries the number of its packet
        try:
            frames = packet.decode()
        except av.FFmpegError:
            return
        for frame in frames:
            if frame.pts is None or frame.is_corrupt:
                continue
            self.frame = self.frame or frame
            self.seen.add(frame.pts)
        is_out = self.start in self.seen or number > self.start + MAX_PACKETS
        asks = self._has_untimed or (self.frame is not None and self.frame.interlaced_frame)
        waits = number < self.start + (FIELD_PACKETS if asks else 2 if self._is_piece else 0)
        self._last = number
        self.is_done = is_out and not waits

    @property
    def pairs_fields(self) -> bool:
        """Whether each packet holds one field: frames come out for about half of the packets only."""
        if self.start is None or self.frame is None or not self.frame.interlaced_frame:
            return False
        due = max(self._last - MAX_DELAY - self.start, min(len(self.seen), 4))
        silent = due - sum(n < self.start + due for n in self.seen)
        return 0 < due <= 3 * silent


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The orientation by the frame's display matrix."""
    side_data: Any = frame.side_data  # PyAV's stub says that it yields names
    data = next((bytes(d) for d in side_data if d.type == Type.DISPLAYMATRIX), None)
    if data is None or len(data) < 36:
        return UPRIGHT
    a, b, _, c, d = struct.unpack_from("=5i", data)  # shown x = a x + c y, shown y = b x + d y
    straight, crossed = abs(a) + abs(d), abs(b) + abs(c)
    if not straight + crossed:
        return UPRIGHT
    askew = min(straight, crossed) > ASKEW * max(straight, crossed)
    flip_x, flip_y = (a < 0, d < 0) if straight >= crossed else (c < 0, b < 0)
    mirrored = (flip_x != flip_y) == (straight >= crossed)
    if straight >= crossed:
        return Orientation(180 if flip_y else 0, mirrored, askew)
    return Orientation(90 if flip_x else 270, mirrored, askew)


def pixel_aspect_of(stream: av.VideoStream) -> float:
    """Width over height of a stored pixel; 1 where the file has no value, an impossible one, or one close to 1."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.1 <= aspect <= 10 and abs(aspect - 1) > NEARLY_SQUARE else 1.0

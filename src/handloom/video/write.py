"""Images to MP4 files (H.264): all at once with any frame times, or one at a time at one rate."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, ShapeError

_CLOCK_HZ = 90_000
_TURNS = {0: 0, 90: 1, 180: 2, 270: 3}
_TKHD_MATRIX = {  # degrees clockwise: a, b, c, d of the matrix that a player applies, ISO/IEC 14496-12 section 8.3.2
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded; none of it changes what a reader should see.

    rotation: degrees clockwise that a player must turn the stored images. b_frames: the most in a row. gop: frames
    from key frame to key frame. crf: x264's quality, lower is better. options: more of libx264's own options.
    """

    pix_fmt: str = "yuv420p"
    rotation: int = 0
    b_frames: int = 2
    gop: int = 30
    crf: int = 18
    preset: str = "veryfast"
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.rotation not in _TURNS:
            raise ConfigError(f"rotation {self.rotation} is not a quarter turn", "one of 0, 90, 180, 270")


DEFAULT = Encoding()
RANDOM_ACCESS = Encoding(b_frames=0, gop=2, crf=18)
"""Every second frame can be decoded by itself, for training jobs that read frames at random."""


def write_video(
    path: Path | str,
    frames: Iterable[NDArray[np.uint8]],
    frame_s: Sequence[float] | NDArray[np.float64],
    encoding: Encoding = DEFAULT,
) -> None:
    """Write frames to an MP4 file; memory holds a few of them at a time.

    Args:
        path: an `.mp4` file; overwritten.
        frames: (h, w, 3) uint8 RGB, as a viewer will see them: with a rotation tag they are stored turned. Sides
            must be even for 4:2:0.
        frame_s: (T,) strictly rising times on the container's clock, rounded to 1/90000 s. The first may be above zero.
            The last frame is shown as long as the one before it.

    Raises:
        ShapeError: the numbers of frames and times differ, or frames differ in shape.
        ConfigError: times that do not rise or lie below zero; an encoder that refuses the frames.
    """
    ticks = _ticks(frame_s)
    images = iter(frames)
    first = next(images, None)
    if first is None:
        raise ShapeError(f"no frame for {len(ticks)} frame times")
    try:
        _encode(str(path), itertools.chain([first], images), ticks, first.shape, encoding)
    except (av.error.FFmpegError, ValueError) as error:
        raise ConfigError(
            f"cannot write {path}: {error} ({first.shape[1]}x{first.shape[0]} px, {encoding.pix_fmt})",
            "sides must be even for 4:2:0; the folder must exist and be writable",
        ) from error
    if encoding.rotation:
        _tag_rotation(Path(path), encoding.rotation)


def _ticks(frame_s: Sequence[float] | NDArray[np.float64]) -> list[int]:
    ticks = [round(float(s) * _CLOCK_HZ) for s in frame_s]
    if not ticks or ticks[0] < 0 or any(b <= a for a, b in itertools.pairwise(ticks)):
        raise ConfigError(f"frame times must rise from zero or above, got {list(frame_s)[:4]}...", "give one per frame")
    return ticks


def _encode(
    path: str, frames: Iterator[NDArray[np.uint8]], ticks: list[int], shape: tuple[int, ...], encoding: Encoding
) -> None:
    # A plain edit list keeps a non-zero start; without it the muxer would move the first frame to zero.
    # That list counts in the movie's clock, by default milliseconds.
    clocks = {"video_track_timescale": str(_CLOCK_HZ), "movie_timescale": str(_CLOCK_HZ)}
    with av.open(path, "w", format="mp4", options=clocks) as container:
        stream = container.add_stream("libx264", rate=_rate(ticks), options=x264_options(encoding))
        turned = _TURNS[encoding.rotation] % 2
        stream.height, stream.width = (shape[1], shape[0]) if turned else (shape[0], shape[1])
        stream.pix_fmt = encoding.pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, _CLOCK_HZ)
        lengths = [b - a for a, b in itertools.pairwise(ticks)]
        lengths.append(lengths[-1] if lengths else _CLOCK_HZ // 30)
        count = 0
        for image in frames:
            if count == len(ticks) or image.shape != shape:
                raise ShapeError(f"frame {count} of shape {image.shape}: expected {len(ticks)} of shape {shape}")
            stored = np.ascontiguousarray(np.rot90(image, _TURNS[encoding.rotation]))
            frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
            frame.pts, frame.duration, frame.time_base = ticks[count], lengths[count], Fraction(1, _CLOCK_HZ)
            for packet in stream.encode(frame):
                container.mux(packet)
            count += 1
        if count != len(ticks):
            raise ShapeError(f"{count} frames for {len(ticks)} frame times")
        for packet in stream.encode():
            container.mux(packet)


def _rate(ticks: list[int]) -> Fraction:
    """Average rate, for the encoder's rate control only."""
    span = ticks[-1] - ticks[0]
    return Fraction((len(ticks) - 1) * _CLOCK_HZ, span).limit_denominator(1001) if span else Fraction(30)


def x264_options(encoding: Encoding) -> dict[str, str]:
    """libx264's own options: the same bytes on every machine."""
    return {
        "crf": str(encoding.crf),
        "preset": encoding.preset,
        "bf": str(encoding.b_frames),
        "g": str(encoding.gop),
        "threads": "1",  # the same bytes whatever the machine ...
        "mbtree": "0",  # ... and every time: with AVX-512, 12 encodings of 320 x 240 left 4 files; without, 25 left one
        **dict(encoding.options),
    }


def _tag_rotation(path: Path, rotation: int) -> None:
    """Write the display matrix into the track header in place; PyAV has no call for it."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4
    version = data[at]
    at += 4 + (32 if version == 1 else 20) + 16
    a, b, c, d = (value << 16 for value in _TKHD_MATRIX[rotation])
    width, height = (value >> 16 for value in struct.unpack_from(">II", data, at + 36))
    x = {90: height, 180: width, 270: 0}[rotation] << 16
    y = {90: 0, 180: height, 270: width}[rotation] << 16
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, x, y, 1 << 30)
    path.write_bytes(data)


class GrowingVideo:
    """Frames appended one at a time; frame i stands at i / hz. Close it, or the file cannot be read.

    Args:
        path: a local `.mp4`; overwritten.
        size: (width, height) in pixels, both even for 4:2:0.
        hz: frames per second; times are rounded to 1/90000 s.

    Raises:
        ConfigError: an encoder that refuses the size, or a file that cannot be written.
    """

    def __init__(self, path: Path | str, size: tuple[int, int], hz: float, encoding: Encoding = RANDOM_ACCESS) -> None:
        self.path, self.hz, self.num_frames = Path(path), hz, 0
        self._size = size
        clocks = {"video_track_timescale": str(_CLOCK_HZ)}
        try:
            self._container = av.open(str(self.path), "w", format="mp4", options=clocks)
            rate = Fraction(hz).limit_denominator(1001)
            self._stream = self._container.add_stream("libx264", rate=rate, options=x264_options(encoding))
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = encoding.pix_fmt
            self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, _CLOCK_HZ)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._refused(error) from error

    def append(self, image: NDArray[np.uint8]) -> None:
        """Add one (h, w, 3) uint8 RGB frame. Raises ShapeError where it has another size than the file."""
        if image.shape != (self._size[1], self._size[0], 3):
            raise ShapeError(f"an image of shape {image.shape} in a video of {self._size[0]}x{self._size[1]} px")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, end = _tick(self.num_frames, self.hz), _tick(self.num_frames + 1, self.hz)
        frame.duration, frame.time_base = end - frame.pts, Fraction(1, _CLOCK_HZ)
        self._mux(frame)
        self.num_frames += 1

    @property
    def end_s(self) -> float:
        """The time of the next frame, seconds."""
        return _tick(self.num_frames, self.hz) / _CLOCK_HZ

    def num_bytes(self) -> int:
        """Bytes on disk so far; the encoder and the file's buffers hold a few frames more."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        """Write the encoder's last frames and the table of frames. Raises ConfigError where that fails."""
        if self.num_frames:
            self._mux(None)
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise self._refused(error) from error

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> ConfigError:
        width, height = self._size
        return ConfigError(
            f"cannot write {self.path}: {error} ({width}x{height} px, {self.hz:g} Hz)",
            "sides must be even; the folder must exist, be writable and have space left",
        )


def _tick(index: int, hz: float) -> int:
    return round(index * _CLOCK_HZ / hz)

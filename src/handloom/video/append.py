"""An MP4 file (H.264) at one rate that grows frame by frame: many clips in one file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, ShapeError
from handloom.video.write import Encoding, x264_options

CLOCK_HZ = 90_000
RANDOM_ACCESS = Encoding(b_frames=0, gop=2, crf=18)
"""Every second frame can be decoded by itself: what a training job that picks frames at random wants."""


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
        clocks = {"video_track_timescale": str(CLOCK_HZ)}
        try:
            self._container = av.open(str(self.path), "w", format="mp4", options=clocks)
            rate = Fraction(hz).limit_denominator(1001)
            self._stream = self._container.add_stream("libx264", rate=rate, options=x264_options(encoding))
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = encoding.pix_fmt
            self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, CLOCK_HZ)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._refused(error) from error

    def append(self, picture: NDArray[np.uint8]) -> None:
        """Add one (h, w, 3) uint8 RGB frame. Raises ShapeError where it has another size than the file."""
        if picture.shape != (self._size[1], self._size[0], 3):
            raise ShapeError(f"a picture of shape {picture.shape} in a video of {self._size[0]}x{self._size[1]} px")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, end = _tick(self.num_frames, self.hz), _tick(self.num_frames + 1, self.hz)
        frame.duration, frame.time_base = end - frame.pts, Fraction(1, CLOCK_HZ)
        self._mux(frame)
        self.num_frames += 1

    @property
    def end_s(self) -> float:
        """Where the next frame will stand."""
        return _tick(self.num_frames, self.hz) / CLOCK_HZ

    def num_bytes(self) -> int:
        """Bytes on disk so far; the encoder and the file's buffers hold a few frames more."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        """Write what the encoder holds back, and the table of frames. Raises ConfigError where that fails."""
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
    return round(index * CLOCK_HZ / hz)

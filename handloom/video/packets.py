"""What a video file holds, read from its packets without decoding a frame (PyAV)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import av
import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import VideoInfo


class NotAVideoError(Exception):
    """The file cannot be read as a video; `reason` is a word of `schemas.reasons`."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(reason, problem)
        self.reason = reason
        self.problem = problem


@dataclass(frozen=True)
class PacketIndex:
    """Every frame a player would show, in presentation order.

    pts: (F,) int64 in units of `time_base` seconds. times_s: (F,) seconds on the container's clock.
    key_pts: pts of the key frames, ascending. num_packets: all packets, with those an edit list hides.
    cut_at_s: where the file ends although its header announces more; None for a whole file. `info.end_s` is then the
    announced end, so that what is missing shows.
    open_gop: some frame is stored after a key frame but shown before it, so that who starts at the key frame lacks it.
    trust_dts: the container stores no presentation times (AVI): those that libav guesses form the right set, but come
    out of the decoder attached to the wrong frames; the frames' decoding times are in order.
    """

    info: VideoInfo
    pts: NDArray[np.int64]
    times_s: NDArray[np.float64]
    key_pts: NDArray[np.int64]
    num_packets: int
    time_base: float
    cut_at_s: float | None = None
    trust_dts: bool = False
    open_gop: bool = False

    @property
    def hidden_packets(self) -> int:
        return self.num_packets - len(self.pts)


def open_container(path: str) -> av.container.InputContainer:
    """Open a local file with PyAV.

    Raises:
        NotAVideoError: `video_unreadable` or `no_video_stream`.
    """
    try:
        container = av.open(path, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise NotAVideoError("video_unreadable", f"libav cannot open it: {error}") from error
    if not video_streams(container):
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no stream at all"
        container.close()
        raise NotAVideoError("no_video_stream", f"expected a video stream, found {kinds}")
    return container


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Video streams that are no cover pictures."""
    cover = av.stream.Disposition.attached_pic
    return [s for s in container.streams.video if not s.disposition & cover]


def _check_codec(stream: av.VideoStream) -> None:
    if stream.codec_context is None:  # none known: a damaged header, or a codec that this libav was built without
        raise NotAVideoError("video_unreadable", "libav knows no decoder for its video stream")


def read_packet_index(path: str) -> PacketIndex:
    """Read timestamps and stream facts of the first video stream of a local file.

    Raises:
        NotAVideoError: no video, no packets, or no timestamps.
    """
    with open_container(path) as container:
        stream = video_streams(container)[0]
        _check_codec(stream)
        pts, key, shown, last_duration, last_dts = _read_packets(container, stream)
        open_gop = _has_leading_frames(pts, key)
        if not len(pts):
            raise NotAVideoError("video_unreadable", "the video stream holds no frames")
        order = np.argsort(pts, kind="stable")
        pts, key, shown = pts[order], key[order], shown[order]
        num_packets = len(pts)
        shown_pts = np.unique(pts[shown])
        if not len(shown_pts):
            raise NotAVideoError("video_unreadable", "an edit list hides every frame of the video stream")
        time_base = float(stream.time_base)
        times_s = shown_pts * stream.time_base.numerator / stream.time_base.denominator
        info = _describe(stream, times_s, last_duration * time_base, _rotation(container, stream))
        declared_end_s = _declared_end_s(stream, num_packets, info)
        trust_dts = container.format.name == "avi"
    cut_at_s = None
    if declared_end_s is not None:
        cut_at_s, info = _whole_until_s(times_s, last_dts, time_base, info), replace(info, end_s=declared_end_s)
    return PacketIndex(info, shown_pts, times_s, pts[key], num_packets, time_base, cut_at_s, trust_dts, open_gop)


def _read_packets(container, stream):
    pts: list[int] = []
    key: list[bool] = []
    shown: list[bool] = []
    last_pts, last_duration, last_dts = None, 0, None
    try:
        for packet in container.demux(stream):
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is None or packet.size == 0:
                continue
            pts.append(stamp)
            key.append(packet.is_keyframe)
            shown.append(not packet.is_discard)
            last_dts = packet.dts if last_dts is None or packet.dts is None else max(last_dts, packet.dts)
            if last_pts is None or stamp >= last_pts:
                last_pts, last_duration = stamp, packet.duration or 0
    except av.FFmpegError:
        # A file cut short: what was read stands; clips beyond it are rejected by their missing frames.
        pass
    return np.array(pts, np.int64), np.array(key, bool), np.array(shown, bool), last_duration, last_dts


def _whole_until_s(times_s: NDArray[np.float64], last_dts: int | None, time_base: float, info: VideoInfo) -> float:
    """Until when a file that was cut short has every frame. Frames are shown no earlier than they are decoded, so what
    is missing is shown after the last decoding time; frames that are there may be shown after missing ones (B-frames).
    """
    if last_dts is None or len(times_s) < 2:
        return info.end_s
    return min(info.end_s, last_dts * time_base + float(np.median(np.diff(times_s))))


def _has_leading_frames(pts: NDArray[np.int64], key: NDArray[np.bool_]) -> bool:
    """Whether a packet follows a key frame in the file and precedes it in time; arguments in file order."""
    if not key.any():
        return False
    from_first_key = slice(int(np.argmax(key)), None)
    pts, key = pts[from_first_key], key[from_first_key]
    return bool((pts < pts[key][np.cumsum(key) - 1]).any())


def _describe(stream, times_s, last_duration_s: float, rotation: int) -> VideoInfo:
    rate = stream.average_rate or stream.guessed_rate
    if len(times_s) > 1:
        step_s = float(np.median(np.diff(times_s)))
    else:
        step_s = last_duration_s or (1 / float(rate) if rate else 0.0)
    end_s = float(times_s[-1]) + (last_duration_s or step_s)
    span_s = end_s - float(times_s[0])
    width, height = stream.codec_context.width, stream.codec_context.height
    if rotation % 180:
        width, height = height, width
    return VideoInfo(
        width=width,
        height=height,
        fps=float(rate) if rate else (len(times_s) / span_s if span_s > 0 else 0.0),
        codec=stream.codec_context.name,
        pix_fmt=stream.codec_context.pix_fmt or "",
        rotation=rotation,
        start_s=float(times_s[0]),
        end_s=end_s,
        num_frames=len(times_s),
    )


def _declared_end_s(stream, num_packets: int, info: VideoInfo) -> float | None:
    """The end that the header announces, where the packets stop earlier; None where nothing is missing."""
    if stream.frames > num_packets and stream.duration:
        return max(info.end_s, info.start_s + float(stream.duration * stream.time_base))
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag and not stream.frames:  # Matroska counts no frames but notes the length
        declared_s = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
        if declared_s > info.end_s + max(1.0, 2 / max(info.fps, 1.0)):
            return declared_s
    return None


def _rotation(container, stream) -> int:
    """Degrees clockwise that turn the stored picture upright; read from the first frame's display matrix."""
    try:
        container.seek(0)
    except av.FFmpegError:
        return 0
    try:
        for frame in container.decode(stream):
            return -round(frame.rotation / 90) * 90 % 360
    except av.FFmpegError:
        return 0
    return 0

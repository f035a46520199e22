"""Times and facts of a video, read from its packets (PyAV). Only the first image is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import av
import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import VideoInfo
from handloom.video.container.containers import NotAVideoError, main_stream, open_container, video_streams
from handloom.video.container.first_image import UPRIGHT, FirstImage, orientation_of, pixel_aspect_of
from handloom.video.container.frame_stamps import (
    NONE,
    RESTARTING,
    Scan,
    Stamps,
    asks_for_order,
    has_leading_frames,
    stamp_frames,
)
from handloom.video.container.output_order import MAX_PIXELS, order_of_output
from handloom.video.fetch.partial_file import CODEC_TAGS, NotRangedError, Ranged, RangedFile

_H264_SPS, _HEVC_SPS = 7, 33
_START_CODE = b"\x00\x00\x01"
_VOL = range(0x20, 0x30)  # MPEG-4's video object layer


def size_header(codec: str, data: bytes) -> bytes | None:
    """The bytes of a key frame that determine its size; None: it has none, or the codec is not handled here."""
    if codec in ("h264", "hevc"):
        for unit in _units(data):
            kind = unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63
            if kind == (_H264_SPS if codec == "h264" else _HEVC_SPS):
                return unit
        return None
    if codec == "vp9":
        return _vp9_header(data)
    if codec == "vp8":
        return data[3:10] if len(data) >= 10 and not data[0] & 1 else None
    if codec == "mpeg4":
        return _mpeg4_layer(data)
    return None


def is_shown(codec: str, data: memoryview) -> bool:
    """Whether the packet's frame is shown: VP8 stores frames that are only referred to, in packets of their own."""
    return codec != "vp8" or bool(data[0] & 16)


def _units(data: bytes) -> Iterator[bytes]:
    """NAL units, separated by start codes (transport streams) or preceded by their lengths (MP4, Matroska)."""
    if data.startswith((_START_CODE, b"\x00" + _START_CODE)):
        yield from (unit.rstrip(b"\x00") for unit in data.split(_START_CODE) if unit.strip(b"\x00"))
        return
    at = 0
    while at + 4 < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if not 0 < length <= len(data) - at - 4:
            return
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def _vp9_header(data: bytes) -> bytes | None:
    """Sync code, colours, width and height of an 8-bit 4:2:0 key frame: bytes 1 to 7 and half of byte 8."""
    return data[1:8] + bytes([data[8] & 0xF0]) if len(data) > 8 and data[1:4] == b"\x49\x83\x42" else None


def _mpeg4_layer(data: bytes) -> bytes | None:
    parts = data.split(_START_CODE)
    return next((part for part in parts[1:] if part and part[0] in _VOL), None)


_HDR = {16: "hdr_pq", 18: "hdr_hlg"}  # transfer functions as ITU-T H.273 numbers them


@dataclass(frozen=True)
class Keys:
    """The key frames, in file order. number: of their packets, counted from the file's start. stamp, dts: the
    container's times in ticks, `NONE`: unknown. pos: byte position from which the packet can be found, -1: unknown.
    """

    number: NDArray[np.int64]
    stamp: NDArray[np.int64]
    dts: NDArray[np.int64]
    pos: NDArray[np.int64]


@dataclass(frozen=True)
class PacketIndex:
    """Every frame that a player shows, in order of presentation.

    times_s: (F,) seconds on the container's clock, rising. frame_of: (P,) index of the frame of each packet in file
    order, -1: none. packet_of: (F,) the packet of each frame. keys: where decoding can begin.
    cut_at_s: where the file ends although its header announces more; None for a whole file. `info.end_s` is then the
    announced end.
    counted: the container stores no presentation times (AVI) and the codec reorders frames: the n-th frame out of the
    decoder is shown at the n-th time, and `frame_of` only numbers the packets.
    open_gop: some frame is stored after a key frame but shown before it, and is missing if decoding begins there.
    untimed_s: (U,) for each frame that is left out because it has no time, the time of a frame stored before it.
    hides_packets: an edit list has packets that are decoded but not shown. varies: the image's size may change.
    """

    info: VideoInfo
    container: str
    times_s: NDArray[np.float64]
    frame_of: NDArray[np.int64]
    packet_of: NDArray[np.int64]
    keys: Keys
    cut_at_s: float | None = None
    untimed_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    counted: bool = False
    open_gop: bool = False
    hides_packets: bool = False
    varies: bool = False


def read_packet_index(media: str | Ranged) -> PacketIndex:
    """Read the times and facts of the main video stream of a local file, or of a remote one in parts.

    Raises:
        NotAVideoError: no video, no packets, or no times.
        NotRangedError: the file must be read whole.
    """
    path, file = (media, None) if isinstance(media, str) else (media.path, media.open())
    with open_container(file or path) as container:
        stream = main_stream(container)
        if file is not None and (stream.codec_context is None or stream.codec_context.codec_tag not in CODEC_TAGS):
            raise NotRangedError
        if stream.codec_context is None:  # a damaged header, or a codec that this libav was built without
            raise NotAVideoError("video_unreadable", "libav knows no decoder for its video stream")
        scan = _scan(container, stream, file)
        if not scan.pts:
            raise NotAVideoError("video_unreadable", "the video stream holds no frames")
        return _index(path, container, stream, scan)


def _scan(container, stream, file: RangedFile | None) -> Scan:
    name, codec = container.format.name.split(",")[0], stream.codec_context.codec.canonical_name
    scan = Scan(image=FirstImage(name in RESTARTING))
    stream.thread_type = "NONE"
    # libav finds key frames in the data; where data is skipped, the file's own list of them is used.
    keys = {entry.pos for entry in stream.index_entries if entry.is_keyframe} if file is not None else None
    try:
        for packet in container.demux(stream):
            if packet.size:
                scan.pts.append(NONE if packet.pts is None else packet.pts)
                scan.dts.append(NONE if packet.dts is None else packet.dts)
                scan.pos.append(-1 if packet.pos is None else packet.pos)
                scan.duration.append(packet.duration or 0)
                scan.key.append(packet.is_keyframe if keys is None else packet.pos in keys)
                scan.shown.append(not packet.is_discard and is_shown(codec, memoryview(packet)))
                if packet.is_keyframe and (header := size_header(codec, bytes(packet))):
                    scan.headers.add(header)
                # MP4 stores headers apart from the frames, and may have several; the first has no such side data.
                if packet.is_keyframe and name == "mov" and packet.has_sidedata("new_extradata"):
                    scan.changes_header = True
            if not scan.image.is_done:
                scan.image.feed(packet, len(scan.pts) - 1)
            elif file is not None:
                file.skips_data = True
    except av.FFmpegError:
        # The file is cut short: what was read is kept; clips beyond it are rejected because frames are missing.
        pass
    return scan


def _index(path: str, container, stream, scan: Scan) -> PacketIndex:
    name, codec = container.format.name.split(",")[0], stream.codec_context.codec.canonical_name
    pixels = stream.codec_context.width * stream.codec_context.height * len(scan.pts)
    if asks_for_order(scan, name, codec) and pixels <= MAX_PIXELS:
        scan.order = order_of_output(path, stream.index)
        scan.order = scan.order[scan.order < len(scan.pts)]
        scan.stated_step = float(1 / (stream.guessed_rate * stream.time_base)) if stream.guessed_rate else 0.0
    try:
        stamps = stamp_frames(scan, name, codec, stream.time_base)
    except ValueError as error:
        raise NotAVideoError("video_unreadable", str(error)) from None
    usable = np.flatnonzero(stamps.usable)
    shown, first = np.unique(stamps.stamp[usable], return_index=True)
    frame_of = np.full(len(stamps.stamp), -1, np.int64)
    frame_of[usable] = np.searchsorted(shown, stamps.stamp[usable])
    times_s = shown * stream.time_base.numerator / stream.time_base.denominator
    last = usable[np.argmax(stamps.stamp[usable])]
    info = _describe(container, stream, times_s, float(scan.duration[last] * stream.time_base), scan)
    varies = len(scan.headers) > 1 or scan.changes_header
    info = replace(info, notes=(*info.notes, *stamps.notes, *(["size_changes"] if varies else [])))
    cut_at_s, declared_end_s = None, _declared_end_s(path, name, stream, info)
    if declared_end_s is not None:
        cut_at_s = _whole_until_s(times_s, max(scan.dts), float(stream.time_base), info)
        info = replace(info, end_s=declared_end_s)
    key = np.flatnonzero(np.frombuffer(scan.key, np.uint8))
    if scan.order is not None:  # no seek finds a key frame that has no time
        key = key[(stamps.raw[key] != NONE) | (key == key[:1])]
    raw, dts, pos = (
        np.array(values, np.int64)[key] for values in (stamps.raw, scan.dts, np.maximum.accumulate(scan.pos))
    )
    return PacketIndex(
        info=info,
        container=name,
        times_s=times_s,
        frame_of=frame_of,
        packet_of=usable[first],
        keys=Keys(key, raw, dts, pos),
        cut_at_s=cut_at_s,
        untimed_s=_untimed_s(stamps, float(stream.time_base)),
        counted=stamps.counted,
        open_gop=has_leading_frames(stamps.stamp, np.frombuffer(scan.key, bool)),
        hides_packets=not all(scan.shown),
        varies=varies,
    )


def _untimed_s(stamps: Stamps, time_base: float) -> NDArray[np.float64]:
    """About when frames without a time are shown: the time of the last usable frame stored before, else the first's."""
    usable = np.flatnonzero(stamps.usable)
    before = np.searchsorted(usable, np.flatnonzero(stamps.lost)) - 1
    return stamps.stamp[usable[np.maximum(before, 0)]] * time_base


def _whole_until_s(times_s: NDArray[np.float64], last_dts: int, time_base: float, info: VideoInfo) -> float:
    """The time up to which a file that was cut short has every frame.

    No frame is shown before it is decoded: missing ones are shown after the last decoding time, and some of those that
    are there (B-frames) after missing ones.
    """
    if last_dts == NONE or len(times_s) < 2:
        return info.end_s
    return min(info.end_s, last_dts * time_base + float(np.median(np.diff(times_s))))


def _describe(container, stream, times_s, last_duration_s: float, scan: Scan) -> VideoInfo:
    rate = stream.average_rate or stream.guessed_rate
    if scan.image.pairs_fields and len(times_s) > 1:  # libav's rate is that of fields
        rate = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    if len(times_s) > 1:
        step_s = float(np.median(np.diff(times_s)))
    else:
        step_s = last_duration_s or (1 / float(rate) if rate else 0.0)
    end_s = float(times_s[-1]) + (last_duration_s or step_s)
    span_s = end_s - float(times_s[0])
    codec, frame = stream.codec_context, scan.image.frame
    shown = UPRIGHT if frame is None else orientation_of(frame)
    aspect = pixel_aspect_of(stream)
    size = (codec.width, codec.height) if frame is None else (frame.width, frame.height)
    width, height = shown_size(size, aspect, shown.rotation)
    notes = {
        "several_streams": len(video_streams(container)) > 1,
        "mirrored": shown.mirrored,
        "turned_askew": shown.askew,
        "interlaced": frame is not None and frame.interlaced_frame,
        _HDR.get(codec.color_trc, ""): codec.color_trc in _HDR,
    }
    return VideoInfo(
        width=width,
        height=height,
        fps=float(rate) if rate else (len(times_s) / span_s if span_s > 0 else 0.0),
        codec=codec.codec.canonical_name,
        pix_fmt=(codec.pix_fmt if frame is None else frame.format.name) or "",
        rotation=shown.rotation,
        start_s=float(times_s[0]),
        end_s=end_s,
        num_frames=len(times_s),
        mirrored=shown.mirrored,
        pixel_aspect=aspect,
        stream=stream.index,
        notes=tuple(word for word, holds in notes.items() if holds),
    )


def shown_size(stored: tuple[int, int], pixel_aspect: float, rotation: int) -> tuple[int, int]:
    """(width, height) of a stored image as players show it: widened to square pixels, then turned."""
    width, height = max(1, round(stored[0] * pixel_aspect)), stored[1]
    return (height, width) if rotation % 180 else (width, height)


def _declared_end_s(path: str, name: str, stream, info: VideoInfo) -> float | None:
    """The end in seconds that the header announces, where the file ends earlier; None where nothing is missing."""
    length_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if name == "mov":
        size = os.path.getsize(path)
        if any(entry.pos + entry.size > size for entry in stream.index_entries):
            return max(info.end_s, info.start_s + length_s)
    if name == "avi" and _riff_is_cut(path):  # libav shortens the duration with the file, not the number of frames
        return max(info.end_s, info.start_s + float(stream.frames * stream.time_base))
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if name == "matroska" and tag:  # it stores the length, not the number of frames
        declared_s = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
        if declared_s > info.end_s + max(1.0, 2 / max(info.fps, 1.0)):
            return declared_s
    return None


def _riff_is_cut(path: str) -> bool:
    """Whether a top-level chunk of an AVI announces more bytes than the file has."""
    size, at = os.path.getsize(path), 0
    with open(path, "rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(8)
            if head[:4] != b"RIFF":
                return False
            at += 8 + int.from_bytes(head[4:], "little")
    return at > size + 1  # a last chunk of odd length may lack its padding

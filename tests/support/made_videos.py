"""Small videos of any codec in any container, with the marks of real files: edit lists, mirrors, joined clocks.

Every image carries its number (`numbered_video`). A codec's packets are encoded once and laid into containers.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import VideoReformatter
from support.numbered_video import numbered_image

NUM, HZ, GOP = 40, 25, 10
CLOCK_HZ = 90_000
STEP = CLOCK_HZ // HZ


def _x264(more: str) -> dict[str, str]:
    params = f"keyint={GOP}:scenecut=0:b-adapt=0:repeat-headers=1:{more}"
    return {"preset": "ultrafast", "crf": "18", "threads": "1", "x264-params": params}


def _x265(more: str) -> dict[str, str]:
    params = f"keyint={GOP}:scenecut=0:log-level=none:pools=none:frame-threads=1:{more}"
    return {"preset": "ultrafast", "crf": "18", "x265-params": params}


_QUICK = {"deadline": "realtime", "cpu-used": "8", "g": f"{GOP}"}
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", _x264("bframes=0")),
    "h264-b": ("libx264", _x264("bframes=2")),
    "h264-bare": ("libx264", _x264("bframes=0:repeat-headers=0")),  # key frames without headers of their own
    "h264-open": ("libx264", _x264("bframes=3:open-gop=1")),
    "h264-fields": ("libx264", _x264("bframes=0:tff=1")),
    "h264-refresh": ("libx264", _x264("bframes=0:intra-refresh=1")),
    "hevc": ("libx265", _x265("bframes=2:open-gop=0")),
    "hevc-open": ("libx265", _x265("bframes=3:open-gop=1")),
    "vp8": ("libvpx", _QUICK | {"crf": "8", "b": "2M"}),
    "vp9": ("libvpx-vp9", _QUICK | {"crf": "12", "b": "0"}),
    "av1": ("libsvtav1", {"g": f"{GOP}", "crf": "20", "preset": "12", "svtav1-params": "lp=1"}),
    "mpeg4": ("mpeg4", {"g": f"{GOP}", "bf": "0", "qscale": "2"}),
    "mpeg4-b": ("mpeg4", {"g": f"{GOP}", "bf": "2", "qscale": "2"}),
    "mpeg2-b": ("mpeg2video", {"g": f"{GOP}", "bf": "2", "qscale": "2"}),
    "mjpeg": ("mjpeg", {"qscale": "2"}),
}


@dataclass(frozen=True)
class Encoded:
    """A codec's packets: in a NUT file, with (pts, dts) of each as the encoder gave them, in frames."""

    nut: bytes
    times: tuple[tuple[int, int], ...]


@functools.cache
def encoded(
    codec: str,
    size: tuple[int, int] = (128, 96),
    first: int = 0,
    num: int = NUM,
    stored: Callable[[np.ndarray], np.ndarray] | None = None,
    pixel_aspect: Fraction | None = None,
    color_trc: int | None = None,
) -> Encoded:
    """`num` images from number `first` on, at HZ from 0 s; `stored` turns what is to be seen into what is stored."""
    name, options = CODECS[codec]
    file, times, scaler = io.BytesIO(), [], VideoReformatter()  # a frame's own would start threads for it

    def mux(packets: list[av.Packet]) -> None:
        for packet in packets:
            times.append(tuple(round(t * packet.time_base * HZ) for t in (packet.pts, packet.dts)))
            container.mux(packet)

    with av.open(file, "w", format="nut") as container:
        stream = container.add_stream(name, rate=HZ, options=options)
        context = stream.codec_context
        if "qscale" in options:
            context.flags |= Flags.qscale
            context.global_quality = 2 * 118
        width, height = size if stored is None else np.shape(stored(numbered_image(0, *size)))[1::-1]
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if pixel_aspect is not None:
            context.sample_aspect_ratio = pixel_aspect
        if color_trc is not None:
            context.color_trc = color_trc
        for number in range(first, first + num):
            image = numbered_image(number, *size)
            image = image if stored is None else np.ascontiguousarray(stored(image))
            frame = scaler.reformat(av.VideoFrame.from_ndarray(image, format="rgb24"), format=stream.pix_fmt)
            frame.pts, frame.time_base = number - first, Fraction(1, HZ)
            mux(stream.encode(frame))
        mux(stream.encode(None))
    return Encoded(file.getvalue(), tuple(times))


FORMATS = {"ts": "mpegts", "m2ts": "mpegts", "mkv": "matroska", "mpg": "mpeg"}


def lay(
    path: Path,
    *sources: Encoded,
    keep: Callable[[int], bool] = lambda n: True,
    shift: Callable[[int], int] = lambda n: 0,
    matrix: Sequence[int] | None = None,
    default: Sequence[bool] = (True,),
    indexed: bool = True,
) -> str:
    """The encoded `sources` as the streams of a file whose format its suffix says; returns its path.

    keep: which packets, by their place in the file. shift: what to add to a packet's times, in 1/90000 s, by its frame
    number. matrix: a, b, c, d of the display matrix. default: of each stream, whether it is flagged as default.
    indexed: with a table of contents; else as it is sent live, MP4 in fragments.
    """
    kind = path.suffix[1:]
    options = {"mpegts_m2ts_mode": "1"} if kind == "m2ts" else {}
    if kind in ("mp4", "mov"):
        options = {"movie_timescale": f"{CLOCK_HZ}", "strict": "-2"}
    if not indexed:
        options |= {"movflags": "frag_keyframe+empty_moov"} if kind == "mp4" else {"live": "1"}
    clock = HZ if kind == "avi" else CLOCK_HZ  # AVI counts frames
    with av.open(str(path), "w", format=FORMATS.get(kind, kind), options=options) as target:
        laid = []
        for number, source in enumerate(sources):
            container = av.open(io.BytesIO(source.nut))
            template = container.streams.video[0]
            stream = target.add_stream_from_template(template, opaque=True)
            stream.time_base = Fraction(1, clock)
            if matrix is not None:
                a, b, c, d = matrix
                stream.set_display_matrix([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
            if len(sources) > 1:
                stream.disposition = av.stream.Disposition.default if default[number] else av.stream.Disposition(0)
            packets = (p for p in container.demux(template) if p.size)
            for at, (packet, (pts, dts)) in enumerate(zip(packets, source.times, strict=True)):
                more = shift(pts) * clock // CLOCK_HZ
                packet.time_base, packet.duration = Fraction(1, clock), clock // HZ
                packet.pts, packet.dts = pts * clock // HZ + more, dts * clock // HZ + shift(dts) * clock // CLOCK_HZ
                if keep(at):
                    packet.stream = stream
                    laid.append(packet)
        for packet in sorted(laid, key=lambda packet: packet.dts):
            target.mux(packet)
    return str(path)


def with_edits(path: str, edits: Sequence[tuple[float, float]]) -> str:
    """Replaces the edit list of a one-track MP4 whose `moov` comes last.

    edits: (start in the media, from its first image on, or -1 for an empty edit; length), in seconds.
    """
    data = Path(path).read_bytes()
    delay_s = min(float(p.pts * p.time_base - p.dts * p.time_base) for p in _packets(path)[:1])
    scale = struct.unpack_from(">I", inner(data, "moov", "mvhd"), 12)[0]
    clock = struct.unpack_from(">I", inner(data, "moov", "trak", "mdia", "mdhd"), 12)[0]
    entries = b"".join(
        struct.pack(">IiI", round(length * scale), -1 if start < 0 else round((start + delay_s) * clock), 1 << 16)
        for start, length in edits
    )
    edts = box("edts", box("elst", struct.pack(">II", 0, len(edits)) + entries))

    def change(trak: bytes) -> bytes:
        parts = dict(boxes(trak))
        return box("tkhd", parts.pop("tkhd")) + edts + b"".join(box(n, p) for n, p in parts.items() if n != "edts")

    Path(path).write_bytes(changed(data, ("moov", "trak"), change))
    return path


def with_second_header(path: str, other: str, num: int) -> str:
    """Makes the first `num` frames of an MP4 those of its own header, the others those of the header of `other`."""
    data = Path(path).read_bytes()
    tables = ("moov", "trak", "mdia", "minf", "stbl")
    second = inner(Path(other).read_bytes(), *tables, "stsd")[8:]
    sizes = [packet.size for packet in _packets(path)]
    start = struct.unpack_from(">I", inner(data, *tables, "stco"), 8)[0]
    data = changed(data, (*tables, "stsd"), lambda old: old[:4] + struct.pack(">I", 2) + old[8:] + second)
    chunks = struct.pack(">8I", 0, 2, 1, num, 1, 2, len(sizes) - num, 2)
    data = changed(data, (*tables, "stsc"), lambda old: chunks)
    places = struct.pack(">4I", 0, 2, start, start + sum(sizes[:num]))
    Path(path).write_bytes(changed(data, (*tables, "stco"), lambda old: places))
    return path


def _packets(path: str) -> list[av.Packet]:
    with av.open(path) as container:
        return [p for p in container.demux(video=0) if p.size]


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the boxes of an MP4, or within one."""
    at = 0
    while at + 8 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        yield data[at + 4 : at + 8].decode(), data[at + 8 : at + size]
        at += size


def box(name: str, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name.encode()) + content


def inner(data: bytes, *names: str) -> bytes:
    for name in names:
        data = dict(boxes(data))[name]
    return data


def changed(data: bytes, names: Sequence[str], change: Callable[[bytes], bytes]) -> bytes:
    """The file with the content of the box at that path changed; what stands behind it moves."""
    if not names:
        return change(data)
    first, *rest = names
    return b"".join(box(n, changed(c, rest, change) if n == first else c) for n, c in boxes(data))

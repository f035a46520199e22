"""A small H.264 stream coded field by field, as camcorders do: no encoder at hand writes one.

Every macroblock is stored as it is (I_PCM), so an image needs a handful of header bits and its samples.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_IDR, _SLICE, _SPS, _PPS = 5, 1, 7, 8
_MAX_FRAME_NUM = 16


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def u(self, width: int, value: int) -> None:
        self.text += f"{value:0{width}b}"

    def ue(self, *values: int) -> None:
        for value in values:
            code = f"{value + 1:b}"
            self.text += "0" * (len(code) - 1) + code

    def align(self, bit: str = "0") -> None:
        self.text += bit * (-len(self.text) % 8)

    def unit(self, header: int) -> bytes:
        """A NAL unit with its start code, stop bit and emulation prevention."""
        self.text += "1"
        self.align()
        payload = bytes(int(self.text[at : at + 8], 2) for at in range(0, len(self.text), 8))
        out, zeros = bytearray(b"\0\0\0\1" + bytes([header])), 0
        for byte in payload:
            if zeros >= 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = 0 if byte else zeros + 1
        return bytes(out)


def _headers(width: int, height: int) -> bytes:
    sps = _Bits()
    for value in (77, 0, 30):  # Main profile, no constraints, level 3
        sps.u(8, value)
    sps.ue(0, 0, 0, 4, 1)  # id, 4 bits of frame_num, order count type 0 of 8 bits, one reference
    sps.u(1, 0)
    sps.ue(width // 16 - 1, height // 32 - 1)
    for bit in (0, 0, 1, 0, 0):  # fields allowed, no MBAFF, direct 8x8, no cropping, no VUI
        sps.u(1, bit)
    pps = _Bits()
    pps.ue(0, 0)
    pps.u(2, 0)  # CAVLC, order counts of both fields in their own slices
    pps.ue(0, 0, 0)
    pps.u(3, 0)
    pps.ue(0, 0, 0)  # se(0) three times: the same bit
    pps.u(3, 0)
    return sps.unit(0x60 | _SPS) + pps.unit(0x60 | _PPS)


def _field(planes: Sequence[np.ndarray], frame: int, bottom: int, order: int, idr: bool) -> bytes:
    bits = _Bits()
    bits.ue(0, 7, 0)  # first macroblock, an I slice, the image's parameters
    bits.u(4, frame % _MAX_FRAME_NUM)
    bits.u(2, 2 | bottom)  # a field, which one
    if idr:
        bits.ue(0)
    bits.u(8, order % 256)
    bits.u(2, 0) if idr else bits.u(1, 0)  # reference marking
    bits.ue(0)  # se(0): the quantiser
    luma, *chroma = planes
    for y in range(0, luma.shape[0], 16):
        for x in range(0, luma.shape[1], 16):
            bits.ue(25)
            bits.align()
            block = luma[y : y + 16, x : x + 16].tobytes()
            block += b"".join(c[y // 2 : y // 2 + 8, x // 2 : x // 2 + 8].tobytes() for c in chroma)
            bits.text += "".join(f"{byte:08b}" for byte in block)
    return bits.unit(0x60 | (_IDR if idr else _SLICE))


def field_pairs(images: Sequence[np.ndarray], gop: int) -> list[tuple[bytes, bytes]]:
    """The two access units of each (h, w, 3) RGB image: its upper and its lower field; h divisible by 32."""
    pairs = []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        yuv = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p").to_ndarray().clip(1, 254)
        cut = height * width
        luma, blue, red = np.split(yuv.reshape(-1), [cut, cut * 5 // 4])
        planes = [luma.reshape(height, width), *(c.reshape(height // 2, width // 2) for c in (blue, red))]
        at = number % gop
        upper, lower = (
            _field([p[odd::2] for p in planes], at, odd, 2 * at + odd, not at and not odd) for odd in (0, 1)
        )
        pairs.append((_headers(width, height) + upper if not at else upper, lower))
    return pairs


def write_fields(path: Path, images: Sequence[np.ndarray], gop: int, hz: int, apart: bool) -> str:
    """A transport stream of them; `apart`: every field has a packet and a time of its own, not every frame."""
    pairs = field_pairs(images, gop)
    raw = io.BytesIO(b"".join(upper + lower for upper, lower in pairs))
    step = 90_000 // hz
    with av.open(raw, format="h264") as source, av.open(str(path), "w", format="mpegts") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for number, (upper, lower) in enumerate(pairs):
            parts = [(upper, 0), (lower, step // 2)] if apart else [(upper + lower, 0)]
            for data, later in parts:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, 90_000)
                packet.pts = packet.dts = number * step + later
                packet.is_keyframe = number % gop == 0 and not later
                target.mux(packet)
    return str(path)

"""When each packet's frame is shown: the container's times, corrected where they are missing or wrong."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from handloom.video.container.first_image import MAX_DELAY, FirstImage
from handloom.video.container.output_order import MIN_UNTIMED, times_on_grid

NONE = np.iinfo(np.int64).min
RESTARTING = frozenset({"mpegts", "mpeg", "flv"})  # formats whose files can be joined by appending one to the other
# A decoding time this much earlier than the one before means another clock, as in libav's own tools.
BACKWARD_S = 0.1
# AVI stores no presentation times. These codecs store frames in another order than they are shown.
REORDERING = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video", "vc1", "cavs"})
# libav gives no time to a field or frame that follows another in one packet of a stream of these.
FIELDS = frozenset({"h264", "hevc", "vvc"})


@dataclass
class Scan:
    """All packets of a stream in file order, and its first image.

    headers: the distinct headers of key frames that set the image's size. changes_header: the container has several.
    order: packets in the decoder's order of output, where that is needed (`asks_for_order`). stated_step: ticks between
    frames by the stream's header; 0: unknown.
    """

    # Arrays: ten hours at 60 Hz are two million packets, and the child's memory is limited.
    pts: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    pos: array[int] = field(default_factory=lambda: array("q"))
    duration: array[int] = field(default_factory=lambda: array("q"))
    key: bytearray = field(default_factory=bytearray)
    shown: bytearray = field(default_factory=bytearray)
    changes_header: bool = False
    headers: set[bytes] = field(default_factory=set)
    image: FirstImage = field(default_factory=FirstImage)
    order: NDArray[np.int64] | None = None
    stated_step: float = 0.0


@dataclass(frozen=True)
class Stamps:
    """Of each packet in file order, times in ticks; `NONE`: unknown.

    stamp: (P,) when its frame is shown, on one continuous clock; raw: (P,) the container's time. usable: (P,) it holds
    a frame that is shown, has a time and can be decoded. counted: see `PacketIndex`. notes: words of
    `schemas.values.VIDEO_NOTES`. lost: (P,) it holds a frame that is left out because it has no time.
    """

    stamp: NDArray[np.int64]
    raw: NDArray[np.int64]
    usable: NDArray[np.bool_]
    counted: bool
    notes: tuple[str, ...]
    lost: NDArray[np.bool_]


def stamp_frames(scan: Scan, container: str, codec: str, time_base: Fraction) -> Stamps:
    """The times of all packets, and which of them hold a frame that can be used.

    Raises:
        ValueError: there is no usable frame; the text gives the reason.
    """
    pts, dts = np.array(scan.pts, np.int64), np.array(scan.dts, np.int64)
    shown, is_piece = np.frombuffer(scan.shown, bool), container in RESTARTING
    raw = dts if container == "avi" else np.where(pts == NONE, dts, pts)
    untimed = _untimed(pts, container, codec)
    lost = _lost(untimed, scan)
    timed = shown & (raw != NONE) & ~untimed
    if scan.image.pairs_fields and not untimed.any():
        timed &= ~_second_fields(raw, scan.image.start or 0)
    if not timed.any():
        raise ValueError(_why_none(raw))
    stamp, restarts = raw, 0
    if is_piece:
        shift, restarts = _shifts(np.where(dts == NONE, raw, dts), time_base)
        stamp = raw + shift * (raw != NONE)
        if container == "mpeg" and (dts != NONE).all():
            stamp = _apart(stamp, dts + shift, timed)
    if scan.order is not None and (lost & shown).any():
        grid = times_on_grid(scan.order, stamp, ~untimed & (raw != NONE), scan.stated_step)
        if grid is not None:
            stamp, timed, lost = stamp.copy(), np.zeros(len(stamp), bool), np.zeros(len(stamp), bool)
            stamp[scan.order], timed[scan.order] = grid, True
            timed &= shown
    counted = container == "avi" and codec in REORDERING
    usable = timed if counted else timed & ~_left_out_at_start(stamp, scan.image, is_piece)
    usable = usable if usable.any() else timed
    notes = {
        "clock_restarts": restarts > 0,
        "start_left_out": bool((timed & ~usable).any()),
        "untimed_left_out": bool(lost.any()) or (scan.order is None and any(untimed[n] for n in scan.image.seen)),
    }
    return Stamps(stamp, raw, usable, counted, tuple(word for word, holds in notes.items() if holds), lost)


def asks_for_order(scan: Scan, container: str, codec: str) -> bool:
    """Whether frames have no time of their own, so that it must be computed from the decoder's order of output."""
    untimed = _untimed(np.array(scan.pts, np.int64), container, codec)
    return not scan.image.pairs_fields and bool(untimed.sum() > MIN_UNTIMED * len(untimed))


def _untimed(pts: NDArray[np.int64], container: str, codec: str) -> NDArray[np.bool_]:
    return (pts == NONE) & (container in RESTARTING and codec in FIELDS and bool((pts != NONE).any()))


def _lost(untimed: NDArray[np.bool_], scan: Scan) -> NDArray[np.bool_]:
    """Packets without a time that hold a frame; the others without one hold the second field of the frame before."""
    if scan.order is not None:
        out = np.zeros(len(untimed), bool)
        out[scan.order] = True
        return untimed & out
    frame = scan.image.frame
    return untimed & (frame is not None and not frame.interlaced_frame)


def _why_none(stamp: NDArray[np.int64]) -> str:
    if (stamp == NONE).all():
        return "its frames have no times; put the stream into MP4 or Matroska with its frame rate"
    return "an edit list hides every frame of the video stream"


def _second_fields(stamp: NDArray[np.int64], start: int) -> NDArray[np.bool_]:
    """Packets that complete the frame of the packet before: only half a frame's time later."""
    second = np.zeros(len(stamp), bool)
    steps = np.diff(np.unique(stamp[stamp != NONE]))
    if not len(steps):
        return second
    most, values, at = 1.5 * float(np.quantile(steps, 0.1)), stamp.tolist(), start
    while at + 1 < len(values):
        pair = values[at] != NONE and 0 < values[at + 1] - values[at] <= most
        second[at + 1] = pair
        at += 2 if pair else 1
    return second


def _shifts(dts: NDArray[np.int64], time_base: Fraction) -> tuple[NDArray[np.int64], int]:
    """What to add to each packet's times so that the clock never goes back, and how often it went back."""
    known = np.flatnonzero(dts != NONE)
    values = dts[known]
    steps = np.diff(values)
    shift, restarts = np.zeros(len(dts), np.int64), 0
    forward = steps[steps > 0]
    step = int(np.median(forward)) if len(forward) else 1
    for at in np.flatnonzero(steps < -BACKWARD_S / float(time_base)).tolist():
        # A single damaged time is no other clock: the next time continues from the one before.
        if (at > 0 and values[at + 1] >= values[at - 1]) or (at + 2 < len(values) and values[at + 2] >= values[at]):
            continue
        shift[known[at + 1] :] += step - steps[at]
        restarts += 1
    return shift, restarts


def _apart(stamp: NDArray[np.int64], dts: NDArray[np.int64], timed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The times, so that no two frames have the same one.

    libav gives a frame whose header is split over two packets of a program stream the time of the frame stored next,
    which is shown before it. The first of two therefore gets the next decoding time that no frame has.
    """
    numbers = np.flatnonzero(timed)
    values, first, count = np.unique(stamp[numbers], return_index=True, return_counts=True)
    stamp = stamp.copy()
    for value, number in zip(values[count == 2].tolist(), numbers[first[count == 2]].tolist(), strict=True):
        around = slice(max(number - MAX_DELAY, 0), number + 2 * MAX_DELAY)  # frames are stored no further away
        times = dts[number : number + MAX_DELAY]
        free = np.setdiff1d(times[times > value], stamp[around][timed[around]])
        if len(free) and dts[number] < value:
            stamp[number] = free[0]
    return stamp


def _left_out_at_start(stamp: NDArray[np.int64], image: FirstImage, is_stream: bool) -> NDArray[np.bool_]:
    """Packets before the first key frame, and those after it that are shown before it and did not come out whole.

    A first key frame that does not come out whole is damaged. In a piece of a stream (is_stream) it may be an image
    that is completed over several frames: all are left out up to the first whole one.
    """
    left_out = np.zeros(len(stamp), bool)
    if image.start is None:
        return left_out
    left_out[: image.start] = True
    if image.start in image.seen or (is_stream and image.seen):
        first = image.start if image.start in image.seen else min(image.seen, key=lambda n: stamp[n])
        left_out |= stamp < stamp[first]
        left_out[list(image.seen)] = False
    return left_out


def has_leading_frames(stamp: NDArray[np.int64], key: NDArray[np.bool_]) -> bool:
    """Whether a packet is stored after a key frame and shown before it; both arguments in file order."""
    if not key.any():
        return False
    from_first_key = slice(int(np.argmax(key)), None)
    stamp, key = stamp[from_first_key], key[from_first_key]
    return bool((stamp < stamp[key][np.cumsum(key) - 1]).any())

"""Times from the decoder's order of output, for streams in which only some frames have a time."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from handloom.video.container.containers import open_container

# To learn the order all of the stream is decoded before the first reply: about 20 s for this many pixels.
MAX_PIXELS = 5_000_000_000
MIN_UNTIMED = 0.01  # share of the packets; for the few that damage left without a time decoding costs too much
MAX_OFF = 2.0  # ticks between a time and the grid: containers round times, and the grid is fitted to them


def order_of_output(path: str, stream_index: int) -> NDArray[np.int64]:
    """Numbers of the packets whose frames come out of the decoder whole, in the order of output."""
    order: list[int] = []
    number = 0
    with open_container(path) as container:
        stream = container.streams.video[0]
        stream = next((s for s in container.streams.video if s.index == stream_index), stream)
        stream.thread_type = "NONE"
        stream.codec_context.options = {"skip_loop_filter": "all"}  # the images are not used
        try:
            for packet in container.demux(stream):
                if packet.size:
                    packet.pts, packet.dts = number, None  # each frame then carries the number of its packet
                    number += 1
                try:
                    order += [f.pts for f in packet.decode() if f.pts is not None and not f.is_corrupt]
                except av.InvalidDataError:
                    continue
        except av.FFmpegError:
            pass  # the file is cut short: what was read is kept
    return np.array(order, np.int64)


def times_on_grid(
    order: NDArray[np.int64], stamp: NDArray[np.int64], known: NDArray[np.bool_], stated_step: float = 0.0
) -> NDArray[np.int64] | None:
    """The time of each frame of `order`: first + k / rate. None where the known times do not confirm this.

    Every known time must fit the place of its frame. libav gives a frame whose header is split over two packets the
    time of another frame: a time that fits another frame is ignored.

    Args:
        order: packets in the order of output. stamp: (P,) times in ticks. known: (P,) which packets have one.
        stated_step: ticks between frames by the stream's header; two known times suffice where they agree, else three.
    """
    places = np.flatnonzero(known[order])
    times = stamp[order[places]]
    values, count = np.unique(times, return_counts=True)
    once = np.isin(times, values[count == 1])
    if once.sum() < 2 or len(np.unique(order)) < len(order):
        return None
    x, y = places[once], times[once].astype(np.float64)
    half = len(x) // 2  # far apart: rounded steps add up over a long file
    step = float(np.median((y[half:] - y[:-half]) / (x[half:] - x[:-half])))
    near = np.abs(y - x * step - np.median(y - x * step)) <= max(MAX_OFF, 0.01 * step)
    if step <= 8 * MAX_OFF or near.sum() < 2:
        return None
    step, first = np.polyfit(x[near], y[near], 1)
    grid = first + np.arange(len(order)) * step
    fits = np.abs(times - grid[places]) <= MAX_OFF
    enough = 2 if abs(step - stated_step) <= MAX_OFF else 3
    if fits.sum() < enough or not np.isin(times[~fits], times[fits]).all():
        return None
    return np.rint(grid).astype(np.int64)

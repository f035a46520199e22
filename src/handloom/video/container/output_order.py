"""Times by place in the order of output, for streams that give a time to some of their frames only."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from handloom.video.container.containers import open_container

# Decoding all of a stream to learn its order costs time before the first answer: about 20 s for this many.
MAX_PIXELS = 5_000_000_000
MIN_UNTIMED = 0.01  # share of the packets; a few that damage left without a time are not worth the decoding
MAX_OFF = 2.0  # ticks that a time may lie beside the grid: containers round, and the grid is found from such times


def order_of_output(path: str, stream_index: int) -> NDArray[np.int64]:
    """Numbers of the packets whose frames come out of the decoder whole, in the order in which they come out."""
    order: list[int] = []
    number = 0
    with open_container(path) as container:
        stream = container.streams.video[0]
        stream = next((s for s in container.streams.video if s.index == stream_index), stream)
        stream.thread_type = "NONE"
        stream.codec_context.options = {"skip_loop_filter": "all"}  # the pictures are not looked at
        try:
            for packet in container.demux(stream):
                if packet.size:
                    packet.pts, packet.dts = number, None  # frames then say which packet they come from
                    number += 1
                try:
                    order += [f.pts for f in packet.decode() if f.pts is not None and not f.is_corrupt]
                except av.InvalidDataError:
                    continue
        except av.FFmpegError:
            pass  # a file cut short: what was read stands
    return np.array(order, np.int64)


def times_on_grid(
    order: NDArray[np.int64], stamp: NDArray[np.int64], known: NDArray[np.bool_], stated_step: float = 0.0
) -> NDArray[np.int64] | None:
    """For each frame of `order` its time: first + k / rate. None where the known times do not show that this is right.

    Every known time must lie at its frame's own place. libav gives a frame whose header lies across two packets the
    time of another one: a time that stands at its place elsewhere says nothing.

    Args:
        order: packets in the order of output. stamp: (P,) times in ticks. known: (P,) which packets have one.
        stated_step: ticks between frames as the stream says; two known times suffice where they agree, else three.
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

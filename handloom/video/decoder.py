"""The actor's side of decoding: clips in, frames out, decoded ahead in a child process that may die without harm."""

from __future__ import annotations

import os
import queue
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo
from handloom.video.answer import Request
from handloom.video.source import VideoSource

# OpenBLAS takes 40 MB of data per core when numpy is imported: beyond the memory limit on a machine of 40 cores.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class DecoderSwitched(Exception):
    """decord failed in the middle of a clip; its frames come again from the first one, from PyAV."""


@dataclass(frozen=True)
class Header:
    """What is known before a clip's first frame. size: working (width, height); frame_s: (T,) seconds."""

    info: VideoInfo
    decoder: str
    frame_s: NDArray[np.float64]
    size: tuple[int, int]

    @property
    def num_bytes(self) -> int:
        return len(self.frame_s) * self.size[0] * self.size[1] * 3


class DecodedClip:
    """One clip being decoded. Read `header`, then iterate `chunks()`; begin again after DecoderSwitched."""

    def __init__(self, clip: Clip, header: Header, events: Iterator[tuple[Any, ...]]) -> None:
        self.clip = clip
        self.header = header
        self._events = events
        self.finished = False

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """(n, h, w, 3) uint8 RGB, in order, T frames in all.

        Raises:
            DecoderSwitched: forget this clip's frames and iterate again.
            ClipError: the clip cannot be decoded.
            RuntimeError: its frames were already read or skipped.
        """
        if self.finished:
            raise RuntimeError(f"the frames of {self.clip.clip_id} have already been read")
        for event in self._events:
            if event[0] == "chunk":
                yield event[1]
            elif event[0] == "header":
                self.header = event[1]
                raise DecoderSwitched
            elif event[0] == "error":
                self.finished = True
                raise event[1]
            else:
                self.finished = True
                return


@dataclass(frozen=True)
class DecodeLimits:
    """Cost settings of decoding (see `settings.Resources`)."""

    timeout_s: float = 60.0
    memory_mb: int = 1536
    ahead_mb: int = 96


class Decoder:
    """Decodes clips in one child process, the next clips while the caller works on this one.

    Use from one thread. `close()` ends the child.
    """

    def __init__(self, sample_hz: float, short_side_px: int, limits: DecodeLimits, source: VideoSource) -> None:
        self._sample_hz = sample_hz
        self._short_side_px = short_side_px
        self._limits = limits
        self._source = source
        self._child: _Child | None = None

    def stream(self, clips: Sequence[Clip], max_bytes: int | None = None) -> Iterator[DecodedClip | ClipError]:
        """Yield each clip in order, decoded or failed. Finish a clip's `chunks()` before asking for the next.

        A clip whose frames exceed `max_bytes` comes with its header and without frames.
        """
        buffer = _Buffer(self._limits.ahead_mb << 20)
        pump = threading.Thread(target=self._pump, args=(clips, max_bytes, buffer), daemon=True)
        pump.start()
        events = iter(buffer.get, None)
        try:
            for clip in clips:
                event = next(events)
                if event[0] == "error":
                    yield event[1]
                    continue
                decoded = DecodedClip(clip, event[1], events)
                yield decoded
                while not decoded.finished:  # the caller gave up on it: skip what is left
                    try:
                        for _ in decoded.chunks():
                            pass
                    except (DecoderSwitched, ClipError):
                        continue
        finally:
            buffer.stop()
            if pump.is_alive() and self._child is not None:
                pump.join(0.2)
                child = self._child
                if pump.is_alive() and child is not None:  # in the middle of a clip that nobody wants any more
                    child.end()
            pump.join()

    def probe(self, clip: Clip) -> VideoInfo:
        """The facts of a clip's video, without decoding it.

        Raises:
            ClipError: the video cannot be fetched or read.
        """
        path = self._source.local_path(clip)
        events: list[tuple[Any, ...]] = []
        self._ask(self._request(clip, path, probe_only=True), events.append)
        if events[0][0] == "error":
            raise events[0][1]
        return events[0][1]

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _pump(self, clips: Sequence[Clip], max_bytes: int | None, buffer: _Buffer) -> None:
        try:
            for clip in clips:
                try:
                    path = self._source.local_path(clip)
                except ClipError as error:
                    buffer.put(("error", error))
                    continue
                self._ask(self._request(clip, path, max_bytes=max_bytes), buffer.put, buffer.is_stopped)
        except _Stopped:
            self.close()  # it stands in the middle of an answer
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            buffer.fail(error)

    def _request(self, clip: Clip, path: str, **kind: Any) -> Request:
        return Request(clip, path, self._sample_hz, self._short_side_px, **kind)

    def _ask(self, request: Request, put, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Put the child's answer; where the child dies, ask a new one, which then avoids decord."""
        for attempt in (request, replace(request, avoid_decord=True)):
            if self._child is not None and self._child.has_ended():  # while idle: not this clip's doing
                self.close()
            if self._child is None:
                self._child = _Child(self._limits)
            try:
                self._child.ask(attempt, put)
                return
            except _ChildDied as death:
                self.close()
                if is_stopped():
                    raise _Stopped from death
                died = death
            except _ChildHangs:
                self.close()
                problem = f"no frame for {self._limits.timeout_s:g} s, the limit of resources.decode_timeout_s"
                hint = "raise the limit for slow storage; otherwise the file is damaged: drop it from the clip list"
                put(("error", ClipError(request.clip.clip_id, "decode", "decode_timeout", problem, hint)))
                return
        problem = f"the decoding process died twice, last with exit code {died.args[0]}"
        hint = "the file makes the decoders crash: re-encode it, or drop it from the clip list"
        put(("error", ClipError(request.clip.clip_id, "decode", "decoder_died", problem, hint)))


class _Stopped(Exception):
    """The reader of the buffer has gone."""


class _ChildDied(Exception):
    pass


class _ChildHangs(Exception):
    pass


class _Child:
    """The process and its socket."""

    def __init__(self, limits: DecodeLimits) -> None:
        ours, theirs = socket.socketpair()
        # Times out each read and write, so that a child that hangs in the middle of a message is found out as well.
        wait = struct.pack("@ll", int(limits.timeout_s), max(int(limits.timeout_s % 1 * 1e6), 1))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, wait)
        with theirs:
            command = [sys.executable, "-m", "handloom.video.child", str(theirs.fileno()), str(limits.memory_mb)]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        self._pipe = Connection(ours.detach())

    def ask(self, request: Request, put) -> None:
        try:
            self._pipe.send(request)
            while True:
                message = self._pipe.recv()
                if message[0] == "chunk":
                    frames = np.empty(message[1], np.uint8)
                    self._pipe.recv_bytes_into(memoryview(frames).cast("B"))
                    put(("chunk", frames))
                elif message[0] == "header" and not request.probe_only:
                    put(("header", Header(*message[1:])))
                elif message[0] == "bug":
                    raise RuntimeError(f"the decode child failed:\n{message[1]}")
                else:
                    put(message)
                    return
        except BlockingIOError as error:
            raise _ChildHangs from error
        except (EOFError, OSError) as error:  # OSError: also an end in the middle of a message
            raise _ChildDied(self._process.wait()) from error

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        """From any thread: whoever is in `ask` gets _ChildDied."""
        self._process.kill()

    def kill(self) -> None:
        self.end()
        self._process.wait()
        self._pipe.close()


class _Buffer:
    """Events from the pump to the caller; `put` blocks while the frames inside exceed the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._queue: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._bytes = 0
        self._stopped = False

    def put(self, event: tuple[Any, ...]) -> None:
        size = event[1].nbytes if event[0] == "chunk" else 0
        with self._room:
            self._room.wait_for(lambda: self._stopped or self._bytes == 0 or self._bytes + size <= self._limit_bytes)
            if self._stopped:
                raise _Stopped
            self._bytes += size
        self._queue.put(event)

    def get(self) -> tuple[Any, ...]:
        event = self._queue.get()
        if event[0] == "failed":
            raise event[1]
        if event[0] == "chunk":
            with self._room:
                self._bytes -= event[1].nbytes
                self._room.notify()
        return event

    def fail(self, error: BaseException) -> None:
        self._queue.put(("failed", error))

    def stop(self) -> None:
        with self._room:
            self._stopped = True
            self._room.notify()

    def is_stopped(self) -> bool:
        return self._stopped

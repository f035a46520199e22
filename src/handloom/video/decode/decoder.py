"""The worker's side of decoding: clips in, frames out. Child processes decode; their crashes do not harm the worker."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo
from handloom.video.decode.process import DecodingProcess, Identity, Launcher, ProcessDied, SandboxMode
from handloom.video.decode.wire import GarbledError, Header, Request, TooSlowError
from handloom.video.fetch.steady import NoRangesError
from handloom.video.fetch.version import VideoVersion
from handloom.video.fetch.video_source import Media, VideoSource

log = logging.getLogger(__name__)


class DecodedClip:
    """One clip being decoded. Read `header`, then iterate `chunks(...)` once."""

    def __init__(self, clip: Clip, header: Header, events: Iterator[tuple[Any, ...]]) -> None:
        self.clip = clip
        self.header = header
        self._events = events
        self.finished = False

    def chunks(self, begin: Callable[[], object]) -> Iterator[NDArray[np.uint8]]:
        """(n, h, w, 3) uint8 RGB, in order, T frames in all.

        Args:
            begin: called before the first frame. Called again where a decoder fails inside the clip: forget its frames,
                another decoder sends all of them, from the first one on. `header` is then that decoder's; its times
                are the same.

        Raises:
            ClipError: the clip cannot be decoded, or its file has changed meanwhile.
            RuntimeError: its frames were already read or skipped.
        """
        if self.finished:
            raise RuntimeError(f"the frames of {self.clip.clip_id} have already been read")
        begin()
        for event in self._events:
            if event[0] == "chunk":
                yield event[1]
            elif event[0] == "header":
                if not np.array_equal(event[1].frame_s, self.header.frame_s):
                    problem = "the times of its frames changed while it was decoded"
                    hint = "ingest the video again once nothing writes to it any more"
                    raise ClipError(self.clip.clip_id, "decode", "video_changed", problem, hint)
                self.header = event[1]
                begin()
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
    sandbox: SandboxMode = "auto"


class Decoder:
    """Decodes clips in one child process per video; the next clips while the caller works on this one.

    Use from one thread. `close()` ends the processes.

    Args:
        short_side_px: of the frames; larger images are shrunk to it.
        launch: starts the launcher of the child processes: memory_mb, timeout_s and sandbox of `limits`.
    """

    def __init__(
        self,
        sample_hz: float,
        short_side_px: int,
        limits: DecodeLimits,
        source: VideoSource,
        launch: Callable[[int, float, SandboxMode], Launcher] = Launcher,
    ) -> None:
        self._sample_hz = sample_hz
        self._short_side_px = short_side_px
        self._limits = limits
        self._source = source
        self._launch = launch
        self._launcher: Launcher | None = None
        self._process: DecodingProcess | None = None
        self._identity: Identity | None = None
        self._versions: dict[str, VideoVersion] = {}  # by clip_id, of clips in flight

    def stream(
        self, clips: Sequence[Clip], max_bytes: int | None = None
    ) -> Generator[DecodedClip | ClipError, None, None]:
        """Yield each clip in order: a `DecodedClip`, or the error that it met.

        Frames that were not read are skipped when the next clip is asked for. `DecodedClip.clip` holds the version of
        the file that is decoded. A clip whose frames exceed `max_bytes` has its header and no frames.
        """
        self._versions.clear()
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
                decoded = DecodedClip(self._versions[clip.clip_id].on(clip), event[1], events)
                yield decoded
                while not decoded.finished:  # the caller did not read it to its end
                    with contextlib.suppress(ClipError):
                        for _ in decoded.chunks(lambda: None):
                            pass
        finally:
            buffer.stop()
            if pump.is_alive() and self._process is not None:
                pump.join(0.2)
                process = self._process
                if pump.is_alive() and process is not None:  # in the middle of a clip that is no longer needed
                    process.end()
            pump.join()

    def probe(self, clip: Clip) -> VideoInfo:
        """The facts of a clip's video, without decoding it.

        Raises:
            ClipError: the video cannot be fetched or read.
        """
        events: list[tuple[Any, ...]] = []
        self._decode(clip, events.append, probe_only=True)
        if events[0][0] == "error":
            raise events[0][1]
        return events[0][1]

    def end_video(self) -> None:
        """End the process of the last video; what starts the next one stays. Nothing of a video is known any more."""
        self._end_process()

    def close(self) -> None:
        self._end_process()
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None

    def _end_process(self) -> int | None:
        """End the current process. Returns its exit code; None where there is no process, or the code is not known."""
        process, self._process = self._process, None
        return None if process is None or self._launcher is None else process.close(self._launcher)

    def _pump(self, clips: Sequence[Clip], max_bytes: int | None, buffer: _Buffer) -> None:
        try:
            for clip in clips:
                self._decode(clip, buffer.put, buffer.is_stopped, max_bytes=max_bytes)
        except _Stopped:
            self._end_process()  # it is in the middle of a reply
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            buffer.fail(error)

    def _decode(self, clip: Clip, put, is_stopped: Callable[[], bool] = lambda: False, **kind: Any) -> None:
        """Put the clip's events (`wire.replies`). A remote video that cannot be read in parts is fetched whole."""
        try:
            media = self._source.opened(clip)
            self._versions[clip.clip_id] = media.version
            if not self._ask(clip, media, put, is_stopped, kind):
                media = self._source.whole(clip, only=True)
                self._versions[clip.clip_id] = media.version
                self._ask(clip, media, put, is_stopped, kind)
        except ClipError as error:
            put(("error", error))

    def _ask(self, clip: Clip, media: Media, put, is_stopped: Callable[[], bool], kind: dict[str, Any]) -> bool:
        """Put the events of a process; where it crashes, those of a new one, which does not use decord.

        False: the video must be read whole.
        """
        path, ranged = os.path.abspath(media.path), media.supply is not None
        request = Request(clip, path, self._sample_hz, self._short_side_px, ranged=ranged, **kind)
        clip_id, problem = clip.clip_id, ""
        for attempt in (request, replace(request, avoid_decord=True)):
            try:
                for event in self._process_for(request).ask(attempt, media.supply):
                    if event[0] == "not_ranged":
                        return False
                    put(event)
                return True
            except NoRangesError:
                self._end_process()  # it waits for a part of the file
                return False
            except ClipError:
                self._end_process()  # it may be in the middle of a reply
                raise
            except (EOFError, OSError) as error:
                code = self._end_process()
                if is_stopped():
                    raise _Stopped from error
                problem = f"the decoding process died twice, last with exit code {code}{self._stderr()}"
            except GarbledError as error:
                self._end_process()
                problem = f"the decoding process {error}{self._stderr()}"
                log.warning("clip_id=%s stage=decode problem=%r", clip_id, problem)
            except TooSlowError:
                self._end_process()
                problem = f"no frame for {self._limits.timeout_s:g} s, the limit of resources.decode_timeout_s"
                hint = "raise the limit for slow storage; otherwise the file is damaged: drop it from the clip list"
                raise ClipError(clip_id, "decode", "decode_timeout", problem, hint) from None
        hint = "the file makes the decoders crash: re-encode it, or drop it from the clip list"
        raise ClipError(clip_id, "decode", "decoder_died", problem, hint)

    def _stderr(self) -> str:
        line = self._launcher.last_stderr_line() if self._launcher is not None else ""
        return f"; it wrote: {line}" if line else ""

    def _process_for(self, request: Request) -> DecodingProcess:
        """A process that may read the request's file: the current one where it has that file.

        Raises:
            ClipError: the file cannot be opened. ConfigError: no process can be started on this machine.
        """
        try:
            file_fd = os.open(request.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            reason = "video_missing" if isinstance(error, FileNotFoundError) else "video_unreadable"
            problem = f"{request.path} cannot be opened: {error.strerror}"
            hint = "make the file readable on this node, then run with --retry-rejects"
            raise ClipError(request.clip.clip_id, "fetch", reason, problem, hint) from error
        try:
            identity = Identity.of(request.path, file_fd)
            if self._process is not None and (identity != self._identity or self._process.has_ended()):
                self._end_process()  # it may have crashed while idle: not because of this clip
            if self._process is None:
                self._process, self._identity = self._started(file_fd), identity
            return self._process
        finally:
            os.close(file_fd)

    def _started(self, file_fd: int) -> DecodingProcess:
        for _ in range(2):
            if self._launcher is None:
                limits = self._limits
                self._launcher = self._launch(limits.memory_mb, limits.timeout_s, limits.sandbox)
            try:
                return self._launcher.start(file_fd)
            except ProcessDied as error:
                self.close()  # the launcher itself may have been killed (out of memory): try once more
                problem = error.problem
        raise ConfigError(f"no decoding process can be started on this machine: {problem}", "run `handloom doctor`")


class _Stopped(Exception):
    """The buffer is no longer read."""


class _Buffer:
    """Events from the pump to the caller; `put` blocks while the frames inside exceed the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._queue: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._bytes = 0
        self._stopped = False

    def put(self, event: tuple[Any, ...]) -> None:
        size = event[1].nbytes if event[0] == "chunk" else 0
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._bytes == 0 or self._bytes + size <= self._limit_bytes)
            if self._stopped:
                raise _Stopped
            self._bytes += size
        self._queue.put(event)

    def get(self) -> tuple[Any, ...]:
        event = self._queue.get()
        if event[0] == "failed":
            raise event[1]
        if event[0] == "chunk":
            with self._changed:
                self._bytes -= event[1].nbytes
                self._changed.notify()
        return event

    def fail(self, error: BaseException) -> None:
        self._queue.put(("failed", error))

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def is_stopped(self) -> bool:
        return self._stopped

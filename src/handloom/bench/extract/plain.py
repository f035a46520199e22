"""The baselines of `bench extract`: plain processes, one per core, without Ray and Lance.

`ceiling`: the pipeline's own decoding and models in one process, nothing written.
`plain_script`: a simple script: decord, `mp.solutions.hands`, OpenCV's Lucas-Kanade, one .npz per clip.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from handloom.bench.cpu import busy_s
from handloom.errors import ClipError, HandloomError
from handloom.models.quiet import quiet_stderr
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings

END_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Spent:
    """num_frames processed in wall_s, with cpu_s of the whole machine, after the models were loaded."""

    num_frames: int
    wall_s: float
    cpu_s: float

    @property
    def frames_per_s(self) -> float:
        return self.num_frames / self.wall_s

    @property
    def cpu_s_per_frame(self) -> float:
        return self.cpu_s / self.num_frames


@dataclass(frozen=True)
class Failed:
    """A clip that a process could not read, and its message."""

    clip_id: str
    problem: str


def measure(
    kind: str, clips: Sequence[Clip], num_processes: int, did: Callable[[int], None]
) -> tuple[Spent, list[Failed]]:
    """Process the clips with `ceiling` or `plain_script` in `num_processes` processes that take clips in turn.

    Args:
        did: called with the number of finished clips after each.

    Raises:
        HandloomError: a process crashed.
    """
    context = mp.get_context("spawn")
    jobs, done = context.Queue(), context.Queue()
    # daemons: processes that wait for a clip must not keep this one from exiting
    folder = tempfile.TemporaryDirectory(prefix="handloom-bench-")
    processes = [
        context.Process(target=_work, args=(kind, jobs, done, Path(folder.name)), daemon=True)
        for _ in range(num_processes)
    ]
    try:
        for process in processes:
            process.start()
        for _ in processes:
            _take(kind, done, processes)  # one message per process: models loaded and run once
        started, cpu = time.perf_counter(), busy_s()
        for clip in clips:
            jobs.put(clip)
        ends = []
        for _ in clips:
            ends.append(_take(kind, done, processes))
            did(len(ends))
        failed = [end for end in ends if isinstance(end, Failed)]
        num_frames = sum(end for end in ends if not isinstance(end, Failed))
        spent = Spent(num_frames, time.perf_counter() - started, busy_s() - cpu)
        for _ in processes:
            jobs.put(None)
        for process in processes:
            process.join(END_TIMEOUT_S)
        return spent, failed
    finally:
        for process in processes:
            process.kill()  # not SIGTERM: pycolmap prints a trace of the stack on it
            process.join()
        folder.cleanup()


def _take(kind: str, done, processes) -> int | Failed:
    while done.empty():
        dead = [process.exitcode for process in processes if process.exitcode is not None]
        if dead:
            problem = f"{kind}: a process of the benchmark ended with exit code {dead[0]}"
            raise HandloomError(problem, "its message is above; -9 usually means that the machine ran out of memory")
        time.sleep(0.005)
    return done.get()


def _work(kind: str, jobs, done, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    cv2.setNumThreads(1)
    with quiet_stderr():
        one = Ceiling() if kind == "ceiling" else PlainScript(folder / f"{os.getpid()}.npz")
    done.put(0)
    while (clip := jobs.get()) is not None:
        try:
            with quiet_stderr():  # MediaPipe logs again at the first hand
                num_frames = one(clip)
            done.put(num_frames)
        except (*one.unreadable, ClipError) as error:
            done.put(Failed(clip.clip_id, str(error).strip().splitlines()[0]))


class Ceiling:
    """Decoding and models as in the pipeline, in one process."""

    def __init__(self) -> None:
        from handloom.stages.extract import Extractor
        from handloom.video.container.packets import NotAVideoError
        from handloom.video.decode.readers import DecodeFailedError, ImageSizeError

        self.unreadable = (NotAVideoError, DecodeFailedError, ImageSizeError)
        self._settings = Settings()
        self._extractor = Extractor(self._settings, "bench")

    def __call__(self, clip: Clip) -> int:
        from handloom.bench.images import Images
        from handloom.video.container.packets import read_packet_index
        from handloom.video.decode.decoder import Header
        from handloom.video.grid import clip_range, sample_frames, working_size

        index = read_packet_index(clip.video_uri)
        info = index.info
        indices = sample_frames(index.times_s, *clip_range(clip, info), self._settings.video.sample_hz)
        size = working_size(info.width, info.height, self._settings.video.short_side_px)
        images = Images(clip.video_uri, index, indices, size)
        header = Header(info, images.decoder, index.times_s[indices], size)
        self._extractor.row(InMemory(clip, header, images))
        return len(indices)


class InMemory:
    """Frames of a reader in this process, in the form that the extractor takes."""

    def __init__(self, clip: Clip, header, images) -> None:
        self.clip, self.header, self.chunks = clip, header, images.chunks


class PlainScript:
    """The simple script: 2D hands with MediaPipe's labels, and tracks; one .npz per clip."""

    def __init__(self, out: Path) -> None:
        import decord
        import mediapipe as mediapipe

        self.unreadable = (decord.DECORDError, RuntimeError, IndexError, ZeroDivisionError)  # what decord raises
        self._decord = decord
        self._hands = mediapipe.solutions.hands.Hands(static_image_mode=False, max_num_hands=2)
        self._hands.process(np.zeros((360, 640, 3), np.uint8))
        self._out = out

    def __call__(self, clip: Clip) -> int:
        size = self._decord.VideoReader(clip.video_uri)[0].shape
        scale = min(1.0, 360 / min(size[:2]))
        width, height = 2 * round(size[1] * scale / 2), 2 * round(size[0] * scale / 2)
        video = self._decord.VideoReader(clip.video_uri, width=width, height=height, num_threads=1)
        fps = video.get_avg_fps()
        first, last = round(clip.start_s * fps), min(round(clip.end_s * fps), len(video))
        indices = np.unique(np.round(np.arange(first, last, max(fps / 15, 1.0))).astype(int))
        indices = indices[indices < last]
        grid = np.stack(np.meshgrid(np.linspace(8, 504, 36) * width / 512, np.linspace(8, 376, 36) * height / 384), -1)
        points, alive, before = grid.reshape(-1, 2).astype(np.float32), np.ones(36 * 36, bool), None
        hands, tracks = [], []
        for index in indices:
            frame = video[int(index)].asnumpy()
            found = self._hands.process(frame)
            marks = found.multi_hand_landmarks or []
            hands.append([[(p.x * width, p.y * height) for p in hand.landmark] for hand in marks])
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if before is not None and alive.any():
                old = points[alive]
                new, ok, _ = cv2.calcOpticalFlowPyrLK(before, grey, old, None)
                back, ok_back, _ = cv2.calcOpticalFlowPyrLK(grey, before, new, None)
                good = (ok[:, 0] == 1) & (ok_back[:, 0] == 1) & (np.linalg.norm(back - old, axis=1) < 1)
                at = np.flatnonzero(alive)
                points[at], alive[at[~good]] = new, False
            before = grey
            tracks.append(np.where(alive[:, None], points, np.nan))
        np.savez(self._out, hands=np.array(hands, dtype=object), tracks=np.array(tracks))
        return len(indices)

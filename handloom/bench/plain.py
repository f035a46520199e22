"""What `bench extract` compares with: plain processes, one per core, without Ray and Lance.

`ceiling`: the pipeline's own decoding and models, frames handed over in memory, nothing written.
`plain_script`: an afternoon's work: decord, `mp.solutions.hands`, OpenCV's Lucas-Kanade, an .npz a clip.
"""

from __future__ import annotations

import multiprocessing as mp
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from handloom.bench.cpu import busy_s
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings


@dataclass(frozen=True)
class Spent:
    """num_frames processed in wall_s, with cpu_s of the whole machine; models were loaded before."""

    num_frames: int
    wall_s: float
    cpu_s: float

    @property
    def frames_per_s(self) -> float:
        return self.num_frames / self.wall_s

    @property
    def cpu_s_per_frame(self) -> float:
        return self.cpu_s / self.num_frames


def measure(kind: str, clips: Sequence[Clip], num_processes: int) -> Spent:
    """Process the clips with `ceiling` or `plain_script` in `num_processes` processes that take clips in turn."""
    context = mp.get_context("spawn")
    jobs, done = context.Queue(), context.Queue()
    processes = [context.Process(target=_work, args=(kind, jobs, done)) for _ in range(num_processes)]
    for process in processes:
        process.start()
    for _ in processes:
        _take(done, processes)  # ready: imported, models loaded and run once
    started, cpu = time.perf_counter(), busy_s()
    for clip in clips:
        jobs.put(clip)
    num_frames = sum(_take(done, processes) for _ in clips)
    spent = Spent(num_frames, time.perf_counter() - started, busy_s() - cpu)
    for _ in processes:
        jobs.put(None)
    for process in processes:
        process.join()
    return spent


def _take(done, processes) -> int:
    while done.empty():
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"a benchmark process ended with exit code {max(p.exitcode or 0 for p in processes)}")
        time.sleep(0.005)
    return done.get()


def _work(kind: str, jobs, done) -> None:
    cv2.setNumThreads(1)
    one = {"ceiling": Ceiling, "plain_script": PlainScript}[kind]()
    done.put(0)
    while (clip := jobs.get()) is not None:
        done.put(one(clip))


class Ceiling:
    """Decode and models as the pipeline calls them, in one process."""

    def __init__(self) -> None:
        from handloom.workers.extract import Extractor

        self._settings = Settings()
        self._extractor = Extractor(self._settings, "bench")

    def __call__(self, clip: Clip) -> int:
        from handloom.video.decoder import Header
        from handloom.video.grid import clip_range, sample_frames, working_size
        from handloom.video.packets import read_packet_index
        from handloom.video.readers import AvReader, DecordReader, decord_stays_small, suits_decord

        index = read_packet_index(clip.video_uri)
        info = index.info
        indices = sample_frames(index.times_s, *clip_range(clip, info), self._settings.video.sample_hz)
        size = working_size(info.width, info.height, self._settings.video.short_side_px)
        name = "decord" if suits_decord(index) and decord_stays_small(index, size) else "pyav"
        reader = DecordReader(clip.video_uri, index, size) if name == "decord" else AvReader(clip.video_uri, index)
        header = Header(info, name, index.times_s[indices], size)
        self._extractor.row(InMemory(clip, header, reader.read(indices, size)))
        return len(indices)


class InMemory:
    """Frames of a reader in this process, as the extractor wants them."""

    def __init__(self, clip: Clip, header, chunks) -> None:
        self.clip, self.header, self._chunks = clip, header, chunks

    def chunks(self):
        return self._chunks


class PlainScript:
    """The afternoon's script: it keeps 2D hands as MediaPipe labels them, and tracks; one .npz a clip."""

    def __init__(self) -> None:
        import decord
        import mediapipe as mediapipe

        self._decord = decord
        self._hands = mediapipe.solutions.hands.Hands(static_image_mode=False, max_num_hands=2)
        self._hands.process(np.zeros((360, 640, 3), np.uint8))
        self._out = Path(tempfile.mkdtemp(prefix="handloom-bench-"))

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
        np.savez(self._out / "clip.npz", hands=np.array(hands, dtype=object), tracks=np.array(tracks))
        return len(indices)

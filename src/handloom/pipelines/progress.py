"""How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

import ray

from handloom.workers.ledger import Progress

LINE_EVERY_S = 30.0
POLL_S = 0.5


class ProgressLine:
    """Polls `read` in a thread and shows clips, rejects, frames/s and the time left. Use as a context manager."""

    def __init__(
        self, total: int, read: Callable[[], Progress], out: TextIO | None = None, quiet: bool = False
    ) -> None:
        self._total = total
        self._read = read
        self._out = out or sys.stderr
        self._quiet = quiet
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._bar = None

    def __enter__(self) -> ProgressLine:
        if not self._quiet:
            if self._out.isatty():
                from tqdm import tqdm

                form = "{l_bar}{bar}| {n_fmt}/{total_fmt} clips [{elapsed}<{remaining}{postfix}]"
                self._bar = tqdm(total=self._total, file=self._out, bar_format=form, mininterval=0.2)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._bar is not None:
            self._show()  # the last clips ended after the last look
            self._bar.close()

    def text(self, progress: Progress) -> str:
        """`finished=12/40 rejects=1 frames_per_s=31.2 left_s=58`"""
        spent = time.monotonic() - self._started
        finished = progress.num_rows + progress.num_rejects
        rate = progress.num_frames / spent if spent > 0 else 0.0
        left = f"{spent / finished * (self._total - finished):.0f}" if finished else "?"
        return f"finished={finished}/{self._total} rejects={progress.num_rejects} frames_per_s={rate:.1f} left_s={left}"

    def _watch(self) -> None:
        next_line = self._started + 5.0
        while not self._stop.wait(POLL_S):
            if self._bar is None and time.monotonic() < next_line:
                continue
            if not self._show():
                return
            next_line = time.monotonic() + LINE_EVERY_S

    def _show(self) -> bool:
        """False where Ray is going down: the run's own end says why."""
        try:
            progress = self._read()
        except (ray.exceptions.RayError, RuntimeError, OSError):
            return False
        if self._bar is None:
            print(self.text(progress), file=self._out, flush=True)
            return True
        self._bar.n = progress.num_rows + progress.num_rejects
        spent = time.monotonic() - self._started
        self._bar.set_postfix(rejects=progress.num_rejects, frames_per_s=f"{progress.num_frames / spent:.1f}")
        return True

"""The progress of a run: a bar on a terminal, a line now and then elsewhere, and what its record in `runs` says."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

import ray

from handloom.plural import plural
from handloom.store.runs.runs import RunProgress
from handloom.workers.ledger import Progress

POLL_S = 0.5
LINES_AT_S, LINE_EVERY_S = (3.0, 8.0, 15.0, 30.0), 30.0  # a run of six clips takes 20 s, one of a thousand hours days
SHOWN_CLIPS = 2
RATE_S, SAMPLE_S, LEAST_S = 60.0, 2.0, 0.5  # rates of the record: over a minute, from looks two seconds apart


def announce(
    num_clips: int,
    ray_address: str | None,
    quiet: bool,
    rows: Mapping[str, int] | None = None,
    num_rows: int = 0,
    out: TextIO | None = None,
) -> None:
    """Print what begins, before there is anything to count: Ray takes some seconds to start.

    rows: {stage: rows that have it computed}. num_rows: how many of the clips have a row.
    """
    if not quiet:
        if rows:
            listed = ", ".join(f"{stage} {num}" for stage, num in rows.items())
            new = plural(num_clips - num_rows, "new clip")
            told = f"{new}, and {plural(num_rows, 'row')} that get columns of these stages: {listed}"
            print(told if num_rows != 1 else told.replace("that get", "that gets"), file=out or sys.stderr, flush=True)
        doing = f"joining the cluster {ray_address}" if ray_address else "starting Ray"
        print(f"0 of {num_clips} {units_of(num_clips, num_rows)} done: {doing}", file=out or sys.stderr, flush=True)


def units_of(total: int, num_rows: int) -> str:
    """What is counted: clips, or rows where every clip has one."""
    return "rows" if num_rows and num_rows == total else "clips"


class ProgressLine:
    """Polls `read` in a thread, shows clips, rejects, the rate and the time left, and hands them to `tell`. Use as a
    context manager."""

    def __init__(
        self,
        total: int,
        read: Callable[[], Progress],
        out: TextIO | None = None,
        quiet: bool = False,
        num_rows: int = 0,
        tell: Callable[[RunProgress], None] = lambda progress: None,
    ) -> None:
        """num_rows: how many of the `total` clips have a row, which gets new columns. tell: is called at every look."""
        self._total, self._units = total, units_of(total, num_rows)
        self._read, self._tell = read, tell
        self._out = out or sys.stderr
        self._quiet = quiet
        self._started = time.monotonic()
        self._working_from: float | None = None  # when the first clip was begun: its models are loaded by then
        self._first = self._last = Progress(0, 0, 0, {})  # first: what was done when the first look found work
        self._samples: deque[tuple[float, Progress]] = deque()  # of the last minute, the oldest first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._bar = None

    def __enter__(self) -> ProgressLine:
        if not self._quiet and self._out.isatty():
            from tqdm import tqdm

            form = f"{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} {self._units} [{{elapsed}}{{postfix}}]"
            self._bar = tqdm(total=self._total, file=self._out, bar_format=form, mininterval=0.2)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._bar is not None:
            if (progress := self._look()) is not None:
                self._show(progress)  # the last clips ended after the last look
            self._bar.close()

    def text(self, progress: Progress) -> str:
        """`12 of 40 clips done (1 rejected), 31.2 frames/s, about 58 s left; working on CLIP, CLIP and 2 more`"""
        finished = _finished(progress)
        rejects = f" ({progress.num_rejects} rejected)" if progress.num_rejects else ""
        return f"{finished} of {self._total} {self._units} done{rejects}{', '.join(['', *self._facts(progress)])}"

    def _facts(self, progress: Progress) -> list[str]:
        """Rate and time left, once they are known, and what is being done now."""
        finished = _finished(progress)
        if finished >= self._total:
            return ["the last rows are committed"]
        if self._working_from is None:
            return [f"workers start and load their models ({time.monotonic() - self._started:.0f} s)"]
        spent, facts = time.monotonic() - self._working_from, []
        left_s = self._left_s(progress)
        if left_s is not None:
            facts.append(_rate(progress, self._first, spent))
            facts.append(f"about {left_s:.0f} s left")
        return [*facts, *_working_on(progress)]

    def _left_s(self, progress: Progress) -> float | None:
        """At the mean rate since the first look; None before the first row since."""
        if self._working_from is None or progress.num_rows <= self._first.num_rows:
            return None
        spent, finished = time.monotonic() - self._working_from, _finished(progress)
        return spent / (finished - _finished(self._first)) * (self._total - finished) if spent > 0 else None

    def record(self, progress: Progress, now: float | None = None) -> RunProgress:
        """The same for the run's record, with the rates of the last minute. now: of `time.monotonic`."""
        now = time.monotonic() if now is None else now
        clips_per_s = frames_per_s = None
        if self._working_from is not None:
            if not self._samples or now - self._samples[-1][0] >= SAMPLE_S:
                self._samples.append((now, progress))
            while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_S:
                self._samples.popleft()
            since, first = self._samples[0]
            if now - since >= LEAST_S and _finished(progress) > _finished(self._first):
                clips_per_s = (_finished(progress) - _finished(first)) / (now - since)
                frames_per_s = (progress.num_frames - first.num_frames) / (now - since)
        return RunProgress(
            self._total,
            self._units,
            progress.num_rows,
            progress.num_rejects,
            progress.num_frames,
            clips_per_s,
            frames_per_s,
            self._left_s(progress),
            progress.stages,
        )

    def _watch(self) -> None:
        waits = [self._started + at for at in LINES_AT_S]
        while not self._stop.wait(POLL_S):
            progress = self._look()
            if progress is None:
                return
            begins = self._working_from is None and bool(progress.working or progress.num_rows or progress.num_rejects)
            if begins:
                self._working_from, self._first = time.monotonic(), progress
            self._tell(self.record(progress))
            if self._bar is not None or begins or time.monotonic() >= waits[0]:
                self._show(progress)
            now = time.monotonic()
            waits = [at for at in waits if at > now] or [now + LINE_EVERY_S]

    def _look(self) -> Progress | None:
        """The counts now; None if Ray is shutting down: the run's own end says why."""
        try:
            self._last = self._read()
            return self._last
        except ray.exceptions.GetTimeoutError:  # the machine is too busy: show the counts of before
            return self._last
        except (ray.exceptions.RayError, RuntimeError, OSError):
            return None

    def _show(self, progress: Progress) -> None:
        if self._quiet:
            return
        if self._bar is None:
            print(self.text(progress), file=self._out, flush=True)
            return
        self._bar.n = _finished(progress)
        rejects = [f"{progress.num_rejects} rejected"] if progress.num_rejects else []
        self._bar.set_postfix_str(", ".join([*rejects, *self._facts(progress)]))


def _finished(progress: Progress) -> int:
    return progress.num_rows + progress.num_rejects


def _rate(progress: Progress, first: Progress, spent_s: float) -> str:
    """Since the first look; in frames, or in clips where no video is decoded: of rows that get columns from columns."""
    if progress.num_frames:
        return f"{(progress.num_frames - first.num_frames) / spent_s:.1f} frames/s"
    return f"{(progress.num_rows - first.num_rows) / spent_s:.2g} clips/s"


def _working_on(progress: Progress) -> list[str]:
    clips = list(progress.working.values())
    more = f" and {len(clips) - SHOWN_CLIPS} more" if len(clips) > SHOWN_CLIPS else ""
    return [f"working on {', '.join(clips[:SHOWN_CLIPS])}{more}"] if clips else []

"""Progress of a benchmark on stderr, `--quick`, and interruption; every benchmark gets a `Watch`.

    def bench_feed(videos, watch, ...):
        found = {}
        with watch.measuring(units=rounds * len(readers)):    # Ctrl-C or SIGTERM leaves this block
            for number in range(rounds):
                watch.part(f"round {number + 1} of {rounds}")
                for name, reader in readers.items():
                    found.setdefault(name, []).append(reader(number))
                    watch.did(name)
        return describe("feed", results_of(found), goals_of(found), watch)

After the block `watch.interrupted` is true if it was left early: the report then has what was measured, and
`goal(name, None, ...)` for what was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from handloom.pipelines.run.interrupts import Interrupts

LINE_EVERY_S = 5.0
MESSAGE = b"\nstopping: the report will hold what was measured (once more to stop at once)\n"


class Watch:
    """One benchmark's progress, in units of any kind (clips, seconds of video, rounds); the time left is estimated from
    the pace so far.

    quick: measure less, in under two minutes on two cores; the report says so. interrupted: by Ctrl-C or SIGTERM.
    """

    def __init__(self, say: Callable[[str], None], quick: bool = False, clock: Callable[[], float] = time.monotonic):
        self.quick = quick
        self.interrupted = False
        self._tell = say
        self._clock = clock
        self._began = self._measuring_since = self._last_line = clock()
        self._units = self._done = 0.0
        self._part = ""

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._began

    @property
    def num_done(self) -> float:
        """Units of work that are done."""
        return self._done

    @contextmanager
    def measuring(self, units: float = 0.0) -> Iterator[None]:
        """The part of a benchmark that takes time. Ctrl-C or SIGTERM ends it, and the program continues after it."""
        self._measuring_since = self._clock()
        self.expect(units)
        with Interrupts(MESSAGE) as self._interrupts:
            try:
                yield
            except KeyboardInterrupt:
                self.interrupted = True
        self._units = self._done

    def take_signals(self) -> None:
        """Install the signal handlers again, while measuring: `ray.init` replaces them."""
        self._interrupts.install()

    def expect(self, units: float) -> None:
        """Set the number of units in all, those done included; may be called again when more is known."""
        self._units = max(units, self._done)

    def part(self, text: str) -> None:
        """Start a new part, such as `round 2 of 3, ceiling`."""
        self._part = text
        self._line(text)

    def did(self, text: str = "", units: float = 1.0) -> None:
        """Add finished units; `text` names the piece of the part. Printed every few seconds only."""
        self._done += units
        if self._clock() - self._last_line >= LINE_EVERY_S:
            self._line(f"{self._part}: {text}" if text else self._part)

    def say(self, text: str) -> None:
        """Print a line, such as `rendered 3/12: NAME`."""
        self._line(text)

    def _line(self, text: str) -> None:
        self._last_line = self._clock()
        self._tell(f"[{_minutes(self.elapsed_s)}{self._rest()}] {text}")

    def _rest(self) -> str:
        if not self._done or self._units <= self._done:
            return ""
        pace_s = (self._clock() - self._measuring_since) / self._done
        return f", about {_minutes(pace_s * (self._units - self._done))} to go"


def _minutes(seconds: float) -> str:
    """`75.2` as `1:15`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

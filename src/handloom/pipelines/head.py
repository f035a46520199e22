"""Whether the cluster's head still answers: Ray itself waits a minute for it, then ends the driver without a word."""

from __future__ import annotations

import os
import socket
import threading
import time

from handloom.pipelines.last_words import LastWords

LOOK_S, KNOCK_S = 2.0, 3.0
LOST_S = 15.0  # a head that is only busy answers the knock: the kernel does it
LATE_S = 10.0


class Head:
    """Knocks at the head's address from a thread, as long as the block lasts. `lost`: nobody has opened for `LOST_S`.

    Ray's calls hang from then on, and it cannot be left in order: the run commits what it has, and ends its process
    (`give_up`). Where it is caught in such a call, the thread does that `LATE_S` later.
    """

    def __init__(self, address: str, last_words: LastWords) -> None:
        self._address, self._last_words = address, last_words
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="head")
        self.lost = False

    def __enter__(self) -> Head:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def give_up(self) -> None:
        """End this process; what stays says why."""
        self._last_words.know(problem=f"the head of the Ray cluster at {self._address} has gone")
        os._exit(1)  # no atexit: it would wait for the head

    def _watch(self) -> None:
        answered = time.monotonic()
        while not self._ended.wait(LOOK_S):
            if self._opens():
                answered = time.monotonic()
            silent_s = time.monotonic() - answered
            self.lost = silent_s > LOST_S
            if silent_s > LOST_S + LATE_S:
                self.give_up()

    def _opens(self) -> bool:
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
        except OSError:
            return False
        return True

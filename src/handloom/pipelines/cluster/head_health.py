"""Checks that the cluster's head still replies, and prints how far a run came if its process is killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

END_S = 5.0


class LastWords:
    """A small process that prints how far the run came, if this process ends inside the block.

    Args:
        db_uri: named in the command that goes on.
    """

    def __init__(self, db_uri: str, num_clips: int) -> None:
        self._first = {"db": db_uri, "listed": num_clips}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> LastWords:
        # A session of its own: a signal to the process group is for the run, which reports itself how it ended.
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "start_new_session": True}
        self._process = subprocess.Popen([sys.executable, "-I", "-S", __file__], text=True, **options)
        self.know(**self._first)
        return self

    def __exit__(self, *_: object) -> None:
        self.know(ended=True)
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def know(self, **values: object) -> None:
        """Send it new values: `num_clips`, `num_rejects` (committed so far), `problem` (why the run cannot go on)."""
        if self._process is None or self._process.stdin is None:
            raise ValueError("the process is not started: enter the block first")
        try:
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it was killed
            return


def main() -> None:
    """Read values until the run's process ends, and print how far it came unless it has ended in order."""
    known: dict[str, Any] = {"num_clips": 0, "num_rejects": 0}
    for line in sys.stdin:
        known |= json.loads(line)
    if "ended" in known:
        return
    usual = "the run's process was killed, or ended by Ray because Ray's own process on this node (the raylet) has gone"
    lines = [
        f"{known['num_clips']} clips, {known['num_rejects']} rejects of {known['listed']} clips are committed",
        f"error: {known.get('problem', usual)}",
        f"hint: look at the nodes' memory and at Ray's logs, then go on with: handloom run --db {known['db']}",
    ]
    os.write(2, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()


LOOK_S, CONNECT_S = 2.0, 3.0
LOST_S = 15.0  # a head that is only busy accepts the connection: the kernel does it
LATE_S = 10.0


class Head:
    """Checks the head's address from a thread while the block lasts. `lost`: no connection for `LOST_S`.

    From then on Ray's calls hang, and Ray cannot be shut down: the run commits what it has, and ends its process
    (`give_up`). If the run hangs in such a call, the thread ends the process `LATE_S` later.
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
        """End this process; the process of `LastWords` prints why."""
        self._last_words.know(problem=f"the head of the Ray cluster at {self._address} has gone")
        os._exit(1)  # without atexit handlers: they would wait for the head

    def _watch(self) -> None:
        answered = time.monotonic()
        while not self._ended.wait(LOOK_S):
            if self._is_reachable():
                answered = time.monotonic()
            silent_s = time.monotonic() - answered
            self.lost = silent_s > LOST_S
            if silent_s > LOST_S + LATE_S:
                self.give_up()

    def _is_reachable(self) -> bool:
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        except OSError:
            return False
        return True

"""What a run says when its process is ended from outside: by Ray, whose core ends a driver without a word when the
node's own process (the raylet) or the cluster's head has gone, or by the kernel.

Run as a script it is the process that stays to say it; then it imports nothing but what Python brings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

END_S = 5.0


class LastWords:
    """Holds a small process that prints how far the run came, should this one end inside the block.

    Args:
        db_uri: how to go on is said with it.
    """

    def __init__(self, db_uri: str, num_clips: int) -> None:
        self._first = {"db": db_uri, "listed": num_clips}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> LastWords:
        # A session of its own: a signal to the process group is for the run, which says itself how it ended.
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "start_new_session": True}
        self._process = subprocess.Popen([sys.executable, "-I", "-S", __file__], text=True, **options)
        self.know(**self._first)
        return self

    def __exit__(self, *_: object) -> None:
        self.know(ended=True)
        try:
            self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def know(self, **values: object) -> None:
        """Tell it more: `num_clips`, `num_rejects` (committed so far), `problem` (why the run cannot go on)."""
        try:
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # somebody has ended it
            return


def main() -> None:
    """Print the last words unless the run has ended by itself."""
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

"""The decode child: a process of its own, because decoders crash, hang and eat memory on damaged files.

Started as `python -m handloom.video.child FD MEMORY_MB`. It reads requests from a socket and answers each as `answer`
says. It ends when its parent does.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

import av
import cv2
import decord

from handloom.video.answer import Server


def _end_with_parent(parent_pid: int) -> None:
    """Leave at once when the parent is gone, even while a decoder hangs (its calls release the GIL)."""
    while os.getppid() == parent_pid:
        time.sleep(1.0)
    os._exit(0)


def main(fd: int, memory_mb: int) -> None:
    """Serve the socket `fd` until its other end, or the parent, is gone; with at most `memory_mb` of data."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    limit = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    av.logging.set_level(None)
    decord.logging.set_level(decord.logging.QUIET)
    cv2.setNumThreads(1)
    Server(Connection(fd)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

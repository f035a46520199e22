"""The processes that decode. Damaged files make decoders crash, hang or use up memory; hostile ones take them over.

`process.Launcher` starts the launcher, which imports the decoders once and forks a process for each video. That process
gives up the rights that it does not need, then serves requests until its socket closes. All end when their parent does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import socket

import av
import cv2
import decord

from handloom.video.decode import sandbox
from handloom.video.decode.server import Server
from handloom.video.decode.wire import ChildEnd, Line

LOOK_S = 1.0
LAZY = ("encodings.ascii", "encodings.latin_1", "encodings.idna", "linecache", "tokenize")


def main(control_fd: int, memory_mb: int, locked: bool) -> None:
    """Fork a process for each `start` that arrives over `control_fd`; end when the parent does.

    memory_mb: limit of each process's data. locked: whether they are confined (`sandbox`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    parent_pid = os.getppid()
    av.logging.set_level(None)
    decord.logging.set_level(decord.logging.QUIET)
    cv2.setNumThreads(1)
    _import_lazy_modules()
    gc.freeze()  # a collection in a forked process would copy the memory that it visits
    found = sandbox.support()
    control = socket.socket(fileno=control_fd)  # not closed here: after an error the parent must find it written
    while os.getppid() == parent_pid:
        if not select.select([control], [], [], LOOK_S)[0]:
            continue
        text, fds, _, _ = socket.recv_fds(control, 4096, 2)
        if not text:
            break
        command = json.loads(text)
        if command["do"] == "start":
            reply = {"pid": _fork(control, fds, memory_mb, found if locked else None)}
        else:
            reply = {"code": os.waitstatus_to_exitcode(os.waitpid(command["pid"], 0)[1])}
        control.sendall(json.dumps(reply).encode())
    os._exit(0)  # sys.exit would wait for decord's threads


def _import_lazy_modules() -> None:
    """Import modules that are imported at first use (PyAV: by kind of stream): a confined process can read none."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith((".__main__", ".datasets")):
            importlib.import_module(module.name)
    for name in LAZY:
        importlib.import_module(name)


def _fork(control: socket.socket, fds: list[int], memory_mb: int, found: sandbox.Support | None) -> int:
    """The pid of a process that reads the file fds[0] and serves the socket fds[1]."""
    file_fd, line_fd = fds
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
            control.close()
            _serve(file_fd, line_fd, memory_mb, found)
        os._exit(0)
    os.close(file_fd)
    os.close(line_fd)
    return pid


def _serve(file_fd: int, line_fd: int, memory_mb: int, found: sandbox.Support | None) -> None:
    sandbox.end_with_parent()
    limit = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    line = Line(socket.socket(fileno=line_fd))  # asks the kernel for its type, which the sandbox forbids
    layers = () if found is None else sandbox.lock(file_fd, found)
    os.close(file_fd)
    line.send({"kind": "ready", "layers": layers})
    Server(ChildEnd(line)).serve()

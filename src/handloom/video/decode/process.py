"""Decoding processes: a launcher imports the decoders once and forks one process per video.

The launcher never reads a video. Its environment and import path are built from nothing: no part of the working
directory, of PYTHONPATH or of the caller's variables (keys!) reaches it. Each process that it forks may read one file
(see `sandbox`): a file that takes over its process gains the images of its own clips, no more.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from handloom import errors
from handloom.errors import ConfigError
from handloom.kernels import PINNED
from handloom.video.decode import sandbox
from handloom.video.decode.wire import GarbledError, Line, Request, last_line, replies, send_request

log = logging.getLogger(__name__)

SandboxMode = Literal["auto", "required", "off"]
DEPENDENCIES = ("numpy", "av", "cv2", "decord")
PASSED_ON = ("LD_LIBRARY_PATH",)  # where the libraries of the packages lie, on clusters with environment modules
MAX_STDERR_BYTES = 1 << 16
START_TIMEOUT_S = 120.0  # imports from a slow network disk
END_S = 5.0  # for the launcher to exit by itself once it has closed its socket: killed, it would have no exit code

# Isolated (-I): no PYTHON* variables, no working directory, no user's site. Without site (-S): no .pth files either.
# The standard library is first on the path, so that no other folder can shadow it. handloom is loaded by its own
# folder: nothing beside a checkout can be imported.
BOOT = """
import importlib.util, json, sys
config = json.loads(sys.argv[1])
sys.path += config["paths"]
spec = importlib.util.spec_from_file_location(
    "handloom", config["package"] + "/__init__.py", submodule_search_locations=[config["package"]]
)
sys.modules["handloom"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["handloom"])
from handloom.video.decode.child import main
main(config["control"], config["memory_mb"], config["locked"])
"""


class ProcessDied(Exception):
    """A decoding process, or the launcher, has exited or did not start. problem: exit code and what it wrote."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True)
class Identity:
    """Which file a path named when it was opened: another file of that name needs another process."""

    path: str
    device: int
    inode: int

    @staticmethod
    def of(path: str, file_fd: int) -> Identity:
        stat = os.fstat(file_fd)
        return Identity(path, stat.st_dev, stat.st_ino)


class DecodingProcess:
    """One forked process, which decodes clips of one file. `end` may be called from any thread."""

    def __init__(self, pid: int, connection: socket.socket, timeout_s: float) -> None:
        self.pid = pid
        self.layers: tuple[str, ...] = ()
        self._line = Line(connection, timeout_s)
        self._reaped = False
        self._ending = threading.Lock()

    def wait_ready(self) -> None:
        """Wait until it can serve, and read its active `layers`. Raises EOFError, TooSlowError, GarbledError."""
        message, _ = self._line.receive()
        self.layers = tuple(str(layer) for layer in message.get("layers", ()))

    def ask(self, request: Request, supply: Callable[[int, int], int] | None = None) -> Iterator[tuple[Any, ...]]:
        """See `wire.replies`."""
        send_request(self._line, request)
        yield from replies(self._line, request, supply)

    def has_ended(self) -> bool:
        """Whether it has exited, or has sent bytes that no request asked for."""
        return not self._line.is_silent()

    def end(self) -> None:
        """Kill it. A thread that waits in `ask` gets an EOFError."""
        with self._ending:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def close(self, launcher: Launcher) -> int | None:
        """Kill it. Returns its exit code; None where the launcher does not know it."""
        self.end()
        with self._ending:
            code = launcher.reap(self.pid)
            self._reaped = True
        self._line.close()
        return code


class Launcher:
    """The process that forks. `close()` ends it and all processes that it has forked.

    Args:
        mode: `resources.decode_sandbox`.
        program: what the process runs.
    """

    def __init__(self, memory_mb: int, timeout_s: float, mode: SandboxMode, program: str = BOOT) -> None:
        self._timeout_s = timeout_s
        self._mode = mode
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START_TIMEOUT_S)
        self._serves = False  # whether it has replied to a command
        self._stderr, write_end = os.pipe()
        for end in (self._stderr, write_end):
            os.set_blocking(end, False)  # a full pipe must not stop the processes
        config: dict[str, Any] = {"package": str(Path(errors.__file__).resolve().parent), "paths": _import_paths()}
        config |= {"control": theirs.fileno(), "memory_mb": memory_mb, "locked": mode != "off"}
        with theirs, open(write_end, "wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program, json.dumps(config)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                cwd="/",
                env=child_environment(),
            )

    def start(self, file_fd: int) -> DecodingProcess:
        """A process that may read the open file.

        Raises:
            ProcessDied: the launcher or the new process exited. ConfigError: mode `required`, and a layer of the
                sandbox is missing.
        """
        if self._serves:  # before its first reply all is the launcher's own: why it cannot start
            self.last_stderr_line()  # drop what earlier processes wrote
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                reply = self._command({"do": "start"}, [file_fd, theirs.fileno()])
        except ProcessDied:
            ours.close()
            raise
        process = DecodingProcess(reply["pid"], ours, self._timeout_s)
        try:
            process.wait_ready()
        except (EOFError, OSError, GarbledError) as error:
            code = process.close(self)
            raise ProcessDied(
                f"the decoding process did not start, exit code {code}; {self.last_stderr_line()}"
            ) from error
        missing = [sandbox.LAYERS[layer] for layer in sandbox.LAYERS if layer not in process.layers]
        if self._mode == "required" and missing:
            process.close(self)
            problem = f"resources.decode_sandbox is `required`, but this node cannot give: {', '.join(missing)}"
            raise ConfigError(problem, "change its kernel or container profile, or set `auto`: what a node supports")
        return process

    def reap(self, pid: int) -> int | None:
        """The exit code of a process that has ended; None where the launcher has exited."""
        try:
            return self._command({"do": "reap", "pid": pid}, [])["code"]
        except ProcessDied:
            return None

    def last_stderr_line(self) -> str:
        """The last line that the processes wrote to stderr since the last call; "" for none."""
        try:
            return last_line(os.read(self._stderr, MAX_STDERR_BYTES).decode(errors="replace"))
        except BlockingIOError:
            return ""

    def close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()
        os.close(self._stderr)

    def _command(self, command: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        try:
            socket.send_fds(self._control, [json.dumps(command).encode() + b"\n"], fds)
            reply = self._control.recv(4096)
        except TimeoutError as error:
            problem = f"the launcher of decoding processes did not reply within {START_TIMEOUT_S:g} s"
            raise ProcessDied(problem) from error
        except OSError:
            reply = b""
        if not reply:
            problem = f"the launcher of decoding processes ended with exit code {self._end()}"
            raise ProcessDied(f"{problem}; it wrote: {self.last_stderr_line() or 'nothing'}")
        self._serves = True
        return json.loads(reply)

    def _end(self) -> int:
        """The exit code of the launcher, which has closed its socket. Killed where it does not end."""
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def layers_here() -> tuple[str, ...]:
    """The layers of the sandbox that are active on this machine: a process is started, and reports them.

    Raises:
        ProcessDied: no decoding process can be started.
    """
    launcher = Launcher(memory_mb=1536, timeout_s=START_TIMEOUT_S, mode="auto")
    try:
        with open(__file__, "rb") as file:
            process = launcher.start(file.fileno())
        process.close(launcher)
        return process.layers
    finally:
        launcher.close()


def child_environment() -> dict[str, str]:
    """The processes' whole environment: pinned arithmetic (`kernels.PINNED`), encoding, paths of libraries."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed_on, **PINNED, "LC_ALL": "C.UTF-8", "PATH": os.defpath}  # decord cannot be imported without a PATH


def _import_paths() -> list[str]:
    """The folders from which this process imports the decoders; never the working directory."""
    here = os.path.realpath(os.curdir)
    found: dict[str, None] = {}
    for name in DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            parent = os.path.dirname(os.path.abspath(folder))
            if os.path.realpath(parent) != here:
                found[parent] = None
    return list(found)

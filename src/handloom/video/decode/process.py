"""Decoding processes: a launcher that has imported the decoders, and one process a video that it forks.

The launcher never reads a video. It is started with an environment and an import path of its own making: nothing of
the working directory, of PYTHONPATH or of the caller's variables (keys!) reaches it. Each process that it forks may
read one file (see `sandbox`): a file that takes its process over has gained the pictures of its own clips, no more.
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

import handloom
from handloom.errors import ConfigError
from handloom.kernels import PINNED
from handloom.video.decode import sandbox
from handloom.video.decode.wire import GarbledError, Line, Request, answers, last_line, send_request

log = logging.getLogger(__name__)

DEPENDENCIES = ("numpy", "av", "cv2", "decord")
PASSED_ON = ("LD_LIBRARY_PATH",)  # where the libraries of the packages lie, on clusters with environment modules
MAX_WORDS = 1 << 16
START_TIMEOUT_S = 120.0  # imports from a slow network disk

# Isolated (-I): no PYTHON* variables, no working directory, no user's site. Without site (-S): no .pth files either.
# The standard library stands first on the path, so that no folder below can shadow it; handloom itself is found by its
# own folder alone: nothing that lies beside a checkout can be imported.
_BOOT = """
import importlib.util, json, sys
told = json.loads(sys.argv[1])
sys.path += told["paths"]
spec = importlib.util.spec_from_file_location(
    "handloom", told["package"] + "/__init__.py", submodule_search_locations=[told["package"]]
)
sys.modules["handloom"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["handloom"])
from handloom.video.decode.child import main
main(told["control"], told["memory_mb"], told["locked"])
"""


class ProcessDied(Exception):
    """The decoding process, or the launcher, is gone. `problem` says how."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True)
class Identity:
    """A file, as opposed to its name: another file under the same name needs another process."""

    path: str
    device: int
    inode: int

    @staticmethod
    def of(path: str, file_fd: int) -> Identity:
        stat = os.fstat(file_fd)
        return Identity(path, stat.st_dev, stat.st_ino)


class DecodingProcess:
    """One forked process: it decodes clips of one file. `end` may be called from any thread."""

    def __init__(self, pid: int, connection: socket.socket, timeout_s: float) -> None:
        self.pid = pid
        self.layers: tuple[str, ...] = ()
        self._line = Line(connection, timeout_s)
        self._reaped = False
        self._ending = threading.Lock()

    def greet(self) -> None:
        """Learn which layers of the sandbox stand. Raises EOFError, TooSlowError, GarbledError."""
        message, _ = self._line.receive()
        self.layers = tuple(str(layer) for layer in message.get("layers", ()))

    def ask(self, request: Request, supply: Callable[[int, int], int] | None = None) -> Iterator[tuple[Any, ...]]:
        """See `wire.answers`."""
        send_request(self._line, request)
        yield from answers(self._line, request, supply)

    def has_ended(self) -> bool:
        """Whether it is gone, or speaks unasked, which comes to the same."""
        return not self._line.is_silent()

    def end(self) -> None:
        """Whoever is in `ask` gets an EOFError."""
        with self._ending:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def close(self, launcher: Launcher) -> int | None:
        """End it; its exit code, where the launcher knows it."""
        self.end()
        with self._ending:
            code = launcher.reap(self.pid)
            self._reaped = True
        self._line.close()
        return code


class Launcher:
    """The process that forks. `close()` ends it and all that it has forked.

    Args:
        mode: `resources.decode_sandbox`.
    """

    def __init__(self, memory_mb: int, timeout_s: float, mode: Literal["auto", "required", "off"]) -> None:
        self._timeout_s = timeout_s
        self._mode = mode
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START_TIMEOUT_S)
        self._words, words = os.pipe()
        for end in (self._words, words):
            os.set_blocking(end, False)  # nobody waits for what is written on stderr
        told = {"package": str(Path(handloom.__file__).resolve().parent), "paths": _import_paths()}
        told |= {"control": theirs.fileno(), "memory_mb": memory_mb, "locked": mode != "off"}
        with theirs, open(words, "wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, json.dumps(told)],
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
            ProcessDied: the launcher, or the new process, did not come up. ConfigError: the sandbox that is required
            does not stand.
        """
        self.last_words()  # of the process before
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                reply = self._command({"do": "start"}, [file_fd, theirs.fileno()])
        except ProcessDied:
            ours.close()
            raise
        process = DecodingProcess(reply["pid"], ours, self._timeout_s)
        try:
            process.greet()
        except (EOFError, OSError, GarbledError) as error:
            code = process.close(self)
            raise ProcessDied(f"the decoding process did not start, exit code {code}; {self.last_words()}") from error
        missing = [sandbox.LAYERS[layer] for layer in sandbox.LAYERS if layer not in process.layers]
        if self._mode == "required" and missing:
            process.close(self)
            problem = f"resources.decode_sandbox is `required`, but this node cannot give: {', '.join(missing)}"
            raise ConfigError(problem, "change its kernel or container profile, or set `auto`: as far as a node allows")
        return process

    def reap(self, pid: int) -> int | None:
        """The exit code of a process that was ended; None where the launcher is gone."""
        try:
            return self._command({"do": "reap", "pid": pid}, [])["code"]
        except ProcessDied:
            return None

    def last_words(self) -> str:
        """The last line that the processes wrote to stderr; "" for none."""
        try:
            return last_line(os.read(self._words, MAX_WORDS).decode(errors="replace"))
        except BlockingIOError:
            return ""

    def close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()
        os.close(self._words)

    def _command(self, command: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        try:
            socket.send_fds(self._control, [json.dumps(command).encode() + b"\n"], fds)
            answer = self._control.recv(4096)
        except TimeoutError as error:
            problem = f"the launcher of decoding processes was silent for {START_TIMEOUT_S:g} s"
            raise ProcessDied(problem) from error
        except OSError:
            answer = b""
        if not answer:
            self._process.kill()
            problem = f"the launcher of decoding processes ended with exit code {self._process.wait()}"
            raise ProcessDied(f"{problem}; it wrote: {self.last_words() or 'nothing'}")
        return json.loads(answer)


def layers_here() -> tuple[str, ...]:
    """The layers of the sandbox that stand on this machine, as a process finds that reads this file.

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
    """All that the processes inherit: the pinned arithmetic, the encoding, and where libraries lie."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed_on, **PINNED, "LC_ALL": "C.UTF-8", "PATH": os.defpath}  # decord does not import without a PATH


def _import_paths() -> list[str]:
    """The folders that this process has the decoders from; never the working directory, whatever lies there."""
    here = os.path.realpath(os.curdir)
    found: dict[str, None] = {}
    for name in DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            parent = os.path.dirname(os.path.abspath(folder))
            if os.path.realpath(parent) != here:
                found[parent] = None
    return list(found)

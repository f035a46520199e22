"""Ray: a local one, which ends with the command, or a cluster to join; and the folder in which a local one works."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import resource
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

import handloom
from handloom.errors import ConfigError, HandloomError
from handloom.pipelines.cluster.ray_private import (
    groups_of_their_own,
    job_without_working_directory,
    never_start_unasked,
    no_more_nodes,
    polling_less,
    session_folder,
    without_monitors,
)

log = logging.getLogger(__name__)

MAX_HELD_BYTES = 100_000
CONNECT_TIMEOUT_S = 10.0
WANTED_FILES, MIN_FILES = 4096, 128  # open files of a process; a small run needs fewer than 128
# A socket's path has at most 107 bytes; Ray adds "/session_2026-11-28_15-22-58_123456_1234567/sockets/plasma_store".
MAX_BYTES = 107 - 65
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
JOIN_HINT = "check the address (host:port of the head node, or `auto`); without it a local Ray is started"


@contextmanager
def joined(address: str | None, num_cpus: int | None = None) -> Iterator[None]:
    """Join the cluster at `address`, or start a local Ray that ends with the block. If Ray has been started, use that.

    Raises:
        ConfigError: there is no cluster at `address`.
    """
    if ray.is_initialized():
        yield
        return
    # uv would rebuild every worker's environment; Ray Data's own progress bars and chatter would mix with ours.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its core writes warnings of its own to our stderr
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address is None:
        # A local Ray has no dashboard that shows these: idle, its processes take 9 % of a core with, 6 % without them.
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        os.environ.setdefault("RAY_event_stats", "0")
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        options |= {"num_cpus": num_cpus, "include_dashboard": False}
        _allow_open_files()
    with contextlib.ExitStack() as own, contextlib.redirect_stdout(_ToLog()):
        # Ray prints what happens to workers on stdout, which is for data.
        folder = None
        if address is None:
            folder = own.enter_context(ray_folder())
            own.enter_context(without_monitors())
            own.enter_context(no_more_nodes())
            own.enter_context(polling_less())
        _init(address, options | {"_temp_dir": folder, "job_config": _job_config()})
        built = os.path.join(session_folder(), "runtime_resources") if address is None else None
        try:
            yield
        finally:
            ray.shutdown()
            if built is not None:  # no other Ray finds these copies of a virtual environment: 2.1 GB each
                shutil.rmtree(built, ignore_errors=True)


@contextmanager
def ray_folder(parents: Sequence[str] = SHORT_FOLDERS) -> Iterator[str | None]:
    """The folder of a local Ray's sockets and logs; None if Ray's choice (RAY_TMPDIR, TMPDIR, /tmp) is short enough.

    Else a private one in the first of `parents` that can be written, removed at the end: the TMPDIR of Slurm's jobs is
    too long for sockets, and Ray ends with a trace.

    Raises:
        ConfigError: none of `parents` can be written.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    chosen = os.environ[name] if name is not None else "/tmp"
    if len(os.fsencode(os.path.join(chosen, "ray"))) <= MAX_BYTES:
        yield None
        return
    folder = _private_folder(parents)
    if folder is None:
        problem = (
            f"{name} is {chosen}: with {len(os.fsencode(chosen))} bytes it is too long for Ray's sockets (at most "
            f"{MAX_BYTES - len('/ray')}), and none of {', '.join(parents)} can be written"
        )
        raise ConfigError(problem, "set RAY_TMPDIR to a folder with a shorter name")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _private_folder(parents: Sequence[str]) -> str | None:
    """A new folder that only this user can read, with a name that others cannot guess (mkdtemp)."""
    for parent in filter(os.path.isdir, parents):
        try:
            return tempfile.mkdtemp(prefix=f"handloom-{os.getuid()}-", dir=parent)
        except OSError:  # read-only, or full: the next
            continue
    return None


def _allow_open_files() -> None:
    """Raise the limit of open files as far as this user may: with 64 Ray's core ends the process without a message.

    Raises:
        ConfigError: the limit cannot be raised far enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= WANTED_FILES:
        return
    allowed = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if allowed < MIN_FILES:
        problem = f"a process may open {allowed} files here, and Ray needs {MIN_FILES}"
        raise ConfigError(problem, "raise the limit: `ulimit -n 4096`, or LimitNOFILE, or the container's nofile")
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _job_config() -> JobConfig:
    """Workers must not import a file random.py or av.py only because it lies where the command is run."""
    if Path(handloom.__file__).resolve().parents[1] == Path.cwd():
        return JobConfig()  # a checkout that is not installed: workers import handloom from there
    return job_without_working_directory()


def _check_reachable(address: str) -> None:
    """Raise ConfigError if nothing listens at host:port: `ray.init` would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdigit():
        return  # `auto` and the like are for Ray to look up
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot join a Ray cluster at {address!r}: {error}", JOIN_HINT) from error


def _init(address: str | None, options: dict[str, Any]) -> None:
    if address is not None:
        _check_reachable(address)
    with warnings.catch_warnings(), _stderr_held() as written:
        warnings.simplefilter("ignore")
        try:
            with groups_of_their_own():
                ray.init(address=address or "local", **options)
            never_start_unasked()
        except (ConnectionError, ValueError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
            raise _not_joined(address, error, written()) from error
        except Exception as error:
            if type(error) is Exception:  # Ray 2.60: its node did not start within 30 s, on a machine that is too busy
                raise _not_joined(address, error, written()) from error
            raise


def _not_joined(address: str | None, error: Exception, stderr: str) -> ConfigError:
    problem = f"cannot join a Ray cluster at {address!r}: {error}" if address else f"Ray did not start: {error}"
    hint = JOIN_HINT if address else "look at the machine's load and memory, then run again"
    if "AuthToken" in stderr:
        hint = "the cluster requires a token, which Ray does not send by default: set RAY_AUTH_MODE=token to send yours"
    return ConfigError(problem, hint)


class _ToLog(io.TextIOBase):
    """Writes lines to the log instead of the terminal."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                log.info("ray: %s", line)
        return len(text)


@contextmanager
def _stderr_held() -> Iterator[Callable[[], str]]:
    """Hold back what native code writes to stderr; yields a function that returns it. If Ray crashes, write it out."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)

        def written() -> str:
            return os.pread(held.fileno(), MAX_HELD_BYTES, 0).decode(errors="replace")

        try:
            yield written
        except HandloomError:
            raise  # its message says what is wrong
        except BaseException:  # any other failure shows what was held back; raised again
            os.write(saved, written().encode())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)

"""Ray: a local instance of our own, or a cluster to join."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import resource
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

import handloom
from handloom.errors import ConfigError, HandloomError
from handloom.pipelines.cluster.ray_folder import ray_folder
from handloom.pipelines.cluster.ray_private import (
    groups_of_their_own,
    job_without_working_directory,
    never_start_unasked,
    no_more_nodes,
    nobody_watches,
    unhurried,
)

log = logging.getLogger(__name__)

MAX_HELD_BYTES = 100_000
KNOCK_TIMEOUT_S = 10.0
WANTED_FILES, MIN_FILES = 4096, 128  # open files of a process; with 128 a small run was seen to end well
JOIN_HINT = "check the address (host:port of the head node, or `auto`); without it a local Ray is started"


@contextmanager
def joined(address: str | None, num_cpus: int | None = None) -> Iterator[None]:
    """Join the cluster at `address`, or start a local Ray that ends with the block. A Ray that runs already is used.

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
    options = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address is None:
        # A Ray of our own has no dashboard to feed: idle, its processes take 9 % of a core with, 6 % without these.
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        os.environ.setdefault("RAY_event_stats", "0")
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        options |= {"num_cpus": num_cpus, "include_dashboard": False}
        _allow_open_files()
    with contextlib.ExitStack() as own, contextlib.redirect_stdout(_ToLog()):
        # Ray prints what befalls workers on stdout, and that is for data.
        folder = None
        if address is None:
            folder = own.enter_context(ray_folder())
            own.enter_context(nobody_watches())
            own.enter_context(no_more_nodes())
            own.enter_context(unhurried())
        _init(address, options | {"_temp_dir": folder, "job_config": _job_config()})
        try:
            yield
        finally:
            ray.shutdown()


def _allow_open_files() -> None:
    """Raise the limit of open files as far as this user may: with 64 Ray's core ends the whole process, without a word.

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
    """A file random.py or av.py that lies where a command is run is nothing that workers are to import."""
    if Path(handloom.__file__).resolve().parents[1] == Path.cwd():
        return JobConfig()  # a checkout that is not installed is needed there
    return job_without_working_directory()


def _check_reachable(address: str) -> None:
    """Raise ConfigError where nobody listens at host:port: `ray.init` would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdigit():
        return  # `auto` and the like: Ray knows what it means
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot join a Ray cluster at {address!r}: {error}", JOIN_HINT) from error


def _init(address: str | None, options: dict[str, Any]) -> None:
    if address is not None:
        _check_reachable(address)
    with warnings.catch_warnings(), _hushed() as said:
        warnings.simplefilter("ignore")
        try:
            with groups_of_their_own():
                ray.init(address=address or "local", **options)
            never_start_unasked()
        except (ConnectionError, ValueError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
            raise _not_joined(address, error, said()) from error
        except Exception as error:
            if type(error) is Exception:  # Ray 2.60: its node is not there within 30 s, on a machine that is too busy
                raise _not_joined(address, error, said()) from error
            raise


def _not_joined(address: str | None, error: Exception, said: str) -> ConfigError:
    problem = f"cannot join a Ray cluster at {address!r}: {error}" if address else f"Ray did not start: {error}"
    hint = JOIN_HINT if address else "look at the machine's load and memory, then run again"
    if "AuthToken" in said:
        hint = "the cluster wants a token, and Ray sends none unasked: set RAY_AUTH_MODE=token to send yours"
    return ConfigError(problem, hint)


class _ToLog(io.TextIOBase):
    """Lines into the log instead of on a terminal."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                log.info("ray: %s", line)
        return len(text)


@contextmanager
def _hushed() -> Iterator[Callable[[], str]]:
    """Hold back what native code writes to stderr; yields what tells it. Where Ray crashes, it is written after all."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)

        def said() -> str:
            return os.pread(held.fileno(), MAX_HELD_BYTES, 0).decode(errors="replace")

        try:
            yield said
        except HandloomError:
            raise  # it says what is wrong, once
        except BaseException:  # what was held back is told with any failure; raised again
            os.write(saved, said().encode())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)

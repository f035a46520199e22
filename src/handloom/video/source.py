"""Video URIs to local files: what is remote (s3://, http(s)://, see `schemes`) is fetched once per node."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.video.schemes import SchemeRefused, is_remote, open_scheme

PAUSE_S = 1.0
IN_USE_S = 120.0  # a video given out this lately is not evicted: some decoder may be about to open it

# Errors of fsspec's backends that are no OSError.
HTTP_ERRORS = (("aiohttp", "ClientError"),)
S3_ERRORS = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"))


def usual_cache_dir() -> str:
    """Where fetched videos are kept: a folder of this user's own."""
    return str(Path(tempfile.gettempdir()) / f"handloom-videos-{os.getuid()}")


class VideoSource:
    """Gives each video a local path. Fetched videos stay in `cache_dir`, oldest use removed first beyond `cache_mb`.

    Args:
        storage_options: fsspec options of s3:// URIs, for example `{"endpoint_url": ...}`.
    """

    def __init__(
        self,
        cache_dir: str,
        cache_mb: int = 20_000,
        attempts: int = 3,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self._cache_dir = Path(cache_dir)
        self._cache_bytes = cache_mb << 20
        self._attempts = attempts
        self._storage_options = storage_options or {}

    def local_path(self, clip: Clip) -> str:
        """A readable local file.

        Raises:
            ClipError: `video_missing`, `video_unreadable` (permission, not a file), `uri_refused` or `fetch_failed`.
        """
        if is_remote(clip.video_uri):
            return self._fetched(clip)
        path = clip.video_uri.removeprefix("file://")
        if not os.path.exists(path):
            raise _missing(clip)
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            what = "may not be read by this user" if os.path.isfile(path) else "is not a file"
            hint = "correct its permissions, then run with --retry-rejects"
            raise ClipError(clip.clip_id, "fetch", "video_unreadable", f"{path} {what}", hint)
        return path

    def _fetched(self, clip: Clip) -> str:
        name = hashlib.sha256(clip.video_uri.encode()).hexdigest()[:32] + Path(clip.video_uri).suffix[:8]
        target = self._cache_dir / name
        try:
            self._own_cache_dir()
            with open(self._cache_dir / f"{name}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # actors of one node fetch a video once
                if not target.exists():
                    self._fetch(clip, target)
                    self._evict(keep=target)
                os.utime(target)
        except OSError as error:
            problem = f"the video cache {self._cache_dir} cannot be used: {error}"
            hint = "make it writable and free some disk space, then run with --retry-rejects"
            raise ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint) from error
        return str(target)

    def _own_cache_dir(self) -> None:
        """Make the folder, or raise OSError where it is somebody else's: they could lay other videos into it."""
        self._cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._cache_dir.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            kind = "a link" if stat.S_ISLNK(found.st_mode) else f"of user {found.st_uid}"
            raise PermissionError(f"it is {kind}, expected a folder of user {os.geteuid()}: remove it, or set TMPDIR")

    def _fetch(self, clip: Clip, target: Path) -> None:
        part = target.with_suffix(".part")
        for attempts in range(1, self._attempts + 1):
            try:
                filesystem, name = open_scheme(clip.video_uri, self._storage_options)
                with filesystem.open(name, "rb") as remote, open(part, "wb") as local:
                    shutil.copyfileobj(remote, local, 8 << 20)
                os.replace(part, target)
                return
            except SchemeRefused as error:
                hint = "fetch the video yourself and ingest it from a folder, or from a store that is on the list"
                raise ClipError(clip.clip_id, "fetch", "uri_refused", f"{clip.video_uri}: {error}", hint) from error
            except (ValueError, ImportError) as error:  # no address, or the scheme's package is not installed
                failure = error
                break
            except (OSError, *_loaded(HTTP_ERRORS + S3_ERRORS)) as error:
                failure = _cause(error)
                if isinstance(failure, FileNotFoundError):
                    raise _missing(clip) from error
                if isinstance(failure, PermissionError):
                    raise _refused(clip, failure) from error
                time.sleep(PAUSE_S * attempts if attempts < self._attempts else 0)
        part.unlink(missing_ok=True)
        what = f"{type(failure).__name__}: {failure}"
        problem = f"{clip.video_uri} could not be fetched, attempts made: {attempts}; {what}"
        hint = "check network, credentials and disk space of the node, then run with --retry-rejects"
        raise ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint) from failure

    def _evict(self, keep: Path) -> None:
        """Remove the longest unused videos beyond the limit. An open file stays readable for whoever has it open."""
        used = sorted(_uses(f for f in self._cache_dir.iterdir() if f.suffix not in (".lock", ".part") and f != keep))
        total = sum(size for _, size, _ in used) + keep.stat().st_size
        for used_at, size, path in used:
            if total <= self._cache_bytes or used_at > time.time() - IN_USE_S:
                return
            path.unlink(missing_ok=True)
            total -= size


def _uses(files: Iterable[Path]) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, bytes, path); without files that another actor removes meanwhile."""
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            yield stat.st_mtime, stat.st_size, file


def _missing(clip: Clip) -> ClipError:
    hint = "fetch the video, or ingest again with the right --videos folder; then run with --retry-rejects"
    return ClipError(clip.clip_id, "fetch", "video_missing", f"there is no file at {clip.video_uri}", hint)


def _refused(clip: Clip, error: PermissionError) -> ClipError:
    hint = "check the credentials of this node, then run with --retry-rejects"
    problem = f"access to {clip.video_uri} was refused: {error}"
    return ClipError(clip.clip_id, "fetch", "video_unreadable", problem, hint)


def _cause(error: Exception) -> Exception:
    """What went wrong: fsspec calls any failure over HTTP "file not found", also that of a server that is down."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, (OSError, *_loaded(HTTP_ERRORS))):
        return error
    status = getattr(cause, "status", None)
    if status in (401, 403):
        return PermissionError(str(cause))
    return error if status in (404, 410) else cause


def _loaded(errors: tuple[tuple[str, str], ...]) -> tuple[type[Exception], ...]:
    """The classes of these (module, name); a backend that was never imported has raised none."""
    return tuple(getattr(sys.modules[module], name) for module, name in errors if module in sys.modules)


def source_options_from(env: Mapping[str, str]) -> dict[str, Any]:
    """s3fs's options from the usual AWS variables. Called once, by the CLI; workers on other nodes get the result."""
    options: dict[str, Any] = {}
    names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
    for option, name in names.items():
        if env.get(name):
            options[option] = env[name]
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["endpoint_url"] = endpoint
    return options

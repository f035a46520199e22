"""Video URIs to local files: what is remote (s3://, http(s)://, see `handloom.io`) is fetched once per node.

A file is identified by its size, version and digest (`version`), not by its name: one that was replaced since ingest is
not the video of its clip, and a fetched copy serves only the version that was fetched.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from handloom.errors import ClipError
from handloom.io.addresses import is_http, is_remote, local_path
from handloom.io.remote import (
    HTTP_ERRORS,
    INSTALL_HINT,
    SILENT_S,
    SchemeRefused,
    backend_errors,
    open_remote,
    remote_errors,
)
from handloom.schemas.clip import Clip
from handloom.video.fetch.cache import FetchCache, NoSpaceError, cache_folder
from handloom.video.fetch.sparse_copy import FIRST_BLOCKS, SparseCopy
from handloom.video.fetch.steady import PACE, Pace, web_pieces
from handloom.video.fetch.version import UNKNOWN, VideoVersion, file_version, stored_version

log = logging.getLogger(__name__)

T = TypeVar("T")

COPY_BYTES = 8 << 20


@dataclass(frozen=True)
class FetchLimits:
    """How long fetching waits, and what it fetches at once.

    pause_s: before the second attempt; twice as long before the third, and so on. known_s: how long a video's version
    is taken for known, so that one request serves all clips of a shard. unversioned_s: how long a copy is used whose
    server gives no version: no change can be seen. silent_s: a web server that sends nothing for so long is given up.
    min_ranged_bytes: smaller videos are fetched whole, which takes about as long as requests for their parts.
    first_blocks: see `ranges`.
    """

    pause_s: float = 1.0
    known_s: float = 60.0
    unversioned_s: float = 3600.0
    silent_s: float = SILENT_S
    pace: Pace = PACE
    min_ranged_bytes: int = 64 << 20
    first_blocks: int = FIRST_BLOCKS


LIMITS = FetchLimits()

Supply = Callable[[int, int], int]
"""Fetches bytes [at, at + size) of a file; returns up to which byte it is there. Raises ClipError, NoRangesError."""


@dataclass(frozen=True)
class Media:
    """A clip's video as a file on this disk, and which file it is.

    supply: fetches missing parts of a remote video; None for a local file, and for one that must be read whole.
    """

    path: str
    version: VideoVersion
    supply: Supply | None = None


class ChangedMeanwhile(OSError):
    """A remote video was replaced while it was fetched."""


class VideoSource:
    """Gives each video a local path. Fetched videos stay in `cache_dir`, oldest use removed first beyond `cache_mb`.

    Args:
        cache_dir: empty: this user's folder on this node (`cache_folder`); or a cache, whose limit then holds.
        storage_options: fsspec options of s3:// URIs, for example `{"endpoint_url": ...}`.
        alive: called every few seconds while a video is fetched, by this worker or by another one of the node.
    """

    def __init__(
        self,
        cache_dir: str | FetchCache = "",
        cache_mb: int = 20_000,
        attempts: int = 3,
        storage_options: dict[str, Any] | None = None,
        alive: Callable[[], None] = lambda: None,
        limits: FetchLimits = LIMITS,
    ) -> None:
        if isinstance(cache_dir, FetchCache):
            self._cache = cache_dir
        else:
            self._cache = FetchCache(cache_dir or cache_folder(), cache_mb << 20)
        self._attempts, self._alive, self._limits = attempts, alive, limits
        self._storage_options = storage_options or {}
        self._files: dict[str, VideoVersion] = {}
        self._asked: dict[str, tuple[float, VideoVersion]] = {}
        self._only_whole: set[str] = set()  # URIs of videos that cannot be read in parts
        self._sparse: tuple[str, SparseCopy] | None = None  # the last, by its name

    def local_path(self, clip: Clip) -> str:
        """A readable local file of the clip's video, all of it.

        Raises:
            ClipError: as `opened`.
        """
        return self.whole(clip).path

    def opened(self, clip: Clip) -> Media:
        """The clip's video, whole or in parts.

        Raises:
            ClipError: `video_missing`, `video_unreadable` (permission, not a file), `video_changed` (another file than
                the clip list knows), `uri_refused` or `fetch_failed`.
        """
        if not is_remote(clip.video_uri) or clip.video_uri in self._only_whole:
            return self.whole(clip)
        with self._cache_errors(clip):
            version = self._version(clip)
            _check(clip, version)
            name = self._name(clip.video_uri, version)
            with self._cache.locked(name, self._alive) as target:
                if target.exists():
                    os.utime(target)
                    return Media(str(target), version, lambda at, size: version.num_bytes or at + size)
            if (version.num_bytes or 0) >= self._limits.min_ranged_bytes:
                copy = self._sparse_copy(clip.video_uri, name, version)
                return Media(str(copy.path), version, lambda at, size: self._supplied(clip, copy, at, size))
        media = self.whole(clip)
        return replace(media, supply=lambda at, size: version.num_bytes or at + size)

    def whole(self, clip: Clip, only: bool = False) -> Media:
        """The clip's video, all of it. only: it cannot be read in parts; that is not tried again.

        Raises:
            ClipError: as `opened`.
        """
        if is_remote(clip.video_uri):
            if only:
                self._only_whole.add(clip.video_uri)
            with self._cache_errors(clip):
                return self._fetched(clip)
        path = local_path(clip.video_uri)
        if not os.path.exists(path):
            raise _missing(clip)
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            what = "may not be read by this user" if os.path.isfile(path) else "is not a file"
            raise _unreadable(clip, f"{path} {what}")
        try:
            found = file_version(path, self._files.get(path, VideoVersion.of_clip(clip)))
        except OSError as error:
            raise _unreadable(clip, f"{path} cannot be read: {error.strerror}") from error
        self._files[path] = found
        _check(clip, found)
        return Media(path, found)

    def _sparse_copy(self, uri: str, name: str, version: VideoVersion) -> SparseCopy:
        if self._sparse is None or self._sparse[0] != name or not self._sparse[1].path.exists():
            if self._sparse is not None:
                self._sparse[1].close()
            filesystem, path = self._open(uri)
            remote: list[Any] = []

            def fetch(start: int, end: int) -> bytes:
                if is_http(uri):
                    data = b"".join(web_pieces(filesystem, path, self._alive, (start, end), self._limits.pace))
                else:
                    if not remote:
                        remote.append(filesystem.open(path, "rb", cache_type="none"))
                    remote[0].seek(start)
                    data = remote[0].read(end - start)
                    self._alive()
                if self._ask(uri) != version:
                    raise ChangedMeanwhile("it was replaced while it was read")
                return data

            size, blocks = version.num_bytes or 0, self._limits.first_blocks
            self._sparse = name, SparseCopy(self._cache, name, size, fetch, self._alive, blocks)
        return self._sparse[1]

    def _supplied(self, clip: Clip, copy: SparseCopy, at: int, size: int) -> int:
        with self._cache_errors(clip):
            try:
                return self._tried(clip, lambda: copy.supply(at, size))
            except ChangedMeanwhile as error:
                self._asked.pop(clip.video_uri, None)
                raise _failed(clip, 1, error) from error

    def _fetched(self, clip: Clip) -> Media:
        attempts = 0
        while True:
            attempts += 1
            version = self._version(clip)
            _check(clip, version)
            with self._cache.locked(self._name(clip.video_uri, version), self._alive) as target:
                try:
                    if not target.exists():
                        self._fetch(clip, version, target)
                    os.utime(target)
                    return Media(str(target), version)
                except ChangedMeanwhile as error:
                    del self._asked[clip.video_uri]
                    if attempts == self._attempts:
                        raise _failed(clip, attempts, error) from error

    @contextmanager
    def _cache_errors(self, clip: Clip) -> Iterator[None]:
        """Around the use of the cache: errors of its disk become ClipErrors."""
        try:
            yield
        except NoSpaceError as error:
            problem = f"{clip.video_uri} does not fit into the video cache {self._cache.folder}: {error}"
            hint = "free some disk space or set resources.fetch_cache_dir, then run with --retry-rejects"
            raise ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint) from error
        except OSError as error:
            problem = f"the video cache {self._cache.folder} cannot be used: {error}"
            hint = "make it writable and free some disk space, then run with --retry-rejects"
            raise ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint) from error

    def _name(self, uri: str, version: VideoVersion) -> str:
        """Name of the cached file. Other versions, and other endpoints under the same URI, have other names."""
        known = version.version
        if known is None:
            known = f"unknown {time.time() // self._limits.unversioned_s}"
            log.debug("%s gives no version of its files: a copy is used for %g s", uri, self._limits.unversioned_s)
        facts = (str(self._storage_options.get("endpoint_url", "")), uri, str(version.num_bytes), known)
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32] + Path(uri).suffix[:8]

    def _version(self, clip: Clip) -> VideoVersion:
        """The version of a remote video: one request for all clips of a shard."""
        asked_at, version = self._asked.get(clip.video_uri, (-math.inf, UNKNOWN))
        if time.monotonic() - asked_at > self._limits.known_s:
            version = self._tried(clip, lambda: self._ask(clip.video_uri))
            self._asked[clip.video_uri] = (time.monotonic(), version)
        return version

    def _open(self, uri: str) -> tuple[Any, str]:
        return open_remote(uri, self._storage_options, self._limits.silent_s)

    def _ask(self, uri: str) -> VideoVersion:
        filesystem, name = self._open(uri)
        filesystem.invalidate_cache(name)  # a listing may be hours old
        facts = filesystem.info(name)
        if facts.get("type", "file") != "file":
            raise FileNotFoundError(uri)
        return stored_version(facts)

    def _fetch(self, clip: Clip, version: VideoVersion, target: Path) -> None:
        part = target.with_name(f"{target.name}.part")
        try:
            self._cache.free_space(version.num_bytes or 0, keep=target)
            self._tried(clip, lambda: self._copy(clip.video_uri, version, part))
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, uri: str, version: VideoVersion, part: Path) -> None:
        filesystem, name = self._open(uri)
        if is_http(uri):
            pieces = web_pieces(filesystem, name, self._alive, pace=self._limits.pace)
        else:
            pieces = self._blocks(filesystem, name)
        with open(part, "wb") as local:
            num_bytes = self._copied(pieces, local)
        if self._ask(uri) != version:
            raise ChangedMeanwhile("it was replaced while it was fetched")
        if version.num_bytes not in (None, num_bytes):
            raise OSError(f"{num_bytes} of {version.num_bytes} bytes came")

    def _blocks(self, filesystem: Any, name: str) -> Iterator[bytes]:
        with filesystem.open(name, "rb") as remote:
            while part := remote.read(COPY_BYTES):
                yield part
                self._alive()

    def _copied(self, pieces: Iterable[bytes], local: BinaryIO) -> int:
        num_bytes = 0
        for piece in pieces:
            self._cache.check_space(len(piece))
            local.write(piece)
            num_bytes += len(piece)
        local.flush()
        os.fdatasync(local.fileno())  # a file that is there after a power cut is whole
        return num_bytes

    def _tried(self, clip: Clip, action: Callable[[], T]) -> T:
        """The result of `action`, tried several times. Raises ClipError, NoSpaceError and ChangedMeanwhile."""
        attempts = 0
        while True:
            attempts += 1
            try:
                return action()
            except SchemeRefused as error:
                hint = "fetch the video yourself and ingest it from a folder, or from a store that is on the list"
                raise ClipError(clip.clip_id, "fetch", "uri_refused", f"{clip.video_uri}: {error}", hint) from error
            except ValueError as error:  # no address
                raise _failed(clip, attempts, error) from error
            except ImportError as error:  # of the scheme's package
                raise _failed(clip, attempts, error, f"{INSTALL_HINT}, then run with --retry-rejects") from error
            except (NoSpaceError, ChangedMeanwhile):
                raise
            except remote_errors() as error:
                failure = _cause(error)
                if getattr(failure, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise NoSpaceError(str(failure)) from error
                if isinstance(failure, FileNotFoundError):
                    raise _missing(clip) from error
                if isinstance(failure, PermissionError):
                    raise _refused(clip, failure) from error
                if attempts == self._attempts:
                    raise _failed(clip, attempts, failure) from error
                time.sleep(self._limits.pause_s * attempts)


def _check(clip: Clip, found: VideoVersion) -> None:
    """Raise ClipError if the file is not the one in the clip list."""
    known = VideoVersion.of_clip(clip)
    if found.differs(known):
        problem = f"{clip.video_uri} is another file than the one ingested: {found.text()}, expected one {known.text()}"
        hint = "ingest again: the clips of a changed video are then done again"
        raise ClipError(clip.clip_id, "fetch", "video_changed", problem, hint)


def _missing(clip: Clip) -> ClipError:
    hint = "fetch the video, or ingest again with the right --videos folder; then run with --retry-rejects"
    return ClipError(clip.clip_id, "fetch", "video_missing", f"there is no file at {clip.video_uri}", hint)


def _unreadable(clip: Clip, problem: str) -> ClipError:
    hint = "correct its permissions, then run with --retry-rejects"
    return ClipError(clip.clip_id, "fetch", "video_unreadable", problem, hint)


def _refused(clip: Clip, error: PermissionError) -> ClipError:
    hint = "check the credentials of this node, then run with --retry-rejects"
    problem = f"access to {clip.video_uri} was refused: {error}"
    return ClipError(clip.clip_id, "fetch", "video_unreadable", problem, hint)


RETRY_HINT = "check network, credentials and disk space of the node, then run with --retry-rejects"


def _failed(clip: Clip, attempts: int, failure: Exception, hint: str = RETRY_HINT) -> ClipError:
    what = f"{type(failure).__name__}: {failure}"
    problem = f"{clip.video_uri} could not be fetched, attempts made: {attempts}; {what}"
    return ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint)


def _cause(error: Exception) -> Exception:
    """The real error: fsspec raises FileNotFoundError for any failure over http, also when the server is down."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, (OSError, *backend_errors(HTTP_ERRORS))):
        return error
    status = getattr(cause, "status", None)
    if status in (401, 403):
        return PermissionError(str(cause))
    return error if status in (404, 410) or not isinstance(cause, Exception) else cause

"""Video URIs to local files: what is remote (s3://, http(s)://, see `schemes`) is fetched once per node.

A name says little of what lies behind it. A file is known by its size, version and digest (`version`): one that was
replaced since ingest is no video of its clip, and a fetched copy is used for the version that it was fetched of.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.video.fetch import ranges
from handloom.video.fetch.cache import FetchCache, NoRoomError, cache_folder
from handloom.video.fetch.ranges import SparseCopy
from handloom.video.fetch.schemes import HTTP_ERRORS, SchemeRefused, backend_errors, is_remote, open_scheme
from handloom.video.fetch.steady import web_pieces
from handloom.video.fetch.version import UNKNOWN, VideoVersion, file_version, stored_version

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_S = 1.0
ASKED_AGAIN_S = 60.0  # the clips of a shard share one question after the version of their video
UNVERSIONED_S = 3600.0  # a copy from a server that tells no version is used this long: nobody can see it grow old
COPY_BYTES = 8 << 20


Supply = Callable[[int, int], int]
"""Makes bytes [at, at + size) of a file be there; returns until where they are. Raises ClipError, NoRangesError."""


@dataclass(frozen=True)
class Media:
    """A clip's video as a file on this disk, and which file it is.

    supply: of a remote video, of which parts may be missing; None for a local file and one that must be read whole.
    """

    path: str
    version: VideoVersion
    supply: Supply | None = None


class ChangedMeanwhile(OSError):
    """A remote video was replaced while it was fetched."""


class VideoSource:
    """Gives each video a local path. Fetched videos stay in `cache_dir`, oldest use removed first beyond `cache_mb`.

    Args:
        cache_dir: empty: this user's folder on this node (`cache_folder`).
        storage_options: fsspec options of s3:// URIs, for example `{"endpoint_url": ...}`.
        alive: called now and then while a video is fetched, by whomever.
    """

    def __init__(
        self,
        cache_dir: str = "",
        cache_mb: int = 20_000,
        attempts: int = 3,
        storage_options: dict[str, Any] | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._cache = FetchCache(cache_dir or cache_folder(), cache_mb << 20)
        self._attempts, self._alive = attempts, alive
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
            if (version.num_bytes or 0) >= ranges.MIN_BYTES:
                copy = self._sparse_copy(clip.video_uri, name, version)
                return Media(str(copy.path), version, lambda at, size: self._supplied(clip, copy, at, size))
        media = self.whole(clip)
        return replace(media, supply=lambda at, size: version.num_bytes or at + size)

    def whole(self, clip: Clip, only: bool = False) -> Media:
        """The clip's video, all of it; only: it cannot be read in parts, which is not tried again.

        Raises:
            ClipError: as `opened`.
        """
        if is_remote(clip.video_uri):
            if only:
                self._only_whole.add(clip.video_uri)
            with self._cache_errors(clip):
                return self._fetched(clip)
        path = clip.video_uri.removeprefix("file://")
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
            filesystem, path = open_scheme(uri, self._storage_options)
            remote: list[Any] = []

            def fetch(start: int, end: int) -> bytes:
                if _is_web(uri):
                    data = b"".join(web_pieces(filesystem, path, self._alive, (start, end)))
                else:
                    if not remote:
                        remote.append(filesystem.open(path, "rb", cache_type="none"))
                    remote[0].seek(start)
                    data = remote[0].read(end - start)
                    self._alive()
                if self._ask(uri) != version:
                    raise ChangedMeanwhile("it was replaced while it was read")
                return data

            self._sparse = name, SparseCopy(self._cache, name, version.num_bytes or 0, fetch, self._alive)
        return self._sparse[1]

    def _supplied(self, clip: Clip, copy: SparseCopy, at: int, size: int) -> int:
        with self._cache_errors(clip):
            try:
                return self._tried(clip, lambda: copy.supply(at, size))
            except ChangedMeanwhile as error:
                self._asked.pop(clip.video_uri, None)
                raise _failed(clip, 1, error) from error

    def _fetched(self, clip: Clip) -> Media:
        for attempts in itertools.count(1):
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
        """Around the use of the cache: what is wrong with its disk becomes a ClipError."""
        try:
            yield
        except NoRoomError as error:
            problem = f"{clip.video_uri} does not fit into the video cache {self._cache.folder}: {error}"
            hint = "free some disk space or set resources.fetch_cache_dir, then run with --retry-rejects"
            raise ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint) from error
        except OSError as error:
            problem = f"the video cache {self._cache.folder} cannot be used: {error}"
            hint = "make it writable and free some disk space, then run with --retry-rejects"
            raise ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint) from error

    def _name(self, uri: str, version: VideoVersion) -> str:
        """Of the cached file. Another server under the same URI (endpoint) and another version have other names."""
        told = version.version
        if told is None:
            told = f"unknown {time.time() // UNVERSIONED_S}"
            log.debug("%s tells no version of its files: a copy is used for an hour", uri)
        facts = (str(self._storage_options.get("endpoint_url", "")), uri, str(version.num_bytes), told)
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32] + Path(uri).suffix[:8]

    def _version(self, clip: Clip) -> VideoVersion:
        """The version of a remote video: one question for all clips of a shard."""
        asked_at, version = self._asked.get(clip.video_uri, (-ASKED_AGAIN_S, UNKNOWN))
        if time.monotonic() - asked_at > ASKED_AGAIN_S:
            version = self._tried(clip, lambda: self._ask(clip.video_uri))
            self._asked[clip.video_uri] = (time.monotonic(), version)
        return version

    def _ask(self, uri: str) -> VideoVersion:
        filesystem, name = open_scheme(uri, self._storage_options)
        filesystem.invalidate_cache(name)  # what a listing said may be hours old
        facts = filesystem.info(name)
        if facts.get("type", "file") != "file":
            raise FileNotFoundError(uri)
        return stored_version(facts)

    def _fetch(self, clip: Clip, version: VideoVersion, target: Path) -> None:
        part = target.with_name(f"{target.name}.part")
        try:
            self._cache.make_room(version.num_bytes or 0, keep=target)
            self._tried(clip, lambda: self._copy(clip.video_uri, version, part))
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, uri: str, version: VideoVersion, part: Path) -> None:
        filesystem, name = open_scheme(uri, self._storage_options)
        pieces = web_pieces(filesystem, name, self._alive) if _is_web(uri) else self._blocks(filesystem, name)
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
            self._cache.check_room(len(piece))
            local.write(piece)
            num_bytes += len(piece)
        local.flush()
        os.fdatasync(local.fileno())  # what is there after a power cut is whole
        return num_bytes

    def _tried(self, clip: Clip, action: Callable[[], T]) -> T:
        """What `action` gives, tried several times. Raises ClipError; NoRoomError and ChangedMeanwhile as they are."""
        for attempts in itertools.count(1):
            try:
                return action()
            except SchemeRefused as error:
                hint = "fetch the video yourself and ingest it from a folder, or from a store that is on the list"
                raise ClipError(clip.clip_id, "fetch", "uri_refused", f"{clip.video_uri}: {error}", hint) from error
            except (ValueError, ImportError) as error:  # no address, or the scheme's package is not installed
                raise _failed(clip, attempts, error) from error
            except (NoRoomError, ChangedMeanwhile):
                raise
            except (OSError, *backend_errors()) as error:
                failure = _cause(error)
                if getattr(failure, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise NoRoomError(str(failure)) from error
                if isinstance(failure, FileNotFoundError):
                    raise _missing(clip) from error
                if isinstance(failure, PermissionError):
                    raise _refused(clip, failure) from error
                if attempts == self._attempts:
                    raise _failed(clip, attempts, failure) from error
                time.sleep(PAUSE_S * attempts)


def _is_web(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _check(clip: Clip, found: VideoVersion) -> None:
    """Raise ClipError where the file is another one than the clip list knows."""
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


def _failed(clip: Clip, attempts: int, failure: Exception) -> ClipError:
    what = f"{type(failure).__name__}: {failure}"
    problem = f"{clip.video_uri} could not be fetched, attempts made: {attempts}; {what}"
    hint = "check network, credentials and disk space of the node, then run with --retry-rejects"
    return ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint)


def _cause(error: Exception) -> Exception:
    """What went wrong: fsspec calls any failure over HTTP "file not found", also that of a server that is down."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, (OSError, *backend_errors(HTTP_ERRORS))):
        return error
    status = getattr(cause, "status", None)
    if status in (401, 403):
        return PermissionError(str(cause))
    return error if status in (404, 410) else cause


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

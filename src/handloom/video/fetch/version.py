"""Which file a video is, as opposed to its name: its size, its version, and a digest of its head.

A video that is replaced under its name has other pictures: rows that were made of the old file do not belong to it. A
copy of the same file elsewhere, or a file that was only touched, is the same video.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

from handloom.schemas.clip import Clip
from handloom.video.fetch.schemes import backend_errors, is_remote, open_scheme

HEAD_BYTES = 1 << 20
NUM_QUESTIONS = 16  # at once: a disk across the network answers each after a millisecond, a store after 20 to 100


@dataclass(frozen=True)
class VideoVersion:
    """What is known of a file; None for what is not.

    version: `mtime:SECONDS.NANOSECONDS` or `etag:...`. digest: SHA-256 over the first MiB and the size.
    """

    num_bytes: int | None = None
    version: str | None = None
    digest: str | None = None

    @staticmethod
    def of_clip(clip: Clip) -> VideoVersion:
        """The file that the clip list knows."""
        return VideoVersion(clip.video_bytes, clip.video_version, clip.video_digest)

    def on(self, clip: Clip) -> Clip:
        """The clip, of this file."""
        return replace(clip, video_bytes=self.num_bytes, video_version=self.version, video_digest=self.digest)

    @property
    def is_known(self) -> bool:
        return self.num_bytes is not None

    def differs(self, other: VideoVersion) -> bool:
        """Whether these are two files. Equal digests are one file, whatever its time or its place.

        Without a digest of both, two ETags tell, or two times; a time and an ETag say nothing of each other.
        """
        for mine, theirs in ((self.num_bytes, other.num_bytes), (self.digest, other.digest)):
            if mine is not None and theirs is not None and mine != theirs:
                return True
        if self.digest is not None and other.digest is not None:
            return False
        mine, theirs = ((version or "").partition(":") for version in (self.version, other.version))
        return mine[0] == theirs[0] and mine[2] != theirs[2]

    def text(self) -> str:
        size = "of unknown size" if self.num_bytes is None else f"of {self.num_bytes} bytes"
        kind, _, rest = (self.version or "").partition(":")
        if kind == "mtime":
            return f"{size}, modified {datetime.fromtimestamp(float(rest), UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"{size}, ETag {rest}" if kind == "etag" else size


UNKNOWN = VideoVersion()


def file_version(path: str, known: VideoVersion = UNKNOWN) -> VideoVersion:
    """The version of a local file. Its head is read only where size and time are not those of `known`.

    Raises OSError.
    """
    found = os.stat(path)
    version = f"mtime:{found.st_mtime_ns // 10**9}.{found.st_mtime_ns % 10**9:09d}"
    if known.digest is not None and (known.num_bytes, known.version) == (found.st_size, version):
        return known
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    return VideoVersion(found.st_size, version, hashlib.sha256(head + str(found.st_size).encode()).hexdigest())


def stored_version(facts: Mapping[str, Any]) -> VideoVersion:
    """The version of a file in a store or behind http, from fsspec's facts of it: one question, and no byte of it."""
    size = facts.get("size")
    num_bytes = size if isinstance(size, int) else None
    if etag := facts.get("ETag") or facts.get("etag"):
        return VideoVersion(num_bytes, f"etag:{str(etag).strip()}")
    if (modified := facts.get("Last-Modified")) is not None:
        try:
            return VideoVersion(num_bytes, f"mtime:{int(parsedate_to_datetime(modified).timestamp())}.{0:09d}")
        except ValueError:  # no date
            pass
    return VideoVersion(num_bytes)


def video_versions(
    videos: Mapping[str, VideoVersion] | Iterable[str], storage_options: dict[str, Any] | None = None
) -> dict[str, VideoVersion]:
    """`{uri: its version}`, unknown where it is not there or cannot be asked for.

    Args:
        videos: URIs; with what is known of each, so that heads of unchanged files are not read again.
        storage_options: fsspec's, of s3:// URIs.
    """
    known = videos if isinstance(videos, Mapping) else dict.fromkeys(videos, UNKNOWN)

    def ask(uris: Sequence[str]) -> list[tuple[str, VideoVersion]]:
        return [(uri, _version(uri, known[uri], storage_options)) for uri in uris]

    uris = list(known)
    if len(uris) < NUM_QUESTIONS:
        return dict(ask(uris))
    with ThreadPoolExecutor(NUM_QUESTIONS) as pool:
        found = dict(
            itertools.chain.from_iterable(pool.map(ask, (uris[n::NUM_QUESTIONS] for n in range(NUM_QUESTIONS))))
        )
    return {uri: found[uri] for uri in uris}


def _version(uri: str, known: VideoVersion, storage_options: dict[str, Any] | None) -> VideoVersion:
    try:
        if not is_remote(uri):
            return file_version(uri.removeprefix("file://"), known)
        filesystem, name = open_scheme(uri, storage_options)
        return stored_version(filesystem.info(name))
    except (OSError, ValueError, ImportError, *backend_errors()):  # ValueError: a scheme that is not opened
        return UNKNOWN


def with_versions(
    clips: Sequence[Clip],
    known: Mapping[str, VideoVersion] = MappingProxyType({}),
    storage_options: dict[str, Any] | None = None,
) -> list[Clip]:
    """The clips with the versions that their videos have now; see `video_versions`."""
    found = video_versions({c.video_uri: known.get(c.video_uri, UNKNOWN) for c in clips}, storage_options)
    return [found[clip.video_uri].on(clip) for clip in clips]

"""Which file a video is, whatever its name: its size, its version, and a digest of its head.

A video that is replaced under its name has other images: rows that were made of the old file do not belong to it. A
copy of the same file elsewhere, or a file that was only touched, is the same video.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

from handloom.io.addresses import is_remote, local_path
from handloom.io.presence import ask_all
from handloom.io.remote import Options, open_remote, remote_errors
from handloom.schemas.clip import Clip

HEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class VideoVersion:
    """What identifies a file; None where unknown.

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
        """Whether these are two files. Equal digests are one file, whatever its time or place.

        Without both digests, ETags are compared, or times; a time and an ETag cannot be compared.
        """
        for mine, theirs in ((self.num_bytes, other.num_bytes), (self.digest, other.digest)):
            if mine is not None and theirs is not None and mine != theirs:
                return True
        if self.digest is not None and other.digest is not None:
            return False
        my_kind, _, my_value = (self.version or "").partition(":")
        their_kind, _, their_value = (other.version or "").partition(":")
        return my_kind == their_kind and my_value != their_value

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
    """The version of a file in a store or behind http, from fsspec's `info`: one request, none of its bytes."""
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
    videos: Mapping[str, VideoVersion] | Iterable[str], options: Options = None
) -> dict[str, VideoVersion]:
    """`{uri: its version}`; `UNKNOWN` where it is missing or out of reach.

    Args:
        videos: URIs; with what is known of each, so that heads of unchanged files are not read again.
    """
    known = videos if isinstance(videos, Mapping) else dict.fromkeys(videos, UNKNOWN)
    return ask_all(known, lambda uri: _version(uri, known[uri], options))


def _version(uri: str, known: VideoVersion, options: Options) -> VideoVersion:
    try:
        if not is_remote(uri):
            return file_version(local_path(uri), known)
        filesystem, name = open_remote(uri, options)
        return stored_version(filesystem.info(name))
    except remote_errors(ValueError, ImportError):  # ValueError: a scheme that is not opened
        return UNKNOWN


def with_versions(
    clips: Sequence[Clip],
    known: Mapping[str, VideoVersion] = MappingProxyType({}),
    options: Options = None,
) -> list[Clip]:
    """The clips with the versions that their videos have now; see `video_versions`."""
    found = video_versions({c.video_uri: known.get(c.video_uri, UNKNOWN) for c in clips}, options)
    return [found[clip.video_uri].on(clip) for clip in clips]

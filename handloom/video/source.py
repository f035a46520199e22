"""Video URIs to local files: what is remote (s3://, http(s)://, any fsspec scheme) is fetched once per node."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handloom.errors import ClipError
from handloom.schemas.clip import Clip

PAUSE_S = 1.0


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


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
            ClipError: `video_missing`, `video_unreadable` (permission, not a file) or `fetch_failed`.
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
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        with open(self._cache_dir / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # actors of one node fetch a video once
            if not target.exists():
                self._fetch(clip, target)
                self._evict(keep=target)
            os.utime(target)
        return str(target)

    def _fetch(self, clip: Clip, target: Path) -> None:
        import fsspec  # a local folder needs neither fsspec nor its backends

        part = target.with_suffix(".part")
        options = self._storage_options if clip.video_uri.startswith("s3://") else {}
        for attempt in range(1, self._attempts + 1):
            try:
                with fsspec.open(clip.video_uri, "rb", **options) as remote, open(part, "wb") as local:
                    shutil.copyfileobj(remote, local, 8 << 20)
                os.replace(part, target)
                return
            except FileNotFoundError as error:
                raise _missing(clip) from error
            except PermissionError as error:
                hint = "check the credentials of this node, then run with --retry-rejects"
                problem = f"access to {clip.video_uri} was refused: {error}"
                raise ClipError(clip.clip_id, "fetch", "video_unreadable", problem, hint) from error
            except (OSError, ValueError, ImportError, _network_errors()) as error:
                failure = error
                time.sleep(PAUSE_S * attempt if attempt < self._attempts else 0)
        part.unlink(missing_ok=True)
        problem = f"{clip.video_uri} could not be fetched in {self._attempts} attempts: {failure}"
        hint = "check network, credentials and disk space of the node, then run with --retry-rejects"
        raise ClipError(clip.clip_id, "fetch", "fetch_failed", problem, hint) from failure

    def _evict(self, keep: Path) -> None:
        """Remove the longest unused videos beyond the limit. An open file stays readable for whoever has it open."""
        files = [f for f in self._cache_dir.iterdir() if f.suffix not in (".lock", ".part") and f != keep]
        used = sorted((f.stat().st_mtime, f.stat().st_size, f) for f in files)
        total = sum(size for _, size, _ in used) + keep.stat().st_size
        for _, size, path in used:
            if total <= self._cache_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _missing(clip: Clip) -> ClipError:
    hint = "fetch the video, or ingest again with the right --videos folder; then run with --retry-rejects"
    return ClipError(clip.clip_id, "fetch", "video_missing", f"there is no file at {clip.video_uri}", hint)


def _network_errors() -> tuple[type[Exception], ...]:
    """Errors of the fsspec backends that are no OSError; backends that are not installed raise none."""
    import sys

    known = [("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError")]
    return tuple(getattr(sys.modules[module], name) for module, name in known if module in sys.modules) or (OSError,)


def source_options_from(env: Mapping[str, str]) -> dict[str, Any]:
    """s3fs's options from the usual AWS variables. Called once, by the CLI; workers on other nodes get the result."""
    options: dict[str, Any] = {}
    for option, name in (("key", "AWS_ACCESS_KEY_ID"), ("secret", "AWS_SECRET_ACCESS_KEY"), ("token", "AWS_SESSION_TOKEN")):
        if env.get(name):
            options[option] = env[name]
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["endpoint_url"] = endpoint
    return options

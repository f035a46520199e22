"""What a run does first: clips of replaced videos are pending again, and clips whose video is there come first."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from handloom.api import Database
from handloom.io.addresses import is_remote
from handloom.io.presence import local_presence
from handloom.schemas.clip import Clip
from handloom.store.clips.clip_list import AddResult, listed_videos, renew_videos
from handloom.video.fetch.version import video_versions

log = logging.getLogger(__name__)


def renew_changed_videos(db: Database, where: str | None = None) -> AddResult:
    """Remove rows and rejects of videos whose files have been replaced since; their clips are pending again.

    Every local video costs one call of the file system (about a second for 100,000 on a local disk); of files with
    another time the heads are read. The version of a remote video is checked by the worker that fetches it.

    Args:
        where: only videos all of whose clips pass this filter: another run may work on the others. Their workers report
            a replaced video.

    Raises:
        StoreError: the database cannot be read or written.
    """
    videos = listed_videos(db, where=where)
    listed = {uri: version for uri, version in videos.items() if version.is_known and not is_remote(uri)}
    done = renew_videos(db, video_versions(listed))
    if done.changed_videos:
        log.info("videos are other files than before changed_videos=%d redone=%d", done.changed_videos, done.redone)
    return done


def present_first(clips: Sequence[Clip]) -> list[Clip]:
    """The clips in their order, those whose video is missing last: so a run with `--limit` has something to process.

    The list of a whole data set may begin with videos that were not downloaded. Local files are checked now: 0.2 s for
    10 000 videos on a local disk. Of remote videos (s3://, http) ingest has stored the size if they were there.
    """
    there = local_presence(clip.video_uri for clip in clips)
    return sorted(clips, key=lambda clip: not there[clip.video_uri] or _was_missing(clip))


def _was_missing(clip: Clip) -> bool:
    return is_remote(clip.video_uri) and clip.video_bytes is None

"""What a run does first: videos that are other files than when they were ingested are done again."""

from __future__ import annotations

import logging

from handloom.store.clip_list import AddResult, listed_videos, renew_videos
from handloom.store.database import Database
from handloom.video.schemes import is_remote
from handloom.video.version import video_versions

log = logging.getLogger(__name__)


def renew_changed_videos(db: Database, where: str | None = None) -> AddResult:
    """Remove what was made of files that have been replaced since; their clips are pending again.

    where: of videos all of whose clips pass it: others may be at work on the rest. A worker tells of those.

    Every local video is looked at, one question of the file system each (about a second for 100,000 on a local disk);
    the heads of files with another time are read. A worker asks for the version of a remote video when it fetches it.

    Raises StoreError.
    """
    videos = listed_videos(db, where=where)
    listed = {uri: version for uri, version in videos.items() if version.is_known and not is_remote(uri)}
    done = renew_videos(db, video_versions(listed))
    if done.changed_videos:
        log.info("videos are other files than before changed_videos=%d redone=%d", done.changed_videos, done.redone)
    return done

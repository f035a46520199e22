"""What a run does first: replaced videos are done again, and clips whose video is there come before the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from handloom.api import Database
from handloom.schemas.clip import Clip
from handloom.store.clips.clip_list import AddResult, listed_videos, renew_videos
from handloom.video.fetch.presence import local_presence
from handloom.video.fetch.schemes import is_remote
from handloom.video.fetch.version import video_versions

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


def present_first(clips: Sequence[Clip]) -> list[Clip]:
    """The clips in their order, those whose video is missing last: a try with `--limit` tries something then.

    Lists of a whole data set begin with videos that a download of a part of it lacks. Local files are asked for now:
    0.2 s for 10 000 videos on a local disk. Of videos elsewhere (s3://, http) ingest has kept their size where they
    were there.
    """
    there = local_presence(clip.video_uri for clip in clips)
    return sorted(clips, key=lambda clip: not there[clip.video_uri] or _was_missing(clip))


def _was_missing(clip: Clip) -> bool:
    return is_remote(clip.video_uri) and clip.video_bytes is None

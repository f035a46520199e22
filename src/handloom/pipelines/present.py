"""Which pending clips come first: those whose video is there."""

from __future__ import annotations

from collections.abc import Sequence

from handloom.schemas.clip import Clip
from handloom.video.presence import local_presence
from handloom.video.schemes import is_remote


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

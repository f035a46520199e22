"""Opening video files with PyAV: which formats are read, and which of several video streams."""

from __future__ import annotations

import av

from handloom.video.fetch.partial_file import RangedFile

FORMATS = {
    "mov,mp4,m4a,3gp,3g2,mj2": "MP4 and QuickTime",
    "matroska,webm": "Matroska and WebM",
    "mpegts": "MPEG transport stream",
    "mpeg": "MPEG program stream",
    "avi": "AVI",
    "flv": "Flash video",
    "asf": "Windows Media",
    "ogg": "Ogg",
}
"""Formats by libav's names. None of them refers to other files, as lists of files (concat, HLS, DASH) do."""

# Images, not videos, where their stream holds a single one: previews that carry no cover flag.
IMAGE_CODECS = frozenset({"mjpeg", "png", "bmp", "gif", "webp", "tiff"})


class NotAVideoError(Exception):
    """The file cannot be read as a video; `reason` is a key of `schemas.tables.reject.REASONS`."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(reason, problem)
        self.reason = reason
        self.problem = problem


def open_container(file: str | RangedFile) -> av.container.InputContainer:
    """Open a local file, by its path or in parts, with PyAV, as one of `FORMATS`, whatever its name says.

    Raises:
        NotAVideoError: `video_unreadable` or `no_video_stream`.
    """
    # Names of formats contain commas: libav splits names and list at them.
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
    try:
        container = av.open(
            f"file:{file}" if isinstance(file, str) else file, "r", options=options, metadata_errors="replace"
        )
    except av.ArgumentError as error:  # its format is not in the list
        known = ", ".join(FORMATS.values())
        problem = f"libav cannot open it: {error.strerror}; its content is none of {known}"
        raise NotAVideoError("video_unreadable", problem) from error
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotAVideoError("video_unreadable", f"libav cannot open it: {reason}") from error
    if not video_streams(container):
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no stream at all"
        container.close()
        raise NotAVideoError("no_video_stream", f"expected a video stream, found {kinds}")
    return container


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video streams without cover images."""
    cover = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return [s for s in container.streams.video if not s.disposition & cover]


def main_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The stream that ffmpeg takes by default: flagged as default, then the largest image, then the first.

    A stream of one image only where there is no other.
    """
    return max(video_streams(container), key=_rank)


def _rank(stream: av.VideoStream) -> tuple[bool, bool, bool, int]:
    codec = stream.codec_context
    if codec is None:
        return False, False, False, 0
    image = codec.name in IMAGE_CODECS and stream.frames == 1
    return True, not image, bool(stream.disposition & av.stream.Disposition.default), codec.width * codec.height

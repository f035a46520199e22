"""Length and format of video files for ingest, read in a decoding process."""

from __future__ import annotations

from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource


class Prober:
    """Probes many files through one child process. Use as a context manager."""

    def __init__(self, source: VideoSource, timeout_s: float = 60.0) -> None:
        self._decoder = Decoder(1.0, 360, DecodeLimits(timeout_s=timeout_s), source)

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder.close()

    def __call__(self, uri: str) -> VideoInfo:
        """Facts of the video at `uri`.

        Raises:
            ClipError: it cannot be fetched or read; the reason says why.
        """
        return self._decoder.probe(Clip(uri, "", "", uri, 0.0, None))

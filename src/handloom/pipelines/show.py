"""`handloom show`: a clip's hands and tracks drawn over its video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.draw.frames import frames_from_row
from handloom.draw.show import check_suffix, write_show
from handloom.errors import ClipError, ConfigError
from handloom.models.faces import FaceBlur
from handloom.plural import plural
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings, of_any_version
from handloom.schemas.tables.row import row_arrays
from handloom.store.runs.runs import stored_settings
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource

log = logging.getLogger(__name__)

SHORT_SIDE_PX = 720
Frame = tuple[float, NDArray[np.uint8]]
"""frame_s, and (h, w, 3) RGB."""
STALE_FACES = (
    "nothing was drawn, it could show a face: the detector or `video.short_side_px` has changed since; make the row's "
    "pictures anew with `handloom run --recompute frames`"
)


def show(
    db: Database,
    clip_id: str,
    out: Path,
    source_options: dict[str, Any] | None = None,
    version: int | None = None,
) -> str:
    """Draw a clip into `out` (.mp4 or .png); returns where the images came from: `video` or `frame_jpeg`.

    The clip's video is decoded again at the row's times. If it is missing, or another file than the row was made of,
    the stored frames are drawn on instead. A row whose faces were blurred (`faces_blurred`) shows them nowhere: its
    stored frames are drawn on; if it has none, the video is decoded as the row was made, and blurred again.

    version: of `clips`; None: the newest.

    Raises:
        ConfigError: another suffix, there is neither the video nor stored frames, or fewer faces are found in a frame
            than were blurred in it.
        StoreError: the clip has no row, or `out` cannot be written.
    """
    check_suffix(out)
    row = row_arrays(db.row(clip_id, version=version))
    blurs = row.get("faces_blurred") is not None
    if blurs and row["frame_jpeg"] is not None:
        write_show(frames_from_row(row), row, out)
        return "frame_jpeg"
    try:
        frames = _decoded(db, row, source_options, as_the_row=blurs)
        first = next(frames)
    except ClipError as error:
        if row["frame_jpeg"] is None:
            hint = "bring the video back: this row keeps no frames (frames.store was false)"
            if error.reason == "video_changed":
                hint = "ingest the video again and run: its rows are of another file"
            raise ConfigError(f"the video of {clip_id} cannot be drawn on: {error.problem}", hint) from error
        again = "; ingest again, and run: its row is then made anew" if error.reason == "video_changed" else ""
        log.warning("the video cannot be drawn on, the stored frames are: %s%s", error.problem, again)
        write_show(frames_from_row(row), row, out)
        return "frame_jpeg"
    decoded = _chain(first, frames)
    write_show(blurred(decoded, row) if blurs else decoded, row, out)
    return "video"


def _decoded(db: Database, row: dict[str, Any], source_options, as_the_row: bool) -> Iterator[Frame]:
    """as_the_row: at the size at which the row was made, instead of a larger one."""
    stored = stored_settings(db)
    settings = Settings(**of_any_version(stored.settings)) if stored else Settings()
    values: dict[str, Any] = {name: row.get(name) for name in Clip.__dataclass_fields__}
    clip = Clip(**values)  # rows before 0.4 have no version
    source = VideoSource(storage_options=source_options)
    short_side_px = settings.video.short_side_px if as_the_row else SHORT_SIDE_PX
    decoder = Decoder(settings.video.sample_hz, short_side_px, DecodeLimits(), source)
    try:
        for item in decoder.stream([clip]):
            if isinstance(item, ClipError):
                raise item
            frame_s: list[float] = []
            # Where the decoder changes all frames come again: those already drawn are passed over by their times.
            for chunk in item.chunks(frame_s.clear):
                at = len(frame_s)
                frame_s += item.header.frame_s[at : at + len(chunk)].tolist()
                yield from zip(frame_s[at:], chunk, strict=True)
    finally:
        decoder.close()


def blurred(frames: Iterator[Frame], row: dict[str, Any]) -> Iterator[Frame]:
    """The frames with the faces blurred that the row's stage found, each after its later neighbours were looked at."""
    faces = FaceBlur()
    times: list[float] = []

    def checked(images: Iterator[NDArray[np.uint8]]) -> Iterator[Frame]:
        for image in images:
            at = len(faces.counts) - 1
            num, before = faces.counts[at], row["faces_blurred"][at : at + 1]
            if before and num < before[0]:
                found = f"{plural(num, 'face')} found, {before[0]} blurred in the row"
                raise ConfigError(f"clip {row['clip_id']}, {times[at]:.2f} s: {found}", STALE_FACES)
            yield times[at], image

    for frame_s, image in frames:
        times.append(frame_s)
        yield from checked(faces.feed(image[None]))
    yield from checked(faces.finish())


def _chain(first: Frame, rest: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    last_s = first[0]
    for frame_s, image in rest:
        if frame_s > last_s:
            last_s = frame_s
            yield frame_s, image

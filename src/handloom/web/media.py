"""Images, videos and downloads of one clip."""

from __future__ import annotations

import io
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from handloom.errors import StoreError
from handloom.export.shards import ParquetShard
from handloom.io.listing import VIDEO_EXTENSIONS
from handloom.schemas.clip import Clip
from handloom.video.fetch.video_source import VideoSource
from handloom.web.answers import NotThere, asked_id, asked_version, blocking, bytes_answer, packed, whole_number
from handloom.web.gallery import Gallery, Kept

THUMB_QUALITY = 82
THUMBS_BYTES = 64 << 20
PLAYED = {"h264", "vp8", "vp9", "av1"}
"""Codecs that browsers play."""
CONTAINERS = {"mp4": "video/mp4", "m4v": "video/mp4", "mov": "video/mp4", "webm": "video/webm"}
BLURRED = "faces were blurred in this clip's stored frames, and its video would show them"


class Strip(NamedTuple):
    """A strip of frames. num_frames: beside each other in the image."""

    image: Image.Image
    num_frames: int


def open_strip(data: bytes, row: Mapping[str, Any]) -> Strip:
    """The strip of a clip. Raises NotThere if it is no image."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()  # a file that was cut off is found out here
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        problem = f"the thumbnail of clip {row['clip_id']} is no image ({len(data)} bytes)"
        raise NotThere(problem, "`handloom run --recompute frames` makes it anew") from error
    shape = (row["width"] or 1) / (row["height"] or 1)
    return Strip(image, max(1, round(image.width / max(1, image.height * shape))))


def thumbnail(data: bytes, row: Mapping[str, Any], height: int) -> bytes:
    """The middle frame of a strip as JPEG, at most `height` pixels high."""
    strip = open_strip(data, row)
    width = strip.image.width // strip.num_frames
    left = width * (strip.num_frames // 2)
    frame = strip.image.convert("RGB").crop((left, 0, left + width, strip.image.height))
    if frame.height > height:
        frame = frame.resize((max(1, round(frame.width * height / frame.height)), height), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    frame.save(out, "JPEG", quality=THUMB_QUALITY)
    return out.getvalue()


def why_not_played(row: Mapping[str, Any]) -> str | None:
    """Why a browser is not given a clip's video; None: it is."""
    suffix = Path(row["video_uri"]).suffix.lower()[1:]
    if row.get("faces_blurred") is not None:
        return BLURRED
    if suffix not in CONTAINERS:
        return f"browsers play no .{suffix} files"
    if row["codec"] not in PLAYED:
        return f"browsers play no {row['codec']}"
    return None


class Media:
    """The files of one gallery's clips."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._source = VideoSource(attempts=1, storage_options=gallery.source_options)  # somebody waits
        self._source_lock, self._draw_lock = threading.Lock(), threading.Lock()
        self._thumbs: Kept[bytes] = Kept(THUMBS_BYTES, len)

    def thumb(self, clip_id: str, version: int | None, height: int) -> bytes:
        catalogue = self._gallery.catalogue(version)
        place = catalogue.place(clip_id)

        def make() -> bytes:
            return thumbnail(self._gallery.strip(clip_id, catalogue.version), catalogue.facts([place])[0], height)

        return self._thumbs.of((catalogue.version, place, height), make)

    def strip(self, clip_id: str, version: int | None) -> tuple[bytes, int]:
        """The strip, and the number of its frames."""
        data, catalogue = self._gallery.strip(clip_id, version), self._gallery.catalogue(version)
        return data, open_strip(data, catalogue.facts([catalogue.place(clip_id)])[0]).num_frames

    def frames(self, clip_id: str, version: int | None) -> tuple[bytes, ...]:
        """All stored frames. Raises NotThere where there are none."""
        found = self._gallery.frames(clip_id, version)
        if not found:
            raise NotThere(f"clip {clip_id} has no stored frames", "extract with --set frames.store=true")
        return found

    def frame(self, clip_id: str, version: int | None, index: int) -> bytes:
        found = self.frames(clip_id, version)
        if index >= len(found):
            raise NotThere(f"clip {clip_id} has no frame {index}", f"it has {len(found)}, the first is 0")
        return found[index]

    def video(self, clip_id: str, version: int | None) -> tuple[str, str]:
        """(a local file, its media type) of the clip's video, the one that the row was made of.

        Only a file that the database names, that has the name of a video, and that is still the one that was ingested.
        Raises NotThere with the reason, ClipError where it is gone or another file.
        """
        row = self._gallery.row(clip_id, version)
        if row.get("faces_blurred") is not None:
            raise NotThere(f"the video of clip {clip_id} is not shown: {BLURRED}", "look at the stored frames")
        suffix = Path(row["video_uri"]).suffix.lower()[1:]
        if suffix not in VIDEO_EXTENSIONS:
            raise NotThere(f"{row['video_uri']} has not the name of a video", "look at the stored frames")
        values: dict[str, Any] = {name: row.get(name) for name in Clip.__dataclass_fields__}
        with self._source_lock:
            path = self._source.local_path(Clip(**values))
        return path, CONTAINERS.get(suffix, "application/octet-stream")

    def parquet(self, clip_id: str, version: int | None) -> bytes:
        """The whole row as a Parquet file, as `export_parquet` writes it."""
        catalogue, out = self._gallery.catalogue(version), io.BytesIO()
        catalogue.place(clip_id)
        try:
            row = self._gallery.db.row(clip_id, None, catalogue.version)
        except StoreError as error:
            raise self._gallery.lost(catalogue, error) from error
        shard = ParquetShard(out, row.schema)
        shard.write_table(row)
        shard.close()
        return out.getvalue()

    def drawn(self, clip_id: str, version: int | None, suffix: str) -> Path:
        """What `handloom show` writes, in a file to be removed. One at a time."""
        from handloom.pipelines.show import show

        catalogue = self._gallery.catalogue(version)
        catalogue.place(clip_id)
        with self._draw_lock:
            path = self._gallery.folder / f"{secrets.token_hex(8)}{suffix}"
            show(self._gallery.db, clip_id, path, self._gallery.source_options, catalogue.version)
        return path


def file_name(clip_id: str, suffix: str) -> str:
    """A name for a download."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in clip_id)
    return f"{kept[:120].strip('.') or 'clip'}{suffix}"


def routes(gallery: Gallery) -> list[Route]:
    """`/media/...` and `/download/...`."""
    media = Media(gallery)

    async def thumb(request: Request) -> Response:
        height = whole_number(request.query_params.get("h"), "h", 120, 16, 512)
        data = await blocking(media.thumb, asked_id(request), asked_version(request), height)
        return bytes_answer(request, data, "image/jpeg")

    async def strip(request: Request) -> Response:
        data, num = await blocking(media.strip, asked_id(request), asked_version(request))
        return bytes_answer(request, data, "image/jpeg", headers={"X-Frames": str(num)})

    async def frame(request: Request) -> Response:
        index = whole_number(request.query_params.get("n"), "n", 0, 0, 1 << 31)
        data = await blocking(media.frame, asked_id(request), asked_version(request), index)
        return bytes_answer(request, data, "image/jpeg")

    async def frames(request: Request) -> Response:
        found = await blocking(media.frames, asked_id(request), asked_version(request))
        data = packed({str(index): one for index, one in enumerate(found)})
        return bytes_answer(request, data, "application/octet-stream")

    async def video(request: Request) -> Response:
        path, kind = await blocking(media.video, asked_id(request), asked_version(request), limit_s=None)
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, no-cache"})

    async def row(request: Request) -> Response:
        clip_id = asked_id(request)
        data = await blocking(media.parquet, clip_id, asked_version(request))
        told = f'attachment; filename="{file_name(clip_id, ".parquet")}"'
        kind = "application/vnd.apache.parquet"
        return bytes_answer(request, data, kind, headers={"Content-Disposition": told})

    def drawn(suffix: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            clip_id = asked_id(request)
            path = await blocking(media.drawn, clip_id, asked_version(request), suffix, limit_s=None)
            gone = BackgroundTask(path.unlink, missing_ok=True)
            return FileResponse(path, media_type=kind, filename=file_name(clip_id, suffix), background=gone)

        return answer

    return [
        Route("/media/thumb", thumb),
        Route("/media/strip", strip),
        Route("/media/frame", frame),
        Route("/media/frames", frames),
        Route("/media/video", video),
        Route("/download/row", row),
        Route("/download/overlay", drawn(".mp4", "video/mp4")),
        Route("/download/rrd", drawn(".rrd", "application/octet-stream")),
    ]

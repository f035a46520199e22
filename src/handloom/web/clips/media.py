"""Images, videos and downloads of one clip; files to search by."""

from __future__ import annotations

import io
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image, UnidentifiedImageError
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handloom.errors import ConfigError, StoreError
from handloom.export.shards import ParquetShard
from handloom.io.listing import VIDEO_EXTENSIONS
from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import IMAGE_FORMATS
from handloom.video.fetch.video_source import VideoSource
from handloom.web.answers import (
    FileAnswer,
    NotThere,
    Waiting,
    asked_id,
    asked_version,
    blocking,
    bytes_answer,
    packed,
    whole_number,
)
from handloom.web.gallery import Gallery, Kept

THUMB_QUALITY = 82
THUMBS_BYTES = 64 << 20
PLAYED = {"h264", "vp8", "vp9", "av1", "hevc"}
"""Codecs that browsers play; the last one some of them, on some machines: the page tries, and says if it cannot."""
CONTAINERS = {"mp4": "video/mp4", "m4v": "video/mp4", "mov": "video/mp4", "webm": "video/webm"}
MOST_UPLOADS, UPLOAD_S = 20, 3600.0
CAMERAS = ("JPEG", "MPO")  # phones put a preview or brightness behind the image: it counts as a second one
MOST_PIXELS = 120_000_000
TOO_LARGE = f"make it smaller: at most {MOST_PIXELS / 1e6:.0f} million pixels are read"
BLURRED = "faces were blurred in this clip's stored frames, and its video would show them"


class Strip(NamedTuple):
    """A strip of frames. num_frames: beside each other in the image."""

    image: Image.Image
    num_frames: int


def open_strip(data: bytes, row: Mapping[str, Any]) -> Strip:
    """The strip of a clip. Raises NotThere if it is no image."""
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
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


def smaller(jpeg: bytes, height: int, what: str) -> bytes:
    """An image at most `height` pixels high, JPEG. Raises NotThere, which names `what`, if it is none."""
    try:
        image = Image.open(io.BytesIO(jpeg), formats=IMAGE_FORMATS).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise NotThere(f"{what} cannot be read", "ingest it again") from error
    image.thumbnail((4 * height, height))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=THUMB_QUALITY)
    return out.getvalue()


def size_of(jpeg: bytes) -> list[int] | None:
    """[width, height] of an image; None if it is none."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=IMAGE_FORMATS) as image:
            return [image.width, image.height]
    except (UnidentifiedImageError, OSError):
        return None


def size_of_first(camera: pa.Scalar) -> list[int] | None:
    """[width, height] of the first image of a list; None if it has none that can be read."""
    first = next((one.as_py() for one in camera.values or () if one.is_valid), None)
    return None if first is None else size_of(first)


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
        self._thumbs: Kept[bytes] = gallery.keeping(THUMBS_BYTES, len)

    def thumb(self, clip_id: str, version: int | None, height: int) -> bytes:
        catalogue = self._gallery.catalogue(version)
        place = catalogue.place(clip_id)

        def make() -> bytes:
            return thumbnail(self._gallery.strip(clip_id, catalogue.version), catalogue.facts([place])[0], height)

        return self._thumbs.of((*catalogue.key(place), height), make)

    def strip(self, clip_id: str, version: int | None) -> tuple[bytes, int]:
        """The strip, and the number of its frames."""
        data, catalogue = self._gallery.strip(clip_id, version), self._gallery.catalogue(version)
        return data, open_strip(data, catalogue.facts([catalogue.place(clip_id)])[0]).num_frames

    def frames(self, clip_id: str, version: int | None) -> tuple[bytes, ...]:
        """All stored frames. Raises NotThere where there are none."""
        found = self._gallery.frames(clip_id, version)
        if not found:
            raise NotThere(f"clip {clip_id} has no stored frames", "`handloom run --set frames.store=true` stores them")
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


@dataclass
class Upload:
    """A file to search by. kind: `video` or `image`. doing: the stage that reads it now; None: none does."""

    path: Path
    kind: str
    name: str
    at: float
    doing: str | None = None

    def told(self, problem: str) -> str:
        """What is wrong with it, by the name that it was given with: the server's own is nobody's concern."""
        return problem.replace(str(self.path), repr(self.name))


class Uploads:
    """Files that people drop on the search page."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._lock, self._one_file = threading.Lock(), threading.Lock()
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    def keep(self, file: Any, name: str) -> tuple[str, Upload]:
        """Keep an uploaded file for an hour, or until `MOST_UPLOADS` others came. Raises ConfigError for others."""
        key = secrets.token_urlsafe(12)
        suffix = Path(name).suffix.lower()[:8]
        suffix = suffix if suffix[1:].isalnum() else ""
        path = self._gallery.folder / f"{key}{suffix}"
        file.seek(0)
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        try:
            kind = _kind_of(path, name[:200])
        except ConfigError:
            path.unlink()
            raise
        upload = Upload(path, kind, name[:200], time.monotonic())
        with self._lock:
            self._uploads[key] = upload
            gone = [old for old, one in self._uploads.items() if time.monotonic() - one.at > UPLOAD_S]
            gone += list(self._uploads)[: max(0, len(self._uploads) - MOST_UPLOADS)]
            for old in dict.fromkeys(gone):
                self._uploads.pop(old).path.unlink(missing_ok=True)
        return key, upload

    def get(self, key: str) -> Upload:
        """The file of this id. Raises NotThere for one that is no longer kept."""
        with self._lock:
            found = self._uploads.get(key)
        if found is None:
            raise NotThere("the uploaded file is no longer kept", "drop the video or the image again")
        return found

    @contextmanager
    def read(self, upload: Upload, waiting: Waiting) -> Iterator[Callable[[str, int], None]]:
        """While a file is read, one at a time, as that takes all of a core: what is to be called with each stage."""

        def on_stage(stage: str, num_frames: int) -> None:
            waiting.check()
            upload.doing = stage

        with waiting.turn(self._one_file):
            try:
                yield on_stage
            finally:
                upload.doing = None


def _kind_of(path: Path, name: str) -> str:
    """`image` or `video`. Raises ConfigError for a file that is neither, or that is too large an image."""
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            size, num_images = image.size, 1 if image.format in CAMERAS else getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise ConfigError(f"the image {name!r} is too large: {error}", TOO_LARGE) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        if path.suffix.lower()[1:] in VIDEO_EXTENSIONS:
            return "video"
        known = f"an image (JPEG, PNG, WebP), or a video: {', '.join(sorted(VIDEO_EXTENSIONS))}"
        raise ConfigError(f"{name!r} is no image and its name is not that of a video", known) from error
    if size[0] * size[1] > MOST_PIXELS:
        raise ConfigError(f"the image {name!r} has {size[0]} x {size[1]} pixels", TOO_LARGE)
    if num_images > 1:
        raise ConfigError(f"{name!r} is {num_images} images that move", "give one image, or a video")
    return "image"


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
        return FileAnswer(path, media_type=kind, headers={"Cache-Control": "private, no-cache"})

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
            return FileAnswer(path, media_type=kind, filename=file_name(clip_id, suffix), background=gone)

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

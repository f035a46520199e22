"""An image file, or frames of a stored clip, as a vector of one of the table's image embeddings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.retrieval.query import NoPart
from handloom.retrieval.video import settings_of
from handloom.schemas.tables.embeddings import embedding_columns
from handloom.store.tables import Tables
from handloom.video.stored_frames import decode_jpeg, strip_indices

LOOK = "look"
FRAMES = 8
"""Frames of a piece that are compared, as of a clip."""
TOWER = "handloom.stages.learned:Tower"
MAX_IMAGE_BYTES = 256 << 20


def read_image(given: str | Path | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image file, or an array, as (h, w, 3) RGB. Raises ConfigError if it is no image."""
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or not given.size:
            raise ConfigError(f"an image of {given.dtype} and shape {given.shape}", "expected (h, w, 3) uint8, RGB")
        return given
    path = Path(given)
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_IMAGE_BYTES else b""
    except OSError as error:
        raise ConfigError(f"the image {path} cannot be read: {error.strerror or error}", "give an image") from error
    if size > MAX_IMAGE_BYTES:
        raise ConfigError(f"the image {path} has {size} bytes, more than {MAX_IMAGE_BYTES}", "name an image file")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:  # more pixels than OpenCV reads
        raise ConfigError(f"the image {path} cannot be read: {error.err}", "make it smaller") from error
    if image is None:
        hint = "a JPEG, PNG, WebP, BMP or TIFF file; a video is searched by as a video"
        raise ConfigError(f"the image {path} is no image that can be read ({size} bytes)", hint)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def shown_image(db: Tables, given: str | Path | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image file, or an array, to be drawn: (h, w, 3) RGB, its faces blurred where the settings of the database say
    so. Raises ConfigError if it is no image."""
    image = read_image(given)
    if not settings_of(db).frames.blur_faces:
        return image
    from handloom.models.faces import FaceFinder, blur_faces

    return blur_faces(image, FaceFinder()(image))


def image_names(db: Tables, schema: pa.Schema) -> list[str]:
    """The embeddings of the table that an image can be compared with: `look`, and declared networks of images."""
    declared = [name for name, stage in settings_of(db).stages.items() if stage.class_ == TOWER]
    return [name for name in (LOOK, *declared) if name in embedding_columns(schema)]


def vector_of(db: Tables, schema: pa.Schema, name: str, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The embedding `name` of frames (n, h, w, 3), made as those of the table.

    Raises:
        NoPart: this embedding is not made of images alone, or by other weights than the table's.
        ConfigError: the network is not installed.
    """
    if name == LOOK:
        from handloom.models.embeddings.lite0.weights import FILE

        _check_version(schema, name, FILE.digest)
        return _look().encode_clip(frames)
    stage = settings_of(db).stages.get(name)
    if stage is None or stage.class_ != TOWER:
        hint = f"compare by {', '.join(image_names(db, schema)) or 'look'}, or give a whole clip or video"
        raise NoPart(f"the embedding {name} cannot be computed for single images", hint)
    from handloom.models.embeddings.learned.plan import plan_tower
    from handloom.models.embeddings.learned.tower import Tower
    from handloom.stages.learned.towers import TowerStageSettings

    plan = plan_tower(TowerStageSettings(**stage.settings), f"stages.{name}.settings.")
    _check_version(schema, name, plan.files.weights())
    return Tower(plan).embed([frames])[0]


@cache
def _look() -> Any:
    """Kept for the next query. Raises NoPart if the network is not installed."""
    from handloom.models.embeddings.look import LookEncoder

    try:
        return LookEncoder()
    except ConfigError as error:
        raise NoPart(error.problem, error.hint) from error


def stored_frames(piece: dict[str, Any]) -> NDArray[np.uint8]:
    """Up to 8 stored frames of a piece of a clip, evenly spread. Raises NoPart if the clip stores none."""
    jpegs = piece.get("frame_jpeg")
    if not jpegs:
        hint = "`handloom run --set frames.store=true` stores them; or compare whole clips"
        raise NoPart(f"clip {piece['clip_id']} stores no frames, so a part of it has no look", hint)
    return np.stack([decode_jpeg(jpegs[i]) for i in strip_indices(len(jpegs), FRAMES)])


def _check_version(schema: pa.Schema, name: str, version: str) -> None:
    """Raise NoPart where other weights made the column: their vectors cannot be compared."""
    of_column = (schema.field(f"embedding_{name}").metadata or {}).get(b"version", b"").decode()
    if of_column != version:
        problem = f"the column embedding_{name} was made by weights {of_column or 'unknown'}, those here are {version}"
        raise NoPart(problem, "install the version that made it, or compute it again: `handloom run --recompute`")

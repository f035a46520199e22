"""A video that is not in the table, as a row: extracted in this process with the settings of the database."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError, HandloomError
from handloom.io.addresses import is_remote, local_path
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings, of_any_version
from handloom.schemas.tables.embeddings import embedding_columns, no_embedding
from handloom.store.runs.runs import stored_settings
from handloom.store.tables import Tables

if TYPE_CHECKING:
    from handloom.stages.graph import StageGraph
    from handloom.video.decode.decoder import DecodedClip, Decoder

# Instead of the hints of `handloom run`, which are for clips of the list.
QUERY_HINTS = {
    "video_missing": "check the path; one that does not begin with / is relative to the working directory",
    "video_unreadable": "name one whole video file that you may read",
    "fetch_failed": "check the address, the network and your credentials",
    "uri_refused": "fetch the video yourself, and name the file",
    "bad_range": "the start comes before the end, both in seconds of the video's own clock",
    "outside_video": "choose times inside the video (start_s and end_s may be left out for the whole)",
}
MOVEMENT = ("probe", "hands_2d", "hands_3d", "tracks", "motion_steps")
"""Stages whose columns a movement is made of."""
OTHER_HINT = "try another part of it, or another video"
OnStage = Callable[[str, int], None]
"""Gets the name of a stage and a number of frames."""
MOST_KEPT = 8
_lock = threading.Lock()
_kept: OrderedDict[tuple[object, ...], dict[str, Any]] = OrderedDict()
"""The columns of local videos that were extracted last: the same video is searched by again, with other filters."""


def settings_of(db: Tables) -> Settings:
    """The settings of the database's last run; the default ones of an empty database."""
    stored = stored_settings(db)
    return Settings(**of_any_version(stored.settings)) if stored else Settings()


def extract(
    db: Tables,
    video: str,
    start_s: float = 0.0,
    end_s: float | None = None,
    source_options: dict[str, Any] | None = None,
    *,
    by: Collection[str] = ("motion",),
    movement: bool = False,
    longest_s: float | None = None,
    on_stage: OnStage | None = None,
) -> dict[str, Any]:
    """The columns of a part of a video that a search compares, as `row_arrays` gives them. Only the stages that they
    need are computed, once for the same file and settings.

    by: names of embeddings. movement: also the columns of hands and tracks. longest_s: None: of any length. on_stage:
    called when a stage begins, and with each chunk of frames that it gets; what it raises ends the extraction.

    Raises:
        ConfigError: it cannot be read or processed, or is too long; the stage of an embedding is not in the settings.
    """
    from handloom.stages.extract import Extractor, ignore_stage

    settings, graph = _graph(db, by)
    targets = [*_writers(db, graph, by), *(MOVEMENT if movement else ())]
    file = _identity(video)
    key = (file, settings.model_dump_json(), start_s, end_s, tuple(targets))
    with _lock:
        if file is not None and key in _kept:
            _kept.move_to_end(key)
            return dict(_kept[key])
    with opened(settings, video, start_s, end_s, source_options) as item:
        there_s = len(item.header.frame_s) / settings.video.sample_hz
        if longest_s is not None and there_s > longest_s + 1:
            problem = f"{there_s:.0f} s of it would be extracted, at most {longest_s:g} s are"
            raise ConfigError(problem, "cut it to the movement that you look for")
        extractor = Extractor(settings, "query", on_stage=on_stage or ignore_stage, stages=graph.ancestors(targets))
        found = extractor.columns(item, targets)
    if file is not None and file == _identity(video):
        with _lock:
            _kept[key] = found
            while len(_kept) > MOST_KEPT:
                _kept.popitem(last=False)
    return dict(found)


def _identity(video: str) -> tuple[object, ...] | None:
    """Which file this is; None for one that is not on this machine's disks."""
    if is_remote(video):
        return None
    try:
        there = os.stat(local_path(video))
    except OSError:
        return None
    return os.path.abspath(local_path(video)), there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns


def some_frames(
    db: Tables,
    video: str,
    start_s: float = 0.0,
    end_s: float | None = None,
    source_options: dict[str, Any] | None = None,
    *,
    num: int,
) -> list[tuple[float, NDArray[np.uint8]]]:
    """At most `num` of the sampled frames of a part of a video, evenly spaced: (frame_s, (h, w, 3) RGB).

    Faces are blurred where the settings of the database say so. Raises ConfigError if it cannot be read.
    """
    from handloom.models.faces import FaceBlur  # OpenCV is not needed to search
    from handloom.video.stored_frames import strip_indices

    settings = settings_of(db)
    faces = FaceBlur() if settings.frames.blur_faces else None
    with opened(settings, video, start_s, end_s, source_options) as item:
        times = item.header.frame_s.tolist()
        wanted = set(strip_indices(len(times), num).tolist())
        at, found = 0, {}

        def begin() -> None:
            nonlocal at
            at = 0
            if faces is not None:
                faces.begin()

        def images() -> Iterator[NDArray[np.uint8]]:
            for chunk in item.chunks(begin):
                yield from chunk if faces is None else faces.feed(chunk)
            yield from () if faces is None else faces.finish()

        for image in images():
            if at in wanted:
                found[at] = image.copy()
            at += 1
        return [(times[number], found[number]) for number in sorted(found)]


@contextmanager
def opened(
    settings: Settings,
    video: str,
    start_s: float,
    end_s: float | None,
    source_options: dict[str, Any] | None,
    decoder: Decoder | None = None,
) -> Iterator[DecodedClip]:
    """The part of a video, decoded as the settings say, or by a decoder of the caller's, which stays open. Errors
    inside are raised as ConfigError about the video."""
    query = Clip("query", "query", Path(video).stem, video, start_s, end_s)
    own = decoder_of(settings, source_options) if decoder is None else decoder
    items = own.stream([query])
    try:
        item = next(items)
        if isinstance(item, HandloomError):
            raise item
        yield item
    except HandloomError as error:
        hint = QUERY_HINTS.get(error.reason, OTHER_HINT) if isinstance(error, ClipError) else error.hint
        raise ConfigError(f"the video {video}: {error.problem}", hint) from error
    finally:
        items.close()  # first: its thread may be in the middle of a clip that nobody reads any more
        if decoder is None:
            own.close()


def decoder_of(
    settings: Settings,
    source_options: dict[str, Any] | None = None,
    sample_hz: float | None = None,
    short_side_px: int | None = None,
) -> Decoder:
    """What decodes as the settings say, but for what is given."""
    from handloom.video.decode.decoder import DecodeLimits, Decoder
    from handloom.video.fetch.video_source import VideoSource

    video = settings.video
    source = VideoSource(storage_options=source_options)
    return Decoder(sample_hz or video.sample_hz, short_side_px or video.short_side_px, DecodeLimits(), source)


def _graph(db: Tables, by: Collection[str]) -> tuple[Settings, StageGraph]:
    """Settings and graph without the declared stages where those that handloom brings write all embeddings: stages of
    one's own may not be installed here."""
    from handloom.stages.registry import stage_graph

    settings = settings_of(db)
    bare = settings.model_copy(update={"stages": {}})
    graph = stage_graph(bare)
    written = {column for node in graph.nodes for column in node.columns}
    if written >= {f"embedding_{name}" for name in by}:
        return bare, graph
    return settings, stage_graph(settings)


def _writers(db: Tables, graph: StageGraph, by: Collection[str]) -> Sequence[str]:
    """The stages that write the embeddings. Raises ConfigError if the settings of the database have none."""
    found = []
    for name in by:
        column = f"embedding_{name}"
        writers = [node.name for node in graph.nodes if column in node.columns]
        table = db.table("clips")
        if not writers and table is not None and name not in embedding_columns(table.schema):
            raise ConfigError(no_embedding(name, table.schema))
        if not writers:
            raise ConfigError(
                f"a video cannot be compared by {name}: no stage of the database's settings writes {column}",
                "compare with a clip of the table; or `handloom run` with the stage in [stages.NAME]",
            )
        found += writers
    return found

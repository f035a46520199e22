"""`handloom search`: clips like a clip, like a new video, or by words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.errors import ClipError, ConfigError, HandloomError
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings, of_any_version
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.values import Hands, Tracks, VideoInfo
from handloom.store.embodiment import ALL, HUMAN, ROBOT, narrowed
from handloom.store.runs.runs import stored_settings
from handloom.store.search.index import TEXT_COLUMNS
from handloom.store.search.search import Hits, search
from handloom.store.sql import both

# A query is in no clip list: the hints of `handloom run` do not fit it.
QUERY_HINTS = {
    "video_missing": "check the path; one that does not begin with / begins at the folder that you are in",
    "video_unreadable": "name one whole video file that you may read",
    "fetch_failed": "check the address, the network and your credentials",
    "uri_refused": "fetch the video yourself, and name the file",
    "bad_range": "--start-s comes before --end-s, both in seconds of the video's own clock",
    "outside_video": "choose --start-s and --end-s inside the video, or leave them out for the whole",
}
OTHER_HINT = "try another part of it (--start-s, --end-s), or another video"
ADD_WORDS = (
    "; words come with `handloom ingest`, from clips.csv in the videos' folder or a dataset's annotations: write "
    "clips.csv (docs/datasets.md), and ingest the folder again"
)


def search_clips(
    db: Database,
    *,
    clip: str | None = None,
    video: str | None = None,
    text: str | None = None,
    by: str = "motion",
    mirror: bool = False,
    start_s: float = 0.0,
    end_s: float | None = None,
    source_options: dict[str, Any] | None = None,
    **query: Any,
) -> Hits:
    """Exactly one of `clip` (an id), `video` (any file: extracted in memory with the database's settings) and `text`.

    mirror: also find the left/right mirrored motion (a query and its mirror image, the better of the two counts).

    Raises:
        ConfigError: an argument cannot be used, or the video cannot be read.
        StoreError: nothing is processed yet, or the clip is unknown.
    """
    if mirror and (text is not None or by != "motion"):
        raise ConfigError("--mirror compares motion: it goes with --by motion and --clip or --video")
    if video is not None:
        row = row_arrays(extract(db, video, start_s, end_s, source_options))
        return search(db, vectors=_vectors(row, by, mirror, video), by=by, **query)
    if clip is not None and mirror:
        row = row_arrays(db.row(clip))
        return search(db, vectors=_vectors(row, by, True, clip), by=by, exclude=[clip], **query)
    return search(db, clip=clip, text=text, by=by, **query)


def why_nothing(db: Database, text: str | None, where: str | None, embodiment: str) -> str:
    """Why a search found nothing, as far as the table tells: and what to do: `: ...`; empty where it does not."""
    num_clips = db.count("clips")
    if where is not None and not db.count("clips", where):
        return f": --where {where!r} passes none of the {num_clips} clips"
    asked = narrowed(db, where, embodiment)
    if num_clips and not db.count("clips", asked):
        who, others = ("people", ROBOT) if embodiment == HUMAN else ("robots", HUMAN)
        passing = "that passes --where" if where is not None else "of the database"
        return f": no clip {passing} is of {who}; --embodiment {others} searches the others"
    with_words = " OR ".join(f"{column} IS NOT NULL" for column in TEXT_COLUMNS)
    if text is not None and not db.count("clips", both(asked, with_words)):
        number = f"{db.count('clips', asked)} clips{' that may be found' if asked else ''}"
        return f": none of the {number} has words (narration, verb, noun){ADD_WORDS}"
    if text is not None and embodiment != ALL and search(db, text=text, where=where, embodiment=ALL, k=1):
        others, word = ("robots", ROBOT) if embodiment == HUMAN else ("people", HUMAN)
        return f": clips of {others} have these words: --embodiment {word}"
    if text is not None:
        asking = " that may be found" if asked else ""
        return f": no clip{asking} has these words; `handloom status --db {db.uri} --clips` shows what is said of each"
    return ""


def extract(
    db: Database, video: str, start_s: float, end_s: float | None, source_options: dict[str, Any] | None = None
):
    """The row of a video that is in no clip list, made in this process with the settings of the database.

    Raises:
        ConfigError: it cannot be read or processed.
    """
    from handloom.video.decode.decoder import DecodeLimits, Decoder
    from handloom.video.fetch.source import VideoSource
    from handloom.workers.extraction.extract import Extractor

    stored = stored_settings(db)
    settings = Settings(**of_any_version(stored.settings)) if stored else Settings()
    query = Clip("query", "query", Path(video).stem, video, start_s, end_s)
    source = VideoSource(storage_options=source_options)
    decoder = Decoder(settings.video.sample_hz, settings.video.short_side_px, DecodeLimits(), source)
    try:
        items = decoder.stream([query])  # held: its end is the end of the decoding
        item = next(items)
        if isinstance(item, HandloomError):
            raise item
        return Extractor(settings, "query").row(item)
    except HandloomError as error:
        hint = QUERY_HINTS.get(error.reason, OTHER_HINT) if isinstance(error, ClipError) else error.hint
        raise ConfigError(f"--video {video}: {error.problem}", hint) from error
    finally:
        decoder.close()


def _vectors(row: dict[str, Any], by: str, mirror: bool, what: str) -> list[NDArray[np.float32]]:
    if f"embedding_{by}" not in row:
        known = ", ".join(sorted(n.removeprefix("embedding_") for n in row if n.startswith("embedding_")))
        raise ConfigError(f"--by {by!r} is no embedding", f"expected one of: {known}")
    vectors = [row[f"embedding_{by}"]]
    if mirror:
        vectors.append(_mirrored_motion(row))
    vectors = [vector for vector in vectors if vector is not None]
    if not vectors:
        raise ConfigError(
            f"{what} has no {by} embedding: no hand and no track is seen in two frames in a row", "try --by appearance"
        )
    return vectors


def _mirrored_motion(row: dict[str, Any]) -> NDArray[np.float32] | None:
    from handloom.models.embeddings.motion import encode_motion

    hands = Hands(*(row[f"hand_{n}"] for n in ("visible", "infilled", "confidence", "keypoints_px", "keypoints_cam_m")))
    tracks = Tracks(*(row[f"track_{n}"] for n in ("points_px", "visible", "query_frame", "kind")))
    times_s = row["frame_s"]
    size = (row["width"], row["height"], row["fps"], row["codec"], "", 0)
    info = VideoInfo(*size, float(times_s[0]), float(times_s[-1]), len(times_s))
    return encode_motion(hands, tracks, times_s, info, mirrored=True)

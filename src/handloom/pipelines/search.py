"""`handloom search`: clips like a text, a clip, a video, an image, a movement, or several of them; or that pass a
filter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handloom.api import Database
from handloom.retrieval.search import search
from handloom.schemas.tables.stage_columns import caption_columns
from handloom.store.embodiment import ALL, HUMAN, ROBOT, narrowed
from handloom.store.filters import both
from handloom.store.location import lance_errors
from handloom.store.search.index import TEXT_COLUMNS
from handloom.store.search.results import Hits, first_hits
from handloom.store.search.scope import open_scope
from handloom.store.stages.row_keys import StageKeys

if TYPE_CHECKING:
    from handloom.draw.hits import Shown

ADD_WORDS = (
    "; words come with `handloom ingest`, from clips.csv in the videos' folder or a dataset's annotations: write "
    "clips.csv (docs/datasets.md), and ingest the folder again"
)


def search_clips(db: Database, *, sheet: Path | None = None, **query: Any) -> Hits:
    """`handloom.retrieval.search.search`, for a text with the captions as `Hit.more`; and the hits as pictures.

    Args:
        sheet: a PNG to write. query: the other arguments of the search.

    Raises:
        ConfigError: an argument cannot be used, or a file cannot be read.
        StoreError: no clip has been processed yet, the clip is unknown, or the sheet cannot be written.
    """
    table = db.table("clips") if query.get("text") is not None else None
    captions = () if table is None else caption_columns(table.schema)
    hits = search(db, columns=captions, **query)
    if sheet is not None and hits:
        from handloom.draw.hits import write_hits  # OpenCV is not needed to search

        write_hits(db, hits, sheet, query.get("clip"), (query.get("from_s"), query.get("to_s")), _shown(db, query))
    return hits


def list_clips(
    db: Database,
    where: str,
    *,
    k: int = 10,
    embodiment: str = HUMAN,
    stage_keys: StageKeys = None,
    sheet: Path | None = None,
) -> Hits:
    """The first `k` clips that pass a filter, as they are stored, as hits without a score (NaN); `Hits.num_with` counts
    all that pass. Arguments, and errors, as of `search_clips`."""
    scope = open_scope(
        db, where=where, embodiment=embodiment, columns=(), exclude=(), version=None, stage_keys=stage_keys, compared=()
    )
    with lance_errors("list clips", db.location.table_uri("clips")):
        hits = first_hits(scope.table, scope.where, k)
    if not hits:
        scope.check_demand()
    if sheet is not None and hits:
        from handloom.draw.hits import write_hits

        write_hits(db, hits, sheet)
    return hits


def _shown(db: Database, query: Mapping[str, Any]) -> list[Shown]:
    """What was asked for, but for a stored clip, in words and pictures."""
    from handloom.draw.hits import FRAMES, Shown, span_text
    from handloom.retrieval.pictures import shown_image
    from handloom.retrieval.video import some_frames

    parts = []
    if (text := query.get("text")) is not None:
        parts.append(Shown(f'"{text}"'))
    if (video := query.get("video")) is not None:
        piece = (query.get("from_s"), query.get("to_s"))
        span = piece if piece != (None, None) else (query.get("start_s") or None, query.get("end_s"))
        frames = some_frames(db, video, span[0] or 0.0, span[1], query.get("source_options"), num=FRAMES)
        images = [(f"{time_s:.2f} s", image) for time_s, image in frames]
        parts.append(Shown(f"{video.rpartition('/')[2]}{span_text(span)}", images))
    if (image := query.get("image")) is not None:
        name = Path(image).name if isinstance(image, str | Path) else "an image"
        parts.append(Shown(name, [("", shown_image(db, image))]))
    if (trajectory := query.get("trajectory")) is not None:
        name = f" of {Path(trajectory).name}" if isinstance(trajectory, str | Path) else ""
        parts.append(Shown(f"the movement{name}"))
    return parts


def why_nothing(db: Database, text: str | None, where: str | None, embodiment: str, scoring: str = "") -> str:
    """Why a search found nothing, and what to do: `: ...`; empty if the table does not show why."""
    num_clips = db.count("clips")
    if where is not None and not db.count("clips", where):
        return f": --where {where!r} passes none of the {num_clips} clips"
    asked = narrowed(db, where, embodiment)
    who, others = ("people", ROBOT) if embodiment == HUMAN else ("robots", HUMAN)
    if num_clips and not db.count("clips", asked):
        passing = "that passes --where" if where is not None else "of the database"
        return f": no clip {passing} is of {who}; --embodiment {others} searches the others"
    columns = (*TEXT_COLUMNS, *caption_columns(db.existing_table("clips").schema))
    with_words = " OR ".join(f"{column} IS NOT NULL" for column in columns)
    if text is not None and not db.count("clips", both(asked, with_words)):
        passing = " that pass --where" if where is not None else f" of {who}" if asked else ""
        return f": none of the {db.count('clips', asked)} clips{passing} has words (narration, verb, noun){ADD_WORDS}"
    everyone: dict[str, Any] = {"where": where, "embodiment": ALL, "k": 1}
    if text is not None and embodiment != ALL and search(db, text=text, meaning=False, **everyone):
        others, word = ("robots", ROBOT) if embodiment == HUMAN else ("people", HUMAN)
        return f": clips of {others} have these words: --embodiment {word}"
    if text is not None:
        passing = " that passes --where" if where is not None else f" of {who}" if asked else ""
        return f": no clip{passing} has these words; `handloom status --db {db.uri} --clips` shows the words of each"
    if scoring == "moment":
        return ": in no clip that could match is anything seen to move for half as long as the movement lasts"
    return ""

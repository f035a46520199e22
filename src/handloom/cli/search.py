"""`index` and `search`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from handloom import text
from handloom.cli.console import DbOption, Embodiment, EmbodimentOption, JsonOption, WhereOption, app, open_db, say
from handloom.errors import ConfigError


class By(StrEnum):
    motion = "motion"
    appearance = "appearance"


@app.command()
def index(
    db: DbOption,
    compact: Annotated[
        bool, typer.Option("--compact", help="Merge small files first; old versions stay readable.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Build or update the vector, text and scalar indexes."""
    from handloom.store.search.index import build_indexes
    from handloom.store.search.index import compact as merge

    database = open_db(db)
    if compact:
        merge(database)
    report = build_indexes(database)
    if json_:
        print(json.dumps(asdict(report)))
        return
    print(text.index(report))


@app.command()
def search(
    db: DbOption,
    clip: Annotated[str | None, typer.Option(help="Id of a processed clip.")] = None,
    video: Annotated[str | None, typer.Option(help="Any video file or URI: processed in memory.")] = None,
    words: Annotated[str | None, typer.Option("--text", help="Words of narration, verb or noun.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of results.")] = 10,
    by: Annotated[By, typer.Option(help="Embedding to compare.")] = By.motion,
    where: WhereOption = None,
    embodiment: EmbodimentOption = Embodiment.human,
    mirror: Annotated[bool, typer.Option(help="Motion: the left/right mirror image counts as well.")] = False,
    start_s: Annotated[float, typer.Option(min=0, help="With --video: start of the part to use.")] = 0.0,
    end_s: Annotated[float | None, typer.Option(help="With --video: end of the part to use.")] = None,
    json_: JsonOption = False,
) -> None:
    """Similar clips, best first."""
    from handloom.pipelines.similar import search_clips, why_nothing
    from handloom.video.fetch.source import source_options_from

    given = [name for name, value in (("--clip", clip), ("--video", video), ("--text", words)) if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"search takes one of --clip, --video and --text, got {' and '.join(given) or 'none'}",
            "--clip ID: clips like this one; --video FILE: like any video; --text WORDS: by their words",
        )
    if video is None and (start_s or end_s is not None):
        raise ConfigError(f"--start-s and --end-s choose a part of --video, got {given[0]}", "leave them out")
    query = {"clip": clip, "video": video, "text": words, "by": by.value, "mirror": mirror}
    query |= {"start_s": start_s, "end_s": end_s, "k": k, "where": where, "embodiment": embodiment.value}
    database = open_db(db)
    hits = search_clips(database, source_options=source_options_from(os.environ), **query)
    if json_:
        found = [{name: value for name, value in asdict(hit).items() if name != "more"} for hit in hits]
        print(json.dumps({"version": hits.version, "exact": hits.exact, "hits": found}))
        return
    for hit in hits:
        print(text.hit(hit))
    if not hits:
        say(f"nothing found{why_nothing(database, words, where, embodiment.value)}")

"""`index`, `duplicates`, `search` and `serve`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from handloom.cli import text
from handloom.cli.console import (
    DbOption,
    Embodiment,
    EmbodimentOption,
    JsonOption,
    StageKeyOption,
    WhereOption,
    app,
    open_db,
    say,
    stage_keys_of,
)
from handloom.errors import ConfigError


@app.command()
def index(
    db: DbOption,
    compact: Annotated[
        bool, typer.Option("--compact", help="Merge small files first; old versions stay readable.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Build or update the vector, text and scalar indexes."""
    from handloom.pipelines.index import report_text, update_indexes

    report, dropped, found = update_indexes(open_db(db), compact=compact)
    more = {"versions_dropped": dropped, "duplicates": None if found is None else asdict(found)}
    print(json.dumps(asdict(report) | more) if json_ else report_text(report, dropped, found))


@app.command()
def duplicates(
    db: DbOption,
    min_look: Annotated[
        float | None, typer.Option(help="Smallest cosine of embedding_look of clips whose pictures are compared; kept.")
    ] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Smallest agreement of the pictures of two copies; kept for the next times.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Group near-duplicates: copies of a clip, and overlapping cuts of one video."""
    from handloom.pipelines.index import duplicates_text, find_duplicates, group_lines

    found = find_duplicates(open_db(db), look=min_look, agreement=min_agreement)
    print(json.dumps(asdict(found)) if json_ else "\n".join([duplicates_text(found), *group_lines(found)]))
    if min_look is not None or min_agreement is not None:
        say("these smallest values are kept: the next `duplicates` and `index` take them, too")


@app.command()
def search(
    db: DbOption,
    words: Annotated[str | None, typer.Option("--text", help="What is done: by words and by meaning.")] = None,
    clip: Annotated[str | None, typer.Option(help="Id of a processed clip; one: search once for each.")] = None,
    video: Annotated[str | None, typer.Option(help="Any video file or URI: processed in memory.")] = None,
    image: Annotated[str | None, typer.Option(help="An image file: compared by look.")] = None,
    trajectory: Annotated[
        str | None, typer.Option(help="Hand keypoints: .npz with keypoints and frame_s, or .npy with --hz.")
    ] = None,
    from_s: Annotated[
        float | None, typer.Option(help="With --clip or --video: find when others move as in this piece, from here.")
    ] = None,
    to_s: Annotated[float | None, typer.Option(help="End of the piece.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of results.")] = 10,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Embedding to compare: NAME or NAME=WEIGHT of any column embedding_NAME. Repeatable."),
    ] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Add weighted scores in place of ranks.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Text by its words alone.")] = False,
    where: WhereOption = None,
    stage_key: StageKeyOption = None,
    embodiment: EmbodimentOption = Embodiment.human,
    mirror: Annotated[bool, typer.Option(help="Motion: the left/right mirror image counts as well.")] = False,
    no_duplicates: Annotated[
        bool, typer.Option("--no-duplicates", help="Of near-duplicates the best one alone.")
    ] = False,
    start_s: Annotated[float, typer.Option(min=0, help="With --video: start of the part to use.")] = 0.0,
    end_s: Annotated[float | None, typer.Option(help="With --video: end of the part to use.")] = None,
    hz: Annotated[float | None, typer.Option(help="With --trajectory: frames per second of an .npy file.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write the results as pictures into this PNG.")] = None,
    json_: JsonOption = False,
) -> None:
    """Similar clips, best first; with --where alone, the clips that pass."""
    from handloom.io.remote import source_options_from
    from handloom.pipelines.search import list_clips, search_clips, why_nothing

    given = {"--text": words, "--clip": clip, "--video": video, "--image": image, "--trajectory": trajectory}
    listing = all(value is None for value in given.values())
    of_queries: dict[str, Any] = {"--by": by, "--weights": weights, "--exact": exact, "--mirror": mirror}
    of_queries |= {"--from-s": from_s, "--to-s": to_s, "--start-s": start_s or None, "--end-s": end_s, "--hz": hz}
    of_queries |= {"--no-duplicates": no_duplicates}
    asked = [name for name, value in of_queries.items() if value is not None and value is not False]
    if listing and (where is None or asked):
        raise ConfigError(
            f"search{' with ' if asked else ''}{', '.join(asked)} takes one or more of {', '.join(given)}, got none",
            "--clip ID: clips like this one; --video FILE: like any video; --text WORDS: about this; --where SQL alone "
            "lists the clips that pass",
        )
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ConfigError(f"--sheet {str(sheet)!r} is no .png file", "name a file that ends in .png")
    query: dict[str, Any] = {"text": words, "clip": clip, "video": video, "image": image, "trajectory": trajectory}
    query |= {"from_s": from_s, "to_s": to_s, "by": by, "weights": weights, "meaning": not exact, "mirror": mirror}
    query |= {"start_s": start_s, "end_s": end_s, "hz": hz, "k": k, "where": where, "embodiment": embodiment.value}
    query |= {"stage_keys": stage_keys_of(stage_key), "duplicates": not no_duplicates}
    database = open_db(db)
    if listing and where is not None:
        kept = {name: query[name] for name in ("k", "embodiment", "stage_keys")}
        hits = list_clips(database, where, sheet=sheet, **kept)
    else:
        hits = search_clips(database, sheet=sheet, source_options=source_options_from(os.environ), **query)
    if json_:
        print(json.dumps(text.hits_json(hits)))
        return
    if not hits:
        say(f"nothing found{why_nothing(database, words, where, embodiment.value, hits.scoring)}")
    for note in text.search_notes(hits, by):
        say(note)
    for hit in hits:
        print(text.hit(hit))
    if hits and sheet is not None:
        say(f"wrote {sheet}")


@app.command()
def serve(
    db: DbOption,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own loopback asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8770,
    judge: Annotated[bool, typer.Option("--judge", help="Clips may be judged, and rejects tried again.")] = False,
    reports: Annotated[
        list[Path] | None,
        typer.Option(help="Folder whose reports of `handloom train` are shown, too; repeatable."),
    ] = None,
) -> None:
    """Show the database in a browser: search, watch and judge clips."""
    from handloom.io.remote import source_options_from
    from handloom.web.serving import serve as pipeline

    def tell(address: str) -> None:
        say("the gallery is served until Ctrl-C; open in a browser:")
        print(address, flush=True)

    options = source_options_from(os.environ)
    pipeline(open_db(db), host, port, judging=judge, source_options=options, reports=reports or (), tell=tell)

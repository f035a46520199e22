"""`handloom remove`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated, Any

import typer

from handloom.cli import text
from handloom.cli.console import DbOption, JsonOption, app, open_db, say


@app.command()
def remove(
    db: DbOption,
    where: Annotated[
        str | None,
        typer.Option(help="Clips that pass this SQL filter on columns of the clip list, of clips or of rejects."),
    ] = None,
    clip: Annotated[list[str] | None, typer.Option(help="The clip of this id; may be repeated.")] = None,
    video: Annotated[list[str] | None, typer.Option(help="All clips of the video of this id; may be repeated.")] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Clips without a row whose video is missing.")] = False,
    rows_only: Annotated[
        bool, typer.Option("--rows-only", help="Keep them in the list: the next run makes their rows anew.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    json_: JsonOption = False,
) -> None:
    """Remove clips from the clip list, with their rows and rejects."""
    from handloom.io.remote import source_options_from
    from handloom.pipelines.remove import remove as pipeline

    options: dict[str, Any] = {"clips": clip or (), "videos": video or (), "missing": missing, "rows_only": rows_only}
    source = source_options_from(os.environ)
    summary = pipeline(open_db(db), where=where, dry_run=dry_run, source_options=source, **options)
    for line in text.remove_notes(summary):
        say(line)
    print(json.dumps(asdict(summary)) if json_ else text.remove(summary))

"""`handloom calibrate`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from handloom.cli import text
from handloom.cli.console import DbOption, JsonOption, app, open_db


class By(StrEnum):
    video = "video"
    participant = "participant"
    device = "device"
    all = "all"


@app.command()
def calibrate(
    db: DbOption,
    by: Annotated[
        By, typer.Option(help="Clips that share a lens: of one video, participant, camera model, or all.")
    ] = By.video,
    where: Annotated[
        str | None, typer.Option(help="Only clips of the list that pass this SQL filter: \"dataset = 'mine'\".")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what was found, and write nothing.")] = False,
    json_: JsonOption = False,
) -> None:
    """Combine the measurements that clips have of one lens and one person's hands."""
    from handloom.io.remote import source_options_from
    from handloom.pipelines.calibrate.calibrate import calibrate as pipeline

    source = source_options_from(os.environ)
    summary = pipeline(open_db(db), by=by.value, where=where, dry_run=dry_run, source_options=source)
    print(json.dumps(asdict(summary)) if json_ else text.calibrate(summary, db))

"""`handloom export`: the rows in other formats."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from handloom.cli.console import DbOption, JsonOption, WhereOption, app, counting, open_db

export_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write the rows in other formats.")
app.add_typer(export_app, name="export")

OutDirOption = Annotated[str, typer.Option("--out", help="Folder or URI to write into.")]
OverwriteOption = Annotated[bool, typer.Option(help="Replace an earlier export in the same place.")]


@export_app.command("parquet")
def export_parquet(
    db: DbOption,
    out: OutDirOption,
    where: WhereOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Parquet shards with the table's own schema."""
    _export("parquet", db, out, where, overwrite, json_)


@export_app.command("arrow")
def export_arrow(
    db: DbOption,
    out: OutDirOption,
    where: WhereOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Arrow IPC shards with the table's own schema, to be memory-mapped."""
    _export("arrow", db, out, where, overwrite, json_)


def _export(form: str, db: str, out: str, where: str | None, overwrite: bool, json_: bool) -> None:
    from handloom.pipelines.export import export

    with counting("rows") as progress:
        count = {"progress": lambda rows, _: progress(rows, None)}
        shards = export(open_db(db), form, out, where, overwrite=overwrite, **count)
    if json_:
        print(json.dumps([asdict(shard) for shard in shards]))
        return
    for shard in shards:
        print(f"{shard.path}  {shard.num_rows} rows  {shard.num_bytes} bytes")

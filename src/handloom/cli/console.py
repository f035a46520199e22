"""What the commands share: their app, options, exit codes, and how they speak."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer
from typer.core import TyperGroup

# As one meets them: from clips to a table, from the table to others. Commands that are not named here come last.
ORDER = (
    *("demo", "synth", "ingest", "run", "calibrate", "status", "index", "search", "show", "remove"),
    *("export", "train", "presets", "bench", "doctor"),
)


class InOrder(TyperGroup):
    """Lists commands in `ORDER`, wherever they are written."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Human video in, robot training data out: hands, point tracks and embeddings in one searchable table.",
)

UsageError = typer.BadParameter.__base__  # typer carries click inside or beside it, by its version
DONE, FAILED, USAGE, SOME_REJECTED = 0, 1, 2, 3

DbOption = Annotated[str, typer.Option("--db", help="The database: a folder or an s3:// URI.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Embodiment(StrEnum):
    human = "human"
    robot = "robot"
    all = "all"


EmbodimentOption = Annotated[Embodiment, typer.Option(help="Whose clips: people's, robots', or all.")]
WhereOption = Annotated[
    str | None, typer.Option(help="SQL filter on columns of clips: 'hand_left AND duration_s < 4'.")
]


def open_db(uri: str, create: bool = False):
    """With `create` it may not be there yet: its first write makes it."""
    from handloom.api import Database
    from handloom.store.location import storage_options_from

    options = storage_options_from(os.environ) if "://" in uri else None
    return Database.open_or_new(uri, options) if create else Database.open(uri, options)


def counting(unit: str):
    from handloom.counting import Counting

    return Counting(unit)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

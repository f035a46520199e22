"""`handloom train`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from handloom.cli.console import DONE, FAILED, DbOption, JsonOption, app, counting, open_db, say


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="arm4r, arvrm, robomirror, vlmimic, or package.module:ATTRIBUTE for one of your own.")
    ],
    db: DbOption,
    out: Annotated[str, typer.Option(help="Folder or s3:// URI for checkpoints, curves and the report.")],
    size: Annotated[str | None, typer.Option(help="Settings file of the recipe: small (default), full, ...")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings, laid over the size's.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting: lr=0.0003; may be repeated.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Data-parallel workers; 1 by default.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Cluster to join; a local Ray by default.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint in --out, or delete that job.")] = True,
    show_settings: Annotated[bool, typer.Option(help="Print the settings as JSON and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Train a recipe on the table, and report its held-out numbers."""
    if recipe == "vlmimic":  # no network: skills are learned without torch and Ray, and run on a robot
        _train_skills(db, out, size, config, set_ or [], workers, ray_address, resume, show_settings, quiet, json_)
        return
    from handloom.pipelines.train.settings import load_train_config
    from handloom.train.registry import find_recipe

    found = find_recipe(recipe)
    settings = load_train_config(found, size, config, set_ or [], workers)
    if show_settings:
        print(json.dumps(settings.shown(), indent=2))
        return
    from handloom.io.folder import Folder
    from handloom.pipelines.train.train import train as pipeline
    from handloom.pipelines.train.train import train_text
    from handloom.store.location import storage_options_from

    folder = Folder.parse(out, storage_options_from(os.environ))  # for `init` on S3, too
    options: dict[str, Any] = {"ray_address": ray_address, "resume": resume, "quiet": quiet}
    summary = pipeline(open_db(db), found, recipe, settings, folder, **options)
    print(json.dumps(asdict(summary)) if json_ else train_text(summary))
    raise typer.Exit(DONE if summary.exit == "done" else FAILED)


def _train_skills(
    db: str, out: str, size: str | None, config: Path | None, assignments: list[str], workers: int | None,
    ray_address: str | None, resume: bool, show_settings: bool, quiet: bool, json_: bool,
) -> None:  # fmt: skip
    """`train vlmimic`."""
    from handloom.pipelines.skills.training.settings import load_config

    settings = load_config(size, config, assignments, workers)
    if show_settings:
        print(json.dumps(settings.shown(), indent=2))
        return
    from handloom.pipelines.skills.training.train import train_skills, train_text

    database = open_db(db)
    with counting("episodes") as progress:
        tell, progress_or_none = (None, None) if quiet else (say, progress)
        how: dict[str, Any] = {"ray_address": ray_address, "resume": resume, "told": tell, "progress": progress_or_none}
        summary = train_skills(database, settings, Path(out), **how)
    print(json.dumps(asdict(summary)) if json_ else train_text(summary))
    raise typer.Exit(DONE if summary.exit == "done" else FAILED)

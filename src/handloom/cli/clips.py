"""The main job: `run`, `status`, `show`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from handloom import text
from handloom.cli.console import DONE, FAILED, SOME_REJECTED, DbOption, JsonOption, app, open_db
from handloom.errors import ConfigError


@app.command()
def run(
    db: DbOption,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting: video.sample_hz=10; may be repeated.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Cluster to join; a local Ray by default.")
    ] = None,
    retry_rejects: Annotated[bool, typer.Option("--retry-rejects", help="Try rejected clips again.")] = False,
    reason: Annotated[list[str] | None, typer.Option(help="With --retry-rejects: only rejects of this reason.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Process at most this many clips.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only clips of the list that pass this SQL filter: \"split = 'train'\".")
    ] = None,
    show_settings: Annotated[bool, typer.Option(help="Print the settings as JSON and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Process every clip that has no row yet."""
    from difflib import get_close_matches

    from handloom.pipelines.configure import load_config
    from handloom.pipelines.run.run import run as pipeline
    from handloom.pipelines.run.run import stored_config
    from handloom.schemas.tables.reject import REASONS
    from handloom.video.fetch.source import source_options_from

    if reason and not retry_rejects:
        raise ConfigError(
            f"--reason {reason[0]} without --retry-rejects", "give both: --reason says which rejects are tried"
        )
    unknown = [word for word in reason or () if word not in REASONS]
    if unknown:
        near = get_close_matches(unknown[0], REASONS, 3)
        listed = f"did you mean {', '.join(near)}?" if near else f"one of {', '.join(REASONS)}"
        raise ConfigError(f"--reason {unknown[0]!r} is no reason of a reject", listed)
    settings = load_config(config, set_ or []) if config or set_ else None
    database = open_db(db)
    if show_settings:
        print((settings or stored_config(database)).model_dump_json(indent=2))
        return
    retry = (reason or ["all"]) if retry_rejects else []
    options = {"ray_address": ray_address, "retry_rejects": retry, "limit": limit, "where": where, "quiet": quiet}
    summary = pipeline(database, settings, source_options=source_options_from(os.environ), **options)
    print(json.dumps(asdict(summary)) if json_ else text.run(summary, db))
    if summary.exit == "interrupted":
        raise typer.Exit(FAILED)
    raise typer.Exit(SOME_REJECTED if summary.num_rejects else DONE)


@app.command()
def status(
    db: DbOption,
    clips: Annotated[bool, typer.Option("--clips", help="Instead: every clip's id, and whether it has a row.")] = False,
    json_: JsonOption = False,
) -> None:
    """Counts, rejects by stage and reason, throughput of the last run."""
    if clips:
        from handloom.pipelines.clip_states import clip_states

        states = clip_states(open_db(db))
        print(json.dumps([asdict(one) for one in states]) if json_ else "\n".join(map(text.clip_state, states)))
        return
    from handloom.pipelines.status import status as pipeline
    from handloom.pipelines.status import status_text

    values = pipeline(open_db(db))
    print(json.dumps(values, indent=2) if json_ else status_text(values))


@app.command()
def show(
    clip: Annotated[str, typer.Argument(help="Id of a processed clip.")],
    db: DbOption,
    out: Annotated[Path, typer.Option(help="File to write: .mp4 (video), .png (contact sheet) or .rrd (Rerun).")],
) -> None:
    """Draw hands, tracks and scores over the video."""
    from handloom.pipelines.show import show as pipeline
    from handloom.video.fetch.source import source_options_from

    pipeline(open_db(db), clip, out, source_options_from(os.environ))
    print(out)

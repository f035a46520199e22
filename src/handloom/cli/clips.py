"""`run`, `status`, `stages`, `show` and `judgements`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer

from handloom.cli import text
from handloom.cli.console import (
    DONE,
    FAILED,
    SOME_REJECTED,
    Counting,
    DbOption,
    JsonOption,
    OneValue,
    app,
    open_db,
    say,
)
from handloom.errors import ConfigError


class _Run(OneValue):
    """`--recompute` without stages means all: typer has no options whose value may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        full: list[str] = []
        for arg, following in zip_longest(args, args[1:]):
            full.append(arg)
            if arg == "--recompute" and (following is None or following.startswith("-")):
                full.append("all")
        return super().parse_args(ctx, full)


@app.command(cls=_Run)
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
    stages: Annotated[
        str | None, typer.Option(help="Of clips that have a row, compute only these stages: siglip2,gripper.")
    ] = None,
    recompute: Annotated[
        str | None,
        typer.Option(
            metavar="[STAGES]",
            help="Compute stages again whose settings, versions or inputs have changed, and what depends on them: all, "
            "or these, with commas. none: rows stay as they are, new clips are processed.",
        ),
    ] = None,
    verify: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Instead: compute this share of the rows again (0.01), and compare."),
    ] = None,
    show_settings: Annotated[bool, typer.Option(help="Print the settings as JSON and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Process every clip that has no row yet, and compute the stages that rows lack."""
    from difflib import get_close_matches

    from handloom.io.remote import source_options_from
    from handloom.pipelines.configure import load_config
    from handloom.pipelines.run.run import run as pipeline
    from handloom.pipelines.run.run import stored_config
    from handloom.schemas.tables.reject import REASONS
    from handloom.store.runs.runs import settings_to_go_on, stored_settings

    if reason and not retry_rejects:
        raise ConfigError(
            f"--reason {reason[0]} without --retry-rejects", "give both: --reason selects the rejects that are tried"
        )
    unknown = [word for word in reason or () if word not in REASONS]
    if unknown:
        near = get_close_matches(unknown[0], REASONS, 3)
        listed = f"did you mean {', '.join(near)}?" if near else f"one of {', '.join(REASONS)}"
        raise ConfigError(f"--reason {unknown[0]!r} is not a reason of rejects", listed)
    database = open_db(db)
    stored = stored_settings(database) if config else settings_to_go_on(database)
    settings = load_config(config, set_ or [], stored.settings if stored else None) if config or set_ else None
    if show_settings:
        print((settings or stored_config(database)).model_dump_json(indent=2))
        return
    if verify is not None:
        asked = (retry_rejects, limit is not None, stages is not None, recompute is not None)
        _verify(database, settings or stored_config(database), verify, where, any(asked), json_)
        return
    retry = (reason or ["all"]) if retry_rejects else []
    options: dict[str, Any] = {
        "ray_address": ray_address,
        "retry_rejects": retry,
        "limit": limit,
        "where": where,
        "quiet": quiet,
        "stages": None if stages is None else _listed(stages),
        "recompute": None if recompute is None else _listed(recompute),
    }
    summary = pipeline(database, settings, source_options=source_options_from(os.environ), **options)
    print(json.dumps(asdict(summary)) if json_ else text.run(summary, db))
    if summary.exit == "interrupted":
        raise typer.Exit(FAILED)
    raise typer.Exit(SOME_REJECTED if summary.exit == "rejects" else DONE)


def _verify(database, config, share: float, where: str | None, asks_more: bool, json_: bool) -> None:
    """`run --verify`: exits with 1 if a stage's output has changed."""
    from handloom.io.remote import source_options_from
    from handloom.pipelines.verify import verified_text, verify

    if not 0 < share <= 1:
        raise ConfigError(f"--verify {share:g}", "expected a share of the rows, above 0 and at most 1: 0.01")
    if asks_more:
        raise ConfigError(
            "--verify computes nothing that is stored", "it goes with --where, --config, --set and --json alone"
        )
    with Counting("rows") as on_clip:
        options = source_options_from(os.environ)
        found = verify(database, config, share, where=where, source_options=options, on_clip=on_clip)
    print(json.dumps(asdict(found)) if json_ else verified_text(found, database.uri))
    if found.changed:
        raise typer.Exit(FAILED)


def _listed(text: str) -> list[str]:
    """`a,b` as a list; without a name, an error of the stages' names follows."""
    return [name.strip() for name in text.split(",")]


@app.command()
def status(
    db: DbOption,
    clips: Annotated[bool, typer.Option("--clips", help="Instead: every clip's id, and whether it has a row.")] = False,
    json_: JsonOption = False,
) -> None:
    """Counts, rejects by stage and reason, throughput of the last run."""
    if clips:
        from handloom.pipelines.status.status import clip_states

        states = clip_states(open_db(db))
        print(json.dumps([asdict(one) for one in states]) if json_ else "\n".join(map(text.clip_state, states)))
        return
    from handloom.pipelines.status.status import status as pipeline
    from handloom.pipelines.status.status import status_text

    values = pipeline(open_db(db))
    print(json.dumps(values, indent=2) if json_ else status_text(values))


@app.command()
def stages(
    db: DbOption,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; those of the database by default.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting: video.sample_hz=10; may be repeated.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """The stages of a row: keys, rows that are current, outdated or missing, seconds and bytes."""
    from handloom.pipelines.configure import load_config
    from handloom.pipelines.stages import stage_states, stage_states_text
    from handloom.store.runs.runs import settings_to_go_on, stored_settings

    database = open_db(db)
    stored = stored_settings(database) if config else settings_to_go_on(database)
    settings = load_config(config, set_ or [], stored.settings if stored else None) if config or set_ else None
    states = stage_states(database, settings)
    given = "".join(f" --config {path}" for path in [config] if path) + "".join(f" --set {one}" for one in set_ or ())
    print(json.dumps(states.to_dict(), indent=2) if json_ else stage_states_text(states, given))


@app.command()
def show(
    clip: Annotated[str, typer.Argument(help="Id of a processed clip.")],
    db: DbOption,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .mp4 (video), .png (contact sheet) or .rrd (Rerun).")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Draw hands, tracks and scores over the video; without --out, list the clip's segments."""
    from handloom.draw.segments.listed import segments_dict, segments_table
    from handloom.io.remote import source_options_from
    from handloom.pipelines.show import show as pipeline
    from handloom.schemas.tables.row import row_arrays

    database = open_db(db)
    if out is not None:
        pipeline(database, clip, out, source_options_from(os.environ))
        if not json_:
            print(out)
            return
    row = row_arrays(database.row(clip))
    told = segments_dict(row) | {"out": None if out is None else str(out)}
    print(json.dumps(told, indent=2) if json_ else segments_table(row))


@app.command()
def judgements(
    db: DbOption,
    where: Annotated[
        str | None, typer.Option(help="SQL filter on columns of judgements: \"verdict = 'bad' AND who = 'ana'\".")
    ] = None,
    add: Annotated[
        Path | None, typer.Option(help="First add those of a CSV file that are later than the table's.")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="With --add: leave out clips that have no row here.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write them into this CSV file.")] = None,
    json_: JsonOption = False,
) -> None:
    """What people think of clips: good or bad, and why."""
    from handloom.pipelines.judgements import added_text, as_json, judgements_text, read_csv, write_csv

    database = open_db(db)
    if add is not None:
        say(added_text(read_csv(database, add, skip_missing)))
    rows = database.judgements(where)
    if csv is not None:
        write_csv(rows, csv)
        say(f"wrote {csv}")
    if json_:
        print(json.dumps(as_json(rows)))
    elif rows.num_rows and csv is None:
        print(judgements_text(rows))
    elif not rows.num_rows:
        say(
            "no judgement"
            + (f" passes --where {where!r}" if where else " yet; make some with `handloom serve --judge`")
        )

"""`bench`, `doctor` and `presets`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from handloom.cli import text
from handloom.cli.console import FAILED, INTERRUPTED, JsonOption, app, say
from handloom.errors import ConfigError


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="extract, accuracy, feed, commit, search, stages, look, segments, skills, sim, loop, arm4r, arvrm, "
            "vlmimic, retrieval, robomirror, command, serve or wearer"
        ),
    ],
    videos: Annotated[
        Path | None, typer.Option(help="extract, feed, wearer: videos. accuracy: clips as EgoDex's, HOT3D's, ARCTIC's.")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=0, help="accuracy, feed, segments, wearer: rendered clips. serve: rows.")
    ] = None,
    db: Annotated[
        str | None, typer.Option(help="feed, segments, loop, arm4r, arvrm, robomirror, command: a database to measure.")
    ] = None,
    stills: Annotated[
        Path | None, typer.Option(help="accuracy: images, and videos of still cameras, for a virtual camera.")
    ] = None,
    footage: Annotated[
        Path | None, typer.Option(help="accuracy: videos without truth, a folder or a database made of them.")
    ] = None,
    held: Annotated[
        Path | None, typer.Option(help="accuracy: a file with the names of footage that nothing was tuned on.")
    ] = None,
    sheets: Annotated[
        Path | None, typer.Option(help="accuracy: folder that gets a contact sheet of each clip.")
    ] = None,
    backwards: Annotated[
        bool, typer.Option("--backwards", help="accuracy: follow the tracks of footage from its end as well.")
    ] = False,
    lerobot_python: Annotated[
        str | None,
        typer.Option(envvar="HANDLOOM_LEROBOT_PYTHON", help="feed: a Python with lerobot, measured as well."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="retrieval, loop, arm4r, arvrm, robomirror, command, serve, vlmimic: folder that keeps clips, or "
            "finished parts, for the next time."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="loop, arm4r: what training begins with. arvrm: its parts. Repeatable; by default all."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure less: under two minutes on two cores.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="extract, accuracy: print tables instead of JSON.")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Folder that keeps NAME.json: benchmarks/results.")] = None,
) -> None:
    """Measure; prints one JSON object with hardware, versions and goals."""
    from handloom.bench.catalogue import TABLES, run_benchmark, table

    if markdown and name not in TABLES:
        raise ConfigError(f"there is no table of benchmark {name!r}", f"--markdown is for {' and '.join(TABLES)}")
    package = lerobot_python if name == "feed" else None
    more: dict[str, Any] = {
        "footage": footage,
        "held": held,
        "sheets": sheets,
        "stills": stills,
        "backwards": backwards,
        "data": data,
        "variants": variant,
    }
    report = run_benchmark(name, videos, save, say, num_clips=clips, db=db, lerobot_python=package, quick=quick, **more)
    print(table(report) if markdown else json.dumps(report, indent=2))
    if report["interrupted"]:
        raise typer.Exit(INTERRUPTED)


@app.command()
def presets(json_: JsonOption = False) -> None:
    """Lenses that `ingest --camera-preset` takes by name, and where their numbers are from."""
    from handloom.schemas.camera_presets import PRESETS

    found = list(PRESETS.values())
    print(json.dumps([asdict(one) for one in found], indent=2) if json_ else text.presets(found))


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """What this machine has, what is missing, how to get it."""
    from handloom.pipelines.doctor import examine, is_bad

    findings = examine()
    if json_:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    for finding in [] if json_ else findings:
        print(text.finding(finding))
    if is_bad(findings):
        raise typer.Exit(FAILED)

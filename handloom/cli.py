"""The command line: parse, call one pipeline, print, exit.

stdout is data, stderr is progress and messages. Exit codes: 0 done; 1 failed; 2 usage or settings; 3 finished, some
clips rejected. Pipelines are imported inside the commands, so that `handloom --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from handloom import __version__, text
from handloom.errors import ConfigError, HandloomError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Human video in, robot training data out: hands, point tracks and embeddings in one searchable table.",
)
ingest_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Add clips to the clip list.")
export_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write the rows in other formats.")
app.add_typer(ingest_app, name="ingest")
app.add_typer(export_app, name="export")

DONE, FAILED, USAGE, SOME_REJECTED = 0, 1, 2, 3

DbOption = Annotated[str, typer.Option("--db", help="The database: a folder or an s3:// URI.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DatasetOption = Annotated[str | None, typer.Option(help="Name of the dataset, the first part of every clip id.")]
OnlyPresentOption = Annotated[bool, typer.Option(help="Leave out clips whose video is missing.")]
OutDirOption = Annotated[str, typer.Option("--out", help="Folder or URI to write into.")]
WhereOption = Annotated[
    str | None, typer.Option(help="SQL filter on columns of clips: 'hand_left AND duration_s < 4'.")
]
OverwriteOption = Annotated[bool, typer.Option(help="Replace an earlier export in the same place.")]


class By(StrEnum):
    motion = "motion"
    appearance = "appearance"


class View(StrEnum):
    ego = "ego"
    exo = "exo"


class Window(StrEnum):
    fixed = "fixed"
    contextual = "contextual"


def main() -> None:
    """Entry point: errors of ours become one message and an exit code; bugs keep their trace."""
    os.environ.setdefault("LANCE_LOG", "error")  # Lance's own progress would mix with ours
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        app()
    except HandloomError as error:
        _say(f"error: {error}")
        sys.exit(USAGE if isinstance(error, ConfigError) else FAILED)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "handloom":
            raise
        _say(f"error: this command needs the package {error.name}, which is not installed")
        _say("hint: pip install 'handloom[extract]'; `handloom doctor` shows what else is missing")
        sys.exit(FAILED)
    except BrokenPipeError:  # the reader of our output has gone: `handloom search ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every commit and shard.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    from handloom import logs

    logs.setup(verbose)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for videos, database and pictures.")] = Path("handloom-demo"),
    clips: Annotated[int, typer.Option(min=2, help="Clips to render.")] = 6,
) -> None:
    """Render clips, run everything below on them, and say where to look."""
    from handloom.pipelines.demo import demo as pipeline

    print(pipeline(out, clips, say=_say))


@ingest_app.command("folder")
def ingest_folder(
    directory: Annotated[str, typer.Argument(help="Folder or URI with videos, searched to any depth.")],
    db: DbOption,
    dataset: DatasetOption = None,
    clip_seconds: Annotated[
        float | None, typer.Option(help="Cut long videos every so many seconds; 0 keeps them whole.")
    ] = 10.0,
    view: Annotated[
        View | None, typer.Option(help="ego: filmed from the person's own head or chest; exo: from outside.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the videos, kept with every clip.")] = None,
    json_: JsonOption = False,
) -> None:
    """Add every video file below a folder; long videos are cut."""
    from handloom.pipelines import ingest

    options = {"clip_seconds": clip_seconds or None, "view": view, "licence": licence, "dataset": dataset or "folder"}
    with _progress("files") as progress:
        summary = ingest.folder(_open(db, create=True), directory, **options, **_ingest_io(progress))
    _print_ingest(summary, json_)


@ingest_app.command("epic")
def ingest_epic(
    annotations: Annotated[list[str], typer.Option(help="EPIC_100_*.csv; may be given several times.")],
    videos: Annotated[str, typer.Option(help="Folder or URI of the videos: the official layout or flat.")],
    db: DbOption,
    dataset: DatasetOption = None,
    split: Annotated[str | None, typer.Option(help="Split of all rows; by default from the file name.")] = None,
    participant: Annotated[list[str] | None, typer.Option(help="Only this participant (P01); may be repeated.")] = None,
    only_present: OnlyPresentOption = False,
    json_: JsonOption = False,
) -> None:
    """Add the action clips of EPIC-KITCHENS-100 annotations."""
    from handloom.pipelines import ingest

    options = {"dataset": dataset or "epic", "split": split, "participants": participant, "only_present": only_present}
    with _progress("rows") as progress:
        summary = ingest.epic(_open(db, create=True), annotations, videos, **options, **_ingest_io(progress))
    _print_ingest(summary, json_)


@ingest_app.command("ego4d")
def ingest_ego4d(
    manifest: Annotated[str, typer.Option(help="ego4d.json")],
    videos: Annotated[str, typer.Option(help="Folder or URI of the videos: the official layout or flat.")],
    db: DbOption,
    narrations: Annotated[str | None, typer.Option(help="narration.json: one clip per narration.")] = None,
    fho: Annotated[str | None, typer.Option(help="fho_main.json: one clip per action.")] = None,
    dataset: DatasetOption = None,
    window: Annotated[
        Window, typer.Option(help="Clip around a narration: fixed, or contextual (EgoVLP).")
    ] = Window.fixed,
    before_s: Annotated[float, typer.Option(min=0, help="Seconds before a narration (fixed window).")] = 1.0,
    after_s: Annotated[float, typer.Option(min=0, help="Seconds after a narration (fixed window).")] = 2.0,
    others: Annotated[bool, typer.Option(help="Keep what other people than the wearer do (#O).")] = True,
    clip_seconds: Annotated[float, typer.Option(help="Length of pieces where neither file is given; 0: whole.")] = 10.0,
    only_present: OnlyPresentOption = False,
    json_: JsonOption = False,
) -> None:
    """Add clips of Ego4D: narrations, hand-object actions, or whole videos in pieces."""
    from handloom.pipelines import ingest

    options = {"dataset": dataset or "ego4d", "narrations": narrations, "fho": fho, "only_present": only_present}
    options |= {"clip_seconds": clip_seconds or None, "window": window.value, "before_s": before_s, "after_s": after_s}
    with _progress("entries") as progress:
        database = _open(db, create=True)
        summary = ingest.ego4d(database, manifest, videos, others=others, **options, **_ingest_io(progress))
    _print_ingest(summary, json_)


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
    show_settings: Annotated[bool, typer.Option(help="Print the settings as JSON and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json_: JsonOption = False,
) -> None:
    """Process every clip that has no row yet."""
    from handloom.pipelines.configure import load_config
    from handloom.pipelines.run import run as pipeline
    from handloom.pipelines.run import stored_config
    from handloom.video.source import source_options_from

    settings = load_config(config, set_ or []) if config or set_ else None
    database = _open(db)
    if show_settings:
        print((settings or stored_config(database)).model_dump_json(indent=2))
        return
    retry = (reason or ["all"]) if retry_rejects else []
    options = {"ray_address": ray_address, "retry_rejects": retry, "limit": limit, "quiet": quiet}
    summary = pipeline(database, settings, source_options=source_options_from(os.environ), **options)
    print(json.dumps(asdict(summary)) if json_ else text.run(summary, db))
    if summary.exit == "interrupted":
        raise typer.Exit(FAILED)
    raise typer.Exit(SOME_REJECTED if summary.num_rejects else DONE)


@app.command()
def status(db: DbOption, json_: JsonOption = False) -> None:
    """Counts, rejects by stage and reason, throughput of the last run."""
    from handloom.pipelines.status import status as pipeline
    from handloom.pipelines.status import status_text

    values = pipeline(_open(db))
    print(json.dumps(values, indent=2) if json_ else status_text(values))


@app.command()
def index(
    db: DbOption,
    compact: Annotated[
        bool, typer.Option("--compact", help="Merge small files first; old versions stay readable.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Build or update the vector, text and scalar indexes."""
    from handloom.store.index import build_indexes
    from handloom.store.index import compact as merge

    database = _open(db)
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
    mirror: Annotated[bool, typer.Option(help="Motion: the left/right mirror image counts as well.")] = False,
    start_s: Annotated[float, typer.Option(min=0, help="With --video: start of the part to use.")] = 0.0,
    end_s: Annotated[float | None, typer.Option(help="With --video: end of the part to use.")] = None,
    json_: JsonOption = False,
) -> None:
    """Similar clips, best first."""
    from handloom.pipelines.similar import search_clips
    from handloom.video.source import source_options_from

    given = [name for name, value in (("--clip", clip), ("--video", video), ("--text", words)) if value is not None]
    if len(given) != 1:
        raise ConfigError(f"search takes one of --clip, --video and --text, got {', '.join(given) or 'none'}")
    query = {"clip": clip, "video": video, "text": words, "by": by.value, "mirror": mirror}
    query |= {"start_s": start_s, "end_s": end_s, "k": k, "where": where}
    hits = search_clips(_open(db), source_options=source_options_from(os.environ), **query)
    if json_:
        found = [{name: value for name, value in asdict(hit).items() if name != "more"} for hit in hits]
        print(json.dumps({"version": hits.version, "exact": hits.exact, "hits": found}))
        return
    for hit in hits:
        print(text.hit(hit))
    if not hits:
        _say("nothing found")


@app.command()
def show(
    clip: Annotated[str, typer.Argument(help="Id of a processed clip.")],
    db: DbOption,
    out: Annotated[Path, typer.Option(help="File to write: .mp4 (video) or .png (contact sheet).")],
) -> None:
    """Draw hands, tracks and scores over the video."""
    from handloom.pipelines.show import show as pipeline
    from handloom.video.source import source_options_from

    pipeline(_open(db), clip, out, source_options_from(os.environ))
    print(out)


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


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="extract")],
    videos: Annotated[
        Path | None, typer.Option(help="Folder of videos to measure on; rendered clips by default.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Folder that keeps NAME.json: benchmarks/results.")] = None,
) -> None:
    """Measure; prints one JSON object with hardware, versions and goals."""
    from handloom.bench import run_benchmark

    print(json.dumps(run_benchmark(name, videos, save, say=_say), indent=2))


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """What this machine has, what is missing, how to get it."""
    from handloom.pipelines.doctor import examine

    findings = examine()
    if json_:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    for finding in [] if json_ else findings:
        print(text.finding(finding))
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(FAILED)


def _open(uri: str, create: bool = False):
    from handloom.store.database import Database
    from handloom.store.location import storage_options_from

    return Database.open(uri, storage_options_from(os.environ) if "://" in uri else None, create=create)


def _export(form: str, db: str, out: str, where: str | None, overwrite: bool, json_: bool) -> None:
    from handloom.pipelines.export import export

    with _progress("rows") as progress:
        shards = export(_open(db), form, out, where, overwrite=overwrite, progress=lambda rows, _: progress(rows, None))
    if json_:
        print(json.dumps([asdict(shard) for shard in shards]))
        return
    for shard in shards:
        print(f"{shard.path}  {shard.num_rows} rows  {shard.num_bytes} bytes")


def _ingest_io(progress) -> dict[str, Any]:
    from handloom.video.source import source_options_from

    return {"progress": progress, "storage_options": source_options_from(os.environ)}


def _progress(unit: str):
    from handloom.counting import Counting

    return Counting(unit)


def _print_ingest(summary, json_: bool) -> None:
    for line in text.problems(summary):
        _say(line)
    print(json.dumps(asdict(summary)) if json_ else text.ingest(summary))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

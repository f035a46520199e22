"""`handloom export`: the rows in other formats."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from typing import Annotated, Any

import typer

from handloom.cli.console import (
    Commands,
    DbOption,
    Embodiment,
    EmbodimentOption,
    JsonOption,
    StageKeyOption,
    WhereOption,
    app,
    counting,
    open_db,
    size_of,
    stage_keys_of,
)
from handloom.cli.option_groups import with_options
from handloom.errors import ConfigError
from handloom.plural import plural

export_app = Commands(help="Write the rows in other formats.")
app.add_typer(export_app, name="export")


class Kind(StrEnum):
    both = "both"
    reach = "reach"
    carry = "carry"


class Table(Enum):
    clips = "clips"
    robot_episodes = "robot_episodes"


@dataclass(frozen=True)
class RowOptions:
    """Which rows are exported, and where to."""

    db: DbOption
    out: Annotated[str, typer.Option("--out", help="Folder or URI to write into.")]
    where: WhereOption = None
    stage_key: StageKeyOption = None
    embodiment: EmbodimentOption = Embodiment.human

    def of_pipeline(self) -> dict[str, Any]:
        chosen = {"where": self.where, "stage_keys": stage_keys_of(self.stage_key)}
        return {"out": self.out, **chosen, "embodiment": self.embodiment.value}


@dataclass(frozen=True)
class WriteOptions:
    """How the export is written, and what is printed."""

    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export in the same place.")] = False
    json_: JsonOption = False


@export_app.command("parquet")
@with_options
def export_parquet(rows: RowOptions, write: WriteOptions) -> None:
    """Parquet shards with the table's own schema."""
    _export("parquet", rows, write)


@export_app.command("arrow")
@with_options
def export_arrow(rows: RowOptions, write: WriteOptions) -> None:
    """Arrow IPC shards with the table's own schema, to be memory-mapped."""
    _export("arrow", rows, write)


@export_app.command("lerobot")
@with_options
def export_lerobot(
    rows: RowOptions,
    table: Annotated[Table, typer.Option(help="Clips of hands, or robot demonstrations.")] = Table.clips,
    hz: Annotated[
        float | None, typer.Option(help="Rate of the dataset; by default the one that all rows have.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Fit images into this size, with black bars.")
    ] = None,
    tracks: Annotated[bool, typer.Option(help="Point tracks too: ten times the data.")] = False,
    unknown: Annotated[str, typer.Option(help="What stands for unknown values: nan, or zero beside masks.")] = "nan",
    write: WriteOptions = WriteOptions(),
) -> None:
    """One LeRobotDataset v3.0: hands as state and action, or robot episodes as they came."""
    from handloom.pipelines.export.lerobot import lerobot

    with counting("episodes") as progress:
        found = lerobot(
            open_db(rows.db),
            **rows.of_pipeline(),
            table=table.value,
            hz=hz,
            size=size_of(size),
            tracks=tracks,
            unknown=unknown,
            overwrite=write.overwrite,
            progress=lambda episodes, _: progress(episodes, None),
        )
    if write.json_:
        print(json.dumps(asdict(found)))
        return
    print(
        f"{plural(found.num_episodes, 'episode')}, {plural(found.num_frames, 'frame')} at {found.hz:g} Hz, "
        f"{found.num_bytes} bytes: {rows.out}"
    )


@export_app.command("interactions")
@with_options
def export_interactions(
    rows: RowOptions,
    hz: Annotated[float, typer.Option(help="Steps a second.")] = 20.0,
    kind: Annotated[Kind, typer.Option(help="Ways to a thing, or what is carried.")] = Kind.both,
    write: WriteOptions = WriteOptions(),
) -> None:
    """What hands do with things, as a LeRobot dataset: hand, thing and goal as a robot's states."""
    from handloom.pipelines.export.interactions import interactions

    asked = rows.of_pipeline()
    if asked.pop("embodiment") != Embodiment.human.value:
        raise ConfigError("--embodiment: interactions are of people's hands", "leave it out")
    with counting("episodes") as progress:
        found = interactions(
            open_db(rows.db),
            **asked,
            hz=hz,
            kinds=(Kind.reach, Kind.carry) if kind is Kind.both else (kind,),
            overwrite=write.overwrite,
            progress=lambda episodes, _: progress(episodes, None),
        )
    if write.json_:
        print(json.dumps(asdict(found)))
        return
    for why, count in found.left_out.items():
        print(f"left out {plural(count, 'clip')}: {why}")
    made = found.dataset
    print(
        f"{plural(made.num_episodes, 'episode')} of {plural(found.num_clips, 'clip')}, "
        f"{plural(made.num_frames, 'frame')} at {made.hz:g} Hz: {rows.out}"
    )


@export_app.command("webdataset")
@with_options
def export_webdataset(
    rows: RowOptions,
    shard_mb: Annotated[float, typer.Option(min=0.001, help="Close a shard at this size, in MiB.")] = 512,
    write: WriteOptions = WriteOptions(),
) -> None:
    """Tar shards for `webdataset`: a sample per clip, with JSON, arrays and images."""
    from handloom.pipelines.export.webdataset import webdataset

    with counting("samples") as progress:
        found = webdataset(
            open_db(rows.db),
            **rows.of_pipeline(),
            max_shard_bytes=int(shard_mb * 2**20),
            overwrite=write.overwrite,
            progress=lambda samples, _: progress(samples, None),
        )
    if write.json_:
        print(json.dumps(asdict(found)))
        return
    counts = f"{plural(found.num_samples, 'sample')}, {plural(found.num_frames, 'frame')}, {found.num_bytes} bytes"
    print(f"{counts}: {rows.out}/{found.urls}")


@export_app.command("arm4r")
@with_options
def export_arm4r(
    rows: RowOptions,
    unknown: Annotated[
        str, typer.Option(help="What to do about unknown values: nan, hold the last one, or drop-clip.")
    ] = "nan",
    text_encoder: Annotated[
        str, typer.Option(help="OpenCLIP ViT-B-32 for instruction.zarr: a hub id or a folder.")
    ] = "",
    image_root: Annotated[str, typer.Option(help="What paths of images begin with; by default the folder.")] = "",
    write: WriteOptions = WriteOptions(),
) -> None:
    """ARM4R's own layout: tracks as Zarr, images as JPEG."""
    from handloom.pipelines.export.arm4r import arm4r

    with counting("clips") as progress:
        found = arm4r(
            open_db(rows.db),
            **rows.of_pipeline(),
            unknown=unknown,
            text_encoder=text_encoder,
            image_root=image_root,
            overwrite=write.overwrite,
            progress=lambda clips, _: progress(clips, None),
        )
    if write.json_:
        print(json.dumps({**asdict(found), "share_unknown": found.share_unknown}))
        return
    for reason, clip_ids in sorted(found.left_out.items()):
        print(f"left out {len(clip_ids)}: {reason}")
    share = f"{found.share_unknown:.1%} of values unknown ({unknown})"
    later = f" ({found.num_later} of them are parts of others, for later grids)" if found.num_later else ""
    print(f"{plural(found.num_clips, 'clip')}{later}, {plural(found.num_frames, 'frame')}, {share}: {rows.out}")


def _export(form: str, rows: RowOptions, write: WriteOptions) -> None:
    from handloom.pipelines.export.parquet import export

    with counting("rows") as progress:
        shards = export(
            open_db(rows.db),
            form,
            **rows.of_pipeline(),
            overwrite=write.overwrite,
            progress=lambda num_rows, _: progress(num_rows, None),
        )
    if write.json_:
        print(json.dumps([asdict(shard) for shard in shards]))
        return
    for shard in shards:
        print(f"{shard.path}  {plural(shard.num_rows, 'row')}  {shard.num_bytes} bytes")

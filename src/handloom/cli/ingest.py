"""`handloom ingest`: clips into the clip list, episodes of robots into their table."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from handloom.cli import text
from handloom.cli.console import SOME_REJECTED, Commands, DbOption, JsonOption, app, counting, open_db, say
from handloom.cli.option_groups import with_options

ingest_app = Commands(help="Add clips to the clip list.")
app.add_typer(ingest_app, name="ingest")

DatasetOption = Annotated[str | None, typer.Option(help="Name of the dataset, the first part of every clip id.")]
OnlyPresentOption = Annotated[
    bool, typer.Option(help="Leave out clips whose video is missing, and take them out of the list.")
]
ReplaceOption = Annotated[
    bool,
    typer.Option("--replace", help="Remove clips of these videos that are not named here, with their rows."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and write nothing.")]


class View(StrEnum):
    ego = "ego"
    exo = "exo"


class Window(StrEnum):
    fixed = "fixed"
    contextual = "contextual"


class CalvinAction(StrEnum):
    rel = "rel_actions"
    absolute = "actions"


@dataclass(frozen=True)
class CameraOptions:
    """The lens of all videos of one ingest, and the hands in them."""

    camera_preset: Annotated[
        str | None, typer.Option(help="The lens of all these videos, by name: `handloom presets` lists them.")
    ] = None
    fov_deg: Annotated[
        float | None, typer.Option(help="Field of view of all these videos along the longer side, degrees.")
    ] = None
    intrinsics: Annotated[
        str | None, typer.Option(help="File like NAME.camera.json: the intrinsics of all these videos.")
    ] = None
    hand_length_m: Annotated[
        float | None, typer.Option(help="Length of the person's hand in metres, wrist to tip of the middle finger.")
    ] = None

    def requested(self):
        from handloom.ingest.camera.requested import requested_camera
        from handloom.io.remote import source_options_from

        options = source_options_from(os.environ)
        return requested_camera(self.camera_preset, self.fov_deg, self.intrinsics, self.hand_length_m, options)


@dataclass(frozen=True)
class RobotOptions:
    """What holds for all episodes of one ingest of robot data."""

    licence: Annotated[str | None, typer.Option(help="Licence of the data, kept with every episode and clip.")] = None
    view: Annotated[View, typer.Option(help="Where the cameras stand, kept with every clip.")] = View.exo
    pictures: Annotated[bool, typer.Option(help="Keep the frames as JPEG in the table.")] = True
    videos: Annotated[
        str | None,
        typer.Option(help="Folder or URI for videos made of single images; by default videos/ in the database."),
    ] = None
    replace: Annotated[bool, typer.Option(help="The dataset of this name now lies here: replace its episodes.")] = False

    def of_pipeline(self) -> dict[str, Any]:
        names = {"view": self.view.value, "images": self.pictures}
        return names | {name: getattr(self, name) for name in ("licence", "videos", "replace")}


@ingest_app.command("folder")
@with_options
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
    cameras: CameraOptions = CameraOptions(),
    replace: ReplaceOption = False,
    add: Annotated[
        bool, typer.Option("--add", help="Add clips even if they overlap clips of the list: two cuts of a video.")
    ] = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Add every video file below a folder; long videos are cut."""
    from handloom.pipelines.ingest import human

    options: dict[str, Any] = {
        "clip_seconds": clip_seconds or None,
        "view": None if view is None else view.value,
        "licence": licence,
        "dataset": dataset or "folder",
    }
    options |= {"replace_others": replace, "add_overlapping": add}
    options["requested"] = cameras.requested()
    with counting("files") as progress:
        summary = human.folder(
            open_db(db, create=True, only_read=dry_run), directory, **options, **_ingest_io(progress, dry_run)
        )
    _print_ingest(summary, json_)


@ingest_app.command("epic")
@with_options
def ingest_epic(
    annotations: Annotated[list[str], typer.Option(help="EPIC_100_*.csv; may be given several times.")],
    videos: Annotated[str, typer.Option(help="Folder or URI of the videos: the official layout or flat.")],
    db: DbOption,
    dataset: DatasetOption = None,
    split: Annotated[str | None, typer.Option(help="Split of all rows; by default from the file name.")] = None,
    participant: Annotated[list[str] | None, typer.Option(help="Only this participant (P01); may be repeated.")] = None,
    fields: Annotated[str | None, typer.Option(help="Folder or URI of EPIC-Fields' VIDEO_ID.json: cameras.")] = None,
    cameras: CameraOptions = CameraOptions(),
    only_present: OnlyPresentOption = False,
    replace: ReplaceOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Add the action clips of EPIC-KITCHENS-100 annotations."""
    from handloom.pipelines.ingest import human

    options: dict[str, Any] = {
        "dataset": dataset or "epic",
        "split": split,
        "participants": participant,
        "only_present": only_present,
    }
    options |= {"fields": fields, "replace_others": replace}
    options["requested"] = cameras.requested()
    with counting("rows") as progress:
        summary = human.epic(
            open_db(db, create=True, only_read=dry_run), annotations, videos, **options, **_ingest_io(progress, dry_run)
        )
    _print_ingest(summary, json_)


@ingest_app.command("ego4d")
@with_options
def ingest_ego4d(
    manifest: Annotated[str, typer.Option(help="ego4d.json")],
    videos: Annotated[str, typer.Option(help="Folder or URI of the videos: the official layout or flat.")],
    db: DbOption,
    narrations: Annotated[
        str | None, typer.Option(help="narration.json or all_narrations_redacted.json: one clip per narration.")
    ] = None,
    fho: Annotated[str | None, typer.Option(help="fho_main.json: one clip per action.")] = None,
    dataset: DatasetOption = None,
    window: Annotated[
        Window, typer.Option(help="Clip around a narration: fixed, or contextual (EgoVLP).")
    ] = Window.fixed,
    before_s: Annotated[float, typer.Option(min=0, help="Seconds before a narration (fixed window).")] = 1.0,
    after_s: Annotated[float, typer.Option(min=0, help="Seconds after a narration (fixed window).")] = 2.0,
    others: Annotated[bool, typer.Option(help="Keep what other people than the wearer do (#O).")] = True,
    clip_seconds: Annotated[float, typer.Option(help="Length of pieces where neither file is given; 0: whole.")] = 10.0,
    cameras: CameraOptions = CameraOptions(),
    only_present: OnlyPresentOption = False,
    replace: ReplaceOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Add clips of Ego4D: narrations, hand-object actions, or whole videos in pieces."""
    from handloom.pipelines.ingest import human

    options: dict[str, Any] = {
        "dataset": dataset or "ego4d",
        "narrations": narrations,
        "fho": fho,
        "only_present": only_present,
    }
    options |= {"clip_seconds": clip_seconds or None, "window": window.value, "before_s": before_s, "after_s": after_s}
    options["replace_others"] = replace
    options["requested"] = cameras.requested()
    with counting("entries") as progress:
        database = open_db(db, create=True, only_read=dry_run)
        summary = human.ego4d(database, manifest, videos, others=others, **options, **_ingest_io(progress, dry_run))
    _print_ingest(summary, json_)


@ingest_app.command("lerobot")
@with_options
def ingest_lerobot(
    directory: Annotated[str, typer.Argument(help="The dataset's top folder or URI: it holds meta/info.json.")],
    db: DbOption,
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset; by default the folder's.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Feature of the state; may be repeated: they are joined; none: no state.")
    ] = None,
    action: Annotated[
        list[str] | None, typer.Option(help="Feature of the action; may be repeated: they are joined; none: no action.")
    ] = None,
    robot: RobotOptions = RobotOptions(),
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Add a LeRobotDataset (v3.0, v2.1, v2.0): episodes of a robot, and their videos as clips."""
    from handloom.pipelines.ingest import robots

    options: dict[str, Any] = {"dataset": dataset, "state": state or (), "action": action or ()} | robot.of_pipeline()
    with counting("episodes") as progress:
        database = open_db(db, create=True, only_read=dry_run)
        summary = robots.lerobot(database, directory, **options, **_ingest_io(progress, dry_run))
    _print_robots(summary, json_)


@ingest_app.command("calvin")
@with_options
def ingest_calvin(
    directory: Annotated[str, typer.Argument(help="Folder or URI with training/ and validation/, or one of them.")],
    db: DbOption,
    dataset: DatasetOption = None,
    whole: Annotated[
        bool, typer.Option("--all/--language-only", help="Whole recordings instead of the described windows.")
    ] = False,
    action: Annotated[CalvinAction, typer.Option(help="Which of the two kinds of action to keep.")] = CalvinAction.rel,
    robot: RobotOptions = RobotOptions(),
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Add CALVIN episodes; a video is made of each episode's frames."""
    from handloom.pipelines.ingest import robots

    options: dict[str, Any] = {"dataset": dataset, "whole": whole, "action": action.value} | robot.of_pipeline()
    with counting("episodes") as progress:
        database = open_db(db, create=True, only_read=dry_run)
        summary = robots.calvin(database, directory, **options, **_ingest_io(progress, dry_run))
    _print_robots(summary, json_)


def _ingest_io(progress, dry_run: bool) -> dict[str, Any]:
    from handloom.io.remote import source_options_from

    return {"progress": progress, "storage_options": source_options_from(os.environ), "dry_run": dry_run}


def _print_ingest(summary, json_: bool) -> None:
    for line in (*text.problems(summary), *text.notes(summary)):
        say(line)
    print(json.dumps(asdict(summary)) if json_ else text.ingest(summary))
    if summary.left_out and not summary.dry_run:
        raise typer.Exit(SOME_REJECTED)


def _print_robots(summary, json_: bool) -> None:
    for line in text.robot_problems(summary):
        say(line)
    print(json.dumps(asdict(summary)) if json_ else text.robots(summary))
    if summary.left_out and not summary.dry_run:
        raise typer.Exit(SOME_REJECTED)

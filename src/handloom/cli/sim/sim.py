"""`sim`: record demonstrations in simulation, evaluate policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handloom.cli.console import (
    FAILED,
    MOST_EPISODES,
    Commands,
    JsonOption,
    RayOption,
    WorkersOption,
    app,
    counting,
    say,
    size_of,
)
from handloom.errors import ConfigError
from handloom.plural import plural

if TYPE_CHECKING:
    from handloom.pipelines.sim.calvin import CalvinEvaluation
    from handloom.pipelines.sim.evaluate import Evaluation

sim = Commands(help="Manipulation tasks in MuJoCo (Meta-World): record demonstrations, evaluate policies.")
app.add_typer(sim, name="sim")


@sim.command()
def record(
    task: Annotated[str, typer.Option(help="The task: reach, push, pick-place, drawer-open, ...")],
    out: Annotated[str, typer.Option(help="Folder or URI to write into.")],
    episodes: Annotated[int, typer.Option(min=1, max=MOST_EPISODES, help="Demonstrations to record.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scenes.")] = 0,
    picture_hz: Annotated[float, typer.Option(min=0, max=80, help="Pictures a second; 0: none.")] = 0.0,
    camera: Annotated[str, typer.Option(help="corner, corner2, corner3, corner4, topview, ...")] = "corner4",
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the pictures.")] = "128x128",
    workers: WorkersOption = None,
    ray_address: RayOption = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export in the same place.")] = False,
    json_: JsonOption = False,
) -> None:
    """Demonstrations by a task's scripted expert, as a LeRobot v3.0 dataset."""
    from handloom.pipelines.sim.record import record as pipeline
    from handloom.sim.rendering import Camera

    width, height = size_of(size) or (128, 128)
    with counting("frames") as progress:
        found = pipeline(
            task, out, episodes, seed, picture_hz=picture_hz, camera=Camera(camera, width, height), workers=workers,
            ray_address=ray_address, overwrite=overwrite, progress=lambda _, frames: progress(frames, None),
        )  # fmt: skip
    for reason, num in found.failures.items():
        say(f"the expert failed in {plural(num, 'scene')}: {reason}; left out")
    if json_:
        print(json.dumps(asdict(found)))
        return
    print(f"{plural(found.num_episodes, 'episode')} of {found.task}, {plural(found.num_frames, 'frame')}: {out}")


@sim.command()
def evaluate(
    policy: Annotated[
        str,
        typer.Option(help="expert, random, replay:DATASET, arm4r: or arvrm:CHECKPOINT, or package.module:CLASS."),
    ],
    task: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME]", help="The tasks: reach,drawer-open,door-open, ...")
    ] = None,
    episodes: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_EPISODES, help="Of each task and seed, 50 by default: of 3 seeds 150 of a task."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Seeds, 0 to N - 1, of scenes and policy; by default 3.")
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, max=500, help="Then an episode has failed; by default 500, CALVIN's instructions 360."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one per core, with --calvin one.")
    ] = None,
    ray_address: RayOption = None,
    out: Annotated[str | None, typer.Option(help="Folder for evaluate.json and videos; by default none.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier evaluation in the same place.")] = False,
    video: Annotated[
        bool | None,
        typer.Option(
            "--video/--no-video",
            help="With --out: videos of the best and the worst episode of each task (the default), or, with "
            "--calvin, of each sequence (by default none).",
        ),
    ] = None,
    calvin: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Not --task: CALVIN's benchmark, in this dataset's environment."),
    ] = None,
    calvin_python: Annotated[
        str | None, typer.Option(metavar="PATH", help="The Python that has CALVIN; by default handloom's own.")
    ] = None,
    sequences: Annotated[
        int | None, typer.Option(min=1, max=1000, help="The first N of CALVIN's sequences; by default all 1,000.")
    ] = None,
    command_clip: Annotated[
        str | None, typer.Option(metavar="ID", help="Tell the policy its task by this clip of a person.")
    ] = None,
    command_db: Annotated[
        str | None, typer.Option(metavar="DB", help="The database of the clips; by default that of the training.")
    ] = None,
    command_motion: Annotated[
        str | None,
        typer.Option(help="Checkpoint of `handloom train robomirror` for the clips; by default that of the training."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """How often a policy does its tasks, with intervals."""
    if video and out is None:
        raise ConfigError("--video without --out", "name a folder for the videos with --out")
    place = None if out is None else Path(out)
    shared: dict[str, Any] = {
        "ray_address": ray_address,
        "out": place,
        "overwrite": overwrite,
        "videos": calvin is None if video is None else video,
    }
    if max_steps is not None:
        shared["max_steps"] = max_steps
    told = {"--command-clip": command_clip, "--command-db": command_db, "--command-motion": command_motion}
    if calvin is not None:
        _refuse({"--task": task, "--episodes": episodes, "--seeds": seeds}, "with --calvin", "it has sequences")
        _refuse(told, "with --calvin", "it tells policies their instructions in words")
        _evaluate_calvin(calvin, policy, sequences or 1000, calvin_python, workers, shared, json_)
        return
    _refuse({"--calvin-python": calvin_python, "--sequences": sequences}, "without --calvin", "add --calvin DATASET")
    if task is None:
        raise ConfigError("neither --task nor --calvin is given", "--task reach, or --calvin DATASET")
    from handloom.pipelines.sim.commands import FromClips
    from handloom.pipelines.sim.evaluate import evaluate as pipeline

    if any(told.values()):
        shared["from_clips"] = FromClips(*told.values())
    num, num_seeds = episodes or 50, seeds or 3
    num_tasks = len(task.split(","))
    every = plural(num * num_seeds * num_tasks, "episode")
    say(f"{every}: {plural(num_tasks, 'task')} x {plural(num_seeds, 'seed')} (--seeds) x {num} (--episodes)")
    with counting("episodes") as progress:
        found = pipeline(task, policy, num, num_seeds, workers=workers, progress=progress, **shared)
    if json_:
        print(json.dumps(asdict(found)))
    else:
        _show(found, place)
    _tell(found.error, sum(score["episodes"] for score in found.tasks.values()), every)


def _evaluate_calvin(
    dataset: str,
    policy: str,
    sequences: int,
    python: str | None,
    workers: int | None,
    shared: dict[str, Any],
    as_json: bool,
) -> None:
    from handloom.pipelines.sim.calvin import evaluate_calvin

    with counting("sequences") as progress:
        found = evaluate_calvin(
            dataset, policy, sequences, python=python, workers=workers, progress=progress, told=say, **shared
        )  # fmt: skip
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        _show_calvin(found, shared["out"])
    _tell(found.error, found.scores["num_sequences"], plural(sequences, "sequence"))


def _refuse(options: dict[str, Any], where: str, hint: str) -> None:
    """Raise ConfigError for an option that is given where it has no meaning."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{' and '.join(given)} {where}", f"leave {' and '.join(given)} out: {hint}")


def _tell(error: str, done: int, every: str) -> None:
    """Say what ended an evaluation before its end, and exit; nothing where it was not ended."""
    if error:
        say(f"error: {error}")
        say(f"partial: {done} of {every} were finished before it")
        raise typer.Exit(FAILED)


def _show_calvin(found: CalvinEvaluation, out: Path | None) -> None:
    scores = found.scores
    for number, share in scores["success"].items():
        low, high = share["interval"]
        print(f"{number} in a row: {share['rate']:.3f} ({low:.3f} to {high:.3f})")
    low, high = scores["average_length_interval"]
    failures = "".join(f", {num} {reason}" for reason, num in scores["failures"].items())
    num = plural(scores["num_sequences"], "sequence")
    print(f"average length: {scores['average_length']:.2f} ({low:.2f} to {high:.2f}), {num}{failures}")
    _show_files(out, found.videos)


def _show_files(out: Path | None, videos: Sequence[str]) -> None:
    if out is not None:
        from handloom.pipelines.sim.evaluate import REPORT

        print("\n".join([str(out / REPORT), *videos]))


def _show(found: Evaluation, out: Path | None) -> None:
    for name, score in found.tasks.items():
        low, high = score["interval"]
        steps = score["steps_to_success"]["median"]
        median = "" if steps is None else f", {steps:.0f} steps (median)"
        failures = "".join(f", {num} {reason}" for reason, num in score["failures"].items())
        print(
            f"{name}: {score['success_rate']:.3f} ({low:.3f} to {high:.3f}), {score['successes']} of "
            f"{plural(score['episodes'], 'episode')} of {plural(len(score['by_seed']), 'seed')}{median}{failures}"
        )
    _show_files(out, [path for paths in found.videos.values() for path in paths.values()])

"""`sim`: record demonstrations in simulation, evaluate policies."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handloom.cli.console import FAILED, Commands, JsonOption, app, counting, say, size_of
from handloom.plural import plural

if TYPE_CHECKING:
    from handloom.pipelines.sim.evaluate import Evaluation

sim = Commands(help="Manipulation tasks in MuJoCo (Meta-World): record demonstrations, evaluate policies.")
app.add_typer(sim, name="sim")
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")]


@sim.command()
def record(
    task: Annotated[str, typer.Option(help="The task: reach, push, pick-place, drawer-open, ...")],
    out: Annotated[str, typer.Option(help="Folder or URI to write into.")],
    episodes: Annotated[int, typer.Option(min=1, help="Demonstrations to record.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scenes.")] = 0,
    picture_hz: Annotated[float, typer.Option(min=0, max=80, help="Pictures a second; 0: none.")] = 0.0,
    camera: Annotated[str, typer.Option(help="corner, corner2, corner3, corner4, topview, ...")] = "corner4",
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the pictures.")] = "128x128",
    workers: WorkersOption = None,
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
            overwrite=overwrite, progress=lambda _, frames: progress(frames, None),
        )  # fmt: skip
    for reason, num in found.failures.items():
        say(f"the expert failed in {plural(num, 'scene')}: {reason}; left out")
    if json_:
        print(json.dumps(asdict(found)))
        return
    print(f"{plural(found.num_episodes, 'episode')} of {found.task}, {plural(found.num_frames, 'frame')}: {out}")


@sim.command()
def evaluate(
    task: Annotated[str, typer.Option(metavar="NAME[,NAME]", help="The tasks: reach,drawer-open,door-open, ...")],
    policy: Annotated[
        str,
        typer.Option(help="expert, random, replay:DATASET, arm4r: or arvrm:CHECKPOINT, or package.module:CLASS."),
    ],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each task and seed.")] = 50,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, 0 to N - 1, of scenes and policy.")] = 3,
    max_steps: Annotated[int, typer.Option(min=1, max=500, help="Then an episode has failed; 80 are a second.")] = 500,
    workers: WorkersOption = None,
    ray_address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Cluster to join; local processes by default.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Folder for videos of the best and the worst episode of each task.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """How often a policy does its tasks, with intervals."""
    from handloom.pipelines.sim.evaluate import evaluate as pipeline

    with counting("episodes") as progress:
        found = pipeline(
            task, policy, episodes, seeds, max_steps=max_steps, workers=workers, ray_address=ray_address, video=video,
            progress=progress,
        )  # fmt: skip
    if json_:
        print(json.dumps(asdict(found)))
    else:
        _show(found)
    if found.error:
        num = sum(score["episodes"] for score in found.tasks.values())
        every = episodes * seeds * len(task.split(","))
        say(f"error: {found.error}")
        say(f"partial: {num} of {plural(every, 'episode')} were finished before it")
        raise typer.Exit(FAILED)


def _show(found: Evaluation) -> None:
    for name, score in found.tasks.items():
        low, high = score["interval"]
        steps = score["steps_to_success"]["median"]
        median = "" if steps is None else f", {steps:.0f} steps (median)"
        failures = "".join(f", {num} {reason}" for reason, num in score["failures"].items())
        print(
            f"{name}: {score['success_rate']:.3f} ({low:.3f} to {high:.3f}), {score['successes']} of "
            f"{plural(score['episodes'], 'episode')}{median}{failures}"
        )
    for paths in found.videos.values():
        print("\n".join(paths.values()))

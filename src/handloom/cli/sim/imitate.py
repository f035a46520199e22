"""`sim imitate`: a humanoid learns to follow people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handloom.cli.console import JsonOption, RayOption, WorkersOption, open_db, say
from handloom.cli.sim.sim import sim
from handloom.errors import ConfigError
from handloom.plural import plural

if TYPE_CHECKING:
    from handloom.pipelines.sim.imitate import Imitation


@sim.command()
def imitate(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the student's checkpoint, the report and videos.")
    ] = None,
    db: Annotated[
        str | None, typer.Option(help="A database whose clips of people are motions, beside the scripted ones.")
    ] = None,
    motion: Annotated[
        str | None, typer.Option(help="Checkpoint of `handloom train robomirror`; without: linear latents.")
    ] = None,
    understand: Annotated[
        str | None,
        typer.Option(help="Its stage `understand`: the student is also told what is made of clips' intents."),
    ] = None,
    robot: Annotated[str, typer.Option(help="gr1, or a JSON file that names the parts of a robot of yours.")] = "gr1",
    student: Annotated[str | None, typer.Option(help="Measure the student of this --out; train nothing.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting: rounds=2; may be repeated.")] = None,
    show_settings: Annotated[bool, typer.Option(help="Print the settings as JSON and exit.")] = False,
    video: Annotated[bool, typer.Option(help="Write videos of two episodes of each source.")] = True,
    workers: WorkersOption = None,
    ray_address: RayOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a humanoid that follows people by the latent of their motion alone, and measure it."""
    from handloom.pipelines.sim.imitate import imitate as pipeline
    from handloom.pipelines.sim.imitate import load_settings

    settings = load_settings(config, set_ or [])
    if show_settings:
        print(json.dumps(settings.model_dump(mode="json"), indent=2))
        return
    if out is None:
        raise ConfigError("--out is not given", "name a folder for the student, the report and videos")
    table = None if db is None else open_db(db)
    found = pipeline(
        out, settings, robot=robot, db=table, motion=motion, understand=understand, student=student, videos=video,
        workers=workers, ray_address=ray_address, told=say,
    )  # fmt: skip
    if json_:
        print(json.dumps(asdict(found)))
    else:
        _show(found, out)


def _show(found: Imitation, out: Path) -> None:
    for source, policies in found.policies.items():
        for name, score in policies.items():
            low, high = score["interval"]
            failures = "".join(f", {num} {reason}" for reason, num in score["failures"].items())
            error = "" if score["mpkpe_mm"] is None else f", {score['mpkpe_mm']:.0f} mm"
            print(
                f"{source}, {name}: {score['success_rate']:.3f} ({low:.3f} to {high:.3f}), {score['successes']} of "
                f"{plural(score['episodes'], 'episode')}{error}{failures}"
            )
    for source, share in found.out_of_reach.items():
        if share:
            print(f"{source}: {share:.1%} of the wrists' goals are out of reach")
    if found.latency["video"]:
        share = found.latency["video"]["cpu_ratio"]
        print(f"from a video to the first action: {share:.3f} of the pose pipeline's CPU time")
    print(f"latency beside retargeting and inverse kinematics: {found.latency['cpu_ratio']:.3f} of the CPU time")
    print("\n".join([str(out / "imitate.json"), *found.videos.values()]))

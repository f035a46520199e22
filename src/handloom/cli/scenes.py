"""Rendered scenes: `demo` and `synth`."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from handloom.cli.console import JsonOption, app, say
from handloom.errors import ConfigError
from handloom.plural import plural


class CameraFile(StrEnum):
    poses = "poses"
    intrinsics = "intrinsics"
    none = "none"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for videos, database and images.")] = Path("handloom-demo"),
    clips: Annotated[int, typer.Option(min=2, help="Clips to render.")] = 6,
) -> None:
    """Render clips, run all steps on them, and print where to look."""
    from handloom.pipelines.demo import demo as pipeline

    print(pipeline(out, clips, say=say))


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder for videos, cameras and truth.")],
    clips: Annotated[int, typer.Option(min=1, help="Clips to render.")] = 17,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 0,
    size: Annotated[str, typer.Option(help="Width x height, pixels.")] = "480x360",
    fps: Annotated[float, typer.Option(min=1, help="Frames per second.")] = 30.0,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Of every clip; by default each action's own.")] = None,
    distorted: Annotated[float, typer.Option(min=0, max=1, help="Share of lenses that distort.")] = 0.25,
    lens: Annotated[str, typer.Option(help="Every clip through this lens: gopro-wide, aria or fisheye-150.")] = "",
    camera: Annotated[CameraFile, typer.Option(help="What NAME.camera.json holds.")] = CameraFile.poses,
    truth: Annotated[bool, typer.Option(help="Write NAME.truth.npz.")] = True,
    robot: Annotated[bool, typer.Option("--robot", help="A robot instead; a LeRobot v3.0 dataset.")] = False,
    wrist: Annotated[bool, typer.Option("--wrist", help="With --robot: a second camera, on the gripper.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    json_: JsonOption = False,
) -> None:
    """Render egocentric clips with exact truth: hands, cameras, objects, depth, surface tracks."""
    from handloom.pipelines import synth as pipeline

    width, height = _size(size)
    common: dict[str, Any] = {
        "width": width,
        "height": height,
        "fps": fps,
        "duration_s": seconds,
        "truth": truth,
        "workers": workers,
    }
    if robot:
        summary = pipeline.synth_robot(out, clips, seed, wrist=wrist, say=say, **common)
    elif wrist:
        raise ConfigError("--wrist without --robot", "only a robot has a camera on its wrist")
    else:
        options: dict[str, Any] = {"distorted_share": distorted, "lens": lens or None, "camera": camera.value}
        summary = pipeline.synth(out, clips, seed, say=say, **options, **common)
    if json_:
        print(json.dumps(asdict(summary) | {"frames_per_s": summary.frames_per_s}))
        return
    print(
        f"{plural(len(summary.names), 'clip')}, {plural(summary.num_frames, 'frame')} in {summary.wall_s:.1f} s ",
        end="",
    )
    print(f"({summary.frames_per_s:.1f} frames/s, {summary.workers} processes): {out}")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"--size {text!r} is no size", "expected WIDTHxHEIGHT in pixels: 480x360")
    return int(width), int(height)

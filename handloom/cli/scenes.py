"""Rendered scenes: `demo` and `synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handloom.cli.console import app, say


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for videos, database and pictures.")] = Path("handloom-demo"),
    clips: Annotated[int, typer.Option(min=2, help="Clips to render.")] = 6,
) -> None:
    """Render clips, run everything below on them, and say where to look."""
    from handloom.pipelines.demo import demo as pipeline

    print(pipeline(out, clips, say=say))

"""Pictures of skills: the constraints, a row a step; and single interactions beside the box of a thing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from handloom.io.atomic import atomic_file

VIEWS = (("from above", 0, 1), ("from the person", 0, 2))
NAMES = "xyz"
GRASP, PATH, BOX = "#2563eb", "#d97706", "#6b7280"
PALM_M = 0.09


def write_skill_picture(skill: Mapping[str, Any], out: Path) -> None:
    """Write `skill_picture` to a file. Raises StoreError if it cannot be written."""
    with atomic_file(out) as draft:
        draft.write_bytes(skill_picture(skill))


def skill_picture(skill: Mapping[str, Any]) -> bytes:
    """The picture of a skill (the fields of `handloom.skills.skill.Skill`) as PNG. Steps without geometry are a line of
    words."""
    constraints = [*skill["constraints"], *skill["carried"]]
    drawn = [bool(one["regions"]) or one["path"] is not None for one in constraints]
    heights = [3.4 if has_geometry else 0.4 for has_geometry in drawn]
    figure = Figure(figsize=(8, 0.8 + sum(heights)), layout="constrained")
    rows = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    clips = "one clip" if len(skill["clip_ids"]) == 1 else f"{len(skill['clip_ids'])} clips"
    figure.suptitle(f"{skill['name']}: {skill['task'] or 'no words'} ({clips})")
    for row, (one, has_geometry) in enumerate(zip(constraints, drawn, strict=True)):
        words = f"{row + 1}. {one['text']}" if row < len(skill["constraints"]) else one["text"]
        if not has_geometry:
            line = figure.add_subplot(rows[row, :])
            line.set_axis_off()
            line.text(0.0, 0.5, f"{words}: no geometry is known", fontsize=8, va="center", transform=line.transAxes)
        for column, (view, across, up) in enumerate(VIEWS) if has_geometry else ():
            axes = figure.add_subplot(rows[row, column])
            _draw(axes, one, across, up)
            axes.set_title(f"{words if column == 0 else ''}\n{view}", fontsize=8, loc="left")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
    return file.getvalue()


def interactions_picture(lines: NDArray[np.float64], box: NDArray[np.float64] | None) -> NDArray[np.uint8]:
    """Lines beside a box, seen along z and along y: what a model is shown of grasps and paths.

    Args:
        lines: (n, k, 3) metres, numbered from 1, with a dot at their last places.
        box: (6) least and largest x, y, z; None: unknown.

    Returns:
        (480, 960, 3) RGB.
    """
    figure = Figure(figsize=(9.6, 4.8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, (_, across, up) in zip(figure.subplots(1, 2), VIEWS, strict=True):
        if box is not None:
            axes.add_patch(_rectangle(box[:3], box[3:], across, up, fill=False, color=BOX, linewidth=2))
        for number, line in enumerate(lines):
            colour = f"C{number % 10}"
            axes.plot(line[:, across], line[:, up], color=colour)
            axes.plot(line[-1, across], line[-1, up], "o", color=colour)
            at = (line[-1, across], line[-1, up])
            axes.annotate(str(number + 1), at, (4, 4), textcoords="offset points", color=colour, fontsize=11)
        _finish(axes, across, up)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _finish(axes: Axes, across: int, up: int) -> None:
    axes.set_xlabel(f"{NAMES[across]}, m")
    axes.set_ylabel(f"{NAMES[up]}, m")
    axes.set_aspect("equal", adjustable="datalim")
    axes.autoscale_view()


def _rectangle(low: Any, high: Any, across: int, up: int, **look: Any) -> Rectangle:
    return Rectangle((low[across], low[up]), high[across] - low[across], high[up] - low[up], **look)


def _draw(axes: Axes, one: Mapping[str, Any], across: int, up: int) -> None:
    box = one["box"]
    if box is not None:
        axes.add_patch(_rectangle(box[:3], box[3:], across, up, fill=False, color=BOX, label="the thing"))
    for number, region in enumerate(one["regions"]):
        _draw_region(axes, region, across, up, named=number == 0)
    if one["path"] is not None:
        _draw_path(axes, one["path"], across, up)
    _finish(axes, across, up)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7)


def _draw_region(axes: Axes, region: Mapping[str, Any], across: int, up: int, named: bool) -> None:
    """Where the wrist may be, and a line from its middle to the knuckles."""
    wrist = region["middle"][:3, 3]
    low, high = wrist + region["low"][:3], wrist + region["high"][:3]
    axes.add_patch(_rectangle(low, high, across, up, color=GRASP, alpha=0.2, label="wrist" if named else None))
    palm = wrist + PALM_M * region["middle"][:3, 1]
    axes.plot(
        [wrist[across], palm[across]], [wrist[up], palm[up]], color=GRASP, label="to the knuckles" if named else None
    )


def _draw_path(axes: Axes, path: Mapping[str, Any], across: int, up: int) -> None:
    """The bounds at each keypoint, and the line through their middles."""
    low, high = np.asarray(path["low"]), np.asarray(path["high"])
    for at, (near, far) in enumerate(zip(low, high, strict=True)):
        axes.add_patch(_rectangle(near, far, across, up, color=PATH, alpha=0.03 + 0.02 * at))
    middle = 0.5 * (low + high)
    axes.plot(middle[:, across], middle[:, up], "o-", ms=3, color=PATH, label="path, from start (0, 0)")

"""Adapting a skill to the things of another clip, by iterative comparison (VLMimic, section 4.3).

Bounds are first moved with the boxes of the new things. Then interactions are sampled from them (a grid of grasps, a
few paths), compared with how the demonstrated ones lay beside their things, and the bounds follow what the comparison
says, until it says nothing or the rounds are over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.errors import ConfigError
from handloom.skills.bounds import along, gap_m, half_size, palm
from handloom.skills.execution import GRASPING, Execution
from handloom.skills.match import Verdict, judge
from handloom.skills.order import align
from handloom.skills.reader import Advice, Compared, Reader, Sampled
from handloom.skills.skill import Constraint, PathBounds, Region, Skill

Floats = NDArray[np.float64]

ROUNDS, GRID, NUM_PATHS = 4, 5, 4
"""VLMimic's N_I, the sides of its grid of grasps, and K."""
STEP_M = 1e-3


@dataclass(frozen=True)
class Change:
    """What one round changed of a step: metres along the thing's axes. gap_m: the middle distance before it. reason:
    the reader's; empty: none."""

    step: str
    round: int
    gap_m: float
    moved_m: tuple[float, float, float]
    reason: str = ""


@dataclass(frozen=True)
class Adapted:
    """A skill for the things of a clip. before, after: what the clip's own execution says of the skill; things: the
    clip's thing for each letter, with its box."""

    skill: Skill
    things: Mapping[str, tuple[float, ...]]
    changes: tuple[Change, ...]
    before: Verdict
    after: Verdict


def adapt(skill: Skill, execution: Execution, reader: Reader) -> Adapted:
    """The skill with bounds for the things that a clip shows.

    Raises ConfigError if the clip shows no thing with a known box.
    """
    boxes = _boxes(skill, execution)
    if not boxes:
        raise ConfigError(
            f"clip {execution.clip_id} shows no thing whose size is known, for any step of skill {skill.name!r} "
            f"({skill.words})",
            "adapt to a clip in which a hand takes the things of the skill; `handloom show CLIP` draws what was found",
        )
    constraints, changes = [], []
    for one in skill.constraints:
        moved, told = _adapt_step(one, boxes, reader)
        constraints.append(moved)
        changes += told
    adapted = replace(skill, constraints=tuple(constraints))
    things = {name: tuple(round(float(side), 4) for side in box) for name, box in boxes.items()}
    return Adapted(adapted, things, tuple(changes), judge(skill, execution), judge(adapted, execution))


def _boxes(skill: Skill, execution: Execution) -> dict[str, Floats]:
    """The box of each thing of the skill: of the step that belongs to its own, else of the thing of that letter."""
    out: dict[str, Floats] = {}
    for i, j in align(skill.steps, execution.steps)[1]:
        step, found = skill.steps[i], execution.steps[j]
        thing = step.master if step.phase == GRASPING else step.slave
        for name, box in ((thing, found.box), (step.master, found.master_box)):
            if box is not None:
                out.setdefault(name, box)
    for found in execution.steps:
        thing = found.master if found.phase == GRASPING else found.slave
        if found.box is not None:
            out.setdefault(thing, found.box)
    return out


def _adapt_step(one: Constraint, boxes: Mapping[str, Floats], reader: Reader) -> tuple[Constraint, list[Change]]:
    thing = one.step.master if one.step.phase == GRASPING else one.step.slave
    box, master_box = boxes.get(thing), boxes.get(one.step.master)
    if one.step.phase == GRASPING:
        return (one, []) if box is None or one.box is None or not one.regions else _adapt_grasp(one, box, reader)
    if one.path is None or box is None:
        return one, []
    path, changes = _adapt_path(one, one.path, box, master_box, reader)
    return replace(one, path=path, box=box, master_box=one.master_box if master_box is None else master_box), changes


def _adapt_grasp(one: Constraint, box: Floats, reader: Reader) -> tuple[Constraint, list[Change]]:
    regions, changes = [], []
    for region in one.regions:
        moved = region
        if one.gap_m is not None and one.box is not None:
            learned = _grasps_beside(region, one.box)
            for number in range(1, ROUNDS + 1):
                now = _grasps_beside(moved, box)
                advice = reader.compare(Compared(one.step, one.text, one.gap_m, learned, now))
                if advice is None or float(np.linalg.norm(advice.move_m)) < STEP_M:
                    break
                changes.append(_change(one, number, now, advice))
                moved = _moved(moved, advice.move_m)
        regions.append(moved)
    return replace(one, regions=tuple(regions), box=box), changes


def _adapt_path(
    one: Constraint, path: PathBounds, box: Floats, master_box: Floats | None, reader: Reader
) -> tuple[PathBounds, list[Change]]:
    """Ends of sampled paths, compared with where demonstrated ones ended beside the master; without a known master the
    boxes alone say how a path goes."""
    if master_box is None or one.master_box is None:
        return path, []
    usual = 0.5 * (path.low[-1, :3] + path.high[-1, :3])
    usual = usual + half_size(one.box) * path.by_box + half_size(one.master_box) * path.by_master_box
    gap = float(gap_m(usual[None], one.master_box)[0]) - float(np.linalg.norm(half_size(one.box)))
    wanted = (gap - 0.01, gap + 0.01)
    learned = _paths_beside(path, one.box, one.master_box)
    changes = []
    for number in range(1, ROUNDS + 1):
        now = _paths_beside(path, box, master_box)
        advice = reader.compare(Compared(one.step, one.text, wanted, learned, now))
        if advice is None or float(np.linalg.norm(advice.move_m)) < STEP_M:
            break
        changes.append(_change(one, number, now, advice))
        shift = np.zeros_like(path.low)
        shift[:, :3] = along(len(shift)) * advice.move_m
        path = replace(path, low=path.low + shift, high=path.high + shift)
    return path, changes


def _grasps_beside(region: Region, box: Floats) -> Sampled:
    grasps = grasp_grid(region)
    palms = palm(grasps)
    return Sampled(np.stack([grasps[:, :3, 3], palms], axis=1), gap_m(palms, box), _outwards(palms, box), box)


def _paths_beside(path: PathBounds, box: Floats | None, master_box: Floats) -> Sampled:
    """Paths of the middle of a thing beside its master; distances are those of the thing's surface, as if it were a
    ball."""
    paths = path_samples(path, box, master_box)[:, :, :3]
    gaps = gap_m(paths[:, -1], master_box) - np.linalg.norm(half_size(box))
    return Sampled(paths, gaps, _outwards(paths[:, -1], master_box), master_box)


def _change(one: Constraint, number: int, now: Sampled, advice: Advice) -> Change:
    return Change(one.step.words, number, float(np.median(now.gaps_m)), _rounded(advice.move_m), advice.reason)


def grasp_grid(region: Region, side: int = GRID) -> Floats:
    """(side * side, 4, 4) grasps of a region: a grid over the two places in which it is widest, else in its middle."""
    wide = np.argsort(region.low[:3] - region.high[:3], kind="stable")[:2]
    middle = 0.5 * (region.low + region.high)
    out = np.tile(region.middle, (side * side, 1, 1))
    places = np.tile(middle[:3], (side * side, 1))
    grid = np.meshgrid(*(np.linspace(region.low[axis], region.high[axis], side) for axis in wide), indexing="ij")
    for axis, values in zip(wide, grid, strict=True):
        places[:, axis] = values.ravel()
    out[:, :3, 3] += places
    out[:, :3, :3] = Rotation.from_rotvec(middle[3:]).as_matrix() @ out[:, :3, :3]
    return out


def path_samples(path: PathBounds, box: Floats | None, master_box: Floats | None, num: int = NUM_PATHS) -> Floats:
    """(num, 10, 6) paths between the bounds: the same ones for the same bounds, from one side to the other."""
    shift = np.zeros_like(path.low)
    shift[:, :3] = along(len(shift)) * (half_size(box) * path.by_box + half_size(master_box) * path.by_master_box)
    share = ((np.arange(num) + 0.5) / num)[:, None, None]
    return path.low + shift + share * (path.high - path.low)


def _outwards(points: Floats, box: Floats) -> Floats:
    """(n, 3) unit directions from a box's nearest place, or out of it; where a point is in its middle, up."""
    nearest = np.clip(points, box[:3], box[3:])
    way = points - nearest
    inside = np.linalg.norm(way, axis=1) < 1e-9
    to_faces = np.concatenate([points - box[:3], box[3:] - points], axis=1)
    face = to_faces.argmin(axis=1)
    normals = np.concatenate([-np.eye(3), np.eye(3)])
    way[inside] = normals[face[inside]]
    return way / np.linalg.norm(way, axis=1, keepdims=True)


def _moved(region: Region, way: Floats) -> Region:
    middle = region.middle.copy()
    middle[:3, 3] += way
    return replace(region, middle=middle)


def _rounded(way: Floats) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 4) for value in way)
    return x, y, z

"""Skills read by a vision-language model: VLMimic's skill learner and skill adapter, as three questions.

The paper prints no prompts; these ask for what its sections 4.2 and 4.3 describe, in our words: the semantic constraint
of rendered interactions and keyframes, the number of grasp regions, and what is wrong with sampled interactions beside
the demonstrated ones. Answers are JSON; what they may say is bounded, and checked before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.errors import HandloomError
from handloom.skills.bounds import apart_se3, in_groups, palm
from handloom.skills.execution import GRASPING, Step
from handloom.skills.reader import Advice, Compared, Floats, Shown, by_rule

Image = NDArray[np.uint8]

PROMPTS = "vlmimic/skill-1"
"""Id of the questions of this module; another number where their words change."""
MOST_CLIPS, FRAMES_A_STEP = 4, 3
MAX_MOVE_M = 0.3
"""A longer move is no adaptation of a grasp."""
MAX_TEXT = 300

_AXES = "x, y and z are the axes of the thing, whose box is drawn; the unit is metres."
DESCRIBE = (
    "A person shows one sub-task in several videos: {words}. A is the thing that is taken first, B the second, and so "
    "on. The frames are from the beginning, the middle and the end of this sub-task, video by video. The last picture "
    "shows the {what} of all videos together, seen along z (left) and along y (right), beside the box of the thing; "
    "{axes}\n"
    "Say in one sentence which constraint all executions share: where the thing is held or how it moves, and relative "
    "to what. Name things by ordinary words. Leave out what differs between the videos."
)
GROUP = (
    "The picture shows {num} grasps of one thing, numbered, seen along z (left) and along y (right): each "
    "line goes from the wrist to the knuckles; {axes}\n"
    "Grasps that hold the thing at another place, or from another side, belong to different regions; small differences "
    "do not count. Into how many regions do these grasps fall?"
)
COMPARE = (
    "The first picture shows how a thing was handled in demonstrations of this sub-task: {text}. The second shows how "
    "it would be handled beside another thing. Both show it seen along z (left) and along y (right); "
    "{what}; {axes}\n"
    "Distances from the thing to the {end}, in centimetres, negative inside: in the demonstrations {wanted}, now "
    "{now}.\n"
    "Is the second as the first, so that the sub-task would succeed? If not, say by how many centimetres along x, y "
    "and z the lines of the second picture should move, and why; 0, 0, 0 if they should not."
)


def _object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


_WORDS = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
CONSTRAINT = _object(constraint=_WORDS)
REGIONS = _object(num_regions={"type": "integer", "minimum": 1}, reason=_WORDS)
MOVE = _object(
    succeeds={"type": "boolean"},
    move_cm={"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
    reason=_WORDS,
)


class NoAnswer(HandloomError):
    """A model has said nothing at all: its endpoint cannot be reached, fails, or refuses."""


class Ask(Protocol):
    """Puts a question to a model. check: what is wrong with an answer that fits the schema; None: nothing.

    Raises HandloomError where there is no answer that can be used; NoAnswer where there is none.
    """

    def __call__(
        self,
        text: str,
        images: Sequence[Image],
        schema: Mapping[str, Any],
        check: Callable[[Any], str | None] | None = None,
    ) -> Any: ...


Draw = Callable[[Floats, Floats | None], Image]
"""A picture of lines (n, k, 3), numbered, beside a box (6): seen along z, and along y."""
Frames = Callable[[str, Sequence[float]], list[Image]]
"""Stored frames (h, w, 3) RGB of a clip, the nearest to each time; none where the row stores none."""


class ModelReader:
    """Asks a vision-language model. Errors are those of `ask`."""

    def __init__(self, model: str, ask: Ask, draw: Draw, frames: Frames) -> None:
        """model: its name, which is kept with the skill."""
        self.name = f"{model} ({PROMPTS})"
        self._ask, self._draw, self._frames = ask, draw, frames

    def describe(self, shown: Sequence[Shown]) -> str:
        """Frames of at most `MOST_CLIPS` clips, and one picture of the interactions of all. Where there is neither,
        nothing is asked: the words are those of the rules."""
        steps = [one.step for one in shown]
        images: list[Image] = []
        for one in shown[:MOST_CLIPS]:
            times = np.linspace(one.step.start_s, one.step.end_s, FRAMES_A_STEP).tolist()
            images += self._frames(one.clip_id, times)
        what = "grasps, each from the wrist to the knuckles," if steps[0].phase == GRASPING else "paths"
        lines = [line for step in steps if (line := line_of(step)) is not None]
        boxes = [step.box for step in steps if step.box is not None]
        box = np.median(boxes, axis=0) if boxes else None
        if lines or box is not None:
            images.append(self._draw(np.stack(lines) if lines else np.empty((0, 2, 3)), box))
        if not images:
            return by_rule(steps)
        text = DESCRIBE.format(words=by_rule(steps), what=what, axes=_AXES)
        return str(self._ask(text, images, CONSTRAINT)["constraint"]).strip()

    def group(self, grasps: Floats, box: Floats | None) -> NDArray[np.int64]:
        """The model says how many regions there are (N_c of the paper); which grasps belong together follows from
        distances on SE(3)."""
        if len(grasps) < 2:
            return np.zeros(len(grasps), np.int64)
        most = len(grasps)
        check = lambda found: (
            f"num_regions is {found['num_regions']}, there are {most} grasps" if found["num_regions"] > most else None
        )
        text = GROUP.format(num=most, axes=_AXES)
        found = self._ask(text, [self._draw(hand_lines(grasps), box)], REGIONS, check)
        return in_groups(apart_se3(grasps), int(found["num_regions"]))

    def compare(self, compared: Compared) -> Advice | None:
        now, learned, is_grasp = compared.now, compared.learned, compared.step.phase == GRASPING
        what = "each line goes from the wrist to the knuckles" if is_grasp else "each line is a path of the thing"
        told = {"what": what, "end": "palms" if is_grasp else "ends of the paths", "axes": _AXES, "text": compared.text}
        low, high = (f"{100 * side:.1f}" for side in compared.wanted_gap_m)
        nearest, middle, farthest = (f"{100 * gap:.1f}" for gap in np.percentile(now.gaps_m, [0, 50, 100]))
        told |= {"wanted": f"{low} to {high}", "now": f"{nearest} to {farthest}, {middle} in the middle"}
        images = [self._draw(one.lines, one.box) for one in (learned, now)]
        found = self._ask(COMPARE.format(**told), images, MOVE, _too_far)
        move_m = np.array(found["move_cm"], float) / 100
        return None if found["succeeds"] or not move_m.any() else Advice(move_m, str(found["reason"]).strip())


def line_of(step: Step) -> Floats | None:
    """(2, 3) from wrist to knuckles of a grasp, or (10, 3) places of a path; None: unknown."""
    if step.phase == GRASPING:
        return None if step.grasp is None else hand_lines(step.grasp[None])[0]
    return None if step.path is None else step.path[:, :3]


def hand_lines(grasps: Floats) -> Floats:
    """(n, 2, 3) from the wrist to the middle of the knuckles of grasps (n, 4, 4)."""
    return np.stack([grasps[:, :3, 3], palm(grasps)], axis=1)


def _too_far(found: Mapping[str, Any]) -> str | None:
    length_m = float(np.linalg.norm(found["move_cm"])) / 100
    if not np.isfinite(length_m) or length_m > MAX_MOVE_M:
        return f"move_cm is {100 * length_m:.0f} cm long, expected at most {100 * MAX_MOVE_M:.0f}"
    return None
